"""Write `summary.schema.json` from the models: `python -m harness.schema`."""

from __future__ import annotations

from pathlib import Path

from harness.records import write_json_atomic
from harness.schema.summary import json_schema

if __name__ == "__main__":
    write_json_atomic(Path(__file__).with_name("summary.schema.json"), json_schema())
