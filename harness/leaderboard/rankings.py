"""Ranks of the entries of one column, or of a board's mean score: tests of every pair, then groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.leaderboard.model import Cell, Floats, Protocol, Row
from harness.stats import Estimate, mean_of_recoveries
from harness.stats.clusters import group, mean_variance
from harness.stats.estimate import Z95
from harness.stats.ranking import Ranking, rank_groups
from harness.stats.sign_flip import sign_flip_p

METHOD = (
    "Rank r: r - 1 entries are shown to be better. Two entries share a letter where no difference between them is "
    "shown. Every pair of a column is tested, by item where both have sample rows (two-sided sign-flip test; whole "
    "clusters flipped), else by a z test of the two standard errors, which takes the items as unrelated and says less; "
    "p-values by Holm's correction over all pairs of the column, the mean being a column of its own: the chance that "
    "any two equal entries of a column are told apart is at most 5 %. The test takes equal entries as interchangeable: "
    "where one has rare large losses that few clusters hardly show, it errs more often (by simulation about 9 % with "
    "30 clusters, 7 % with 50, 5 % with 100 or more)."
)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ranks of a column.

    Attributes:
        ranks: rank by the row's id.
        letters: letters of groups by the row's id; empty where there are too many groups.
        unranked: why a row has no rank, by its id.
        n_pairs: pairs tested.
        n_unpaired: of those, tested without items.
        n_clusters: groups of related items of a column; None where items stand alone or are not known.
    """

    ranks: Mapping[str, int]
    letters: Mapping[str, str]
    unranked: Mapping[str, str]
    n_pairs: int = 0
    n_unpaired: int = 0
    n_clusters: int | None = None


def rank_column(rows: Sequence[Row], protocol: Protocol) -> Ranked:
    """Rank the rows that have a score by this protocol."""
    unranked = {}
    eligible: list[tuple[Row, Cell]] = []
    for row in rows:
        cell = row.cells.get(protocol)
        if cell is None:
            continue
        why = _cannot_rank(cell)
        if why:
            unranked[row.id] = why
        else:
            eligible.append((row, cell))
    sign = 1.0 if protocol.higher_is_better else -1.0
    values = [sign * float(cell.value or 0.0) for _, cell in eligible]
    sums = _cluster_sums([cell for _, cell in eligible])
    p_values, unpaired = {}, 0
    for i in range(len(eligible)):
        for j in range(i + 1, len(eligible)):
            a, b = sums[i], sums[j]
            if a is not None and b is not None:
                p_values[i, j] = sign_flip_p(a - b)
            else:
                unpaired += 1
                p_values[i, j] = _z_p(values[i] - values[j], _variance(eligible[i][1]) + _variance(eligible[j][1]))
    found = _ranked([row for row, _ in eligible], rank_groups(values, p_values), unranked, unpaired)
    sizes = {one.size for one in sums if one is not None}
    n_clusters = min(sizes) if sizes and min(sizes) < eligible[0][1].n else None
    return replace(found, n_clusters=n_clusters)


def rank_mean(rows: Sequence[Row], columns: Sequence[Protocol]) -> tuple[Ranked, dict[str, Estimate]]:
    """Rank the rows by the plain mean of their scores in all `columns`, and give the means.

    A row without one of the scores has no mean: a mean over fewer suites is another quantity.
    """
    unranked: dict[str, str] = {}
    eligible: list[tuple[Row, list[Cell]]] = []
    for row in rows:
        cells = [row.cells.get(column) for column in columns]
        whys = [
            f"{column.suite}: {'not measured' if cell is None else _cannot_rank(cell)}"
            for column, cell in zip(columns, cells, strict=True)
            if cell is None or _cannot_rank(cell)
        ]
        if whys:
            unranked[row.id] = "no mean: " + "; ".join(whys)
        else:
            eligible.append((row, [cell for cell in cells if cell is not None]))
    means = {
        row.id: mean_of_recoveries(
            {
                str(place): Estimate(cell.value, cell.n, cell.se, _limits(cell), cell.method)
                for place, cell in enumerate(cells)
            }
        )
        for row, cells in eligible
    }
    by_column = [_cluster_sums([cells[c] for _, cells in eligible]) for c in range(len(columns))]
    variances = [[_variance(cell) for cell in cells] for _, cells in eligible]
    values = [float(means[row.id].value or 0.0) for row, _ in eligible]
    p_values, unpaired = {}, 0
    for i in range(len(eligible)):
        for j in range(i + 1, len(eligible)):
            parts, variance = [], 0.0
            for c, column in enumerate(by_column):
                a, b = column[i], column[j]
                n = eligible[i][1][c].n
                if a is not None and b is not None:
                    parts.append((a - b) / n)
                    continue
                variance += variances[i][c] + variances[j][c]
            if len(parts) == len(by_column):
                p_values[i, j] = sign_flip_p(np.concatenate(parts))
            else:
                unpaired += 1
                variance += sum(_sum_variance(part) for part in parts)
                p_values[i, j] = _z_p((values[i] - values[j]) * len(columns), variance)
    return _ranked([row for row, _ in eligible], rank_groups(values, p_values), unranked, unpaired), means


def _ranked(rows: Sequence[Row], found: Ranking, unranked: Mapping[str, str], unpaired: int) -> Ranked:
    letters = found.letters or ("",) * len(rows)
    return Ranked(
        ranks={row.id: rank for row, rank in zip(rows, found.ranks, strict=True)},
        letters={row.id: told for row, told in zip(rows, letters, strict=True)},
        unranked=unranked,
        n_pairs=len(found.adjusted),
        n_unpaired=unpaired,
    )


def _cannot_rank(cell: Cell) -> str | None:
    if cell.value is None:
        return cell.note or "no value"
    if not cell.complete:
        return f"incomplete: {cell.n} of {cell.n_total} items"
    if cell.scores is None and cell.se is None and cell.ci95 is None:
        return "no standard error"
    return None


def _limits(cell: Cell) -> tuple[float, float] | None:
    if cell.ci95 is not None or cell.value is None:
        return cell.ci95
    half = Z95 * math.sqrt(_variance(cell))
    return cell.value - half, cell.value + half


def _variance(cell: Cell) -> float:
    """Of the score; where no standard error is kept, from the wider side of its interval."""
    if cell.se is not None and cell.se > 0:
        return cell.se**2
    if cell.ci95 is not None and cell.value is not None:
        return (max(cell.ci95[1] - cell.value, cell.value - cell.ci95[0]) / Z95) ** 2
    if cell.scores is not None:
        grouped = group(len(cell.scores.keys), cell.scores.clusters)
        return mean_variance(cell.scores.values, grouped)
    return 0.0


def _cluster_sums(cells: Sequence[Cell]) -> list[Floats | None]:
    """Summed scores by cluster of the cells that have items; all of a column have the same items."""
    first = next((cell.scores for cell in cells if cell.scores is not None), None)
    if first is None:
        return [None] * len(cells)
    grouped = group(len(first.keys), first.clusters)
    sums: list[Floats | None] = []
    for cell in cells:
        same = cell.scores is not None and cell.scores.keys == first.keys
        sums.append(grouped.sums(cell.scores.values) if same and cell.scores is not None else None)
    return sums


def _sum_variance(sums: Floats) -> float:
    """Variance of a total of independent cluster sums."""
    count = sums.size
    return float(count / (count - 1) * np.square(sums - sums.mean()).sum()) if count > 1 else 0.0


def _z_p(difference: float, variance: float) -> float:
    if difference == 0:
        return 1.0
    return math.erfc(abs(difference) / math.sqrt(2 * variance)) if variance > 0 else 1.0
