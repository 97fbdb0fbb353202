"""Error rates from collected panels, with exact binomial bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMMAND = "python -m harness.bench.error_rates --out results/speed"
CONFIDENCE = 0.95


def upper_bound(hits: int, n: int) -> float:
    """One-sided 95 % upper bound of a rate (Clopper and Pearson 1934); 1 without trials."""
    from scipy.stats import beta

    return 1.0 if hits >= n else float(beta.ppf(CONFIDENCE, hits + 1, n - hits))


def lower_bound(hits: int, n: int) -> float:
    """One-sided 95 % lower bound of a rate; 0 without trials."""
    return 1.0 - upper_bound(n - hits, n)


def rates_of(lines: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> dict[str, Any]:
    """False alarms of A against A, and how many slowdowns were caught; undecided panels are counted apart.

    An undecided panel says nothing, so it is no false alarm and no catch: `of_all` counts it against the panel.
    """
    result: dict[str, Any] = {"command": COMMAND, "confidence": CONFIDENCE, "machine": dict(machine)}
    for kind in ("same", "slower"):
        own = [line for line in lines if line["kind"] == kind]
        settled = [line for line in own if line["verdict"] != "not decided"]
        alarms = sum(line["verdict"] == "slower" for line in settled)
        fails = sum(line["gate"] == "fail" for line in settled)
        n = len(settled)
        result[kind] = {
            "panels": len(own),
            "decided": n,
            "not_decided": len(own) - n,
            "reported_slower": _rate(alarms, n, kind),
            "gate_fails": _rate(fails, n, kind),
            "reported_slower_of_all": _rate(alarms, len(own), kind),
            "unconfirmed": sum(line["verdict"] == "unconfirmed" for line in settled),
            "reported_faster": sum(line["verdict"] == "faster" for line in settled),
            "repeated": sum(len(line["runs"]) > 1 + (line["confirmation"] is not None) for line in own),
            "ratio": _spread([line["ratio"] for line in settled]),
            "noise_floor": _spread([_reach(line["floor"]) for line in settled]),
            "busy": _spread([run["busy"] for line in own for run in line["runs"] if run["busy"] is not None]),
            "steal": _spread([run["steal"] for line in own for run in line["runs"] if run["steal"] is not None]),
            "seconds": round(sum(line["seconds"] for line in own), 1),
        }
    return result


def _rate(hits: int, n: int, kind: str) -> dict[str, Any]:
    bound = {"upper": round(upper_bound(hits, n), 5)} if kind == "same" else {"lower": round(lower_bound(hits, n), 5)}
    return {"count": hits, "n": n, "rate": round(hits / n, 5) if n else None, **bound}


def _reach(floor: Mapping[str, Any]) -> float:
    return max(abs(value - 1.0) for value in (floor["ratio"], *floor["ci95"]))


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    import numpy as np

    if not values:
        return None
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {"p5": round(float(low), 4), "median": round(float(middle), 4), "p95": round(float(high), 4)}


def rates_markdown(rates: Mapping[str, Any]) -> str:
    """The rates as a short page."""
    same, slower = rates["same"], rates["slower"]
    alarm, caught = same["reported_slower"], slower["reported_slower"]
    rows = [
        ("panels", same["panels"], slower["panels"]),
        ("decided (noise floor at most 5 %, read bandwidth within 10 %)", same["decided"], slower["decided"]),
        ("repeated at least once", same["repeated"], slower["repeated"]),
        ("never decided", same["not_decided"], slower["not_decided"]),
        ("panel says `slower`, of decided", _share(alarm), _share(caught)),
        (
            "gate rule `speedup: at_least 1.0` fails, of decided",
            _share(same["gate_fails"]),
            _share(slower["gate_fails"]),
        ),
        (
            "panel says `slower`, of all",
            _share(same["reported_slower_of_all"]),
            _share(slower["reported_slower_of_all"]),
        ),
        ("first run alarmed, confirmation did not", same["unconfirmed"], slower["unconfirmed"]),
        ("panel says `faster`", same["reported_faster"], slower["reported_faster"]),
        ("ratio, 5 % / median / 95 %", _three(same["ratio"]), _three(slower["ratio"])),
        ("noise floor, 5 % / median / 95 %", _three(same["noise_floor"]), _three(slower["noise_floor"])),
        ("share of the cores busy, 5 % / median / 95 %", _three(same["busy"]), _three(slower["busy"])),
        ("share stolen by other guests, 5 % / median / 95 %", _three(same["steal"]), _three(slower["steal"])),
        ("seconds in all", same["seconds"], slower["seconds"]),
    ]
    machine = rates["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores"
    lines = ["# Error rates of short speed panels", ""]
    lines += [f"Made by `{rates['command']}` from `panels.jsonl`, on {where}.", ""]
    lines += ["| | A against A | A against A with 20 % more work |", "|---|---:|---:|"]
    lines += [f"| {name} | {first} | {second} |" for name, first, second in rows]
    lines += [
        "",
        "Bounds are exact (Clopper-Pearson), 95 %, one-sided: upper for false alarms, lower for slowdowns caught. A",
        "panel says `slower` when the whole 95 % interval of the ratio lies below 1 by more than the noise floor and",
        "the Mann-Whitney test of the blocks has p < 0.01, in the first run and again in a run with new processes.",
        "",
    ]
    return "\n".join(lines)


def _share(rate: Mapping[str, Any]) -> str:
    if rate["rate"] is None:
        return "none"
    bound = f"at most {100 * rate['upper']:.2f} %" if "upper" in rate else f"at least {100 * rate['lower']:.1f} %"
    return f"{rate['count']} of {rate['n']} = {100 * rate['rate']:.1f} % ({bound})"


def _three(spread: Mapping[str, float] | None) -> str:
    return "none" if spread is None else f"{spread['p5']:.3f} / {spread['median']:.3f} / {spread['p95']:.3f}"
