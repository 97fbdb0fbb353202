"""Rank groups: what the data can tell apart, instead of an order that the next run would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.stats.decisions import holm

ALPHA = 0.05
"""Chance that any two equal entries of a column are told apart."""
MAX_GROUPS = 400
"""Overlapping groups beyond which letters would help nobody."""
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranks and groups of K entries.

    Attributes:
        ranks: 1 + the number of entries that are significantly better, [K].
        letters: compact letter display, [K]: two entries share a letter exactly if no difference between them is
            shown. None where the groups overlap in more than MAX_GROUPS ways.
        apart: pairs (better, worse) that are told apart.
        adjusted: Holm's adjusted p-value of every pair (i, j), i < j.
    """

    ranks: tuple[int, ...]
    letters: tuple[str, ...] | None
    apart: frozenset[Pair]
    adjusted: Mapping[Pair, float]


def rank_groups(values: Sequence[float], p_values: Mapping[Pair, float], *, alpha: float = ALPHA) -> Ranking:
    """Rank entries by what their pairwise tests show.

    Args:
        values: Score of each entry, [K]; higher is better.
        p_values: Two-sided p-value of every pair (i, j), i < j.
        alpha: Family-wise error rate over all pairs.

    The p-values are adjusted by Holm (1979), so the chance that any pair of equal entries is told apart is at most
    `alpha`, whatever the dependence between tests that share entries and items. A rank r therefore says "r - 1 entries
    are shown to be better", and all such statements of a column hold together with probability 1 - `alpha`.
    The letters are Piepho's (2004, J. Comput. Graph. Stat. 13:456) insert-and-absorb display of the same tests.
    Raises ValueError where a pair has no p-value.
    """
    pairs = [(i, j) for i in range(len(values)) for j in range(i + 1, len(values))]
    missing = next((pair for pair in pairs if pair not in p_values), None)
    if missing is not None:
        raise ValueError(f"no p-value for the pair {missing}")
    by_name = {f"{i} {j}": (i, j) for i, j in pairs}
    found = holm({name: p_values[pair] for name, pair in by_name.items()})
    adjusted = {by_name[name]: p for name, p in found.items()}
    apart = frozenset(
        (i, j) if values[i] > values[j] else (j, i)
        for (i, j), p in adjusted.items()
        if p <= alpha and values[i] != values[j]
    )
    ranks = [1] * len(values)
    for _, worse in apart:
        ranks[worse] += 1
    return Ranking(tuple(ranks), _letters(values, apart), apart, adjusted)


def _letters(values: Sequence[float], apart: frozenset[Pair]) -> tuple[str, ...] | None:
    groups = [frozenset(range(len(values)))]
    for pair in sorted(apart):
        split = [group for group in groups if group.issuperset(pair)]
        if not split:
            continue
        halves = {group - {entry} for group in split for entry in pair}
        kept = [group for group in groups if not group.issuperset(pair)]
        new = [half for half in halves if not any(half < other for other in halves) and not _inside(half, kept)]
        groups = kept + new
        if len(groups) > MAX_GROUPS:
            return None
    # `a` is the group that reaches highest; ties by the members, so that the letters do not depend on the order.
    groups.sort(key=lambda group: (sorted(-values[i] for i in group), sorted(group)))
    names = [letter(number) for number in range(len(groups))]
    return tuple("".join(names[g] for g, group in enumerate(groups) if i in group) for i in range(len(values)))


def _inside(group: frozenset[int], others: Sequence[frozenset[int]]) -> bool:
    return any(group <= other for other in others)


def letter(number: int) -> str:
    """The name of the group with this number: a, b, ..., z, then a1, b1, ..."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
