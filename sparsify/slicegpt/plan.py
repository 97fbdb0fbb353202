"""What slicing will take and give, from the shapes of the model alone."""

from __future__ import annotations

from typing import Any

import torch

from sparsify.blocks import Structure
from sparsify.errors import SparsifyError
from sparsify.recipe import SliceStage
from sparsify.skeleton import parameters_on_meta
from sparsify.slicegpt.families import check_config, family_of
from sparsify.slicegpt.model import sliced_classes, sliced_config
from sparsify.slicegpt.shared import shared_config, shared_width
from sparsify.slicegpt.sizes import uniform_widths

# Float64 operations of an eigendecomposition per cubed width, and how many times slower than float32 products they run.
_EIGH, _SLOWER = 10, 4


def plan_slice(model: Any, structure: Structure, stage: SliceStage, rate: float) -> tuple[list[str], float]:
    """The plan for people and the seconds it takes at `rate` float32 operations a second.

    Args:
        model: A skeleton of the stock model.
        structure: Of the model.
        stage: The stage.
        rate: Of the machine.

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
    seconds = (passes * 2 * inside * tokens + moments) / rate
    return [
        f"  {before:,} -> about {after:,} parameters ({100 * (after / before - 1):+.1f} %): {shape}",
        f"  at most {tokens:,} calibration tokens; the basis of each cut from {width} x {width} moments in float64",
        f"  roughly {seconds / 60:.0f} min" if seconds > 90 else f"  roughly {max(1, round(seconds))} s",
    ], seconds


def _count(model_class: type[Any], config: Any) -> int:
    try:
        with parameters_on_meta(), torch.no_grad():
            found = model_class(config)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SparsifyError(f"transformers cannot build the sliced model ({reason})") from None
    return sum(parameter.numel() for parameter in found.parameters())
