"""Damages packed files for a while: `python tests/fuzz/files.py SECONDS [SEED]`.

Every file must be refused with a clear error or be computed on; a crash of the reader ends this process with a signal.
Half of the files get checksums that fit, so that what lies behind them is put to the test.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from harness.engines.sparse import load_kernels
from harness.engines.sparse.packed import read_packed, write_packed
from sparsify.errors import CheckpointError

_MOST_WEIGHTS = 1 << 22
_NUMBERS = (0, 1, -1, 63, 64, 65, 1 << 15, (1 << 17) - 1, 1 << 31, 1 << 53, (1 << 63) - 1, 1 << 64, -(1 << 63), 1.5)
_OTHERS = (None, True, "", "i8", "f32", [], {}, 1e39, float("inf"))


def good_file(path: Path) -> bytes:
    """A packed file with a matrix of every form."""
    matrix, rng, made = load_kernels().Matrix, np.random.default_rng(0), {}
    for kind in ("f32", "bf16", "i8", "i4"):
        for sparse in (False, True):
            kept = rng.random((40, 64)) < (0.3 if sparse else 1.0)
            values: Any = (rng.integers(-8, 8, (40, 64)) * kept).astype(np.int8)
            options: dict[str, Any] = {}
            if kind in ("i8", "i4"):
                shape = (40,) if kind == "i8" else (40, 2)
                options = {"scales": rng.random(shape).astype(np.float32), "group": 32 if kind == "i4" else 0}
            else:
                values = values.astype(np.float32)
                values = values if kind == "f32" else (values.view(np.uint32) >> 16).astype(np.uint16)
            made[f"{kind}.{sparse}"] = matrix.pack(values, kind, sparse=sparse, **options)
    write_packed(path, made.items(), names=made, key="k")
    return path.read_bytes()


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with some damage."""
    way = rng.randrange(6)
    if way == 0:
        return raw[: rng.randrange(len(raw))] + rng.randbytes(rng.choice((0, 0, 1, 64, 5000)))
    if way == 1:
        return _edit_description(raw, rng)
    out = bytearray(raw)
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    low, high = (0, min(start, 6000)) if way == 2 else (start, len(raw))
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(low, high)
        if rng.random() < 0.5:
            out[at] ^= 1 << rng.randrange(8)
        else:
            size = min(rng.choice((1, 2, 8, 64)), high - at)
            out[at : at + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return _fit_checksums(bytes(out)) if way > 3 else bytes(out)


def _edit_description(raw: bytes, rng: random.Random) -> bytes:
    header, start = _header(raw)
    content = json.loads(header["__metadata__"]["sparsebench"])
    name = rng.choice(sorted(content["matrices"]))
    target: dict[str, Any] = rng.choice((content, content["matrices"][name], header[f"{name}.data"], header))
    key = rng.choice(sorted(target))
    if rng.random() < 0.2:
        del target[key]
    else:
        target[key] = rng.choice(_NUMBERS if rng.random() < 0.7 else _OTHERS)
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"]["sparsebench"] = json.dumps(content)
    return _fit_checksums(_with_header(raw, start, header))


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), 8 + length


def _with_header(raw: bytes, start: int, header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    text = text.ljust(start - 8)
    return struct.pack("<Q", len(text)) + text + raw[start:]


def _fit_checksums(raw: bytes) -> bytes:
    """The file with checksums of the bytes that it has now; unchanged where its header does not say where they are."""
    try:
        header, start = _header(raw)
        content = json.loads(header["__metadata__"]["sparsebench"])
        for name, facts in content["matrices"].items():
            parts = {}
            for part in ("data", "offsets", "scales"):
                begin, end = header.get(f"{name}.{part}", {}).get("data_offsets", (0, 0))
                parts[part] = raw[start + begin : start + end]
            end = struct.unpack("<q", parts["offsets"][-8:])[0]
            crc = zlib.crc32(parts["offsets"], zlib.crc32(parts["data"][: max(0, end)]))
            facts["crc32"] = zlib.crc32(parts["scales"], crc) if parts["scales"] else crc
        header["__metadata__"]["sparsebench"] = json.dumps(content)
        return _with_header(raw, start, header)
    except (KeyError, TypeError, ValueError, AttributeError, struct.error, RecursionError):
        return raw


def main(seconds: float, seed: int) -> None:
    """Damage files until the time is over."""
    rng, until = random.Random(seed), time.monotonic() + seconds
    opened = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        whole = good_file(path)
        while time.monotonic() < until:
            path.write_bytes(damaged(whole, rng))
            try:
                found = read_packed(path, memory=rng.choice(("copy", "mmap")))
            except CheckpointError as error:
                assert str(path) in str(error), error
                refused += 1
                continue
            opened += 1
            for matrix in found.matrices.values():
                if matrix.outputs * matrix.inputs <= _MOST_WEIGHTS:
                    for isa in load_kernels().isas():
                        for rows in (1, 17):
                            matrix.multiply(np.ones((rows, matrix.inputs), np.float32), isa=isa)
                    matrix.unpack()
    print(f"packed files: {refused} refused, {opened} opened and computed, seed {seed}")
    assert refused and opened, "the damage was all of one kind; nothing was tested"


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()))
