"""What slicing will take and give, from the shapes of the model alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sparsify.activations import MEMORY_BYTES
from sparsify.blocks import Structure
from sparsify.calibration import BATCH_TOKENS
from sparsify.errors import SparsifyError
from sparsify.recipe import SliceStage
from sparsify.skeleton import parameters_on_meta
from sparsify.slicegpt.families import check_config, family_of
from sparsify.slicegpt.model import sliced_classes, sliced_config
from sparsify.slicegpt.shared import shared_config, shared_width
from sparsify.slicegpt.sizes import uniform_widths

# Float64 operations of an eigendecomposition per cubed width, and how many times slower than float32 products they run.
_EIGH, _SLOWER = 10, 4
_FLOAT, _DOUBLE = 4, 8
# Moments, the damped copy, what LAPACK works in (three more), and two bases.
_SQUARES = 7


@dataclass(frozen=True)
class SlicePlan:
    """The expected costs of a slice stage.

    Attributes:
        before, after: Parameters.
        shape: What comes out, in words.
        width: Of the stream.
        tokens: Calibration tokens at most.
        bytes: Peak where blocks run: a block as float32, folded and sliced in float64, square matrices, and the stream
            on the CPU.
        disk_bytes: Peak of what is written: journal and result.
        seconds: Estimate.
    """

    before: int
    after: int
    shape: str
    width: int
    tokens: int
    bytes: int
    disk_bytes: int
    seconds: float

    @property
    def lines(self) -> list[str]:
        """The plan for people, but for memory and time."""
        return [
            f"  {self.before:,} -> about {self.after:,} parameters ({100 * (self.after / self.before - 1):+.1f} %): "
            f"{self.shape}",
            f"  at most {self.tokens:,} calibration tokens; the basis of each cut from {self.width} x {self.width} "
            "moments in float64",
        ]


def plan_slice(model: Any, structure: Structure, stage: SliceStage, rate: float, *, stored: int) -> SlicePlan:
    """The costs of a slice stage.

    Args:
        model: A skeleton of the stock model.
        structure: Of the model.
        stage: The stage.
        rate: Float32 operations a second of the machine.
        stored: Bytes of the weight files.

    Raises:
        SparsifyError: The model cannot be sliced so.
    """
    model_type = str(model.config.model_type)
    family = family_of(model_type)
    check_config(model_type, model.config)
    width = int(model.get_submodule(structure.embedding).weight.shape[1])
    cuts = len(structure.blocks) * family.cuts + 1
    before = sum(parameter.numel() for parameter in model.parameters())
    if stage.basis == "shared":
        kept = shared_width(model.config, family, width, stage)
        stock = shared_config(model.config.to_dict(), model.config, width, kept)
        after = _count(type(model), type(model.config)(**stock))
        shape = f"a {model_type} of width {kept}"
    else:
        widths = uniform_widths(width, cuts, stage.fraction, stage.round_to, slice_head=not stage.whole_head)
        config_class, model_class = sliced_classes(model_type)
        config = sliced_config(model.config.to_dict(), {"width": width, "widths": widths})
        after = _count(model_class, config_class(**config))
        about = "on average " if stage.schedule == "mass" else ""
        shape = f"{about}width {widths[0]} at {cuts} cuts, with {cuts - 1} shortcut matrices"
    tokens = stage.calibration.samples * stage.calibration.seq
    passes = 2.0 + (stage.schedule == "mass" or stage.basis == "shared")
    inside = sum(p.numel() for name in structure.blocks for p in model.get_submodule(name).parameters())
    moments = cuts * _SLOWER * (2 * tokens * width**2 + _EIGH * width**3)
    return SlicePlan(
        before=before,
        after=after,
        shape=shape,
        width=width,
        tokens=tokens,
        bytes=_peak(model, structure, stage, cuts=cuts, width=width, stored=stored / max(1, before)),
        disk_bytes=int(2 * stored * after / before) + _DOUBLE * cuts * width**2,
        seconds=(passes * 2 * inside * tokens + moments) / rate,
    )


def _peak(model: Any, structure: Structure, stage: SliceStage, *, cuts: int, width: int, stored: float) -> int:
    tokens = stage.calibration.samples * stage.calibration.seq
    batch = min(tokens, max(BATCH_TOKENS, stage.calibration.seq))
    blocks = [model.get_submodule(name) for name in structure.blocks]
    largest = max(sum(parameter.numel() for parameter in block.parameters()) for block in blocks)
    inner = max(max(p.shape) for p in blocks[0].parameters())
    # Two streams: in front of the block and behind attention; above the limit they wait on the disk, but for a batch.
    stream = 2 * _FLOAT * tokens * width
    streams = stream if stream <= 2 * MEMORY_BYTES else 2 * _FLOAT * batch * width
    # A pass in float32 through attention or MLP, and the stream of a batch in float64 three times.
    run = batch * (_FLOAT * max(8 * width, 3 * inner) + 3 * _DOUBLE * width)
    squares = _SQUARES + (cuts if stage.schedule == "mass" or stage.basis == "shared" else 0)
    # While text runs: the block as it is and folded; then folded and sliced.
    block = max(largest * (_FLOAT + _DOUBLE) + run, largest * (_FLOAT + 2 * _DOUBLE))
    outside = (_DOUBLE + stored) * model.get_submodule(structure.embedding).weight.numel()
    return int(streams + max(block + _DOUBLE * squares * width**2, outside))


def _count(model_class: type[Any], config: Any) -> int:
    try:
        with parameters_on_meta(), torch.no_grad():
            found = model_class(config)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SparsifyError(f"transformers cannot build the sliced model ({reason})") from None
    return sum(parameter.numel() for parameter in found.parameters())
