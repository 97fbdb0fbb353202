"""Two cells to pairs of rows, matched by the hash of the item; cells that measured different things are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.gate.result import InputError, MissingError
from harness.gate.rows import GateRow
from harness.gate.run_records import RunRecords

CellOf = tuple[RunRecords, str]
"""A run and the name of one of its variants."""


@dataclass(frozen=True, slots=True)
class RowPairs:
    """Rows of the same items, sorted by (seed, item id); `now[i]` and `base[i]` belong together.

    Attributes:
        now: the cell that is judged.
        base: the cell that it is held against.
        scores: primary scores of `now` and of `base`, [n] each.
        left_out: rows of either side without a partner.
    """

    now: tuple[GateRow, ...]
    base: tuple[GateRow, ...]
    scores: tuple[list[float], list[float]]
    left_out: int

    @property
    def clusters(self) -> list[str]:
        """Cluster label of each pair, [n]."""
        return [row.cluster for row in self.now]


def pair_cells(now: CellOf, base: CellOf, suite: str, *, allow_different: bool = False) -> RowPairs:
    """Pair two cells of a suite by (seed, item hash).

    Args:
        now: the cell that is judged.
        base: the cell that it is held against.
        suite: name of the suite in both runs.
        allow_different: pair what can be paired although suite version, items, prompts or chat template differ.

    Raises:
        MissingError: A cell is missing or incomplete, or no item is in both.
        InputError: The two did not measure the same, and `allow_different` is not set.
    """
    (run, variant), (other, partner) = now, base
    mine, theirs = run.cell(variant, suite).rows, other.cell(partner, suite).rows
    result, reference = run.require(variant, suite), other.require(partner, suite)
    if result.metric != reference.metric:
        raise InputError(f"{suite} is scored by {result.metric} here and by {reference.metric} there: not comparable")
    differs = None if allow_different else _differs(now, base, suite)
    if differs:
        raise InputError(
            f"{variant}.{suite}: {differs}; measure both with the same one, or compare all the same with "
            "--allow-different-data"
        )
    pairs = [(found, theirs[key]) for key, found in mine.items() if key in theirs]
    # Sorted, so that a seeded bootstrap does not depend on the order in which rows were written.
    pairs.sort(key=lambda pair: (pair[0].seed, pair[0].item_id))
    if not pairs:
        raise MissingError(f"{variant}.{suite}: the two runs share no item")
    return RowPairs(
        now=tuple(row for row, _ in pairs),
        base=tuple(row for _, row in pairs),
        scores=([row.score for row, _ in pairs], [row.score for _, row in pairs]),
        left_out=len(mine) + len(theirs) - 2 * len(pairs),
    )


def _differs(now: CellOf, base: CellOf, suite: str) -> str | None:
    """Say what the two cells do not have in common that decides a score; None where all of it is the same.

    More items now than then are no difference: those that are new stay out. Fewer are one, because the easy way to
    hide a loss is to leave items away.
    """
    (run, variant), (other, partner) = now, base
    a, b = run.require(variant, suite), other.require(partner, suite)
    if (a.suite_hash, a.preset) != (b.suite_hash, b.preset):
        return (
            f"the suite differs (version {b.suite_hash[:12]}, preset {b.preset}; here {a.suite_hash[:12]}, {a.preset})"
        )
    mine, theirs = run.cell(variant, suite).rows, other.cell(partner, suite).rows
    absent = sum(key not in mine for key in theirs)
    if absent:
        return f"the data differs ({absent} of {len(theirs)} items are not the same here)"
    changed = sum(mine[key].prompt_hash != row.prompt_hash for key, row in theirs.items())
    if changed:
        return f"the prompts differ ({changed} of {len(theirs)}: other wording or worked examples)"
    return _template_differs(run.cell_key(variant, suite), other.cell_key(partner, suite))


def _template_differs(mine: dict[str, object] | None, theirs: dict[str, object] | None) -> str | None:
    """Compare the hashes of the models' chat templates, where both runs keep them (records/cells)."""
    if mine is None or theirs is None:
        return None
    same = mine.get("chat_template_sha256") == theirs.get("chat_template_sha256")
    return None if same else "the chat template differs"


def same_answer(a: GateRow, b: GateRow) -> bool:
    """Tell whether two rows hold the same answer; an item that failed has none and equals nothing."""
    return "error" not in (a.status, b.status) and a.status == b.status and a.outputs == b.outputs


def ids(rows: Sequence[GateRow]) -> tuple[str, ...]:
    """Ids of the rows' items, with the seed where there are several."""
    several = len({row.seed for row in rows}) > 1
    return tuple(f"{row.item_id} (seed {row.seed})" if several else row.item_id for row in rows)
