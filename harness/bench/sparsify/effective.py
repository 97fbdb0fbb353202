"""What a finished variant computes with: effective weights, their zeros, and the error of each linear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Zeros:
    """Zeros of a variant, counted in the weights that it computes with.

    Attributes:
        share: Of the weights of all linears.
        revived: Places that were pruned and are not zero; None where nobody said what was pruned.
        pruned: Places that were pruned; None likewise.
        broken: Groups of M with more than N non-zeros; None without an N:M pattern.
        groups: Groups looked at; None likewise.
    """

    share: float
    revived: int | None
    pruned: int | None
    broken: int | None
    groups: int | None


def effective_weights(model: Any, linears: Sequence[str]) -> dict[str, Tensor]:
    """Float32 [out, in] of each linear of a loaded model; a quantized model must have run once."""
    import torch

    found = {}
    for name in linears:
        module: Any = model.get_submodule(name)
        weight: Tensor = module.weight.detach()
        if not weight.dtype.is_floating_point:
            raise TypeError(f"{name} still holds {weight.dtype}: the model was not run")
        found[name] = weight.to(torch.float32)
    return found


def count_zeros(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, nm: tuple[int, int] | None) -> Zeros:
    """Count zeros, and what should be zero and is not.

    Args:
        weights: Linear -> float [out, in].
        masks: Linear -> bool [out, in], True where kept; None where it is not known.
        nm: (N, M) along the input dimension.
    """
    total = sum(weight.numel() for weight in weights.values())
    zero = sum(int((weight == 0).sum()) for weight in weights.values())
    revived = pruned = broken = groups = None
    if masks is not None:
        revived = sum(int((weights[name][~mask] != 0).sum()) for name, mask in masks.items())
        pruned = sum(int((~mask).sum()) for mask in masks.values())
    if nm is not None:
        n, m = nm
        kept = [(weight.reshape(-1, m) != 0).sum(1) for weight in weights.values()]
        broken = sum(int((count > n).sum()) for count in kept)
        groups = sum(count.numel() for count in kept)
    return Zeros(zero / total, revived, pruned, broken, groups)


def stored_masks(variant: Path) -> dict[str, Tensor] | None:
    """The masks beside a variant of ours, by linear; None where it has none."""
    from sparsify.masks import load_masks

    masks = {name.removesuffix(".weight"): mask for name, mask in load_masks(variant).items()}
    return masks or None


class LinearErrors:
    """Relative squared output error of each linear on text that no method was calibrated on.

    The Gram matrices are those of the dense model on the probe windows, the same for every variant:
    ‖(W − W')X‖² / ‖WX‖², in float64.
    """

    def __init__(self, model_dir: Path, sequences: Sequence[Sequence[int]]) -> None:
        """Run the dense model over the probe windows."""
        import torch

        from sparsify.blocks import find_structure, load_model
        from sparsify.calibration import make_batches
        from sparsify.stream import BlockStream

        model = load_model(model_dir)
        structure = find_structure(model)
        self.linears = structure.all_linears
        self.dense = {name: weight.double() for name, weight in effective_weights(model, self.linears).items()}
        inside = {f"{name}.weight" for name in self.linears}
        self._others = {name: p.detach().clone() for name, p in model.named_parameters() if name not in inside}
        self._grams: dict[str, Tensor] = {}
        with torch.no_grad():
            stream = BlockStream(model, structure, make_batches(sequences))
            for index, block in enumerate(structure.blocks):
                for name, gram in stream.grams(index).items():
                    self._grams[f"{block}.{name}"] = gram.hessian(name).double()
                stream.advance(index)
            stream.close()
        self._energy = {name: _energy(self.dense[name], self._grams[name]) for name in self.linears}

    def changed_others(self, model: Any) -> list[str]:
        """Parameters outside the linears that differ from the dense model's: no method may touch them."""
        import torch

        now = {name: p.detach().to(torch.float32) for name, p in model.named_parameters()}
        return [name for name, value in self._others.items() if name not in now or not torch.equal(now[name], value)]

    @property
    def parameters(self) -> int:
        """Weights of all linears."""
        return sum(weight.numel() for weight in self.dense.values())

    def of(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """The error of each linear."""
        return {
            name: _energy(self.dense[name] - weights[name].double(), self._grams[name]) / self._energy[name]
            for name in self.linears
        }


def _energy(weight: Tensor, gram: Tensor) -> float:
    return float(((weight @ gram) * weight).sum())
