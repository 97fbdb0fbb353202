"""Where a run keeps what: every path below the output folder, in one place."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, CorruptRecordError, InfrastructureError
from harness.records import write_json_atomic
from harness.study import Study


@dataclass(frozen=True)
class Layout:
    """The folders of one run."""

    root: Path

    @property
    def study(self) -> Path:
        """The resolved study and its hash; made first, so that a folder never mixes two studies."""
        return self.root / "study.json"

    @property
    def store(self) -> Path:
        """Finished and unfinished stages of recipes."""
        return self.root / "stages"

    @property
    def corpora(self) -> Path:
        """Training text that recipes name as `suite:...`."""
        return self.root / "corpora"

    @property
    def speed(self) -> Path:
        """Raw records of speed panels."""
        return self.root / "records" / "speed"

    @property
    def verdicts(self) -> Path:
        """What the sandbox said of each generated program."""
        return self.root / "records" / "verdicts"

    @property
    def summary(self) -> Path:
        """The contract: `summary.json`."""
        return self.root / "summary.json"

    @property
    def timings(self) -> Path:
        """Seconds spent on making, evaluating, speed and reports."""
        return self.root / "timings.json"

    def variant(self, name: str) -> Path:
        """The directory of a variant."""
        return self.root / "variants" / name

    def journal(self, variant: str, suite: str) -> Path:
        """What a cell has generated, row by row."""
        return self.root / "journal" / f"{variant}.{suite}.jsonl"

    def samples(self, variant: str, suite: str) -> Path:
        """The scored rows of a cell."""
        return self.root / "records" / "samples" / f"{variant}.{suite}.jsonl"

    def cell(self, variant: str, suite: str) -> Path:
        """The state of a cell; written last, so that it stands for a complete cell."""
        return self.root / "records" / "cells" / f"{variant}.{suite}.json"

    def distance(self, variant: str, what: str = "baseline") -> Path:
        """The distance of a variant to its `baseline`, or its greedy `continuations`."""
        return self.root / "records" / "distance" / f"{variant}.{what}.json"

    def distance_journal(self, variant: str, what: str) -> Path:
        """What was measured for that so far."""
        return self.root / "journal" / "distance" / f"{variant}.{what}.jsonl"

    @contextmanager
    def claimed(self, study: Study) -> Iterator[None]:
        """Hold the folder for this process and make sure that it belongs to this study.

        Raises:
            ConfigError: Another run holds it, it holds another study, or files that no study wrote.
            InfrastructureError: It cannot be written.
        """
        try:
            foreign = self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir()))
            if foreign and not self.study.is_file() and not (self.root / ".lock").is_file():
                raise ConfigError(f"{self.root} exists and is no sparsebench run; choose another --out")
            self.root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InfrastructureError(f"cannot write {self.root}: {error.strerror}; choose another --out") from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"another run is using {self.root}; wait for it or choose another --out") from None
            self._check_study(study)
            yield
        finally:
            os.close(lock)

    def _check_study(self, study: Study) -> None:
        if self.study.is_file():
            found = read_json(self.study)
            if found.get("hash") != study.hash:
                raise ConfigError(
                    f"{self.root} holds another study ({found.get('study', {}).get('name', 'unknown')}, "
                    f"or other settings of it); choose another --out"
                )
        write_json_atomic(self.study, {"hash": study.hash, "study": study.resolved()})


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of ours.

    Raises:
        CorruptRecordError: It is damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptRecordError(f"{path} is damaged ({error}); delete it and run again") from None
    if not isinstance(data, dict):
        raise CorruptRecordError(f"{path} is damaged (not a JSON object); delete it and run again")
    return data
