"""The verb `gate`: reads the runs and the rules, tries them, and writes the report in the forms that were asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.gate.check import check
from harness.gate.result import GateReport
from harness.gate.run_records import check_against_study, open_run
from harness.gate.skill import Context
from harness.gate_rules import GateRule
from harness.layout import Layout, read_json


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What a user may say.

    Attributes:
        against: folder or `summary.json` of an earlier run.
        study: a study whose rules are taken instead of the run's own.
        on_inconclusive: `pass` or `fail`.
        allow_different_data: compare with the earlier run although data, prompts or template differ.
        junit: file for JUnit XML.
        markdown: file that the Markdown is appended to, as `$GITHUB_STEP_SUMMARY` wants it.
        as_json: print JSON instead of text.
    """

    against: Path | None = None
    study: str | None = None
    on_inconclusive: str = "fail"
    allow_different_data: bool = False
    junit: Path | None = None
    markdown: Path | None = None
    as_json: bool = False


def gate(directory: Path, options: GateOptions) -> GateReport:
    """Judge a run.

    Raises:
        ConfigError: There is no run, no rule, or an option is wrong.
        CorruptRecordError: A record is damaged.
    """
    if options.on_inconclusive not in ("pass", "fail"):
        raise ConfigError(f"--on-inconclusive is pass or fail, not {options.on_inconclusive!r}")
    if options.allow_different_data and options.against is None:
        raise ConfigError("--allow-different-data speaks of an earlier run: name it with --against")
    # Rows are many small objects that all live to the end: looking for garbage among them takes a tenth of the time.
    with _no_collection():
        return _gate(directory, options)


@contextmanager
def _no_collection() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _gate(directory: Path, options: GateOptions) -> GateReport:
    run = open_run(directory)
    earlier = open_run(options.against) if options.against is not None else None
    rules = read_rules(directory, options.study, required=earlier is None)
    for records in (run, earlier):
        if records is not None:
            check_against_study(records)
    context = Context(run, earlier, options.allow_different_data)
    return check(rules, context, on_inconclusive="pass" if options.on_inconclusive == "pass" else "fail")


def write_report(report: GateReport, options: GateOptions, *, title: str) -> str:
    """Write the files that were asked for; the text for the terminal."""
    if options.junit is not None:
        from harness.records import write_text_atomic
        from harness.report.gate_junit import gate_junit

        write_text_atomic(options.junit, gate_junit(report, title=title))
    if options.markdown is not None:
        from harness.report.gate_markdown import append_markdown, gate_markdown

        append_markdown(options.markdown, gate_markdown(report, title=title))
    if options.as_json:
        import json

        return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
    from harness.report.gate_terminal import gate_text

    return gate_text(report)


def read_rules(directory: Path, study: str | None, *, required: bool = True) -> tuple[GateRule, ...]:
    """The rules of a study file, or of the study that the run keeps beside its results.

    Raises:
        ConfigError: There is no study (and rules are `required`), or it is wrong.
    """
    from harness.study import load_study, parse_study

    if study is not None:
        return load_study(study).gates
    layout = Layout(directory if directory.is_dir() else directory.parent)
    if not layout.study.is_file():
        if not required:
            return ()
        raise ConfigError(f"{layout.root} holds no study.json; name the study with --study")
    body = read_json(layout.study).get("study")
    if not isinstance(body, dict):
        raise ConfigError(f"{layout.study} holds no study; name the study with --study")
    return parse_study(study_as_written(body), where=str(layout.study)).gates


def study_as_written(body: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved study as its file would say it: a checkpoint made elsewhere and an endpoint name no recipe."""
    variants = {
        name: {key: value for key, value in spec.items() if key != "recipe" or spec.get("from") is not None}
        for name, spec in dict(body.get("variants") or {}).items()
    }
    return {**body, "variants": variants}
