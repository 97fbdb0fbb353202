"""The quantize stage: rewrites the linears of a checkpoint as integers.

Where nothing has to be measured it goes file by file without running the model; else see `calibrated`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.blocks import Structure, chosen_linears, find_structure, load_skeleton
from sparsify.checkpoint import MASKS, open_checkpoint, write_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import load_masks
from sparsify.quantize.grid import INT8, Grid, dequantize, int4
from sparsify.quantize.layout import quantization_config, stored_linear
from sparsify.quantize.rtn import quantize_rtn
from sparsify.quantize.verify import verify_zeros
from sparsify.recipe import QuantizeStage
from sparsify.stage import StageInput, StageResult


def run_quantize(stage: QuantizeStage, given: StageInput) -> StageResult:
    """Write `given.parent` with integer linears to `given.out`; head, embedding and norms keep their dtype.

    Raises:
        SparsifyError: The model is quantized already, `skip` fits nothing, or a group size does not divide.
        NumericsError: A weight is not finite, or a zero was lost.
    """
    if open_checkpoint(given.parent).is_quantized:
        raise SparsifyError(f"{given.parent} is quantized already; quantize the unquantized model")
    if stage.needs_calibration:
        from sparsify.quantize.calibrated import run_calibrated

        return run_calibrated(stage, given)
    return _round_files(stage, given)


def grid_of(stage: QuantizeStage, dtype: torch.dtype) -> Grid:
    """The grid of a linear whose weight is stored as `dtype`; INT4 scales are stored as the same."""
    return INT8 if stage.group_size is None else int4(stage.group_size, dtype)


def scheme_name(stage: QuantizeStage) -> str:
    """How reports call what a linear was quantized to."""
    if stage.group_size is not None:
        return f"{stage.scheme} g{stage.group_size}"
    return f"{stage.scheme} {stage.activations}"


def targets_of(model: nn.Module, structure: Structure, skip: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(linears to quantize, linears left as they are).

    Raises:
        SparsifyError: The model holds experts in tensors of their own. transformers cannot open a compressed-tensors
            checkpoint of such a model, whether its experts are quantized or not (seen with 5.24).
    """
    modules = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    experts = [name for name in structure.all_linears if name not in modules]
    if experts:
        raise SparsifyError(
            f"{experts[0]} is one of {len(experts)} matrices of experts, and transformers opens no compressed-tensors "
            "checkpoint with such; quantizing this model is unsupported"
        )
    return chosen_linears(structure.all_linears, skip)


def check_groups(stage: QuantizeStage, columns: Mapping[str, int]) -> None:
    """Refuse a group size that does not divide the `columns` of a linear, before any work is done.

    Raises:
        SparsifyError: The message names the linear, its columns and what would divide.
    """
    if stage.group_size is None:
        return
    for linear, count in columns.items():
        try:
            int4(stage.group_size).check(count)
        except SparsifyError as error:
            raise SparsifyError(f"{linear}: {error}") from None


def _round_files(stage: QuantizeStage, given: StageInput) -> StageResult:
    source = open_checkpoint(given.parent)
    model = load_skeleton(given.parent)
    structure = find_structure(model)
    chosen, skipped = targets_of(model, structure, stage.skip)
    targets = {f"{name}.weight": name for name in chosen}
    absent = [name for name in targets if name not in source.tensors]
    if absent:
        raise CheckpointError(f"{source.path} stores no {absent[0]}; save the model again with transformers")
    check_groups(stage, {name: source.tensors[f"{name}.weight"].shape[1] for name in chosen})
    linears: dict[str, dict[str, Any]] = {}

    def rewrite(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
        if name not in targets:
            return {name: tensor}
        try:
            quantized, scale = quantize_rtn(tensor, grid_of(stage, tensor.dtype))
        except NumericsError as wrong:
            raise NumericsError(f"{targets[name]}: {wrong}") from None
        error = relative_weight_error(tensor.float(), dequantize(quantized, scale))
        linears[targets[name]] = {"scheme": scheme_name(stage), "relative_weight_error": error}
        given.progress.update(len(linears), len(targets), f"quantized {targets[name]}")
        packed = None if stage.group_size is None else tensor.dtype
        return stored_linear(targets[name], quantized, scale, packed=packed)

    ignored = (*structure.other_linears, *skipped)
    config = {**source.config, "quantization_config": quantization_config(ignored, group=stage.group_size)}
    write_checkpoint(source, given.out, rewrite, config=config)
    if (given.parent / MASKS).exists():
        shutil.copyfile(given.parent / MASKS, given.out / MASKS)
    checked = verify_zeros(open_checkpoint(given.out), load_masks(given.out), source, chosen)
    ordered = {name: linears[name] for name in chosen}
    return StageResult({"linears": ordered, "skipped": list(skipped), "checked": checked})


def relative_weight_error(before: Tensor, after: Tensor) -> float:
    """‖W − W'‖² / ‖W‖², 0 for a weight of zeros."""
    energy = float(before.square().sum())
    return float((before - after).square().sum()) / energy if energy > 0 else 0.0
