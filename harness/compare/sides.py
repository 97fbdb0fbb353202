"""What the two arguments of `compare` mean: runs, variants, or both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.gate.run_records import RunRecords, open_run


@dataclass(frozen=True, slots=True)
class Side:
    """One variant of one run."""

    run: RunRecords
    variant: str


def pair_sides(a: str, b: str) -> tuple[list[tuple[Side, Side]], list[str]]:
    """The pairs of variants that `compare A B` speaks of, A's side first, and notes on what was left out.

    Args:
        a: `RUN` or `RUN:VARIANT`; a run is its folder or its `summary.json`.
        b: the same, or the name of a variant of A's run. A alone names the run of it: then the variant is compared
            with its baseline.

    Raises:
        ConfigError: An argument is none of these, or there is nothing to pair.
        CorruptRecordError: A record is damaged.
    """
    where, left = _split(a)
    if where is None:
        raise ConfigError(f"{a!r} is no run: give its folder, or FOLDER:VARIANT")
    run = open_run(where)
    other_where, right = _split(b)
    if other_where is None:
        return [_within(run, left, b)], []
    other = run if other_where == where else open_run(other_where)
    if left is None and right is None:
        return _common(run, other)
    left, right = left or right, right or left
    assert left is not None and right is not None
    if other is run and left == right:
        raise ConfigError(f"{a} and {b} are the same variant: name two")
    return [(Side(run, _known(run, left)), Side(other, _known(other, right)))], []


def _split(text: str) -> tuple[Path | None, str | None]:
    """`RUN` or `RUN:VARIANT`; no path where it is neither. A folder that holds no run may share a variant's name."""
    path = Path(text)
    if path.is_file() or (path.is_dir() and ((path / "summary.json").is_file() or "/" in text)):
        return path, None
    before, colon, after = text.rpartition(":")
    if colon and after and Path(before).exists():
        return Path(before), after
    return None, None


def _within(run: RunRecords, left: str | None, right: str) -> tuple[Side, Side]:
    variant = _known(run, right)
    summary = run.summary.variant(variant)
    base = left if left is not None else summary.baseline if summary is not None else None
    if base is None:
        raise ConfigError(f"{variant} has no baseline in {run.where}: name what it is compared with, as RUN:VARIANT")
    if base == variant:
        raise ConfigError(f"{variant} is compared with itself: name two variants")
    return Side(run, _known(run, base)), Side(run, variant)


def _known(run: RunRecords, variant: str) -> str:
    if run.summary.variant(variant) is None:
        names = ", ".join(entry.name for entry in run.summary.variants) or "none"
        raise ConfigError(f"{variant!r} is neither a run nor a variant of {run.where}, which has {names}")
    return variant


def _common(run: RunRecords, other: RunRecords) -> tuple[list[tuple[Side, Side]], list[str]]:
    if other is run:
        raise ConfigError(f"both arguments are the run {run.where}: name two runs, or two variants as RUN:VARIANT")
    mine = [entry.name for entry in run.summary.variants]
    theirs = [entry.name for entry in other.summary.variants]
    common = [name for name in mine if name in theirs]
    if not common:
        raise ConfigError(
            f"{run.where} and {other.where} share no variant name: name the two to compare, as RUN:VARIANT"
        )
    notes = [f"{name} is only in {run.where}" for name in mine if name not in theirs]
    notes += [f"{name} is only in {other.where}" for name in theirs if name not in mine]
    return [(Side(run, name), Side(other, name)) for name in common], notes
