"""Statistics of the harness: every number with its n, standard error, 95 % interval and method."""

from __future__ import annotations

from harness.stats.binary import mcnemar_exact, tang_interval, tango_interval
from harness.stats.estimate import Estimate, PairedEstimate, undefined
from harness.stats.means import mean_ci, proportion_ci, score_ci, wilson_interval
from harness.stats.paired import mean_of_recoveries, paired_difference, recovery

__all__ = [
    "Estimate",
    "PairedEstimate",
    "mcnemar_exact",
    "mean_ci",
    "mean_of_recoveries",
    "paired_difference",
    "proportion_ci",
    "recovery",
    "score_ci",
    "tang_interval",
    "tango_interval",
    "undefined",
    "wilson_interval",
]
