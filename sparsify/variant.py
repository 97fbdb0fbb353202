"""variant.json: what a variant is, how it was made and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsify.checkpoint import Checkpoint, open_checkpoint
from sparsify.errors import CheckpointError
from sparsify.files import write_json
from sparsify.slicegpt import PREFIX

VARIANT = "variant.json"
_FLOATS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8}
_INTEGERS = {"I8": 8, "U8": 8}
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecipeRecord(_Record):
    """The recipe as it was carried out, every default written out."""

    name: str
    hash: str
    stages: list[dict[str, Any]]


class CalibrationEntry(_Record):
    """Text that layer inputs were measured on."""

    source: str
    sha256: str
    samples: int
    seq: int
    seed: int
    holdout: float = 0.0


class CorpusEntry(_Record):
    """Text that was trained on; `tokens` counts the stage's real tokens over all its corpora."""

    source: str
    sha256: str
    tokens: int


class Sparsity(_Record):
    """Achieved share of exact zeros; None where the stored form does not show it (packed in a way not read here)."""

    linears: float | None = Field(description="over the linears of all blocks")
    model: float | None = Field(description="over all parameters, embedding and head included")
    per_linear: dict[str, float]


class MaskCheck(_Record):
    """Whether pruned weights are still zero in the finished variant."""

    tensors: int = Field(ge=1, description="weights that have a mask")
    pruned: int = Field(ge=0, description="places that the masks prune")
    revived: int = Field(ge=0, description="of those, how many do not hold an exact zero")


class Event(_Record):
    """A fall-back that was taken, or something odd that was met."""

    kind: str
    where: str
    detail: str


class VariantInfo(_Record):
    """The content of variant.json."""

    schema_version: Literal[1] = 1
    name: str
    base: str
    baseline: str | None
    recipe: RecipeRecord | None
    calibration: list[CalibrationEntry] = []
    corpora: list[CorpusEntry] = []
    sparsity: Sparsity
    weight_bits: int
    dtype: str
    bytes: int
    parameters: int
    weights_sha256: str
    loaders: list[str]
    macs_per_token: int | None = Field(
        None, description="multiplications of a token with matrices, zeros among them; attention's own left out"
    )
    masks: MaskCheck | None = Field(None, description="None without masks, or where stored weights cannot be checked")
    events: list[Event] = []
    stages: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Lineage:
    """How a variant came about.

    Attributes:
        recipe: None for a checkpoint that was made elsewhere.
        stages: Per stage {key, kind, seconds, ...}.
    """

    recipe: RecipeRecord | None = None
    calibration: tuple[dict[str, Any], ...] = ()
    corpora: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, str], ...] = ()
    stages: tuple[dict[str, Any], ...] = ()


def describe(
    model_dir: Path, *, name: str, base: str, baseline: str | None = None, lineage: Lineage | None = None
) -> VariantInfo:
    """Measure a model directory, whoever made it.

    Args:
        model_dir: A directory that `open_checkpoint` accepts.
        name: What the variant is called.
        base: What the model that it came from is called.
        baseline: The variant that it is to be compared with.
        lineage: How it was made; None where that is not known.

    Raises:
        CheckpointError: The directory cannot be used.
    """
    checkpoint = open_checkpoint(model_dir)
    lineage = lineage or Lineage()
    linears, parameters, macs = _structure(model_dir)
    sparsity = measure_sparsity(checkpoint, linears, parameters)
    return VariantInfo(
        name=name,
        base=base,
        baseline=baseline,
        recipe=lineage.recipe,
        calibration=[CalibrationEntry(**entry) for entry in lineage.calibration],
        corpora=[CorpusEntry(**entry) for entry in lineage.corpora],
        sparsity=sparsity,
        weight_bits=_weight_bits(checkpoint, linears),
        dtype=_dtype(checkpoint),
        bytes=checkpoint.bytes,
        parameters=parameters,
        weights_sha256=checkpoint.weights_sha256,
        loaders=_loaders(checkpoint),
        macs_per_token=macs,
        masks=check_masks(checkpoint),
        events=[Event(**entry) for entry in lineage.events],
        stages=list(lineage.stages),
    )


def measure_sparsity(checkpoint: Checkpoint, linears: tuple[str, ...], parameters: int) -> Sparsity:
    """Count exact zeros: per linear, over `linears`, and over all `parameters` of the model."""
    from sparsify.quantize.stored import read_weight

    zeros: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for stored, ref in checkpoint.tensors.items():
        name = stored.removesuffix("_packed")
        counted = name.endswith(".weight") or ref.dtype in _FLOATS
        if counted and not name.endswith(("_scale", "_zero_point", "_shape")):
            weight = read_weight(checkpoint, name)
            if weight is not None:
                zeros[name], sizes[name] = int((weight == 0).sum()), weight.numel()
    weights = {name: f"{name}.weight" for name in linears if f"{name}.weight" in zeros}
    per_linear = {name: zeros[weight] / sizes[weight] for name, weight in weights.items()}
    if len(weights) < len(linears):
        return Sparsity(linears=None, model=None, per_linear=per_linear)
    total = sum(sizes[weight] for weight in weights.values())
    return Sparsity(
        linears=sum(zeros[weight] for weight in weights.values()) / total,
        model=sum(zeros.values()) / parameters,
        per_linear=per_linear,
    )


def check_masks(checkpoint: Checkpoint) -> MaskCheck | None:
    """Hold the weights against the masks that lie beside them; None where there are none.

    None as well where a masked weight is stored in a form that is not read here: its zeros cannot be counted.

    Raises:
        CheckpointError: The masks are damaged.
    """
    from sparsify.masks import count_violations, load_masks
    from sparsify.quantize.stored import is_packed_int4

    masks = load_masks(checkpoint.path)
    plain = {name: ref.shape for name, ref in checkpoint.tensors.items()}
    fits = [is_packed_int4(checkpoint, name) or plain.get(name) == tuple(mask.shape) for name, mask in masks.items()]
    if not fits or not all(fits):
        return None
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    return MaskCheck(tensors=len(masks), pruned=pruned, revived=count_violations(masks, checkpoint))


def write_variant(info: VariantInfo, directory: Path) -> None:
    """Write variant.json to `directory`."""
    write_json(directory / VARIANT, info.model_dump(mode="json"))


def read_variant(directory: Path) -> VariantInfo:
    """Read variant.json of `directory`.

    Raises:
        CheckpointError: It is missing or not what this version writes.
    """
    path = directory / VARIANT
    try:
        return VariantInfo.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; make the variant again") from None
    except (UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path} cannot be used ({first}); make the variant again") from None


def _structure(model_dir: Path) -> tuple[tuple[str, ...], int, int]:
    """(linears of the blocks, parameters, multiplications per token)."""
    from sparsify.blocks import find_structure, linear_weight, load_skeleton

    model = load_skeleton(model_dir)
    structure = find_structure(model, strict=False)
    config: Any = model.config
    experts = int(getattr(config, "num_local_experts", 0) or 1)
    used = int(getattr(config, "num_experts_per_tok", 0) or 1) / experts
    macs = sum(
        linear_weight(model, name).numel() * (used if ".experts." in name else 1.0) for name in structure.all_linears
    )
    if structure.head is not None:
        macs += model.get_submodule(structure.head).get_parameter("weight").numel()
    return structure.all_linears, sum(parameter.numel() for parameter in model.parameters()), round(macs)


def _loaders(checkpoint: Checkpoint) -> list[str]:
    """What opens a checkpoint: no other library knows the classes of sliced models."""
    if str(checkpoint.config.get("model_type", "")).startswith(PREFIX):
        return ["sparsebench"]
    return ["transformers", "vllm"]


def _weight_bits(checkpoint: Checkpoint, linears: tuple[str, ...]) -> int:
    from sparsify.quantize.stored import is_packed_int4

    weights = [f"{name}.weight" for name in linears]
    stored = [checkpoint.tensors[weight] for weight in weights if weight in checkpoint.tensors]
    if stored:
        # The widest linear counts, so that a few that were left as they are show.
        return max(_FLOATS.get(ref.dtype) or _INTEGERS.get(ref.dtype, 32) for ref in stored)
    if weights and all(is_packed_int4(checkpoint, weight) for weight in weights):
        return 4
    groups = checkpoint.config.get("quantization_config", {}).get("config_groups", {})
    bits = [group["weights"]["num_bits"] for group in groups.values() if group.get("weights")]
    return max(bits) if bits else int(checkpoint.config.get("quantization_config", {}).get("bits", 16))


def _dtype(checkpoint: Checkpoint) -> str:
    # The dtype of most float elements; config.json may name another.
    count: dict[str, int] = {}
    for name, ref in checkpoint.tensors.items():
        if ref.dtype in _NAMES and not name.endswith("_scale"):
            count[ref.dtype] = count.get(ref.dtype, 0) + ref.numel
    if not count:
        return str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "float32")
    return _NAMES[max(count, key=lambda dtype: count[dtype])]
