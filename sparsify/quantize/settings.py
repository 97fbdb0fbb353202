"""The quantize stage of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from sparsify.settings import Calibration, Strict, nm_of


class JointPrune(Strict):
    """What quantizing prunes in the same pass."""

    sparsity: float = Field(gt=0, lt=1, description="share of zeros; follows from `pattern` where that is N:M")
    pattern: str = Field("none", description="`none`, or N:M in quotes: at most N weights of M neighbours stay")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        nm = nm_of(data.get("pattern", "none")) if isinstance(data, Mapping) else None
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
        return nm_of(self.pattern)


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
        # Settings that came later are written out where they are used only: the hashes of older recipes stay true.
        fields, early = type(self).model_fields, ("scheme", "method", "skip")
        used = {name for name, field in fields.items() if name in early or getattr(self, name) != field.default}
        return {name: value for name, value in dump(self).items() if name in used}

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
