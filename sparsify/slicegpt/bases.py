"""What a dense teacher's hidden states are in the bases of its sliced student, so that SquareHead can compare them.

An addition of ours: the paper recovers with cross-entropy alone. The student's stream behind block i is (nearly) that
of the dense model times Q_i; transformers' last hidden state is behind the final norm, whose scale a sliced model has
folded into its head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsify.checkpoint import BASES
from sparsify.errors import SparsifyError
from sparsify.shards import ShardWriter, read_header, read_tensor
from sparsify.slicegpt.fold import NormParts

_CENTRED, _SCALE, _SHIFT = "centred", "final.scale", "final.shift"
# A scale below this cannot be divided by: the last state is then left out.
_LEAST = 1e-4


@dataclass(frozen=True)
class Bases:
    """The bases of a sliced model.

    Attributes:
        blocks: Behind each block, float32 [width, kept].
        centred: Whether the model removes the mean of its stream.
        scale, shift: Of the final norm of the dense model, float32 [width].
    """

    blocks: Sequence[Tensor]
    centred: bool
    scale: Tensor
    shift: Tensor | None

    def rotated(self, states: Sequence[Tensor]) -> list[Tensor]:
        """A dense model's hidden states [batch, tokens, width] behind each block, as the student should have them.

        Args:
            states: Behind each block, the last behind the final norm, as transformers gives them.
        """
        found = []
        for index, (state, basis) in enumerate(zip(states, self.blocks, strict=True)):
            exact = state.float()
            if index == len(self.blocks) - 1:
                if self.shift is not None:
                    exact = exact - self.shift.to(exact.device)
                exact = exact / self.scale.to(exact.device)
            elif self.centred:
                exact = exact - exact.mean(-1, keepdim=True)
            found.append(exact @ basis.to(exact.device))
        return found


def write_bases(directory: Path, blocks: Iterable[Tensor], norm: NormParts) -> None:
    """Write the bases behind all blocks beside a sliced model.

    Raises:
        SparsifyError: The final norm scales something by (nearly) 0.
    """
    if float(norm.scale.abs().min()) < _LEAST:
        raise SparsifyError("the final norm scales a channel by nearly 0: keep_bases is not possible for this model")
    with ShardWriter(directory / BASES) as shard:
        for index, basis in enumerate(blocks):
            shard.add(f"block.{index}", basis.to("cpu", torch.float32).contiguous())
        shard.add(_SCALE, norm.scale.to("cpu", torch.float32))
        if norm.shift is not None:
            shard.add(_SHIFT, norm.shift.to("cpu", torch.float32))
        shard.add(_CENTRED, torch.tensor([norm.centred]))


def read_bases(directory: Path) -> Bases:
    """The bases beside a sliced model.

    Raises:
        SparsifyError: There are none.
    """
    path = directory / BASES
    if not path.is_file():
        raise SparsifyError(
            f"{directory} is sliced and keeps no {BASES}, without which its hidden states cannot be compared with a "
            "teacher's; add `keep_bases: true` to the slice stage, or leave squarehead out"
        )
    refs = read_header(path)
    tensors = {name: read_tensor(ref, name) for name, ref in refs.items()}
    count = sum(name.startswith("block.") for name in tensors)
    return Bases(
        blocks=[tensors[f"block.{index}"] for index in range(count)],
        centred=bool(tensors[_CENTRED].item()),
        scale=tensors[_SCALE],
        shift=tensors.get(_SHIFT),
    )
