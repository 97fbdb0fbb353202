"""Reads FastChat's `model_judgment/*.jsonl`, of single-answer grading or of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, StrictStr

from harness.errors import ConfigError
from harness.judge.answers import check_known, read_typed
from harness.judge.mt_bench import Game, Grade, Status, decide, in_range, rate
from harness.judge.questions import Question

_FAILED = "$ERROR$"  # FastChat's output of a judge that could not be reached
_WINNERS = frozenset({"model_1", "model_2", "tie", "error"})
_TURNED = {"model_1": "model_2", "model_2": "model_1"}
_Key = tuple[int, int]


class _GradeRow(BaseModel):
    question_id: int
    model: StrictStr
    judge: tuple[StrictStr, StrictStr]
    judgment: StrictStr
    score: float = Field(allow_inf_nan=False)
    turn: int = Field(1, ge=1, le=2)


class _GameRow(BaseModel):
    question_id: int
    model_1: StrictStr
    model_2: StrictStr
    g1_winner: StrictStr
    g2_winner: StrictStr
    judge: tuple[StrictStr, StrictStr]
    turn: int = Field(1, ge=1, le=2)


_Row = TypeVar("_Row", Grade, Game)


@dataclass(frozen=True)
class Judged(Generic[_Row]):
    """The judgements of a file.

    Attributes:
        judge: Who judged.
        by_model: One row for every planned turn of every model, in the order of the file's models.
        differ: Scores that are not what their own judgement says.
        baseline: Whom pairs are compared with; empty for grades.
    """

    judge: str
    by_model: Mapping[str, list[_Row]]
    differ: int = 0
    baseline: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """All rows as plain mappings."""
        return [asdict(row) for rows in self.by_model.values() for row in rows]


def read_grades(path: Path, questions: Sequence[Question] | None) -> Judged[Grade]:
    """A file of single-answer grading; a planned turn without a row is kept as `no_judgement`.

    Args:
        path: The file.
        questions: Those of the benchmark; None takes the turns that any model of the file has as the plan.

    Raises:
        ConfigError: It is not such a file, grades a turn twice, or holds unknown questions or several judges.
    """
    rows = read_typed(path, _GradeRow, "jsonl", "FastChat's judgements (question_id, model, judge, judgment, score)")
    category = _categories(path, questions, [row.question_id for _, row in rows])
    told: dict[str, dict[_Key, Grade]] = {}
    differ = 0
    for where, row in rows:
        _, score, how, ambiguous = rate(row.judgment)
        differ += score != row.score
        failed: Status = "error" if row.judgment == _FAILED else "unparsable"
        status = in_range(row.score) if row.score != -1 else failed
        key = (row.question_id, row.turn)
        grade = Grade(*_named(key, category, row.model), status, row.score, how, ambiguous)
        _put(where, told.setdefault(row.model, {}), key, grade)
    plan = _plan(questions, told)
    by_model = {
        model: [rows.get(key) or Grade(*_named(key, category, model), "no_judgement", -1.0) for key in plan]
        for model, rows in told.items()
    }
    return Judged(_one_judge(path, [row.judge[0] for _, row in rows]), by_model, differ)


def read_games(path: Path, questions: Sequence[Question] | None) -> Judged[Game]:
    """A file of pairs against one baseline; see `read_grades`.

    Raises:
        ConfigError: As `read_grades`, or there is no model that plays in every row.
    """
    rows = read_typed(path, _GameRow, "jsonl", "FastChat's pairs (question_id, model_1, model_2, g1_winner, g2_winner)")
    category = _categories(path, questions, [row.question_id for _, row in rows])
    baseline = _baseline(path, [(row.model_1, row.model_2) for _, row in rows])
    told: dict[str, dict[_Key, Game]] = {}
    for where, row in rows:
        winners, model = (row.g1_winner, row.g2_winner), row.model_1
        if not {*winners} <= _WINNERS:
            raise ConfigError(f"{where}: a winner is model_1, model_2, tie or error, not {' and '.join(winners)}")
        if model == baseline:
            # Seen from its opponent, the two orders and the two names change places.
            winners, model = (_TURNED.get(winners[1], winners[1]), _TURNED.get(winners[0], winners[0])), row.model_2
        key, failed = (row.question_id, row.turn), "error" in winners
        outcome = None if failed else decide(*winners)
        names = (*_named(key, category, model), baseline)
        game = Game(*names, "unparsable" if failed else "judged", outcome, winners)
        _put(where, told.setdefault(model, {}), key, game)
    plan, none = _plan(questions, told), ("error", "error")
    by_model = {
        model: [
            rows.get(key) or Game(*_named(key, category, model), baseline, "no_judgement", None, none) for key in plan
        ]
        for model, rows in told.items()
    }
    return Judged(_one_judge(path, [row.judge[0] for _, row in rows]), by_model, baseline=baseline)


def is_pairs(path: Path) -> bool:
    """Whether a file's first row is that of a pair."""
    (_, first), *_ = read_typed(path, _AnyRow, "jsonl", "FastChat's judgements")
    return first.g1_winner is not None


class _AnyRow(BaseModel):
    g1_winner: StrictStr | None = None


def _named(key: _Key, category: Mapping[int, str], model: str) -> tuple[int, str | None, int, str]:
    return key[0], category.get(key[0]), key[1], model


def _put(where: str, told: dict[_Key, _Row], key: _Key, row: _Row) -> None:
    if key in told:
        raise ConfigError(
            f"{where} judges {row.model} on question {key[0]}, turn {key[1]}, again; keep one row of each"
        )
    told[key] = row


def _categories(path: Path, questions: Sequence[Question] | None, given: Sequence[int]) -> dict[int, str]:
    if questions is None:
        return {}
    known = {question.question_id: question.category for question in questions}
    check_known(str(path), given, known, "question_id")
    return known


def _plan(questions: Sequence[Question] | None, told: Mapping[str, Mapping[_Key, object]]) -> list[_Key]:
    if questions is None:
        return sorted({key for rows in told.values() for key in rows})
    return [key for question in questions for key in question.keys]


def _one_judge(path: Path, names: Sequence[str]) -> str:
    found = sorted(set(names))
    if len(found) > 1:
        raise ConfigError(f"{path} holds judgements of several judges ({', '.join(found[:3])}); split it by judge")
    return found[0]


def _baseline(path: Path, pairs: Sequence[tuple[str, str]]) -> str:
    """The model of every row; the second of the first row where two are."""
    same = next((pair for pair in pairs if pair[0] == pair[1]), None)
    if same is not None:
        raise ConfigError(f"{path} compares {same[0]} with itself; remove these rows")
    common = set(pairs[0]).intersection(*pairs)
    if not common:
        raise ConfigError(f"{path} has no model that plays in every row; keep the rows against one baseline")
    return pairs[0][1] if pairs[0][1] in common else pairs[0][0]
