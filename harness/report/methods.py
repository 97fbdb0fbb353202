"""What each `method` in the records means, in words for a report's foot."""

from __future__ import annotations

from collections.abc import Collection

_CLUSTERED = (
    "`-clustered`: items that share a template or document are taken as one group; standard error with the C/(C-1) "
    "correction, score intervals with a design effect (Rao & Scott), Student's t with Satterthwaite's degrees of "
    "freedom, at most C - 1"
)
METHODS = {
    "wilson": "Wilson score interval for a proportion",
    "t": "Student's t interval of the mean",
    "flip-bound": "too few items differ for a resampling interval: bound from the exact (Clopper-Pearson or "
    "rule-of-three) limit on the share of items that differ; conservative",
    "tango": "Tango's (1998) score interval for a paired difference of right/wrong items",
    "tang": "score interval for the ratio of paired right/wrong items (Tang, Tang & Chan 2003)",
    "bootstrap-t": "studentised bootstrap, paired by item, fixed seed, never narrower than Student's t with "
    "Satterthwaite's degrees of freedom",
    "bootstrap-percentile": "percentiles over resampled items, fixed seed",
    "mover-mean": "mean of the suites' recoveries; interval by MOVER (Zou & Donner 2008) from "
    "the suites' own intervals",
    "mover-ratio": "recovery of the means over the suites; interval by MOVER for a ratio (Donner & Zou 2012)",
    "survival": "median; limits where the intervals of the survival meet one half (Brookmeyer & Crowley 1982)",
    "none": "nothing to estimate",
}


def explain(methods: Collection[str]) -> list[str]:
    """Return one line for each of the `methods` that occur, in a fixed order; KeyError for an unknown one."""
    used = {method.removesuffix("-clustered") for method in methods}
    unknown = used - METHODS.keys()
    if unknown:
        raise KeyError(f"methods without an explanation: {sorted(unknown)}")
    lines = [f"`{name}`: {text}" for name, text in METHODS.items() if name in used and name != "none"]
    if any(method.endswith("-clustered") for method in methods):
        lines.append(_CLUSTERED)
    return lines
