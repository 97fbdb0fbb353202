"""The numbers of judgements that exist already: FastChat's `model_judgment/*.jsonl`, AlpacaEval's `annotations.json`.

No judge is asked and no engine loaded. With a data directory the denominators are those of the benchmark; without one
they are what the file itself holds, and an event says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.judge.annotations import read_annotations
from harness.judge.data import alpaca_difficulty, alpaca_hashes, alpaca_instructions, hash_events, mt_bench_hashes
from harness.judge.grades import compare_models, summarize_games, summarize_grades
from harness.judge.judgments import is_pairs, read_games, read_grades
from harness.judge.output import SUMMARY, annotation_verdict, write_summary, write_verdicts
from harness.judge.questions import load_questions
from harness.judge.records import JudgeInfo, JudgeSummary, events_of
from harness.judge.request import JOURNAL
from harness.judge.win_rates import compare_win_rates, summarize_annotations
from harness.layout import read_json
from suites.data import file_sha256

if TYPE_CHECKING:
    from harness.score.run import Request

_START = 100_000


def rescore(file: Path, out: Path, *, data_dir: Path | None = None) -> JudgeSummary:
    """Recompute grades or win rates from a file of judgements; writes `verdicts.jsonl` and `summary.json` to `out`.

    Args:
        file: `annotations.json`, or a `model_judgment` JSONL of single or pairwise mode.
        out: Folder of the result.
        data_dir: Folder of the published files.

    Raises:
        ConfigError: The file is none of these, is cut short, or holds a judgement twice or of unknown questions; or
            the folder holds something else.
        SuiteError: The questions cannot be read.
    """
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; name annotations.json or a model_judgment JSONL")
    _check_out(out)
    summary, verdicts = _alpaca_eval(file, data_dir) if file.suffix == ".json" else _mt_bench(file, data_dir)
    write_verdicts(out, verdicts)
    return write_summary(out, summary)


def score(request: Request) -> str:
    """What `sparsebench score --suite chat` does with a file of judgements; gives the text for the terminal.

    Raises:
        ConfigError: As `rescore`.
    """
    from harness.judge.render import as_text

    if not _holds_judgements(request.file):
        raise ConfigError(
            f"{request.file} holds no judgements; answers are judged first: sparsebench judge {request.file} ..."
        )
    return as_text(rescore(request.file, request.out, data_dir=request.data_dir))


def _holds_judgements(file: Path) -> bool:
    """Whether a file is not one of answers alone; what cannot be read is left to its own reader."""
    try:
        with file.open(encoding="utf-8") as lines:
            start = lines.read(_START)
    except (OSError, UnicodeDecodeError):
        return True
    return '"choices"' not in start and ('"output"' not in start or '"output_1"' in start)


def _mt_bench(file: Path, data_dir: Path | None) -> tuple[JudgeSummary, list[dict[str, Any]]]:
    questions = None if data_dir is None else load_questions(data_dir)
    hashes = {} if data_dir is None else mt_bench_hashes(data_dir)
    events = hash_events(hashes) + ([_open_ended(file)] if data_dir is None else [])
    pairs = is_pairs(file)
    if pairs:
        games = read_games(file, questions)
        judge, rows = games.judge, games.rows()
        models = [summarize_games(name, games.baseline, each) for name, each in games.by_model.items()]
        comparisons = compare_models(games.by_model)
    else:
        grades = read_grades(file, questions)
        judge, rows = grades.judge, grades.rows()
        models = [summarize_grades(name, each) for name, each in grades.by_model.items()]
        comparisons = compare_models(grades.by_model)
        if grades.differ:
            detail = f"{grades.differ} scores are not what their own judgement says; the scores are used"
            events.append({"kind": "score_differs", "where": file.name, "detail": detail})
    summary = JudgeSummary(
        benchmark="mt-bench",
        mode="pairwise" if pairs else "single",
        prompt=None,
        judge=JudgeInfo(name=judge, identity={}, settings={}),
        data={**hashes, file.name: file_sha256(file)},
        models=models,
        comparisons=comparisons,
        events=events_of(events),
    )
    return summary, rows


def _alpaca_eval(file: Path, data_dir: Path | None) -> tuple[JudgeSummary, list[dict[str, Any]]]:
    instructions = None if data_dir is None else alpaca_instructions(data_dir)
    found = read_annotations(file, instructions)
    hashes: dict[str, str] = {}
    difficulty, events = None, list[dict[str, str]]()
    if data_dir is not None:
        hashes = alpaca_hashes(data_dir, None)
        asked = next(iter(found.by_model.values()))
        difficulty, events = alpaca_difficulty(data_dir, instructions, [one.duel.instruction for one in asked])
    events = [*hash_events(hashes), *events, *([_open_ended(file)] if instructions is None else [])]
    summary = JudgeSummary(
        benchmark="alpaca-eval",
        mode="pairwise",
        prompt=None,
        judge=JudgeInfo(name=found.annotator, identity={}, settings={}),
        data={**hashes, file.name: file_sha256(file)},
        models=[
            summarize_annotations(name, found.reference, rows, difficulty) for name, rows in found.by_model.items()
        ],
        comparisons=compare_win_rates(found.by_model),
        events=events_of(events),
    )
    return summary, [annotation_verdict(name, one) for name, rows in found.by_model.items() for one in rows]


def _check_out(out: Path) -> None:
    """Refuse a folder whose `summary.json` is another's: a study's, or that of judgements made there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    path = out / SUMMARY
    ours = path.is_file() and not (out / JOURNAL).exists() and read_json(path).get("kind") == "judge"
    if not ours:
        raise ConfigError(f"{out} exists and holds something else; choose another --out")


def _open_ended(file: Path) -> dict[str, str]:
    detail = "without --data-dir (and its questions) what is missing from the file is not in the denominators"
    return {"kind": "denominators_of_the_file", "where": file.name, "detail": detail}
