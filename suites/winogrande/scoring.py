"""Scores of WinoGrande items, equal to those of lm-eval's `winogrande` task."""

from suites.multiple_choice import score

__all__ = ["score"]
