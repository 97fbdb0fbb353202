"""`results_*.json` of lm-eval 0.4.x as it is on disk: checked, with a message for what another version wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import ConfigError, InfrastructureError

_KEYS = ("results", "configs", "versions")
_NOT_METRICS = ("name", "alias", "sample_len", "sample_count", "samples")
_FIX = "this sparsebench reads what lm_eval 0.4.3 and later write with --output_path"


class _Loose(BaseModel):
    """Only what is read is checked; lm-eval adds keys with every version."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class RunConfig(_Loose):
    """How lm-eval was started."""

    model: str | None = None
    model_args: dict[str, Any] | str | None = None
    model_num_parameters: int | None = None
    model_dtype: str | None = None
    model_sha: str | None = None
    batch_size: int | str | None = None
    limit: float | None = None
    gen_kwargs: dict[str, Any] | str | None = None
    random_seed: int | None = None
    numpy_seed: int | None = None
    torch_seed: int | None = None
    fewshot_seed: int | None = None


class SampleCount(_Loose):
    """Documents of a task: all, and those that were asked."""

    original: int = Field(ge=0)
    effective: int = Field(ge=0)


class LmEvalFile(_Loose):
    """The whole file; `results` are read by `metrics_of`."""

    results: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    versions: dict[str, Any]
    groups: dict[str, dict[str, Any]] = Field(default_factory=dict)
    group_subtasks: dict[str, list[str]] = Field(default_factory=dict)
    n_shot: dict[str, Any] = Field(default_factory=dict, alias="n-shot")
    n_samples: dict[str, SampleCount] = Field(default_factory=dict, alias="n-samples")
    higher_is_better: dict[str, dict[str, bool | None]] = Field(default_factory=dict)
    config: RunConfig = Field(default_factory=RunConfig)
    model_name: str | None = None
    model_source: str | None = None
    lm_eval_version: str | None = None
    transformers_version: str | None = None
    chat_template: str | dict[str, str] | None = None
    chat_template_sha: str | None = None
    system_instruction_sha: str | None = None
    fewshot_as_multiturn: bool | None = None


class Value(NamedTuple):
    """One metric of one task: `metric,filter`, its value and standard error, and why either is missing."""

    key: str
    value: float | None
    stderr: float | None
    reason: str | None


def looks_like_lm_eval(data: object) -> bool:
    """Tell whether a JSON document may be meant as a results file of lm-eval."""
    return isinstance(data, dict) and "results" in data and "schema_version" not in data


def read_lm_eval(path: Path) -> LmEvalFile:
    """Read a results file.

    Raises:
        ConfigError: It is cut short, or not of a version that this reads; the message says what is missing.
        InfrastructureError: It cannot be read.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InfrastructureError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}): it was cut short; copy it again") from None
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        raise ConfigError(f"{path} is no results file of lm_eval (no object `results`): {_FIX}")
    missing = [key for key in _KEYS if not isinstance(data.get(key), dict)]
    if missing:
        raise ConfigError(f"{path} is a results file of another version (no {', '.join(missing)}): {_FIX}")
    if not data["results"]:
        raise ConfigError(f"{path} holds no task: `results` is empty")
    old = next((task for task, found in data["results"].items() if _has_old_keys(found)), None)
    if old is not None:
        raise ConfigError(f"{path} names metrics of {old} without a filter, as lm_eval before 0.4 did: {_FIX}")
    try:
        return LmEvalFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path} is a results file of another version ({where}: {first['msg']}): {_FIX}") from None


def _has_old_keys(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    names = [name for name in found if name not in _NOT_METRICS]
    numbers = [name for name in names if isinstance(found[name], int | float)]
    return bool(numbers) and not any("," in name for name in names)


def metrics_of(found: dict[str, Any]) -> list[Value]:
    """The metrics of one entry of `results`, in the file's order; a value that is no number has a reason."""
    values = []
    for key, raw in found.items():
        metric, comma, name = key.partition(",")
        if key in _NOT_METRICS or not comma or metric.endswith("_stderr"):
            continue
        value, why = _number(raw)
        stderr, _ = _number(found.get(f"{metric}_stderr,{name}"))
        reason = None if value is not None else f"{key} is {why}"
        values.append(Value(key, value, stderr if stderr is not None and stderr >= 0 else None, reason))
    return values


def _number(raw: object) -> tuple[float | None, str]:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None, f"{raw!r}, not a number" if raw is not None else "missing"
    return (float(raw), "") if math.isfinite(raw) else (None, "not finite (NaN or infinite)")
