"""A block of a stock model on its way to a sliced one: its matrices in float64, folded, rotated and cut.

Everything here is a pure function of tensors; the stage decides on the bases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsify.slicegpt import ATTENTION_SHORTCUT, MLP_SHORTCUT, SHORTCUT
from sparsify.slicegpt.families import Family
from sparsify.slicegpt.fold import NormParts, centre_writer, fold_reader, parts_of_norm
from sparsify.slicegpt.model import bias_of


@dataclass(frozen=True)
class Side:
    """Attention or MLP: what reads the stream behind a norm and what writes to it.

    Attributes:
        norm: The norm in front.
        reads, writes: Weight and bias by the name of the weight within the block, float64, with the norm folded in.
    """

    norm: NormParts
    reads: Mapping[str, tuple[Tensor, Tensor | None]]
    writes: Mapping[str, tuple[Tensor, Tensor | None]]

    def reading(self, basis: Tensor) -> dict[str, Tensor]:
        """Weights and biases of the readers for a stream in `basis`, float64 [width, kept]."""
        found: dict[str, Tensor] = {}
        for name, (weight, bias) in self.reads.items():
            found[name] = weight @ basis
            if bias is not None:
                found[_bias(name)] = bias
        return found

    def writing(self, basis: Tensor | None) -> dict[str, Tensor]:
        """Weights and biases of the writers to a stream in `basis`; None = in the original one."""
        found: dict[str, Tensor] = {}
        for name, (weight, bias) in self.writes.items():
            found[name] = weight if basis is None else basis.T @ weight
            if bias is not None:
                found[_bias(name)] = bias if basis is None else basis.T @ bias
        return found


@dataclass(frozen=True)
class FoldedBlock:
    """A block with its norms folded.

    Attributes:
        attention, mlp: Its sides.
        others: Parameters that neither read nor write the stream, as they are, by name within the block.
    """

    attention: Side
    mlp: Side
    others: Mapping[str, Tensor]

    def sliced(self, taken: Tensor, between: Tensor | None, given: Tensor) -> dict[str, Tensor]:
        """All parameters of the sliced block, float64 but for `others`.

        Args:
            taken: Basis of the stream in front of the block, float64 [width, kept].
            between: Behind attention; None where attention and MLP stand side by side.
            given: Behind the block.
        """
        found = {**self.attention.reading(taken), **self.attention.writing(given if between is None else between)}
        found |= {**self.mlp.reading(taken if between is None else between), **self.mlp.writing(given), **self.others}
        if between is None:
            return {**found, f"{SHORTCUT}.weight": shortcut(taken, given)}
        return {
            **found,
            f"{ATTENTION_SHORTCUT}.weight": shortcut(taken, between),
            f"{MLP_SHORTCUT}.weight": shortcut(between, given),
        }


def fold_block(block: Any, family: Family) -> FoldedBlock:
    """Read a stock block that has its weights, and fold its norms."""
    norms = {
        name: parts_of_norm(block.get_submodule(name), family.scale_offset)
        for name in (family.attention_norm, family.mlp_norm)
        if name is not None
    }

    def side(norm: NormParts, reads: tuple[str, ...], writes: tuple[str, ...]) -> Side:
        return Side(
            norm=norm,
            reads={name: fold_reader(*_matrix(block, name), norm) for name in reads},
            writes={name: _writer(*_matrix(block, name), centred=norm.centred) for name in writes},
        )

    first = norms[family.attention_norm]
    second = norms[family.mlp_norm] if family.mlp_norm is not None else first
    used = {*family.attention_reads, *family.attention_writes, *family.mlp_reads, *family.mlp_writes}
    used |= {_bias(name) for name in used}
    used |= {f"{norm}.{own}" for norm in norms for own in ("weight", "bias")}
    return FoldedBlock(
        attention=side(first, family.attention_reads, family.attention_writes),
        mlp=side(second, family.mlp_reads, family.mlp_writes),
        others={name: param.detach() for name, param in block.named_parameters() if name not in used},
    )


def shortcut(taken: Tensor, given: Tensor) -> Tensor:
    """The weight [given, taken] of the linear that takes the stream from one basis to another."""
    return given.T @ taken


def _writer(weight: Tensor, bias: Tensor | None, *, centred: bool) -> tuple[Tensor, Tensor | None]:
    if centred:
        return centre_writer(weight, bias)
    return weight.double(), None if bias is None else bias.double()


def _matrix(block: Any, name: str) -> tuple[Tensor, Tensor | None]:
    bias = bias_of(block, name)
    return block.get_parameter(name).detach(), None if bias is None else bias.detach()


def _bias(weight: str) -> str:
    return weight.removesuffix(".weight") + ".bias" if weight.endswith(".weight") else weight + ".bias"
