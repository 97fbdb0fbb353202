"""Second moments at every cut of the dense model: what widths by energy and a shared basis come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from sparsify.blocks import Structure
from sparsify.slicegpt.families import Family
from sparsify.slicegpt.pca import Covariance
from sparsify.stream import BlockStream

Signal = Callable[[Tensor], Tensor]
"""What components are taken of, float64, given the stream at a cut [batch, seq, width]."""


def dense_moments(
    stream: BlockStream, structure: Structure, family: Family, signal: Signal, told: Callable[[int], None]
) -> Iterator[Tensor]:
    """Moments in front of every norm, and behind the last block, float64 [width, width]; the stream moves to its end.

    Args:
        stream: At its beginning.
        structure: Of the model.
        family: Of the model.
        signal: See `Signal`.
        told: Called with the index of each block that was measured.
    """
    norms = [name for name in (family.attention_norm, family.mlp_norm) if name is not None]
    for index in range(len(structure.blocks)):
        block = stream.load(index)
        seen: dict[str, Tensor] = {}
        sums = {name: Covariance() for name in norms}
        hooks = [block.get_submodule(name).register_forward_pre_hook(_keep(seen, name)) for name in norms]
        try:
            for batch in range(len(stream.hidden)):
                stream.hidden[batch] = stream.run(index, batch).cpu()
                for name, moments in sums.items():
                    # OPT flattens batch and sequence in front of its MLP.
                    found = signal(seen[name].reshape(*stream.batches[batch].real.shape, -1))
                    moments.add(found, stream.batches[batch].real.to(found.device))
        finally:
            for hook in hooks:
                hook.remove()
        stream.release()
        told(index)
        for moments in sums.values():
            assert moments.total is not None
            yield moments.total
    yield stream_moments(stream, signal)


def stream_moments(stream: BlockStream, signal: Signal) -> Tensor:
    """Moments of the stream where it is, float64 [width, width]."""
    moments = Covariance()
    for batch, hidden in zip(stream.batches, stream.hidden, strict=True):
        found = signal(hidden)
        moments.add(found, batch.real.to(found.device))
    assert moments.total is not None
    return moments.total


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    """A hook that keeps what the norm called `name` is given."""

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen[name] = args[0]

    return hook
