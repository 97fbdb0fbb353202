"""From the options of `run` and `eval` to a finished study and its leaderboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def data_kind(data: str, data_dir: Path | None) -> str:
    """Pocket or full, which a folder of data files means."""
    from harness.errors import ConfigError

    if data not in ("pocket", "full"):
        raise ConfigError(f"--data is pocket or full, not {data!r}")
    return "full" if data_dir is not None else data


def preset_of(suite: Any, kind: str) -> str:
    """The first preset of a suite on pocket or full data."""
    from harness.errors import ConfigError

    kinds = {preset.data for preset in suite.presets.values()}
    # Of suites without bundled items the real ones are meant.
    wanted = kind if len(kinds) > 1 or "full" not in kinds else "full"
    found = next((name for name, preset in suite.presets.items() if preset.data == wanted), None)
    if found is None:
        raise ConfigError(f"suite {suite.name} has no preset on {kind} data; choose one of {', '.join(suite.presets)}")
    return str(found)


def with_options(study: Any, kind: str, n: int | None, engine: str | None) -> Any:
    """The study with another kind of data, number of items or engine, as if its file said so."""
    from harness.study import parse_study
    from suites.registry import load_suite

    body = study.resolved()
    for name, spec in body["suites"].items():
        suite = load_suite(name)
        if kind == "full" and suite.preset(spec["preset"]).data != "full":
            spec["preset"] = preset_of(suite, "full")
        if n is not None:
            spec["n"] = n
    if engine is not None:
        same = engine in ("torch", "sparse", "auto") and body["engine"]["name"] in ("torch", "sparse", "auto")
        body["engine"] = {**(body["engine"] if same else {}), "name": engine}
    for variant in body["variants"].values():
        if variant["from"] is None:
            variant.pop("recipe")
    return parse_study(body, where=study.name)


def run_options(
    data_dir: Path | None, jobs: int, device: str, offline: bool, quiet: bool, ray: str | None = None
) -> Any:
    """What `harness.run.run_study` is told beside the study."""
    from harness.errors import ConfigError
    from harness.run import RunOptions

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda, not {device!r}")
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    if ray is not None and data_dir is not None:
        data_dir = data_dir.resolve()
    return RunOptions(data_dir=data_dir, jobs=jobs, device=device, offline=offline, quiet=quiet, ray=ray)


def run_and_show(study: Any, out: Path, options: Any, *, dry_run: bool = False) -> None:
    """Run a study, or show its plan, and print its leaderboard.

    Started by torchrun, rank 0 does this, and the other processes take part in the stages that train.
    """
    from dataclasses import replace

    from harness.making import check_trains, crew_of, leads
    from sparsify.train.launch import launched

    if launched():
        check_trains(study)
    if dry_run:
        if leads():
            _show_plan(study, out, options)
    elif launched():
        with crew_of(options.device) as release:
            if release is not None:
                _run_and_show(study, out, replace(options, release=release))
    else:
        _run_and_show(study, out, options)


def _show_plan(study: Any, out: Path, options: Any) -> None:
    from harness.dry_run import plan_text

    print(plan_text(study, out, options), end="")


def _run_and_show(study: Any, out: Path, options: Any) -> None:
    from harness.run import run_study

    if not options.quiet:
        from harness.dry_run import unpinned

        for warning in unpinned(study):
            say(f"warning: {warning}")
    result = run_study(study, out, options)
    if options.quiet:
        return
    from rich.console import Console

    from harness.report.terminal import leaderboard_table

    console = Console()
    console.print(leaderboard_table(result.summary, width=console.width))
    spent = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in result.timings.items())
    told = f"time: {spent}" if result.did else f"nothing was missing; what is there took: {spent}"
    console.print(told, highlight=False)
    console.print(
        f"{out}/leaderboard.md, {out}/recovery.md, {out}/recovery.html, {out}/summary.json",
        highlight=False,
        soft_wrap=True,
    )


def say(message: str) -> None:
    """One line on standard error, with the rank of a process that torchrun started."""
    rank = os.environ.get("RANK", "0")
    which = f"rank {rank}: " if rank != "0" else ""
    print(f"sparsebench: {which}{message}", file=sys.stderr)
