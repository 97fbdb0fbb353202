"""Statistics of the harness: every number with its n, standard error, 95 % interval and method."""

from __future__ import annotations

from harness.stats.adjust import expected_design_effect, observed_design_effect
from harness.stats.averages import PairedScores, mean_of_recoveries, recovery_of_means
from harness.stats.binary import mcnemar_exact, tang_interval, tango_interval
from harness.stats.decisions import holm, loss_p_value, lower_bound
from harness.stats.estimate import Estimate, PairedEstimate, undefined
from harness.stats.means import mean_ci, proportion_ci, score_ci, wilson_interval
from harness.stats.paired import paired_difference, recovery
from harness.stats.power import minimum_detectable_difference, required_n
from harness.stats.seeds import seeds_difference, seeds_recovery

__all__ = [
    "Estimate",
    "PairedEstimate",
    "PairedScores",
    "expected_design_effect",
    "holm",
    "loss_p_value",
    "lower_bound",
    "mcnemar_exact",
    "mean_ci",
    "mean_of_recoveries",
    "minimum_detectable_difference",
    "observed_design_effect",
    "paired_difference",
    "proportion_ci",
    "recovery",
    "recovery_of_means",
    "required_n",
    "score_ci",
    "seeds_difference",
    "seeds_recovery",
    "tang_interval",
    "tango_interval",
    "undefined",
    "wilson_interval",
]
