"""From a panel's raw turns to its numbers: medians, rates, the panel's read bandwidth, ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.bench.clock import Ratio, speed_ratio

READER = "reader:read"
RESTLESS = 0.15
"""How far the read bandwidth may move between blocks before a panel is called restless."""
STOLEN = 0.01
"""Share of the cores' time that other guests of the hypervisor may take before it is."""


@dataclass(frozen=True)
class Row:
    """One engine in one panel.

    Attributes:
        variant: Its name.
        seconds: Median over blocks of the median step; None where it failed.
        spread: Smallest and largest block median.
        tokens_per_s: None for linears alone, whose step is no token.
        rate: Weight bytes per second of the median, in 1e9; None where nobody knows how the engine stores them.
        share: Of the panel's read bandwidth; None likewise.
        megabytes: Of weights that a step reads; None likewise.
        huge: Share of resident memory in huge pages; None where unknown.
        parts: Seconds of a step's matrices, attention, the rest and waiting, by the engine's own clock; and its head's.
        error: Why it has no numbers.
        notes: What it says about itself.
    """

    variant: str
    seconds: float | None
    spread: tuple[float, float] | None = None
    tokens_per_s: float | None = None
    rate: float | None = None
    share: float | None = None
    megabytes: float | None = None
    huge: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A measured panel.

    Attributes:
        line: Its line of the journal.
        blocks: By variant, median step of every block in seconds.
        bandwidth: Read bandwidth in 1e9 bytes per second: the best of the reader's median and every engine's.
        best: Who achieved it.
        reader: The reader's median and its best pass.
        moved: How far the reader's block medians lie apart, as a share of the largest: the machine's unrest.
        rows: One per variant.
    """

    line: Mapping[str, Any]
    blocks: Mapping[str, Sequence[float]]
    bandwidth: float | None
    best: str
    reader: tuple[float, float] | None
    moved: float | None
    rows: tuple[Row, ...]

    @property
    def unrest(self) -> tuple[str, ...]:
        """Why it should be measured again; empty where nothing disturbed it."""
        why = []
        if self.moved is not None and self.moved > RESTLESS:
            why.append(f"the reader moved by {self.moved:.0%} between blocks")
        steal = self.line["activity"]["steal"]
        if steal is not None and steal > STOLEN:
            why.append(f"{steal:.1%} of the cores' time was stolen")
        return tuple(why)

    def row(self, variant: str) -> Row | None:
        """A variant's row, if it has numbers."""
        return next((row for row in self.rows if row.variant == variant and row.seconds is not None), None)

    def ratio(self, slow: str, fast: str) -> Ratio | None:
        """How many times faster `fast` is than `slow`: ratio of medians, bootstrap over the blocks."""
        if self.row(slow) is None or self.row(fast) is None:
            return None
        both = min(len(self.blocks[slow]), len(self.blocks[fast]))
        return speed_ratio(self.blocks[slow][:both], self.blocks[fast][:both], seed=0)


def panels_of(lines: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """The last finished run of every panel, in the order in which they were first measured."""
    turns: dict[int, list[Mapping[str, Any]]] = {}
    last: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for line in lines:
        if line["kind"] == "turn":
            turns.setdefault(line["run"], []).append(line)
        elif line["kind"] == "panel":
            last[tuple(line[name] for name in ("shape", "group", "threads", "workload"))] = line
    return [panel_of(line, turns.get(line["run"], [])) for line in last.values()]


def panel_of(line: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> Panel:
    """The numbers of one run."""
    told = line["told"]
    by_block: dict[str, dict[int, list[float]]] = {}
    for turn in turns:
        by_block.setdefault(turn["variant"], {}).setdefault(turn["block"], []).extend(turn["seconds"])
    good = {name: [statistics.median(each) for each in blocks.values()] for name, blocks in by_block.items()}
    good = {name: blocks for name, blocks in good.items() if not told.get(name, {}).get("error")}
    rates = {
        name: told[name]["bytes"] / statistics.median(blocks) / 1e9
        for name, blocks in good.items()
        if told[name]["bytes"] is not None
    }
    reads = line["workload"].startswith("decode")
    best = max(rates, key=lambda name: rates[name]) if rates and reads else ""
    bandwidth = rates[best] if best else None
    passes = [value for each in by_block.get(READER, {}).values() for value in each]
    reader = moved = None
    if READER in good:
        reader = (rates[READER], told[READER]["bytes"] / min(passes) / 1e9)
        moved = 1 - min(good[READER]) / max(good[READER])
    rows = []
    for name, known in told.items():
        if name == READER:
            continue
        if name not in good:
            rows.append(Row(name, None, error=known.get("error", "not measured"), notes=_notes(known)))
            continue
        seconds = statistics.median(good[name])
        whole = not name.startswith("kernels")
        rows.append(
            Row(
                name,
                seconds,
                spread=(min(good[name]), max(good[name])),
                tokens_per_s=line["tokens"] / seconds if whole else None,
                rate=rates.get(name) if reads else None,
                share=rates[name] / bandwidth if bandwidth and name in rates else None,
                megabytes=known["bytes"] / 1e6 if name in rates else None,
                huge=known["huge_mb"] / known["rss_mb"] if known.get("rss_mb") else None,
                parts=known.get("parts", {}),
                notes=_notes(known),
            )
        )
    return Panel(line, good, bandwidth, best, reader, moved, tuple(rows))


def _notes(known: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(known.get("notes", ()))
