"""Scores of PIQA items, equal to those of lm-eval's `piqa` task."""

from suites.multiple_choice import score

__all__ = ["score"]
