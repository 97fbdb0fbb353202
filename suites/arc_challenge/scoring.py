"""Scores of ARC-Challenge items, equal to those of lm-eval's `arc_challenge` task."""

from suites.multiple_choice import score

__all__ = ["score"]
