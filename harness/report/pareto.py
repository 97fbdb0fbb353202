"""The Pareto front: what nothing else beats in both directions."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats, from left to right; more is better on both axes.

    A point is beaten by one that is at least as good on both axes and better on one. Equal points are all kept.
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    best: tuple[float, float] | None = None
    for i in order:
        if best is None or points[i][1] > best[1] or points[i] == best:
            front.append(i)
            best = points[i]
    return front[::-1]
