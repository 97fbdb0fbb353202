"""Scoring of IFEval with the official sentence splitter."""
