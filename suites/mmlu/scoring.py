"""Scores of MMLU items, equal to those of lm-eval's `mmlu` tasks."""

from suites.multiple_choice import score

__all__ = ["score"]
