"""Answers that are to be judged: files in the formats of FastChat and AlpacaEval."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, StrictStr, ValidationError

from harness.errors import ConfigError
from suites.errors import SuiteError
from suites.rows import read_rows


@dataclass(frozen=True)
class ModelAnswers:
    """One model's answers to MT-Bench.

    Attributes:
        model: Its name.
        source: Where they come from, for messages.
        turns: Per question id the text of each turn; None for a turn that was not answered.
    """

    model: str
    source: str
    turns: Mapping[int, tuple[str | None, ...]]

    def upto(self, question_id: int, turn: int) -> tuple[str, ...] | None:
        """The answers to turns 1 to `turn`; None if one of them is missing, as the later ones rest on it."""
        found = self.turns.get(question_id, ())[:turn]
        texts = tuple(text for text in found if text is not None)
        return texts if len(texts) == turn else None


@dataclass(frozen=True)
class ModelOutputs:
    """One model's outputs for AlpacaEval.

    Attributes:
        model: The `generator`.
        source: Where they come from, for messages.
        outputs: Text by instruction, in the file's order.
        datasets: The part of the set that an instruction belongs to, where the file says it.
    """

    model: str
    source: str
    outputs: Mapping[str, str]
    datasets: Mapping[str, str]


class _Choice(BaseModel):
    turns: list[StrictStr]


class _AnswerRow(BaseModel):
    """A row of FastChat's `model_answer/*.jsonl`."""

    question_id: int
    model_id: StrictStr | None = None
    choices: list[_Choice] = Field(min_length=1)


class _OutputRow(BaseModel):
    """A row of an AlpacaEval outputs file."""

    instruction: StrictStr
    output: StrictStr
    generator: StrictStr | None = None
    dataset: StrictStr | None = None


_Model = TypeVar("_Model", bound=BaseModel)


def read_model_answers(path: Path) -> ModelAnswers:
    """A FastChat answer file; the first choice of each row counts, as in FastChat.

    Raises:
        ConfigError: The file is missing, empty, cut short or of another form, answers a question twice, or holds the
            answers of several models.
    """
    rows = read_typed(path, _AnswerRow, "jsonl", "FastChat's answers (question_id, choices)")
    turns: dict[int, tuple[str | None, ...]] = {}
    for where, row in rows:
        if row.question_id in turns:
            raise ConfigError(f"{where} answers question {row.question_id} again; keep one row for each question")
        turns[row.question_id] = tuple(row.choices[0].turns)
    return ModelAnswers(_one_name(path, [row.model_id for _, row in rows]), str(path), turns)


def read_model_outputs(path: Path) -> ModelOutputs:
    """An AlpacaEval outputs file: a JSON list, or one object a line.

    Raises:
        ConfigError: As `read_model_answers`, of instructions.
    """
    form = "jsonl" if path.suffix == ".jsonl" else "json"
    rows = read_typed(path, _OutputRow, form, "AlpacaEval's outputs (instruction, output)")
    outputs: dict[str, str] = {}
    for where, row in rows:
        if row.instruction in outputs:
            raise ConfigError(f"{where} has an instruction again ({_short(row.instruction)}); keep one row for each")
        outputs[row.instruction] = row.output
    datasets = {row.instruction: row.dataset for _, row in rows if row.dataset is not None}
    return ModelOutputs(_one_name(path, [row.generator for _, row in rows]), str(path), outputs, datasets)


def read_typed(path: Path, kind: type[_Model], form: str, what: str) -> list[tuple[str, _Model]]:
    """The rows of a file as models, each with the place it stands at.

    Raises:
        ConfigError: The file is missing, empty, cut short, or a row is none; the message names the place.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; name a file of {what}")
    rows: list[tuple[str, _Model]] = []
    try:
        for where, content in read_rows(path, form):
            rows.append((where, kind.model_validate(content)))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"]) or "row"
        raise ConfigError(f"{where}: {name}: {problem['msg']}; the file has to hold {what}") from None
    except SuiteError as error:
        raise ConfigError(
            str(error).removesuffix("; fetch the file again") + f"; the file has to hold {what}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply; the file has to hold {what}") from None
    if not rows:
        raise ConfigError(f"{path} is empty; it has to hold {what}")
    return rows


def check_known(source: str, given: Collection[Any], known: Collection[Any], what: str) -> None:
    """Refuse answers to questions that are not in the set.

    Raises:
        ConfigError: There are some; the message says whether the two sets have anything in common.
    """
    unknown = [each for each in given if each not in known]
    if not unknown:
        return
    shown = ", ".join(_short(str(each)) for each in unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    if len(unknown) == len(given):
        raise ConfigError(f"{source} answers another set of questions: no {what} is known ({shown}); name another file")
    raise ConfigError(f"{source} has {len(unknown)} unknown {what}s ({shown}); remove these rows")


def names_are_unique(names: Sequence[str]) -> None:
    """Refuse two models of one name.

    Raises:
        ConfigError: A name is there twice.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two of the given are called {twice[0]!r}; write NAME=ANSWERS to tell them apart")


def _one_name(path: Path, names: Sequence[str | None]) -> str:
    given = sorted({name for name in names if name})
    if len(given) > 1:
        raise ConfigError(f"{path} holds answers of several models ({', '.join(given[:3])}); split it by model")
    return given[0] if given else path.stem


def _short(text: str) -> str:
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    return plain if len(plain) <= 40 else plain[:37] + "..."
