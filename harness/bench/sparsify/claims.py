"""From raw lines to numbers: excess perplexity, time ratios, zeros lost; and each claim checked against them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.bench.sparsify.arms import Arm

# Named before anything was measured: what stands for us where a claim says "ours".
HEADLINE = {"70": Arm("admm+refine", "70", "slope"), "2:4": Arm("admm+refine", "2:4")}
EXCESS_GOAL = 0.25
REFINE_LIMIT = 2.0


@dataclass(frozen=True)
class Claim:
    """One thing that we say.

    Attributes:
        text: What.
        holds: Whether the numbers bear it out; None where they are missing.
        numbers: In words.
    """

    text: str
    holds: bool | None
    numbers: str


@dataclass(frozen=True)
class TimeRatio:
    """How long ours takes, in units of the peer's time: medians over the counted rounds of one run.

    Attributes:
        ours, peer: Names of the arms.
        wall, cpu: Ratio of medians of wall and processor seconds; below 1 is faster.
        low, high: Smallest and largest ratio of two rounds, in wall seconds.
        ours_s, peer_s: Median wall seconds.
        rounds: How many.
    """

    ours: str
    peer: str
    wall: float
    cpu: float
    low: float
    high: float
    ours_s: float
    peer_s: float
    rounds: int


def excess_reduction(ours: float, peer: float, dense: float) -> float | None:
    """By what share ours has less excess perplexity over dense than the peer; None where the peer has none."""
    return None if peer <= dense else 1 - (ours - dense) / (peer - dense)


def time_ratio(times: Mapping[str, Sequence[Mapping[str, Any]]], ours: str, peer: str) -> TimeRatio | None:
    """The ratio of two timed arms; None where one of them was not timed or failed."""
    a, b = times.get(ours, ()), times.get(peer, ())
    if not a or not b or any("error" in line for line in (*a, *b)):
        return None
    wall_a, wall_b = ([line["seconds"] for line in lines] for lines in (a, b))
    cpu_a, cpu_b = (statistics.median(line["cpu_seconds"] for line in lines) for lines in (a, b))
    each = [one / other for one, other in zip(wall_a, wall_b, strict=True)]
    ours_s, peer_s = statistics.median(wall_a), statistics.median(wall_b)
    return TimeRatio(ours, peer, ours_s / peer_s, cpu_a / cpu_b, min(each), max(each), ours_s, peer_s, len(each))


def check_claims(lines: Iterable[Mapping[str, Any]], model: str, text: str) -> list[Claim]:
    """The claims about one model, on its first evaluation text."""
    known = [line for line in lines if line["model"] == model]
    dense = next((line for line in known if line["kind"] == "dense"), None)
    arms = {(line["arm"], line["seed"]): line for line in known if line["kind"] == "arm" and "error" not in line}
    if dense is None:
        return []
    base = float(dense["perplexity"][text])
    claims = [_lower(arms, pattern, text) for pattern in HEADLINE]
    claims.append(_less_excess(arms, base, text))
    times: Mapping[str, Any] = next((line["times"] for line in reversed(known) if line["kind"] == "times"), {})
    for pattern in ("50", "2:4"):
        claims.append(_no_slower(times, "sparsegpt", pattern, 1.0))
        claims.append(_no_slower(times, "sparsegpt+refine", pattern, REFINE_LIMIT))
    claims.append(_zeros_kept(arms.values()))
    return claims


def paired(
    arms: Mapping[tuple[str, int], Mapping[str, Any]], ours: str, peer: str, text: str
) -> dict[int, tuple[float, float]]:
    """Seed -> perplexities of two arms, for the seeds that have both."""
    seeds = sorted({seed for name, seed in arms if name == ours} & {seed for name, seed in arms if name == peer})
    return {seed: (arms[ours, seed]["perplexity"][text], arms[peer, seed]["perplexity"][text]) for seed in seeds}


def _peer_of(pattern: str) -> str:
    return Arm("sparsegpt", pattern, peer=True).name


def _lower(arms: Mapping[tuple[str, int], Mapping[str, Any]], pattern: str, text: str) -> Claim:
    ours = HEADLINE[pattern].name
    said = f"Lower perplexity than llm-compressor's SparseGPT at {_label(pattern)}"
    pairs = paired(arms, ours, _peer_of(pattern), text)
    if not pairs:
        return Claim(said, None, "not measured")
    shown = "; ".join(f"seed {seed}: {a:.3f} against {b:.3f}" for seed, (a, b) in pairs.items())
    return Claim(said, all(a < b for a, b in pairs.values()), f"{ours}: {shown}")


def _less_excess(arms: Mapping[tuple[str, int], Mapping[str, Any]], dense: float, text: str) -> Claim:
    ours = HEADLINE["70"].name
    said = f"At least {EXCESS_GOAL:.0%} less excess perplexity at 70 %"
    pairs = paired(arms, ours, _peer_of("70"), text)
    found = [excess_reduction(a, b, dense) for a, b in pairs.values()]
    reductions = [value for value in found if value is not None]
    if not reductions:
        return Claim(said, None, "not measured")
    mean = statistics.fmean(reductions)
    shown = f"{mean:.1%} on average over {len(reductions)} seed(s) ({min(reductions):.1%} to {max(reductions):.1%})"
    return Claim(said, mean >= EXCESS_GOAL, f"{ours}: {shown}; dense {dense:.3f}")


def _no_slower(times: Mapping[str, Any], method: str, pattern: str, limit: float) -> Claim:
    what = "Same algorithm no slower" if limit == 1.0 else f"With refine at most {limit:g} times as long"
    said = f"{what} than llm-compressor's SparseGPT ({_label(pattern)})"
    ratio = time_ratio(times, Arm(method, pattern).name, _peer_of(pattern))
    if ratio is None:
        return Claim(said, None, "not measured")
    shown = (
        f"{ratio.wall:.2f} times ({ratio.low:.2f} to {ratio.high:.2f} over {ratio.rounds} rounds): median "
        f"{ratio.ours_s:.2f} s against {ratio.peer_s:.2f} s; processor time {ratio.cpu:.2f} times"
    )
    return Claim(said, ratio.wall <= limit, shown)


def _zeros_kept(arms: Collection[Mapping[str, Any]]) -> Claim:
    said = "0 pruned weights revived and 0 broken N:M groups in every variant of ours"
    ours = [line for line in arms if not line["peer"]]
    if not ours:
        return Claim(said, None, "not measured")
    unknown = sum(line["zeros"]["revived"] is None for line in ours)
    revived = sum(line["zeros"]["revived"] or 0 for line in ours)
    broken = sum(line["zeros"]["broken"] or 0 for line in ours)
    shown = f"{len(ours)} variants: {revived} revived, {broken} broken" + (f", {unknown} unchecked" if unknown else "")
    theirs = [line for line in arms if line["peer"] and (line["zeros"]["revived"] or line["zeros"]["broken"])]
    for line in theirs:
        zeros = line["zeros"]
        lost = f"{zeros['revived']:,} of {zeros['pruned']:,} revived" if zeros["revived"] is not None else ""
        groups = f"{zeros['broken']:,} of {zeros['groups']:,} groups broken" if zeros["broken"] is not None else ""
        shown += f"; {line['arm']} (seed {line['seed']}): {', '.join(filter(None, (lost, groups)))}"
    return Claim(said, revived == broken == unknown == 0, shown)


def _label(pattern: str) -> str:
    return pattern if ":" in pattern else f"{pattern} %"


def as_json(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Claims as plain JSON."""
    return [asdict(claim) for claim in claims]
