"""The packed file: what the kernels read, as it lies in memory, so that it can be mapped instead of loaded.

It is a safetensors file. Of every linear X it holds `X.data` (U8: the tiles and then at least 64 bytes, because kernels
load whole vectors), `X.offsets` (I64: where each tile begins) and for int8 `X.scales` (F32). The values begin at a page
and every `data` at 64 bytes. The metadata under the key `sparsebench` is JSON: format, key, and the shape of every
matrix with the CRC-32 of its bytes.

Nothing of a file is believed before it was checked: the header by `sparsify.shards`, the checksums here, sizes, offsets
and mask populations by the kernels themselves. The file is only ever a cache of a checkpoint, so damage costs a repack.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from harness.engines.sparse import load_kernels
from harness.errors import InfrastructureError
from sparsify.errors import CheckpointError
from sparsify.files import commit
from sparsify.shards import TensorRef, read_header_and_metadata

if TYPE_CHECKING:
    from harness.engines.sparse._kernels import Matrix

# Raised when bytes change their meaning, here or in the kernels' layout (csrc/layout.h).
FORMAT = 1
PART = ".part-"
Memory = Literal["auto", "mmap", "copy"]
MEMORY: tuple[Memory, ...] = ("auto", "mmap", "copy")

_SLACK, _ALIGN, _PAGE = 64, 64, 4096
_KEY = "sparsebench"
_FIELDS = {
    "kind": str,
    "sparse": bool,
    "outputs": int,
    "inputs": int,
    "group": int,
    "wide_scales": bool,
    "input_scale": float,
    "crc32": int,
}
# Of the memory that is free, what a copy in huge pages may take.
_COMFORT = 0.5
_FIX = "delete it; it is packed again from the model when it is needed"


@dataclass(frozen=True)
class Packed:
    """Packed weights that are ready for kernels.

    Attributes:
        matrices: By the name of the linear.
        key: What the file was packed from and how, as its writer said.
        bytes: Of all matrices.
        memory: `mmap` or `copy`.
    """

    matrices: Mapping[str, Matrix]
    key: str
    bytes: int
    memory: Literal["mmap", "copy"]


def matrix_bytes(matrix: Matrix) -> int:
    """Bytes that a kernel reads of a matrix for one token."""
    scales = 0 if matrix.scales is None else matrix.scales.nbytes
    return int(matrix.nbytes + matrix.offsets.nbytes + scales)


def write_packed(path: Path, matrices: Iterable[tuple[str, Matrix]], *, names: Iterable[str], key: str) -> int:
    """Write a packed file; `path` holds the whole of it or what it held before. One matrix at a time is in memory.

    Args:
        path: Where.
        matrices: The matrices by name, in the order in which they are stored.
        names: Their names, known before the first is packed.
        key: What they were packed from and how.

    Returns:
        Bytes of the file.

    Raises:
        InfrastructureError: The disk is full.
        OSError: The folder cannot be written.
    """
    # The header comes first but is known last; this is more than it takes.
    room = 4096 + sum(1024 + 6 * len(json.dumps(name)) for name in names)
    start = -(-(8 + room) // _PAGE) * _PAGE
    handle, temporary = tempfile.mkstemp(prefix=PART, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.seek(start)
            header = _write_values(stream, matrices, key)
            size = stream.tell()
            text = json.dumps(header, separators=(",", ":")).encode().ljust(start - 8)
            assert len(text) == start - 8, "the room for the header holds every header"
            stream.seek(0)
            stream.write(struct.pack("<Q", len(text)) + text)
        os.chmod(temporary, 0o644)
        commit(Path(temporary), path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InfrastructureError(
                f"the disk is full: packed weights do not fit into {path.parent}; free some space, or set "
                "SPARSEBENCH_CACHE to a folder on another disk"
            ) from None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return size


def _write_values(stream: IO[bytes], matrices: Iterable[tuple[str, Matrix]], key: str) -> dict[str, Any]:
    """Write all values; returns the header."""
    start = stream.tell()
    tensors: dict[str, Any] = {}
    described: dict[str, dict[str, Any]] = {}
    tails: list[tuple[str, str, np.ndarray[Any, Any]]] = []

    def add(name: str, dtype: str, shape: int, parts: Iterable[Any]) -> None:
        begin = stream.tell() - start
        for part in parts:
            stream.write(part)
        tensors[name] = {"dtype": dtype, "shape": [shape], "data_offsets": [begin, stream.tell() - start]}

    for name, matrix in matrices:
        data, offsets, scales = matrix.data[: matrix.nbytes], matrix.offsets, matrix.scales
        padding = bytes(_SLACK + -data.nbytes % _ALIGN)
        add(f"{name}.data", "U8", data.nbytes + len(padding), (data, padding))
        crc = _crc(data, offsets, *([] if scales is None else [scales]))
        tails.append((f"{name}.offsets", "I64", offsets.copy()))
        if scales is not None:
            tails.append((f"{name}.scales", "F32", scales.copy()))
        described[name] = {
            field: kind(getattr(matrix, field)) for field, kind in _FIELDS.items() if field != "crc32"
        } | {"crc32": crc}
    for name, dtype, values in sorted(tails, key=lambda tail: -tail[2].itemsize):
        add(name, dtype, values.size, (values,))
    return {"__metadata__": {_KEY: json.dumps({"format": FORMAT, "key": key, "matrices": described})}, **tensors}


def read_packed(path: Path, *, key: str | None = None, memory: Memory = "auto") -> Packed:
    """Open a packed file and check all of it.

    Args:
        path: The file.
        key: What it must have been packed from and how; None takes any.
        memory: `mmap` maps the file; `copy` copies it into memory with huge pages, which kernels read faster; `auto`
            copies where that takes less than half of the memory that is free.

    Raises:
        CheckpointError: It is missing, cut off, damaged or of another key; the message names it and the fix.
    """
    refs, metadata = read_header_and_metadata(path)
    try:
        described = _described(refs, metadata, key)
        with _opened(path, memory) as (buffer, used):
            values = np.frombuffer(buffer, np.uint8)
            matrices = {name: _matrix(name, facts, refs, values) for name, facts in described.items()}
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())}); {_FIX}") from None
    found = json.loads(metadata[_KEY])["key"]
    return Packed(matrices, found, sum(map(matrix_bytes, matrices.values())), used)


def _crc(*arrays: np.ndarray[Any, Any]) -> int:
    """CRC-32 of the bytes of all arrays, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.data, crc)
    return crc


def read_key(path: Path) -> str:
    """The key of a packed file, from its header alone.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    _, metadata = read_header_and_metadata(path)
    try:
        return str(json.loads(metadata[_KEY])["key"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{path} is no packed file; {_FIX}") from None


def _described(refs: Mapping[str, TensorRef], metadata: Mapping[str, str], key: str | None) -> dict[str, Any]:
    """What the metadata says of every matrix, with the types that it must have, and a tensor for each part."""
    try:
        content = json.loads(metadata[_KEY])
        version, found, described = content["format"], content["key"], content["matrices"]
        wrong = [
            name
            for name, facts in described.items()
            if facts.keys() != _FIELDS.keys() or any(type(facts[field]) is not kind for field, kind in _FIELDS.items())
        ]
        named = {f"{name}.{part}" for name in described for part in _parts(described[name])}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("its description of the matrices is not readable") from None
    if version != FORMAT:
        raise ValueError(f"format {version}, this version reads {FORMAT}")
    if key is not None and found != key:
        raise ValueError("it was packed from other weights or in another way")
    if wrong or named != refs.keys():
        raise ValueError(f"the parts of {(wrong or sorted(named ^ refs.keys()))[0]} are not what they should be")
    return dict(described)


def _parts(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return ("data", "offsets", "scales") if facts["kind"] == "i8" else ("data", "offsets")


def _matrix(name: str, facts: Mapping[str, Any], refs: Mapping[str, TensorRef], values: Any) -> Matrix:
    """A view of one matrix, checked; ValueError says what is wrong."""

    def part(kind: str, dtype: str) -> Any:
        ref = refs[f"{name}.{kind}"]
        numbers = {"U8": np.uint8, "I64": np.int64, "F32": np.float32}[dtype]
        if ref.dtype != dtype or len(ref.shape) != 1 or ref.offset % np.dtype(numbers).itemsize:
            raise ValueError(f"{name}.{kind} has another form")
        if ref.offset + ref.bytes > values.size:
            raise ValueError(f"{name}.{kind} lies outside of the file")
        return values[ref.offset : ref.offset + ref.bytes].view(numbers)

    data, offsets = part("data", "U8"), part("offsets", "I64")
    scales = part("scales", "F32") if facts["kind"] == "i8" else None
    end = int(offsets[-1]) if offsets.size else -1
    if not 0 <= end <= data.size - _SLACK:
        raise ValueError(f"{name}.offsets do not fit {name}.data")
    if _crc(data[:end], offsets, *([] if scales is None else [scales])) != facts["crc32"]:
        raise ValueError(f"the checksum of {name} does not fit")
    try:
        matrix: Matrix = load_kernels().Matrix.view(
            facts["kind"],
            facts["sparse"],
            facts["outputs"],
            facts["inputs"],
            facts["group"],
            facts["wide_scales"],
            data[: end + _SLACK],
            offsets,
            scales,
            facts["input_scale"],
        )
    except (ValueError, TypeError, OverflowError) as error:  # a number that no C++ type holds is as wrong as any other
        raise ValueError(f"{name}: {error}") from None
    return matrix


@contextlib.contextmanager
def _opened(path: Path, memory: Memory) -> Iterator[tuple[mmap.mmap, Literal["mmap", "copy"]]]:
    """The bytes of a file, mapped or copied; they live as long as something refers to them."""
    with path.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        if memory == "copy" or (memory == "auto" and size <= _COMFORT * free_memory()):
            buffer = mmap.mmap(-1, max(size, 1))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel built without them
                    buffer.madvise(mmap.MADV_HUGEPAGE)
            view, done = memoryview(buffer), 0
            while done < size and (count := stream.readinto(view[done:])):
                done += count
            view.release()
            if done < size:
                raise ValueError("it shrank while it was read")
            yield buffer, "copy"
        else:
            yield mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ), "mmap"


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that may still be used; 0 where the system does not say."""
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
