"""The quantize stage: rewrites the linears of a checkpoint as INT8, file by file, without running the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from torch import Tensor

from sparsify.blocks import chosen_linears, find_structure, load_skeleton
from sparsify.checkpoint import MASKS, open_checkpoint, write_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import count_violations, load_masks
from sparsify.quantize.layout import quantization_config
from sparsify.quantize.rtn import dequantize, quantize_rtn
from sparsify.recipe import QuantizeStage
from sparsify.stage import StageInput, StageResult


def run_quantize(stage: QuantizeStage, given: StageInput) -> StageResult:
    """Write `given.parent` with INT8 linears to `given.out`; head, embedding and norms keep their dtype.

    Raises:
        SparsifyError: The model is quantized already, or `skip` fits nothing.
        NumericsError: A weight is not finite, or a zero was lost.
    """
    source = open_checkpoint(given.parent)
    if source.is_quantized:
        raise SparsifyError(f"{given.parent} is quantized already; quantize the unquantized model")
    structure = find_structure(load_skeleton(given.parent))
    chosen, skipped = chosen_linears(structure.all_linears, stage.skip)
    targets = {f"{name}.weight": name for name in chosen}
    absent = [name for name in targets if name not in source.tensors]
    if absent:
        raise CheckpointError(f"{source.path} stores no {absent[0]}; save the model again with transformers")
    errors: dict[str, float] = {}

    def rewrite(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
        if name not in targets:
            return {name: tensor}
        quantized, scale = quantize_rtn(tensor)
        lost = int((quantized[tensor == 0] != 0).sum())
        if lost:
            raise NumericsError(f"{lost} zeros of {name} were lost in rounding; please report this")
        before = tensor.float()
        energy = float(before.square().sum())
        change = float((before - dequantize(quantized, scale)).square().sum())
        errors[targets[name]] = change / energy if energy > 0 else 0.0
        given.progress.update(len(errors), len(targets), f"quantized {targets[name]}")
        return {name: quantized, name.removesuffix("weight") + "weight_scale": scale}

    config = {**source.config, "quantization_config": quantization_config((*structure.other_linears, *skipped))}
    write_checkpoint(source, given.out, rewrite, config=config)
    if (given.parent / MASKS).exists():
        shutil.copyfile(given.parent / MASKS, given.out / MASKS)
    violations = count_violations(load_masks(given.out), open_checkpoint(given.out))
    if violations:
        raise NumericsError(f"{violations} pruned weights are not zero in {given.out}; please report this")
    linears = {name: {"relative_weight_error": errors[name]} for name in chosen}
    return StageResult({"linears": linears, "skipped": list(skipped)})
