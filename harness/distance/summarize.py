"""Journal rows of a pair of models to their distance, with intervals by document or window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.distance.maths import first_difference, survival
from harness.distance.passages import Encoded, Passage
from harness.schema.distance import ALL_TEXTS, DistanceResult, FirstToken, Measure, PositionShare, TextDistance
from harness.stats import Estimate, mean_ci, score_ci

_DIGITS = 6
_ONE = "one document, or one group of related ones, gives no interval"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """What was measured of two models.

    Attributes:
        baseline: Name of the dense model.
        engines: What ran the dense model and the variant, with dtype.
        new_tokens: Length of continuations at most.
        dense: Rows of `continue_greedily` by passage, of the dense model.
        variant: Those of the variant.
        logits: Rows of `compare_logits` by passage.
    """

    baseline: str
    engines: tuple[str, str]
    new_tokens: int
    dense: Mapping[str, Row]
    variant: Mapping[str, Row]
    logits: Mapping[str, Row]


def distance_result(pair: Pair, encoded: Encoded) -> DistanceResult:
    """The distance on each text, then on all together where there are several.

    Raises:
        KeyError: A passage has no row.
    """
    groups: dict[str, list[Passage]] = {}
    for passage in encoded.passages:
        groups.setdefault(passage.text, []).append(passage)
    if len(groups) > 1:
        groups[ALL_TEXTS] = list(encoded.passages)
    total = sum(encoded.left_out.values())
    return DistanceResult(
        baseline=pair.baseline,
        engine=pair.engines[1],
        baseline_engine=pair.engines[0],
        new_tokens=pair.new_tokens,
        texts=[
            _text(name, group, pair, total if name == ALL_TEXTS else encoded.left_out.get(name, 0))
            for name, group in groups.items()
        ],
    )


def _text(name: str, group: Sequence[Passage], pair: Pair, left_out: int) -> TextDistance:
    compared = [each for each in group if each.compared]
    agree = [[bit == "1" for bit in pair.logits[each.name]["agree"]] for each in compared]
    labels = [each.cluster for each, bits in zip(compared, agree, strict=True) for _ in bits]
    continued = [each for each in group if each.prompt]
    firsts = [first_difference(pair.dense[e.name]["tokens"], pair.variant[e.name]["tokens"]) for e in continued]
    clusters = [each.cluster for each in continued]
    return TextDistance(
        text=name,
        documents=len(compared),
        tokens=len(labels),
        top1=_measure(_share([bit for bits in agree for bit in bits], labels)),
        kl=_measure(_kl([(float(pair.logits[e.name]["nats"]), e.compared) for e in compared], labels)),
        prompts=len(continued),
        never=_measure(_share([first is None for first in firsts], clusters)),
        first_token=_median(firsts, clusters, pair.new_tokens),
        survival=[round(share, _DIGITS) for share in survival(firsts, pair.new_tokens)],
        agreement=_by_position(agree),
        left_out=left_out,
    )


def _share(found: Sequence[bool], clusters: Sequence[str]) -> Estimate:
    estimate = score_ci([float(each) for each in found], clusters)
    if len(set(clusters)) == 1:
        # Predictions of one text are related: taken alone they would promise too much.
        return replace(estimate, se=None, ci95=None, reason=_ONE)
    return estimate


def _kl(sums: Sequence[tuple[float, int]], labels: Sequence[str]) -> Estimate:
    """Mean over predictions: a document's sum is spread evenly over its own, which leaves clustered errors as they are.

    Valid because `labels` never part the predictions of one document.
    """
    estimate = mean_ci([total / count for total, count in sums for _ in range(count)], labels)
    if estimate.ci95 is None and estimate.value is not None:
        return replace(estimate, reason=_ONE if len(set(labels)) == 1 else "all documents are equally far")
    if estimate.ci95 is not None and estimate.ci95[0] < 0:
        return replace(estimate, ci95=(0.0, estimate.ci95[1]))
    return estimate


def _median(firsts: Sequence[int | None], clusters: Sequence[str], tokens: int) -> FirstToken:
    """Median of the first diverging token; its limits invert the intervals of the survival (Brookmeyer & Crowley)."""
    low = value = high = None
    for token in range(1, tokens + 1):
        same = [float(first is None or first >= token) for first in firsts]
        share = sum(same) / len(same) if same else 1.0
        interval = score_ci(same, clusters).ci95 or (1.0, 1.0)
        low = token if low is None and interval[0] <= 0.5 else low
        value = token if value is None and share <= 0.5 else value
        high = token if high is None and interval[1] < 0.5 else high
        if high is not None:
            break
    reason = None
    if value is None:
        reason = f"fewer than half diverge within {tokens} tokens" if firsts else "no prompts"
    return FirstToken(value=value, low=low, high=high, method="survival", reason=reason)


def _by_position(agree: Sequence[Sequence[bool]]) -> list[PositionShare]:
    """Agreement at positions 1, 2, 3-4, 5-8, ..."""
    longest = max(map(len, agree), default=0)
    shares, first, last = [], 1, 1
    while first <= longest:
        bits = [bit for each in agree for bit in each[first - 1 : last]]
        share = round(sum(bits) / len(bits), _DIGITS)
        shares.append(PositionShare(first=first, last=min(last, longest), n=len(bits), share=share))
        first, last = last + 1, 2 * last
    return shares


def _measure(estimate: Estimate) -> Measure:
    def cut(x: float) -> float:
        return float(f"{x:.{_DIGITS}g}")

    return Measure(
        value=None if estimate.value is None else cut(estimate.value),
        n=estimate.n,
        se=None if estimate.se is None else cut(estimate.se),
        ci95=None if estimate.ci95 is None else (cut(estimate.ci95[0]), cut(estimate.ci95[1])),
        method=estimate.method,
        reason=estimate.reason,
    )
