"""What a stage is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsify.progress import NullProgress, Progress


@dataclass(frozen=True)
class Corpus:
    """A corpus file and the name that recipes call it by."""

    source: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class StageInput:
    """Where a stage reads and writes.

    Attributes:
        parent: Model directory that the stage starts from.
        base: Model directory that the whole recipe starts from.
        teacher: Model directory that stages with `teacher: given` learn from.
        dense: Model directory in front of the first slice or prune stage; None before that stage.
        out: Empty directory for the result; it is thrown away if the stage does not finish.
        work: Directory for what an interrupted stage continues from; it outlives the process.
        corpora: The corpora that the stage names.
        device: Where tensors are computed, such as `cpu` or `cuda`.
        progress: Told how far the stage is.
        teacher_device: Where a teacher runs; None = on `device`.
    """

    parent: Path
    base: Path
    teacher: Path | None
    out: Path
    work: Path
    corpora: Mapping[str, Corpus]
    device: str
    progress: Progress
    teacher_device: str | None = None
    dense: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Where it reads and writes, as JSON values, for a process that takes part."""
        paths = {name: str(getattr(self, name).absolute()) for name in ("parent", "base", "out", "work")}
        corpora = [[c.source, str(c.path.absolute()), c.sha256] for c in self.corpora.values()]
        taught = {
            name: path and str(path.absolute()) for name, path in (("teacher", self.teacher), ("dense", self.dense))
        }
        return {**paths, **taught, "teacher_device": self.teacher_device, "corpora": corpora}

    @classmethod
    def from_plain(cls, value: Mapping[str, Any], device: str) -> StageInput:
        """The inverse of `plain`, on the device of this process, without progress."""
        return cls(
            parent=Path(value["parent"]),
            base=Path(value["base"]),
            teacher=Path(value["teacher"]) if value["teacher"] else None,
            out=Path(value["out"]),
            work=Path(value["work"]),
            corpora={source: Corpus(source, Path(path), sha256) for source, path, sha256 in value["corpora"]},
            device=device,
            progress=NullProgress(),
            teacher_device=value["teacher_device"],
            dense=Path(value["dense"]) if value["dense"] else None,
        )


@dataclass(frozen=True)
class StageResult:
    """What a stage did, as plain JSON values.

    Attributes:
        stats: Numbers about the stage.
        events: Fall-backs and oddities: {kind, where, detail}.
        calibration: {source, sha256, samples, seq, seed} of each calibration.
        corpora: {source, sha256, tokens} of each training corpus.
    """

    stats: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, str]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)
    corpora: list[dict[str, Any]] = field(default_factory=list)


def event(kind: str, where: str, detail: str) -> dict[str, str]:
    """One event of a variant's record."""
    return {"kind": kind, "where": where, "detail": detail}
