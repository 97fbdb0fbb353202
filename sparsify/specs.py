"""The settings of the stages of a recipe, as its file gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from sparsify.strict import Strict, only_used
from sparsify.train.settings import PretrainSettings, TrainSettings

_SCOPES = {
    "magnitude": ("matrix", "row", "block"),
    "wanda": ("row", "matrix", "block"),
    "sparsegpt": ("block", "row"),
    "admm": ("matrix", "row", "block"),
}
# Settings of the trainer that came after its first recipes.
_LATER_TRAINING = {"precision", "accumulate", "checkpoint_activations", "select", "gradual", "lora"}


class Calibration(Strict):
    """Which text the layer inputs are measured on."""

    source: str = Field(
        min_length=1,
        description="`suite:SKILL/train`, `task:NAME`, a JSONL or text file, or `hub:NAME[/CONFIG][:SPLIT][@COMMIT]`",
    )
    samples: int = Field(128, gt=0, description="rows drawn from the source; of plain text, windows")
    seq: int = Field(512, gt=1, description="rows are cut to this many tokens; windows have exactly so many")
    seed: int = Field(0, description="of the draw")
    holdout: float = Field(0.0, ge=0, lt=1, description="share of the samples kept apart while budgets are chosen")

    @model_serializer(mode="wrap")
    def _as_first_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return only_used(self, dump(self), since={"holdout"})


class Allocation(Strict):
    """How a budget is spread over the linears; the sum is that of `sparsity`, to the weight."""

    kind: Literal["uniform", "owl", "slope", "file"] = "uniform"
    beta: float | None = Field(
        None, ge=-1, le=1, description="slope: rise of sparsity from the middle to the last block; chosen if not given"
    )
    spread: float = Field(0.08, ge=0, lt=0.5, description="owl: half the span of the blocks' sparsities")
    multiple: float = Field(5.0, gt=1, description="owl: a weight is an outlier at this many times the mean score")
    file: str | None = Field(None, description="file: JSON or YAML of {linear or glob: share of zeros}")
    shares: dict[str, float] = Field(default_factory=dict, description="file: what it said; read when the recipe is")

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("kind") != "file" or data.get("shares"):
            return data
        path = Path(str(data.get("file") or ""))
        try:
            shares = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"allocation file {str(path)!r} cannot be read ({' '.join(str(error).split())})") from None
        if not isinstance(shares, Mapping) or not shares:
            raise ValueError(f"allocation file {path} is no mapping of linears to shares of zeros")
        # Its content counts, not its name: the recipe's hash is to follow it.
        return {**data, "shares": dict(shares), "file": path.name}

    @model_validator(mode="after")
    def _consistent(self) -> Allocation:
        if self.kind != "slope" and self.beta is not None:
            raise ValueError(f"beta is for kind slope, not {self.kind}")
        if self.kind != "file" and (self.file or self.shares):
            raise ValueError(f"file is for kind file, not {self.kind}")
        for name, share in self.shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"the share of zeros of {name} must be at least 0 and less than 1, not {share}")
        return self


class Reconstruct(Strict):
    """Training of a block's surviving weights against the outputs of the dense block."""

    epochs: int = Field(8, gt=0, description="passes over the training share of the calibration text")
    lr: float = Field(0.02, gt=0, lt=1, description="peak step of Adam relative to the size of a weight's survivors")
    held: float = Field(0.2, gt=0, lt=1, description="share of the mini-batches that decides which epoch is kept")
    batch_tokens: int = Field(2048, gt=0, description="calibration tokens of a step, padding included")


class PruneStage(Strict):
    """Zero weights of the linears inside the blocks; the head and the embedding are never pruned."""

    method: Literal["magnitude", "wanda", "sparsegpt", "admm"]
    sparsity: float = Field(ge=0, lt=1, description="share of zeros; follows from `pattern` where that is N:M")
    pattern: str = Field("none", description="`none`, or N:M in quotes: at most N weights of M neighbours stay")
    scope: str = Field("", description="over what weights compete: matrix, row or block (128 columns, all rows)")
    refine: bool = Field(False, description="re-solve the surviving weights on the mask that the method found")
    reconstruct: Reconstruct | None = Field(
        None,
        description="last step of each block: train what survived against the dense block's outputs; {} = defaults",
    )
    allocation: Allocation = Allocation()
    keep_zeros: bool = Field(True, description="zeros of earlier pruning stay and are charged to the budget")
    order: Literal["block", "sequential"] = Field(
        "block", description="block: one pass for all linears of a block; sequential: run again after each group"
    )
    percdamp: float = Field(0.01, gt=0, le=1, description="damping of the Hessian relative to its mean diagonal")
    block_size: int = Field(128, gt=0, description="columns per SparseGPT block")
    calibration: Calibration | None = None
    skip: tuple[str, ...] = Field((), description="linears left dense: a name, its dotted ending or a glob")
    include: tuple[Literal["lm_head"], ...] = Field((), description="pruned too, if not tied to the embedding: lm_head")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        nm = _pattern(data.get("pattern", "none"))
        if nm is not None:
            data.setdefault("sparsity", 1 - nm[0] / nm[1])
        scopes = _SCOPES.get(str(data.get("method")))
        if scopes and not data.get("scope"):
            data["scope"] = scopes[0]
        return data

    @model_validator(mode="after")
    def _consistent(self) -> PruneStage:
        nm = self.nm
        if self.scope not in _SCOPES[self.method]:
            raise ValueError(f"scope of {self.method} is {' or '.join(_SCOPES[self.method])}, not {self.scope}")
        if nm is not None and abs(self.sparsity - (1 - nm[0] / nm[1])) > 1e-6:
            raise ValueError(f"sparsity {self.sparsity} contradicts pattern {self.pattern}; leave sparsity out")
        if nm is not None and self.block_size % nm[1]:
            raise ValueError(f"block_size {self.block_size} is no multiple of {nm[1]}, the M of pattern {self.pattern}")
        solves = self.method != "magnitude" or self.refine or self.reconstruct is not None
        given = self.allocation.kind in ("uniform", "file") or self.allocation.beta is not None
        needs = solves or not given
        if not needs and self.calibration is not None:
            raise ValueError("magnitude uses no calibration; remove it")
        if needs and self.calibration is None:
            raise ValueError(f'{self.method} needs calibration; add `calibration: {{source: "suite:mix/train"}}`')
        if nm is not None and self.allocation.kind != "uniform":
            raise ValueError(f"pattern {self.pattern} fixes the budget of every linear; remove allocation")
        chosen = self.allocation.kind == "slope" and self.allocation.beta is None
        if chosen and self.calibration is not None and not self.calibration.holdout:
            raise ValueError("a slope is chosen on held-out text; add `holdout: 0.25` to calibration, or give beta")
        return self

    @model_serializer(mode="wrap")
    def _as_first_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return only_used(
            self, dump(self), since={"refine", "reconstruct", "allocation", "keep_zeros", "order", "include"}
        )

    @property
    def nm(self) -> tuple[int, int] | None:
        """(N, M) of the pattern, or None where it is unstructured."""
        return _pattern(self.pattern)


class _Taught(TrainSettings):
    """A training stage: what the trainer needs, and who teaches."""

    teacher: Literal["base", "dense", "given", "none"] = Field(
        "none",
        description="base = the model that the recipe starts from; dense = the model in front of the recipe's first "
        "slice or prune stage, trained by the stages before; given = the one named beside the recipe",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, data: Any) -> Any:
        # A teacher is named for something: 2310.06927, section 3, weighs cross-entropy 1, SquareHead 1 and KL 0.
        if isinstance(data, Mapping) and data.get("teacher", "none") != "none" and "losses" not in data:
            return {**data, "losses": {"ce": 1.0, "squarehead": 1.0, "kl": 0.0}}
        return data

    @model_validator(mode="after")
    def _teacher_named(self) -> Self:
        if self.losses.needs_teacher and self.teacher == "none":
            raise ValueError("losses kl and squarehead need a teacher; add `teacher: base`")
        return self

    @model_serializer(mode="wrap")
    def _as_first_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return only_used(self, dump(self), since=_LATER_TRAINING)


class PretrainStage(_Taught, PretrainSettings):
    """Train the weights that are left on packed text of a mixture; zeros of earlier stages stay zeros."""

    @property
    def data(self) -> tuple[str, ...]:
        """Sources that are files; streams are read while training."""
        return tuple(source.source for source in self.mixture if not source.stream)

    @property
    def settings(self) -> PretrainSettings:
        """What the trainer needs to know."""
        return PretrainSettings(**{name: getattr(self, name) for name in PretrainSettings.model_fields})


class FinetuneStage(_Taught):
    """Train the weights that are left on rows; zeros of earlier stages stay zeros."""

    data: tuple[str, ...] = Field(min_length=1, description="corpora: `suite:SKILL/train`, `task:NAME` or JSONL paths")
    tokens: int = Field(600_000, gt=0, description="real (non-padding) tokens to train on")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def settings(self) -> TrainSettings:
        """What the trainer needs to know."""
        return TrainSettings(**{name: getattr(self, name) for name in TrainSettings.model_fields})


class JointPrune(Strict):
    """What quantizing prunes in the same pass."""

    sparsity: float = Field(gt=0, lt=1, description="share of zeros; follows from `pattern` where that is N:M")
    pattern: str = Field("none", description="`none`, or N:M in quotes: at most N weights of M neighbours stay")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        nm = _pattern(data.get("pattern", "none")) if isinstance(data, Mapping) else None
        return data if nm is None else {"sparsity": 1 - nm[0] / nm[1], **data}

    @model_validator(mode="after")
    def _consistent(self) -> JointPrune:
        nm = self.nm
        if nm is not None and abs(self.sparsity - (1 - nm[0] / nm[1])) > 1e-6:
            raise ValueError(f"sparsity {self.sparsity} contradicts pattern {self.pattern}; leave sparsity out")
        if nm is not None and 128 % nm[1]:
            raise ValueError(f"the M of pattern {self.pattern} must divide 128")
        return self

    @property
    def nm(self) -> tuple[int, int] | None:
        """(N, M) of the pattern, or None where it is unstructured."""
        return _pattern(self.pattern)


class SliceStage(Strict):
    """Delete rows and columns: cut the residual stream to its principal components (SliceGPT, arXiv 2401.15024)."""

    fraction: float = Field(description="share of the residual stream's width that is cut off")
    schedule: Literal["uniform", "mass"] = Field(
        "uniform", description="the same width at every cut, or widths by the energy of the dense model's signals"
    )
    signals: Literal["stream", "norm"] = Field(
        "stream", description="components of the residual stream (the authors' code) or of a norm's output (equation 8)"
    )
    basis: Literal["block", "shared"] = Field(
        "block", description="a basis per cut, with shortcut matrices; or one for all: a stock model, at a loss"
    )
    orientation: Literal["pca", "random"] = Field(
        "pca", description="the kept axes as they are, or turned at random: the same function, other weights"
    )
    slice_head: bool = Field(False, description="cut the stream in front of the head too; basis: shared always does")
    keep_bases: bool = Field(
        False, description="store the bases beside the model: SquareHead from the dense teacher needs them"
    )
    round_to: int = Field(8, gt=0, description="widths are multiples of this")
    percdamp: float = Field(0.01, ge=0, le=1, description="damping relative to the mean of the diagonal")
    seed: int = Field(0, ge=0, description="of random turns")
    calibration: Calibration

    @model_validator(mode="before")
    @classmethod
    def _text_named(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "calibration" not in data:
            raise ValueError('slice needs calibration; add `calibration: {source: "suite:mix/train"}`')
        return data

    @model_validator(mode="after")
    def _consistent(self) -> SliceStage:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be more than 0 and less than 1, such as 0.25, not {self.fraction:g}")
        if self.calibration.holdout:
            raise ValueError("slice chooses nothing on held-out text; remove holdout")
        if self.basis == "shared" and self.keep_bases:
            raise ValueError("keep_bases is for basis: block; a stock model of another width has no teacher by states")
        if self.basis == "shared" and self.schedule == "mass":
            raise ValueError("basis: shared has one width; remove schedule")
        return self

    @property
    def whole_head(self) -> bool:
        """Whether the head keeps its width."""
        return not self.slice_head and self.basis == "block"


class QuantizeStage(Strict):
    """Round the weights of the linears; zeros stay zeros."""

    scheme: Literal["w8a8", "w4a16"] = Field(
        "w8a8", description="w8a8: INT8 weights and activations; w4a16: INT4 weights by groups, float activations"
    )
    method: Literal["rtn", "gptq"] = Field("rtn", description="round to nearest, or make up for each rounding error")
    skip: tuple[str, ...] = Field(("lm_head",), description="linears left as they are; the head always is")
    group_size: Literal[32, 64, 128] | None = Field(None, description="w4a16: columns that share a scale; default 128")
    activations: Literal["dynamic", "static"] = Field(
        "dynamic", description="w8a8: a scale per token when run, or one stored scale per linear"
    )
    smooth: float | None = Field(None, gt=0, lt=1, description="w8a8: alpha of SmoothQuant; none where left out")
    prune: JointPrune | None = Field(None, description="gptq: prune in the same pass")
    percdamp: float = Field(0.01, gt=0, le=1, description="gptq: damping relative to the mean of the diagonal")
    skip_error: float | None = Field(
        None, gt=0, description="a linear whose relative output error is larger stays as it is, with those beside it"
    )
    calibration: Calibration | None = None

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("scheme", "w8a8") != "w4a16":
            return data
        if "activations" in data:
            raise ValueError("w4a16 leaves activations in float; remove `activations`")
        return {"group_size": 128, **data}

    @model_validator(mode="after")
    def _consistent(self) -> QuantizeStage:
        if self.scheme == "w8a8" and self.group_size is not None:
            raise ValueError("w8a8 has one scale per output channel; remove group_size (w4a16 has groups)")
        if self.scheme == "w4a16" and self.group_size is None:
            raise ValueError("w4a16 needs a group_size: 32, 64 or 128")
        if self.scheme == "w4a16" and self.smooth is not None:
            raise ValueError("smooth makes activations easier to round, which w4a16 does not do; remove it")
        if self.prune is not None and self.method != "gptq":
            raise ValueError("prune inside quantize needs method: gptq; or give it a stage of its own before this one")
        if self.method == "rtn" and self.percdamp != 0.01:
            raise ValueError("rtn uses no Hessian; remove percdamp")
        if self.prune is not None and self.skip_error is not None:
            raise ValueError(
                "skip_error cannot tell what pruning costs from what rounding costs; prune in its own stage"
            )
        if self.needs_calibration and self.calibration is None:
            raise ValueError(f'{self._measured} needs calibration; add `calibration: {{source: "suite:mix/train"}}`')
        if not self.needs_calibration and self.calibration is not None:
            raise ValueError("rtn with dynamic activations uses no calibration; remove it")
        return self

    @model_serializer(mode="wrap")
    def _as_first_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return only_used(self, dump(self), since=set(type(self).model_fields) - {"scheme", "method", "skip"})

    @property
    def needs_calibration(self) -> bool:
        """Whether the model is run on text."""
        return bool(self._measured)

    @property
    def _measured(self) -> str:
        asked = {
            "gptq": self.method == "gptq",
            "smooth": self.smooth is not None,
            "activations: static": self.activations == "static",
            "skip_error": self.skip_error is not None,
        }
        return next((name for name, set_ in asked.items() if set_), "")


def _pattern(value: Any) -> tuple[int, int] | None:
    if value == "none" or value is None:
        return None
    if not isinstance(value, str):
        # YAML 1.1 reads 2:4 as the base-60 number 124.
        raise ValueError('pattern must be in quotes, as "2:4"')
    n, _, m = value.partition(":")
    if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
        raise ValueError(f'pattern {value!r} is neither none nor "N:M" with 0 < N < M, such as "2:4"')
    return int(n), int(m)
