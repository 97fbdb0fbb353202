"""Scores and speeds over commits: an append-only file of records, the steps in them, a table and a plot. No torch."""
