"""Norms folded into the matrices around them, exactly, in float64 (2401.15024, section 3.2).

A norm's scale and shift go into the matrices that read its output. LayerNorm also removes the mean over the stream;
every matrix that writes the stream is made to write with mean 0 instead, so that RMS norm does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparsify.errors import SparsifyError


@dataclass(frozen=True)
class NormParts:
    """What a norm multiplies by and adds.

    Attributes:
        scale: Float64 [width].
        shift: Float64 [width], or None.
        eps: Added to the mean square.
        centred: Whether the mean is removed.
    """

    scale: Tensor
    shift: Tensor | None
    eps: float
    centred: bool


def eps_of(module: Any) -> float:
    """What a norm adds to the mean square.

    Raises:
        SparsifyError: It does not say.
    """
    for name in ("variance_epsilon", "eps"):
        if hasattr(module, name):
            return float(getattr(module, name))
    raise SparsifyError(f"{type(module).__name__} does not say its eps; this norm cannot be folded")


def parts_of_norm(module: Any, offset: float) -> NormParts:
    """Read a norm with its weights; `offset` is added to its scale.

    Raises:
        SparsifyError: It has no scale or does not say its eps.
    """
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if weight is None:
        raise SparsifyError(f"{type(module).__name__} has no scale of its own; this norm cannot be folded")
    return NormParts(
        scale=weight.detach().double() + offset,
        shift=None if bias is None else bias.detach().double(),
        eps=eps_of(module),
        centred=isinstance(module, nn.LayerNorm),
    )


def fold_reader(weight: Tensor, bias: Tensor | None, norm: NormParts) -> tuple[Tensor, Tensor | None]:
    """Scale and shift of a norm taken into a matrix [..., out, width] that reads it, and into its bias [out]."""
    exact = weight.double()
    if norm.shift is not None:
        added = exact @ norm.shift.to(exact.device)
        bias = added if bias is None else bias.double() + added
    return exact * norm.scale.to(exact.device), None if bias is None else bias.double()


def centre_writer(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A matrix [..., width, in] and its bias [width], made to write vectors of mean 0."""
    exact = weight.double()
    centred = exact - exact.mean(dim=-2, keepdim=True)
    return centred, None if bias is None else bias.double() - bias.double().mean()


def centre_rows(rows: Tensor) -> Tensor:
    """Embeddings [n, width], each with its mean removed."""
    exact = rows.double()
    return exact - exact.mean(dim=-1, keepdim=True)
