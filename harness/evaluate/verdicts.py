"""Verdicts on generated programs, kept so that the same program is not run again for another variant of the study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness.errors import CorruptRecordError
from harness.evaluate.sandbox import Job, Sandbox, Verdict
from harness.records import write_json_atomic
from sparsify.progress import Progress

# What depends on the machine's load or memory is tried anew each time.
_UNSURE = ("timeout", "oom", "killed")


def verdict_key(job: Job, sandbox: Sandbox) -> str:
    """SHA-256 over all that a verdict follows from: problem, program, limits, and the sandbox with its Python."""
    parts = (asdict(job), asdict(sandbox.limits), asdict(sandbox.info))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class KnownVerdicts:
    """The verdicts of a study's finished code cells, one file a cell.

    Args:
        folder: Where the files are; all are read once, at the start.
        name: The cell whose file `run` writes.

    Raises:
        CorruptRecordError: A file is damaged.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Read what is there."""
        self._path = folder / f"{name}.json"
        self._known: dict[str, tuple[str, str]] = {}
        for path in sorted(folder.glob("*.json")):
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
                self._known.update({str(key): (str(status), str(detail)) for key, (status, detail) in data.items()})
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise CorruptRecordError(f"{path} is damaged ({error}); delete it and run again") from None

    def run(self, jobs: Sequence[Job], *, sandbox: Sandbox, progress: Progress | None = None) -> list[Verdict]:
        """Judge programs in the order given, running only those without a verdict, and keep the verdicts.

        A known verdict comes back with 0 seconds. Raises what `Sandbox.run` raises.
        """
        keys = [verdict_key(job, sandbox) for job in jobs]
        missing = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self._known}
        fresh = dict(zip(missing, sandbox.run(list(missing.values()), progress=progress), strict=True))
        verdicts = [fresh.get(key) or Verdict(*self._known[key], seconds=0.0) for key in keys]
        self._save(dict(zip(keys, verdicts, strict=True)))
        return verdicts

    def _save(self, verdicts: Mapping[str, Verdict]) -> None:
        sure = {key: (v.status, v.detail) for key, v in verdicts.items() if v.status not in _UNSURE}
        self._known.update(sure)
        write_json_atomic(self._path, {key: list(value) for key, value in sorted(sure.items())})
