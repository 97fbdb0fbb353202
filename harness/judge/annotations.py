"""Reads AlpacaEval's `annotations.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, StrictStr

from harness.errors import ConfigError
from harness.judge.alpaca_eval import DRAW, Annotation, Duel, Status, is_switched
from harness.judge.answers import ModelOutputs, check_known, read_typed


def _or_none(value: Any) -> Any:
    # pandas writes NaN for what has no verdict.
    return None if isinstance(value, float) and math.isnan(value) else value


class _AnnotationRow(BaseModel):
    instruction: StrictStr
    output_1: StrictStr
    generator_1: StrictStr
    output_2: StrictStr | None
    generator_2: StrictStr
    dataset: StrictStr | None = None
    annotator: Annotated[StrictStr | None, BeforeValidator(_or_none)] = None
    preference: Annotated[Annotated[float, Field(ge=0, le=2)] | None, BeforeValidator(_or_none)] = None


@dataclass(frozen=True)
class AnnotatedFile:
    """The annotations of a file.

    Attributes:
        annotator: Who judged, with which prompt.
        reference: Whom all models are compared with.
        by_model: One annotation for every instruction of every model.
    """

    annotator: str
    reference: str
    by_model: Mapping[str, list[Annotation]]


def read_annotations(path: Path, instructions: ModelOutputs | None) -> AnnotatedFile:
    """A file of annotations; an instruction of the set without a row is kept as `no_answer`.

    Args:
        path: The file.
        instructions: The evaluation set; None takes the instructions of the file as the set.

    Raises:
        ConfigError: It is not such a file, has an instruction twice for a model, unknown instructions, several
            references or annotators, or a preference that is none (1 to 2, or 0 for a draw).
    """
    rows = read_typed(path, _AnnotationRow, "json", "AlpacaEval's annotations (instruction, generator_2, preference)")
    order = list(dict.fromkeys(row.instruction for _, row in rows))
    if instructions is not None:
        check_known(str(path), order, instructions.outputs, "instruction")
        order = list(instructions.outputs)
    told: dict[str, dict[str, Annotation]] = {}
    for where, row in rows:
        if row.preference is not None and 0 < row.preference < 1:
            raise ConfigError(f"{where}: preference {row.preference} is neither 0 nor from 1 to 2; correct the row")
        model = told.setdefault(row.generator_2, {})
        if row.instruction in model:
            raise ConfigError(f"{where} annotates an instruction of {row.generator_2} again; keep one row of each")
        preference = DRAW if row.preference == 0 else row.preference
        model[row.instruction] = Annotation(_duel(row), preference, _status(row, preference))
    nothing = {row.instruction: row.output_1 for _, row in rows}
    by_model = {
        name: [found.get(text) or _missing(text, nothing.get(text, ""), instructions) for text in order]
        for name, found in told.items()
    }
    reference = _one(path, {row.generator_1 for _, row in rows}, "reference")
    annotator = _one(path, {row.annotator or "unknown" for _, row in rows}, "annotator")
    return AnnotatedFile(annotator, reference, by_model)


def _duel(row: _AnnotationRow) -> Duel:
    return Duel(row.instruction, row.dataset, row.output_1, row.output_2, None, is_switched(row.instruction))


def _status(row: _AnnotationRow, preference: float | None) -> Status:
    if row.output_2 is None:
        return "no_answer"
    if preference is None:
        return "unparsable"
    return "same_output" if row.output_1 == row.output_2 else "judged"


def _missing(instruction: str, reference: str, instructions: ModelOutputs | None) -> Annotation:
    dataset = None if instructions is None else instructions.datasets.get(instruction)
    return Annotation(Duel(instruction, dataset, reference, None, None, is_switched(instruction)), None, "no_answer")


def _one(path: Path, names: set[str], what: str) -> str:
    if len(names) > 1:
        raise ConfigError(f"{path} has several {what}s ({', '.join(sorted(names)[:3])}); split it by {what}")
    return next(iter(names))
