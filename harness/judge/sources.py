"""What the arguments of `judge` name: files of answers, or variants of a finished run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError, CorruptRecordError
from harness.judge.answers import ModelAnswers, ModelOutputs, check_known, read_model_answers, read_model_outputs
from harness.judge.questions import Question

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_UNANSWERED = ("truncated_input", "error", "skipped")
_REFERENCES = "alpaca_eval/{}_outputs.json"


def mt_bench_answers(argument: str, questions: Sequence[Question]) -> ModelAnswers:
    """The answers that `[NAME=]FILE` or `[NAME=]RUN:VARIANT` names; `questions` are all of the benchmark.

    Raises:
        ConfigError: There is no such file or variant, or it answers other questions.
        CorruptRecordError: The run's records are damaged.
    """
    name, where = _name(argument)
    run, variant = _variant(where)
    if run is not None and variant is not None:
        found = _of_run(run, variant, questions)
    else:
        found = read_model_answers(Path(where))
        check_known(found.source, list(found.turns), {q.question_id for q in questions}, "question_id")
    return ModelAnswers(name or found.model, found.source, found.turns)


def alpaca_outputs(argument: str) -> ModelOutputs:
    """The outputs that `[NAME=]FILE` names.

    Raises:
        ConfigError: There is no such file, or it is none of AlpacaEval.
    """
    name, where = _name(argument)
    if _variant(where)[0] is not None:
        raise ConfigError(f"{where}: no suite generates AlpacaEval's outputs; name a JSON file of them")
    found = read_model_outputs(Path(where))
    return ModelOutputs(name or found.model, found.source, found.outputs, found.datasets)


def alpaca_reference(argument: str, data_dir: Path) -> ModelOutputs:
    """The reference outputs: a file, or the name of one in the data directory, such as `gpt4_1106_preview`.

    Raises:
        ConfigError: There is neither.
    """
    named = data_dir / _REFERENCES.format(argument)
    if re.fullmatch(r"[A-Za-z0-9._-]+", argument) and named.is_file():
        return alpaca_outputs(str(named))
    if not Path(_name(argument)[1]).is_file():
        raise ConfigError(f"reference {argument} is neither a file nor {named}; name a file of outputs")
    return alpaca_outputs(argument)


def _name(argument: str) -> tuple[str | None, str]:
    named = _NAMED.fullmatch(argument)
    return (named[1], named[2]) if named and not Path(argument).exists() else (None, argument)


def _variant(where: str) -> tuple[Path | None, str | None]:
    run, colon, variant = where.rpartition(":")
    if Path(where).exists() or not colon or not variant or not Path(run).is_dir():
        return None, None
    return Path(run), variant


def _of_run(run: Path, variant: str, questions: Sequence[Question]) -> ModelAnswers:
    from harness.gate.run_records import open_run
    from harness.records import read_samples

    records = open_run(run)
    summary = records.summary.variant(variant)
    if summary is None or records.layout is None:
        known = ", ".join(entry.name for entry in records.summary.variants) or "none"
        raise ConfigError(f"{run} has no variant {variant!r}, it has {known}")
    if "chat" not in summary.suites:
        raise ConfigError(f"{run}:{variant} was not run on suite chat; run it with preset full and --data-dir")
    path = records.layout.samples(variant, "chat")
    rows = read_samples(path)
    if len(rows) != summary.suites["chat"].n_total:
        raise CorruptRecordError(
            f"{path} has {len(rows)} of {summary.suites['chat'].n_total} rows; run the study again"
        )
    ids = {(question.item_id, question.item_hash): question.question_id for question in questions}
    if any((row.item_id, row.item_hash) not in ids for row in rows):
        raise ConfigError(f"{run}:{variant} answered other questions; run suite chat with this --data-dir")
    turns = {
        ids[row.item_id, row.item_hash]: tuple(
            None if finish in _UNANSWERED else text for text, finish in zip(row.outputs, row.finish, strict=True)
        )
        for row in rows
    }
    return ModelAnswers(variant, f"{run}:{variant}", turns)
