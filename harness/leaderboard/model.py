"""What a leaderboard is made of: sources, rows, cells, and the columns that say by which protocol a number was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Origin = Literal["sparsebench", "lm-eval"]
Floats = NDArray[np.float64]
ItemKey = tuple[int, str, int]
"""Seed, hash of the item, and its number where the data hold it several times."""
Other = tuple[str, float | None, float | None, str]
ITEMS_UNKNOWN = "not recorded"


@dataclass(frozen=True, slots=True)
class Source:
    """One record file.

    Attributes:
        label: short name in tables; that of the given path, with a hash where two share it.
        file: the file, relative to the path that was given.
        sha256: of the file's bytes.
        origin: who wrote it.
    """

    label: str
    file: str
    sha256: str
    origin: Origin


@dataclass(frozen=True)
class Protocol:
    """All that decides what a score means; scores of different protocols never share a column.

    Attributes:
        suite: name of the suite, or of lm-eval's task.
        metric: the metric, with lm-eval's filter after a comma.
        origin: whose code asked and scored.
        settings: further settings as (name, value), sorted: preset, suite hash, items, shots, chat template, ...
        higher_is_better: direction of the metric.
    """

    suite: str
    metric: str
    origin: Origin
    settings: tuple[tuple[str, str], ...]
    higher_is_better: bool = True

    @cached_property
    def id(self) -> str:
        """Short name that is the same wherever the protocol is: `suite:metric@hash`."""
        told = json.dumps([self.suite, self.metric, self.origin, self.settings, self.higher_is_better])
        return f"{self.suite}:{self.metric}@{hashlib.sha256(told.encode()).hexdigest()[:8]}"

    def setting(self, name: str) -> str | None:
        """One of the settings."""
        return dict(self.settings).get(name)

    def changed(self, **settings: str) -> Protocol:
        """The protocol with other settings."""
        new = tuple(sorted({**dict(self.settings), **settings}.items()))
        return Protocol(self.suite, self.metric, self.origin, new, self.higher_is_better)

    def told(self) -> str:
        """The protocol in words."""
        parts = [f"{name} {value[:12] if name.endswith('hash') else value}" for name, value in self.settings]
        return f"{self.origin}: {self.suite}, {self.metric}; {', '.join(parts)}"


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Item by item scores, in the order of their sorted keys, [n] each."""

    keys: tuple[ItemKey, ...]
    values: Floats
    clusters: tuple[str, ...]

    def digest(self) -> str:
        """Hash of the items, whoever answered them."""
        return hashlib.sha256(json.dumps(self.keys).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One score of one model.

    Attributes:
        value: None where there is none; then `note` says why.
        n: items that it rests on.
        n_total: items planned.
        where: JSON pointer of the value in its source.
        scores: item by item, where samples are there; without them a comparison is unpaired.
        unpaired: why there are no `scores`.
        complete: whether it may be ranked: all planned items are scored.
        answers: which items were not answered as planned.
        others: further metrics of the same answers, (name, value, standard error, JSON pointer).
    """

    value: float | None
    n: int
    n_total: int
    se: float | None
    ci95: tuple[float, float] | None
    method: str
    where: str
    note: str | None = None
    scores: Scores | None = None
    unpaired: str | None = None
    complete: bool = True
    answers: str | None = None
    others: tuple[Other, ...] = ()


@dataclass(frozen=True, order=True)
class Panel:
    """One speed panel on one engine. Ratios of one panel may be compared with each other, and with nothing else.

    `record` is the hash of the record: a second run of a study on the same machine is another panel.
    """

    study: str
    study_hash: str
    record: str
    host: str
    panel: str
    workload: str
    engine: str
    dtype: str
    context: int
    batch: int
    threads: str
    baseline: str

    @property
    def group(self) -> tuple[str, ...]:
        """What all engines of the panel share."""
        return (self.study, self.study_hash, self.record, self.host, self.panel, self.baseline)

    def told(self) -> str:
        """The panel in words."""
        return (
            f"{self.workload} on {self.engine} ({self.dtype}), panel {self.panel} of study {self.study} "
            f"{self.study_hash[:8]}: context {self.context}, batch {self.batch}, threads {self.threads}; "
            f"× {self.baseline}; on {self.host}"
        )


@dataclass(frozen=True, slots=True)
class Speed:
    """One speed ratio of one model, and the row of which source it is."""

    ratio: float | None
    ci95: tuple[float, float] | None
    tokens_per_s: float | None
    noise_floor: float | None
    verdict: str | None
    note: str | None
    where: str
    source: Source


@dataclass(frozen=True, slots=True)
class Recovery:
    """Mean recovery as its study has it, against its study's own baseline."""

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    baseline: str | None
    note: str | None
    where: str


@dataclass(frozen=True, eq=False)
class Row:
    """One model of one record: what it is, what it scores, how fast it is, and where all of that is written."""

    source: Source
    variant: str
    study: str
    study_hash: str | None
    base: str
    where: str
    command: str
    environment: tuple[tuple[str, str], ...]
    cells: Mapping[Protocol, Cell]
    speeds: Mapping[Panel, Speed] = field(default_factory=dict)
    recovery: Recovery | None = None
    recipe: str | None = None
    recipe_hash: str | None = None
    sparsity: float | None = None
    weight_bits: int | None = None
    dtype: str | None = None
    bytes: int | None = None
    parameters: int | None = None
    weights_sha256: str | None = None
    revision: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        """Short name that is the same wherever the record is given."""
        return hashlib.sha256(f"{self.source.sha256} {self.where}".encode()).hexdigest()[:10]

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts rows, however their records were given."""
        return (self.study, self.variant, self.study_hash or "", self.source.sha256, self.where)


@dataclass(frozen=True, slots=True, order=True)
class LeftOut:
    """Something that was given and is not in a table, and why."""

    source: str
    what: str
    reason: str
