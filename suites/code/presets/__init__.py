"""Scoring of code presets whose answers are no continuation of a HumanEval prompt."""
