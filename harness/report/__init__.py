"""Reports: rows to `summary.json`, and the summary to tables."""
