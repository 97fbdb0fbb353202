"""Shapes of the records; import them from `harness.records`. `python -m harness.schema` writes the JSON Schema."""
