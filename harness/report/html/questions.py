"""What was asked: the items of the study's suites, where their data is at hand and is the data that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.html.rows import Grid
from harness.report.html.source import Source

_ASKED = ("turns", "question", "prompt", "article", "document", "instruction", "query", "goal", "ctx", "sentence")
_EXPECTED = (
    "reference",
    "answer",
    "highlights",
    "summary",
    "canonical_solution",
    "instruction_id_list",
    "label",
    "gold",
)


@dataclass(frozen=True, slots=True)
class Question:
    """One item.

    Attributes:
        asked: the texts that were asked, one a turn.
        expected: the reference answer, as the data gives it; empty where it has none.
        template: the template that the item comes from; empty for real data.
        difficulty: 1 to 4; None for real data.
    """

    asked: tuple[str, ...]
    expected: str
    template: str
    difficulty: int | None


def read_questions(source: Source, grid: Grid) -> tuple[dict[str, list[Question | None]], dict[str, str]]:
    """By suite the question of each item (None where it is not in the data), and why a suite has none."""
    found: dict[str, list[Question | None]] = {}
    absent: dict[str, str] = {}
    for suite, keys in grid.items.items():
        rows = [grid.first[suite][key] for key in keys]
        try:
            known = _load(source, suite, rows[0].preset, rows[0].suite_hash, len(rows))
        except Exception as error:  # noqa: BLE001 (data sets are read by many libraries; the report stands without them)
            absent[suite] = (str(error).splitlines() or [type(error).__name__])[0]
            continue
        asked = [known.get(row.item_hash) for row in rows]
        found[suite] = asked
        if not any(asked):
            absent[suite] = "the data here is not the data that was measured"
    return found, absent


def _load(source: Source, suite: str, preset: str, wanted: str, count: int) -> Mapping[str, Question]:
    from suites.data import data_file, load_items
    from suites.errors import DataMissingError
    from suites.registry import load_suite, suite_hash

    chosen = load_suite(suite)
    if suite_hash(chosen, preset) != wanted:
        raise DataMissingError("measured with another version of the suite than this sparsebench has")
    if chosen.preset(preset).data != "pocket" and data_file(chosen, preset, source.data_dir) is None:
        # A report never uses the network.
        raise DataMissingError("real data: name its folder with --data-dir")
    items = load_items(chosen, preset, n=count, data_dir=source.data_dir)
    return {
        item.item_hash: Question(_asked(item.doc), _expected(item.doc), item.template or "", item.difficulty)
        for item in items
    }


def _asked(doc: Mapping[str, Any]) -> tuple[str, ...]:
    value = next((doc[name] for name in _ASKED if doc.get(name)), "")
    return tuple(map(str, value)) if _is_list(value) else (str(value),)


def _expected(doc: Mapping[str, Any]) -> str:
    value = next((doc[name] for name in _EXPECTED if doc.get(name) not in (None, "", [])), "")
    return "\n".join(map(str, value)) if _is_list(value) else str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
