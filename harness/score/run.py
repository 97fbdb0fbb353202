"""Scores a file of answers: reads it, matches it with its items, scores, and writes verdicts and summary."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.evaluate.suite import deviations
from harness.progress import Phase
from harness.records import write_json_atomic, write_text_atomic
from harness.score.answers import Answer, Format, find_format, match
from harness.score.data import ScoreData, default_preset, load_data
from harness.score.estimates import Values, estimates
from harness.score.formats import FORMATS
from harness.score.given import GivenFile, read_given
from harness.score.record import FileInfo, Missing, MissingItems, ScoreSummary, Verdict
from suites.data import Item
from suites.registry import Suite, load_suite, scorer, suite_hash


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be scored.

    Attributes:
        file: The answers.
        suite: Name of the suite.
        out: Folder for verdicts, summary and the journal.
        preset: One of the suite's presets; None takes its first on real data.
        problems: The data file; None finds it by `data_dir`, an installed package or the hub.
        data_dir: Folder of original data files.
        form: Name of the file's format; None tells it by the first row.
        missing: What items without an answer do.
        n: The first `n` items only; None for all.
        k: The k of pass@k, for code.
        quiet: No progress.
    """

    file: Path
    suite: str
    out: Path
    preset: str | None = None
    problems: Path | None = None
    data_dir: Path | None = None
    form: str | None = None
    missing: Missing = "error"
    n: int | None = None
    k: tuple[int, ...] = (1, 10, 100)
    quiet: bool = False


@dataclass(frozen=True)
class Scored:
    """The answers, scored.

    Attributes:
        verdicts: One an answer, in the file's order.
        values: By item id, for items with an answer: each metric's values.
        nothing: By item id, for items without one: what they count where they count as wrong.
        events: What the summary must say.
        sandbox: What ran the programs, for code.
    """

    verdicts: Sequence[Verdict]
    values: Mapping[str, Values]
    nothing: Mapping[str, Values]
    events: Sequence[dict[str, str]] = ()
    sandbox: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Job:
    """A request with all that it stands for."""

    request: Request
    suite: Suite
    preset: str
    given: GivenFile
    data: ScoreData
    form: Format


def score_file(request: Request) -> ScoreSummary:
    """Score a file and write `verdicts.jsonl` and `summary.json` to the folder.

    Raises:
        ConfigError: The file, an option or its match with the data is wrong; nothing is written then.
        SuiteError: Suite, preset or data cannot be used.
        InfrastructureError: The sandbox failed, or the folder cannot be written.
    """
    suite = load_suite(request.suite)
    preset = request.preset or default_preset(suite)
    suite.preset(preset)
    if suite.name not in FORMATS:
        raise ConfigError(f"no file of answers is known for suite {suite.name}; choose one of {', '.join(FORMATS)}")
    given = read_given(request.file)
    data = load_data(suite, preset, file=request.problems, data_dir=request.data_dir, n=request.n)
    form = find_format(given, FORMATS[suite.name], suite.name, request.form)
    answers = match(given, form, data.items)
    absent = _absent(answers, data.items)
    if absent and request.missing == "error":
        raise ConfigError(_told(request.file, absent, data, form))
    job = _Job(request, suite, preset, given, data, form)
    return _write(job, (_score_code if suite.name == "code" else _score_texts)(job, answers, absent))


def _absent(answers: Sequence[Answer], items: Sequence[Item]) -> list[Item]:
    answered = {answer.item.item_id for answer in answers}
    return [item for item in items if item.item_id not in answered]


def _name(form: Format, item: Item) -> str:
    index = int(item.item_id.rpartition("/")[2])
    return next(iter(form.names(index, item.doc)))


def _told(file: Path, absent: Sequence[Item], data: ScoreData, form: Format) -> str:
    shown = ", ".join(repr(" ".join(_name(form, item).split())[:40]) for item in absent[:3])
    more = ", ..." if len(absent) > 3 else ""
    return (
        f"{file} answers {len(data.items) - len(absent)} of {len(data.items)} items (without {shown}{more}); add them, "
        "or say what they count: --missing wrong (0) or --missing exclude"
    )


def _score_texts(job: _Job, answers: Sequence[Answer], absent: Sequence[Item]) -> Scored:
    module = scorer(job.suite.name, job.preset)
    judge = getattr(module, "scorable", lambda doc: None)
    verdicts: list[Verdict] = []
    values: dict[str, Values] = {}
    with Phase("scoring", len(answers), quiet=job.request.quiet) as phase:
        for done, answer in enumerate(answers, 1):
            item = answer.item
            if answer.sample:
                raise ConfigError(
                    f"{job.request.file} row {answer.line}: several answers to one item; give one an item"
                )
            if (why := judge(item.doc)) is not None:
                raise ConfigError(f"item {item.item_id} cannot be scored: {why}")
            found: dict[str, float | list[float]] = module.score(item.doc, answer.output)
            values[item.item_id] = _as_lists(found)
            status = "scored" if answer.output.strip() else "empty"
            verdicts.append(_verdict(answer, _name(job.form, item), status, "", found))
            phase.update(done, len(answers), "answers")
    nothing = {item.item_id: _zeros(_as_lists(module.score(item.doc, ""))) for item in absent}
    events = [
        {"kind": "scoring_deviation", "where": job.suite.name, "detail": detail}
        for detail in deviations(job.suite, job.preset)
    ]
    return Scored(verdicts, values, nothing, events)


def _score_code(job: _Job, answers: Sequence[Answer], absent: Sequence[Item]) -> Scored:
    from harness.evaluate.code import as_problem, limited, pass_rates
    from harness.evaluate.sandbox import Job, open_sandbox, preflight
    from harness.score.programs import judge

    make = job.form.program or scorer("code", job.preset).extract
    programs = [make(answer.item.doc, answer.output) for answer in answers]
    jobs = {
        index: Job(as_problem(str(answer.item.doc["task_id"]), answer.item.doc), program)
        for index, (answer, program) in enumerate(zip(answers, programs, strict=True))
        if program is not None
    }
    sandbox = open_sandbox()
    preflight(sandbox)
    sandbox = limited(sandbox, job.suite.preset(job.preset))
    with Phase("programs", len(jobs), quiet=job.request.quiet) as phase:
        judged = judge(list(jobs.values()), sandbox=sandbox, journal=job.request.out / "journal.jsonl", progress=phase)
    by_index = dict(zip(jobs, judged, strict=True))
    verdicts: list[Verdict] = []
    passed: dict[str, list[bool]] = defaultdict(list)
    for index, answer in enumerate(answers):
        found = by_index.get(index)
        status, detail = (found.status, found.detail) if found else ("extract_failed", "the text holds no code")
        passed[answer.item.item_id].append(status == "passed")
        verdicts.append(
            _verdict(answer, _name(job.form, answer.item), status, detail, {"pass": float(status == "passed")})
        )
    least = min(map(len, passed.values()), default=0)
    ks = [k for k in job.request.k if k <= least]
    values = {item_id: _as_lists(dict(pass_rates(flags, ks))) for item_id, flags in passed.items()}
    nothing = {item.item_id: {f"pass@{k}": [0.0] for k in ks} for item in absent}
    info = {**asdict(sandbox.info), "limits": asdict(sandbox.limits)}
    return Scored(verdicts, values, nothing, sandbox=info)


def _verdict(answer: Answer, name: str, status: str, detail: str, scores: Mapping[str, float | list[float]]) -> Verdict:
    return Verdict(
        item_id=answer.item.item_id,
        item_hash=answer.item.item_hash,
        name=name,
        sample=answer.sample,
        line=answer.line,
        status=status,
        detail=detail,
        scores=dict(scores),
    )


def _as_lists(scores: Mapping[str, float | list[float]]) -> Values:
    return {name: list(value) if isinstance(value, list) else [value] for name, value in scores.items()}


def _zeros(values: Values) -> Values:
    return {name: [0.0] * len(found) for name, found in values.items()}


def _write(job: _Job, scored: Scored) -> ScoreSummary:
    """Write the verdicts and the summary of scored answers.

    Raises:
        InfrastructureError: The folder cannot be written.
    """
    request, suite, data = job.request, job.suite, job.data
    lost = [item for item in data.items if item.item_id not in scored.values]
    rows = [*scored.verdicts, *(_lost(item) for item in lost)]
    everything = {**scored.nothing, **scored.values}
    counted = {item.item_id: everything[item.item_id] for item in data.items if item.item_id in everything}
    clusters = {item.item_id: item.cluster for item in data.items}
    answered = estimates(scored.values, clusters, suite.primary_metric)
    wrong = estimates(counted, clusters, suite.primary_metric)
    chosen = suite.preset(job.preset)
    summary = ScoreSummary(
        suite=suite.name,
        suite_hash=suite_hash(suite, job.preset),
        preset=job.preset,
        protocol=chosen.protocol,
        source=chosen.source,
        format=job.form.name,
        file=FileInfo(name=job.given.path.name, sha256=job.given.sha256, rows=len(job.given.rows)),
        data=data.info,
        n=len(scored.values),
        n_total=len(data.items),
        n_answers=len(scored.verdicts),
        missing=MissingItems(policy=request.missing, n=len(lost), items=[item.item_id for item in lost]),
        statuses=dict(Counter(row.status for row in rows)),
        primary_metric=suite.primary_metric,
        metrics=answered if request.missing == "exclude" else wrong,
        answered_only=answered,
        missing_wrong=wrong,
        sandbox=scored.sandbox,
        events=[*job.given.events, *data.events, *scored.events],
    )
    write_text_atomic(request.out / "verdicts.jsonl", "".join(row.model_dump_json() + "\n" for row in rows))
    write_json_atomic(request.out / "summary.json", summary)
    return summary


def _lost(item: Item) -> Verdict:
    return Verdict(
        item_id=item.item_id,
        item_hash=item.item_hash,
        name=item.item_id,
        sample=None,
        line=None,
        status="missing",
        scores={},
    )
