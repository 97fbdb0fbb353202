"""Scores of ARC-Easy items, equal to those of lm-eval's `arc_easy` task."""

from suites.multiple_choice import score

__all__ = ["score"]
