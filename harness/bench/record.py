"""The raw record of a panel: one JSONL file, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.bench.machine import describe_machine
from harness.bench.spec import PanelRow, PanelSpec
from harness.errors import CorruptRecordError
from sparsify.errors import CheckpointError

SCHEMA_VERSION = 2
"""1 knew neither runs nor verdicts, and took ratios without adjusting blocks; its rows can still be read."""
_OWN_LINES = ("processes", "measures")


def weights_hash(variant_dir: Path) -> str:
    """SHA-256 that identifies a variant's weights: `variant.json`'s, else over the bytes of its safetensors files."""
    described = variant_dir / "variant.json"
    if described.is_file():
        try:
            known = json.loads(described.read_text(encoding="utf-8")).get("weights_sha256")
        except (ValueError, AttributeError):
            raise CheckpointError(f"{described} is not a JSON object; make the variant again") from None
        if known:
            return str(known)
    digest = hashlib.sha256()
    for path in sorted(variant_dir.glob("*.safetensors")):
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def weight_bytes(variant_dir: Path) -> int | None:
    """Size of a variant's safetensors files; None where there are none."""
    sizes = [path.stat().st_size for path in variant_dir.glob("*.safetensors")]
    return sum(sizes) if sizes else None


def panel_key(
    spec: PanelSpec, variants: Mapping[str, Path], skip: Mapping[str, str], extra: Mapping[str, int] | None = None
) -> str:
    """SHA-256 over all that a panel's result belongs to: the spec, the weights, what was skipped, the machine."""
    parts = {
        "schema_version": SCHEMA_VERSION,
        "spec": asdict(spec),
        "weights": {name: weights_hash(Path(path)) for name, path in sorted(variants.items())},
        "skip": dict(sorted(skip.items())),
        "extra": dict(sorted((extra or {}).items())),
        "machine": describe_machine(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def record_path(out: Path, spec: PanelSpec) -> Path:
    """Where the panel's record lies below `out`."""
    return out / f"{spec.panel}.jsonl"


def write_record(
    path: Path, head: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], rows: Sequence[PanelRow]
) -> None:
    """Write a panel's record: the head; each run with a line per process and per measurement; a line per row.

    Raises:
        OSError: The disk is full or not writable; the old file, if any, is untouched.
    """
    lines: list[dict[str, Any]] = [{"kind": "panel", "schema_version": SCHEMA_VERSION, **head, "n_runs": len(runs)}]
    for number, run in enumerate(runs):
        lines.append({"kind": "run", "run": number, **{k: v for k, v in run.items() if k not in _OWN_LINES}})
        lines += [
            {"kind": "process", "run": number, "process": name, **process} for name, process in run["processes"].items()
        ]
        lines += [{"kind": "measure", "run": number, **measure} for measure in run["measures"]]
    lines += [{"kind": "row", **row.as_dict()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_record(path: Path) -> tuple[dict[str, Any], list[PanelRow]]:
    """The head and the rows of a record.

    Raises:
        CorruptRecordError: It is not a complete panel record.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        head, kind = lines[0], lines[0]["kind"]
        rows = [PanelRow.from_dict(line) for line in lines if line.pop("kind") == "row"]
        complete = kind == "panel" and len(rows) == head["n_rows"]
    except (ValueError, TypeError, KeyError, IndexError):
        complete = False
    if not complete:
        raise CorruptRecordError(f"speed record {path} is damaged; delete it and run again")
    return head, rows
