"""Packed files: what is written comes back, and damage of every kind is an error."""

from __future__ import annotations

import errno
import json
import os
import random
import runpy
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.engines.sparse import packed
from harness.engines.sparse.packed import Packed, free_memory, read_key, read_packed, write_packed
from harness.errors import InfrastructureError
from sparsify.errors import CheckpointError

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("packed_files.py"))))
make_matrix, same, some, write = kit.make_matrix, kit.same, kit.some, kit.write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "p.safetensors", some())


@pytest.mark.parametrize("memory", ["mmap", "copy", "auto"])
def test_what_is_written_comes_back(file: Path, memory: packed.Memory) -> None:
    found = read_packed(file, key="k/s", memory=memory)
    assert list(found.matrices) == list(some()) and found.key == read_key(file) == "k/s"
    assert found.memory == ("mmap" if memory == "mmap" else "copy")
    for name, matrix in some().items():
        same(found.matrices[name], matrix)
        assert found.matrices[name].data.ctypes.data % 64 == 0, "kernels load whole lines"
    assert found.bytes == sum(map(packed.matrix_bytes, some().values())) < file.stat().st_size


def test_shapes_that_fill_no_tile_and_a_static_scale(tmp_path: Path) -> None:
    matrices = {
        "narrow": make_matrix("f32", True, outputs=1, inputs=1),
        "odd": make_matrix("bf16", True, outputs=17, inputs=13),
        "static": make_matrix("i8", False, outputs=5, inputs=7, input_scale=0.125),
        'with a quote " and é': make_matrix("i8", True, outputs=33, inputs=3),
    }
    found = read_packed(write(tmp_path / "p", matrices)).matrices
    for name, matrix in matrices.items():
        same(found[name], matrix)
    assert found["static"].input_scale == 0.125


def test_it_is_a_safetensors_file(file: Path) -> None:
    from safetensors.numpy import load_file

    assert {name.rsplit(".", 1)[1] for name in load_file(file)} == {"data", "offsets", "scales"}


def test_matrices_outlive_the_file(file: Path) -> None:
    found = read_packed(file, memory="mmap").matrices
    file.unlink()
    same(found["layers.3.bf16"], some()["layers.3.bf16"])


def test_the_same_weights_are_the_same_bytes(file: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "again", some()).read_bytes() == file.read_bytes()


# --- damage -----------------------------------------------------------------------------------------------------------


def header_of(raw: bytes) -> tuple[dict[str, Any], int]:
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), 8 + length


def with_header(raw: bytes, header: dict[str, Any]) -> bytes:
    _, start = header_of(raw)
    text = json.dumps(header).encode()
    return struct.pack("<Q", start - 8) + text.ljust(start - 8) + raw[start:]


def with_checksums(raw: bytes) -> bytes:
    """The file with checksums that fit its bytes, so that what is behind them is put to the test."""
    header, start = header_of(raw)
    content = json.loads(header["__metadata__"]["sparsebench"])

    def part(name: str) -> bytes:
        begin, end = header[name]["data_offsets"]
        return raw[start + begin : start + end]

    for name, facts in content["matrices"].items():
        offsets = part(f"{name}.offsets")
        end = struct.unpack("<q", offsets[-8:])[0]
        crc = zlib.crc32(offsets, zlib.crc32(part(f"{name}.data")[: max(0, end)]))
        facts["crc32"] = zlib.crc32(part(f"{name}.scales"), crc) if f"{name}.scales" in header else crc
    header["__metadata__"]["sparsebench"] = json.dumps(content)
    return with_header(raw, header)


def use(path: Path) -> Packed:
    """Open a file and run every matrix; a crash here ends the test run."""
    found = read_packed(path, memory="copy")
    for matrix in found.matrices.values():
        if matrix.outputs * matrix.inputs < 1 << 22:
            matrix.multiply(np.ones((2, matrix.inputs), np.float32))
            matrix.unpack()
    return found


def test_a_file_that_is_cut_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    raw, part = file.read_bytes(), tmp_path / "cut"
    for size in [0, 1, 7, 8, 9, 100, *range(0, len(raw), len(raw) // 60), len(raw) - 1]:
        part.write_bytes(raw[:size])
        with pytest.raises(CheckpointError, match="cut"):
            read_packed(part)
    part.write_bytes(raw + b"\0")
    with pytest.raises(CheckpointError, match="truncated|gap"):
        read_packed(part)
    with pytest.raises(CheckpointError, match="missing"):
        read_packed(tmp_path / "nowhere")


def test_a_flipped_bit_anywhere_in_the_values_is_found(file: Path, tmp_path: Path) -> None:
    raw, part, rng = bytearray(file.read_bytes()), tmp_path / "flipped", random.Random(0)
    header, start = header_of(bytes(raw))
    used = [
        start + rng.randrange(begin, begin + length)
        for name, tensor in header.items()
        if name != "__metadata__"
        for begin, end in [tensor["data_offsets"]]
        # Behind the tiles of `data` come bytes that kernels load but do not use.
        for length in [end - begin - (64 + 63 if name.endswith("data") else 0)]
        for _ in range(4)
    ]
    for at in used:
        raw[at] ^= 1 << rng.randrange(8)
        part.write_bytes(raw)
        with pytest.raises(CheckpointError, match="checksum|offsets|damaged"):
            read_packed(part)
        raw[at] = file.read_bytes()[at]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "f64"),
        ("kind", "i8"),
        ("sparse", 1),
        ("sparse", True),
        ("outputs", 0),
        ("outputs", -1),
        ("outputs", 1 << 62),
        ("outputs", 1 << 70),
        ("outputs", 41.0),
        ("outputs", 56),
        ("inputs", 0),
        ("inputs", -64),
        ("inputs", 1 << 31),
        ("inputs", 65),
        ("inputs", 63),
        ("group", 8),
        ("group", -1),
        ("wide_scales", None),
        ("input_scale", "1"),
        ("input_scale", 1e39),
        ("crc32", 0),
    ],
)
def test_an_absurd_description_is_refused(file: Path, tmp_path: Path, field: str, value: object) -> None:
    raw, part = file.read_bytes(), tmp_path / "absurd"
    header, _ = header_of(raw)
    content = json.loads(header["__metadata__"]["sparsebench"])
    content["matrices"]["layers.0.f32"][field] = value
    header["__metadata__"]["sparsebench"] = json.dumps(content)
    part.write_bytes(with_header(raw, header))
    with pytest.raises(CheckpointError, match=r"absurd.*(delete it|again)"):
        read_packed(part)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "{}", '{"format": 1, "key": "k", "matrices": {}}', '{"format": 1, "key": 1}', "[" * 9999]
)
def test_a_description_that_is_none_is_refused(file: Path, tmp_path: Path, text: str) -> None:
    part, raw = tmp_path / "none", file.read_bytes()
    header, _ = header_of(raw)
    header["__metadata__"]["sparsebench"] = text
    room = json.dumps(header).encode()
    part.write_bytes(struct.pack("<Q", len(room)) + room + raw[header_of(raw)[1] :])
    with pytest.raises(CheckpointError):
        read_packed(part)
    header.pop("__metadata__")
    part.write_bytes(with_header(raw, header))
    for read in (read_packed, read_key):
        with pytest.raises(CheckpointError):
            read(part)


def test_a_file_of_another_version_or_of_other_weights_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="other weights"):
        read_packed(file, key="another/s")
    monkeypatch.setattr(packed, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="format 1, this version reads 2"):
        read_packed(file)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_behind_fitting_checksums_never_crashes(
    file: Path, tmp_path: Path, edits: list[tuple[float, int]]
) -> None:
    """Masks, offsets and values of any content are refused, or compute something; they read nothing outside."""
    raw = bytearray(file.read_bytes())
    _, start = header_of(bytes(raw))
    for place, value in edits:
        raw[start + int(place * (len(raw) - start))] = value
    part = tmp_path / "edited"
    part.write_bytes(with_checksums(bytes(raw)))
    try:
        use(part)
    except CheckpointError as error:
        assert "edited" in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=3))
def test_damage_in_the_header_never_crashes(file: Path, tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    raw, part = bytearray(file.read_bytes()), tmp_path / "edited"
    for place, value in edits:
        raw[place] = value
    part.write_bytes(raw)
    try:
        use(part)
    except CheckpointError as error:
        assert "edited" in str(error)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_leaves_what_was_there(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(path: Path, final: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packed, "commit", full)
    with pytest.raises(InfrastructureError, match="disk is full.*SPARSEBENCH_CACHE"):
        write(file, {"other": make_matrix("f32", False)})
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_an_interrupted_pack_leaves_nothing(tmp_path: Path) -> None:
    def matrices() -> Any:
        yield "a", make_matrix("f32", True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packed(tmp_path / "p", matrices(), names=["a", "b"], key="k/s")
    assert not list(tmp_path.iterdir())


def test_free_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   70 kB\n")
    assert free_memory(tmp_path / "meminfo") == 70 * 1024
    assert free_memory(tmp_path / "nowhere") == 0


def test_a_small_machine_maps(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "free_memory", lambda: file.stat().st_size)
    assert read_packed(file).memory == "mmap"


# --- the cache --------------------------------------------------------------------------------------------------------
