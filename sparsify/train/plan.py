"""What a training stage will take, from the shapes of the model and the settings alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparsify.train.lora_settings import LoraSettings
from sparsify.train.settings import PretrainSettings, TrainSettings

_FLOAT = 4


@dataclass(frozen=True)
class TrainPlan:
    """The expected costs of a training stage.

    Attributes:
        steps: Optimizer steps; of rows about so many, because padding is not known before.
        runs: How many runs, trials of learning rates included.
        bytes: Peak where the model is trained: weights, gradients, moments, masks, teacher and activations. Several
            processes share it about evenly.
        disk_bytes: Peak of what is written: the state twice while it is replaced, and the result.
        operations: Float operations: 6 per weight and token, 2 more each for a teacher and checkpointed activations.
            With adapters 4, as no weight has a gradient; under masks 8, and 12 with dropout.
    """

    steps: int
    runs: float
    bytes: int
    disk_bytes: int
    operations: float


def plan_training(model: nn.Module, settings: TrainSettings, *, blocks: int, width: int, stored: int) -> TrainPlan:
    """The plan of a training stage.

    Args:
        model: A skeleton is enough.
        settings: Of the stage.
        blocks: How many blocks the model has.
        width: Of its hidden states.
        stored: Bytes of its weight files.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    largest = max(parameter.numel() for parameter in model.parameters())
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    matrices = [parameter.shape for parameter in model.parameters() if parameter.ndim == 2]
    inner = max(max(shape) for shape in matrices if vocabulary not in shape)
    tokens = -(-settings.batch_tokens // settings.accumulate)
    # Weight, gradient, two moments and a mask; a few temporaries of the optimizer.
    held = parameters * (4 * _FLOAT + 1) + 3 * _FLOAT * largest
    trained, per_weight = parameters, 6
    if settings.lora is not None:
        # Gradient and moments of the adapters alone, masks as bits; the update of one linear at a time.
        trained = _adapters(model, settings.lora)
        held = parameters * (_FLOAT + 1 / 8) + trained * 4 * _FLOAT + 3 * _FLOAT * largest
        per_weight = 4 if settings.lora.merge != "masked" else 12 if settings.lora.dropout else 8
    # Of a block: queries, keys, values, outputs and residuals, and three tensors of the MLP's width, forward and kept.
    block = _FLOAT * tokens * (10 * width + 4 * inner)
    kept = block + _FLOAT * tokens * width * blocks if settings.checkpoint_activations else block * blocks
    logits = 3 * _FLOAT * tokens * vocabulary
    taught = settings.losses.needs_teacher
    teacher = _FLOAT * (parameters + tokens * width * blocks)
    operations = parameters * settings.tokens * (per_weight + 2 * taught + 2 * settings.checkpoint_activations)
    per_step = settings.batch_tokens
    if isinstance(settings, PretrainSettings):
        per_step = settings.batch_tokens // settings.seq * settings.seq
    runs = 1.0
    if settings.select is not None and settings.select.lr:
        trial = settings.select.trial_tokens
        rates = len(settings.select.lr)
        runs = rates if trial is None else 1 + rates * trial / settings.tokens
    return TrainPlan(
        steps=-(-settings.tokens // per_step),
        runs=runs,
        bytes=int(held + kept + logits + teacher * taught),
        disk_bytes=int(2 * 3 * _FLOAT * trained + stored),
        operations=runs * operations,
    )


def _adapters(model: nn.Module, settings: LoraSettings) -> int:
    """Weights of the adapters that `settings` asks for."""
    from sparsify.blocks import find_structure, linear_weight
    from sparsify.train.lora import target_linears

    names = target_linears(find_structure(model, strict=False).all_linears, settings.targets)
    return sum(settings.rank * sum(linear_weight(model, name).shape) for name in names)
