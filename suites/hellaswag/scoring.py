"""Scores of HellaSwag items, equal to those of lm-eval's `hellaswag` task."""

from suites.multiple_choice import score

__all__ = ["score"]
