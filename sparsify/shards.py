"""Reads and writes single safetensors files tensor by tensor; every header is checked before it is believed.

Tensors are read with plain reads, not through a memory map: mapped pages count as memory of the process, and a file
that is cut while it is mapped kills it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sparsify.errors import CheckpointError
from sparsify.files import commit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MAX_HEADER = 100_000_000
_COPY_BYTES = 1 << 24
BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
BITS |= {"I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
_TORCH = {"F64": "float64", "I64": "int64", "U64": "uint64", "F32": "float32", "I32": "int32", "U32": "uint32"}
_TORCH |= {"F16": "float16", "BF16": "bfloat16", "I16": "int16", "U16": "uint16", "I8": "int8", "U8": "uint8"}
_TORCH |= {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}
# The order in which the safetensors library lays tensors out, widest first and by name within: equal content must be
# equal bytes, whoever writes it.
_RANK = "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 I16 U16 F16 BF16 I32 U32 F32 F64 I64 U64".split()


@dataclass(frozen=True)
class TensorRef:
    """Where a tensor is stored, without reading it.

    Attributes:
        file: The safetensors file.
        dtype: As safetensors writes it, such as `BF16`.
        shape: Its shape.
        offset: First byte of its values in the file.
        bytes: Length of its values.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0
    bytes: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a safetensors dtype.

    Raises:
        CheckpointError: torch has none.
    """
    import torch

    found = getattr(torch, _TORCH.get(dtype, "-"), None)
    if found is None:
        raise CheckpointError(f"tensors of dtype {dtype} cannot be read here; convert the checkpoint")
    assert isinstance(found, torch.dtype)
    return found


def read_header(path: Path) -> dict[str, TensorRef]:
    """The tensors that a safetensors file stores, from its header alone.

    Raises:
        CheckpointError: The file is missing, truncated or malformed, or its header contradicts itself: a name twice,
            values that overlap or leave gaps, a length that shape and dtype do not give.
    """
    return read_header_and_metadata(path)[0]


def read_header_and_metadata(path: Path) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """`read_header`, and the file's metadata."""
    fix = "download or copy it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise CheckpointError(f"{path} is not a safetensors file or is cut off ({size} bytes); {fix}")
            header = json.loads(stream.read(length), object_pairs_hook=_unique)
        metadata = {str(key): str(value) for key, value in (header.pop("__metadata__", None) or {}).items()}
        refs = {name: _ref(path, 8 + length, entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; {fix}") from None
    except (UnicodeDecodeError, AttributeError, KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
        why = f" ({error})" if type(error) is ValueError else ""
        raise CheckpointError(f"{path} has a damaged safetensors header{why}; {fix}") from None
    at = 8 + length
    for name, ref in sorted(refs.items(), key=lambda item: (item[1].offset, item[1].bytes)):
        if ref.offset != at:
            raise CheckpointError(f"{path} has a damaged safetensors header ({name} overlaps or leaves a gap); {fix}")
        at += ref.bytes
    if size != at:
        raise CheckpointError(f"{path} is truncated: {size} bytes instead of {at}; {fix}")
    return refs, metadata


def read_tensor(ref: TensorRef, name: str) -> Tensor:
    """One tensor, on the CPU, in its stored dtype and in memory of its own.

    Raises:
        CheckpointError: The file shrank since its header was read, or torch lacks the dtype.
    """
    import torch

    buffer = torch.empty(ref.bytes, dtype=torch.uint8)
    view = buffer.numpy().data
    with ref.file.open("rb", buffering=0) as stream:
        stream.seek(ref.offset)
        done = 0
        while done < ref.bytes:
            count = stream.readinto(view[done:])
            if not count:
                raise CheckpointError(f"{ref.file} ends within {name}; download or copy it again")
            done += count
    dtype = torch_dtype(ref.dtype)
    return buffer.view(dtype).reshape(ref.shape) if ref.numel else torch.empty(ref.shape, dtype=dtype)


@dataclass(frozen=True)
class Pending:
    """A tensor to be written whose shape and dtype are known before it is made.

    Attributes:
        name: What it is stored as.
        shape: Its shape.
        dtype: Its dtype.
        make: Called once, when its turn comes; returns it, on any device.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def in_layout(pending: Iterable[Pending]) -> list[Pending]:
    """The order in which `write_pending` makes and stores tensors: that of the safetensors library."""
    return sorted(pending, key=lambda one: (-_RANK.index(_code(one.name, one.dtype)), one.name.encode()))


def write_pending(path: Path, pending: Sequence[Pending], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with one tensor in memory at a time and no spool, complete or not at all.

    Args:
        path: The file; what is there stays until the new one is complete.
        pending: In the order of `in_layout`.
        metadata: Text by key that goes into the header.

    Raises:
        CheckpointError: A tensor has another shape or dtype than was said.
        OSError: The disk is full, among others.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for one in pending:
        size = math.prod(one.shape) * one.dtype.itemsize
        code = _code(one.name, one.dtype)
        header[one.name] = {"dtype": code, "shape": list(one.shape), "data_offsets": [at, at + size]}
        at += size
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as stream:
            stream.write(_header(header))
            for one in pending:
                tensor = one.make().detach().cpu().contiguous()
                if tuple(tensor.shape) != one.shape or tensor.dtype != one.dtype:
                    raise CheckpointError(f"{one.name} is {tensor.dtype} {list(tensor.shape)}, not as was said")
                if tensor.numel():
                    stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        commit(part, path)
    finally:
        # On a full disk the part would be in the way of all else.
        part.unlink(missing_ok=True)


def _code(name: str, dtype: torch.dtype) -> str:
    code = next((key for key, value in _TORCH.items() if str(dtype) == f"torch.{value}"), None)
    if code is None:
        raise CheckpointError(f"{name} has dtype {dtype}, which safetensors lacks")
    return code


def _header(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(len(text) + -len(text) % 8)
    return struct.pack("<Q", len(text)) + text


class ShardWriter:
    """Writes a safetensors file with one tensor in memory at a time; use it as a context manager.

    The values wait in a spool file beside the target, because the layout is only known when all are there. The file is
    the same, byte for byte, as the safetensors library would write. It appears complete or not at all.

    Attributes:
        metadata: Text by key that goes into the header; may be set until the end.
    """

    def __init__(self, path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
        """Prepare to write `path`. One metadata key only: the library writes several in no fixed order."""
        self._path, self.metadata = path, dict(metadata or {})
        self._spool_path = path.with_name(path.name + ".spool")
        self._spool = self._spool_path.open("w+b")
        self._found: dict[str, tuple[str, tuple[int, ...], int, int]] = {}

    def __enter__(self) -> ShardWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the file, unless an error is on its way."""
        try:
            if kind is None:
                self._finish()
        finally:
            self._spool.close()
            self._spool_path.unlink(missing_ok=True)

    def add(self, name: str, tensor: Tensor) -> None:
        """Store `tensor` as `name`."""
        import torch

        stored = tensor.detach().cpu().contiguous()
        code = _code(name, stored.dtype)
        if name in self._found:
            raise CheckpointError(f"{name} is stored twice")
        raw = stored.reshape(-1).view(torch.uint8) if stored.numel() else stored.new_empty(0, dtype=torch.uint8)
        at = self._spool.tell()
        self._spool.write(raw.numpy().data)
        self._found[name] = (code, tuple(stored.shape), at, raw.numel())

    def _finish(self) -> None:
        order = sorted(self._found, key=lambda name: (-_RANK.index(self._found[name][0]), name.encode()))
        header: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        at = 0
        for name in order:
            code, shape, _, size = self._found[name]
            header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("wb") as stream:
                stream.write(_header(header))
                for name in order:
                    _, _, start, size = self._found[name]
                    self._copy(stream, start, size)
            commit(part, self._path)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, target: Any, start: int, size: int) -> None:
        self._spool.seek(start)
        while size:
            chunk = self._spool.read(min(size, _COPY_BYTES))
            target.write(chunk)
            size -= len(chunk)


class ShardedWriter:
    """Writes the weights of a model, tensor by tensor, to as many files as they need; the index is the caller's.

    Attributes:
        files: Names of the files, once closed.
    """

    def __init__(self, directory: Path, *, shard_bytes: int = 4_000_000_000) -> None:
        """Write to `directory`; a new file begins when one holds `shard_bytes`."""
        self._directory, self._limit, self._size = directory, shard_bytes, 0
        self._shard: ShardWriter | None = None
        self.files: list[str] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor."""
        if self._shard is None or self._size >= self._limit:
            self._finish()
            self.files.append(f"model-{len(self.files) + 1:05d}.safetensors")
            self._shard = ShardWriter(self._directory / self.files[-1], metadata={"format": "pt"}).__enter__()
            self._size = 0
        self._shard.add(name, tensor)
        self._size += tensor.numel() * tensor.element_size()

    def close(self) -> None:
        """Finish the last file; a single one is called as if there could be no other."""
        self._finish()
        if len(self.files) == 1:
            (self._directory / self.files[0]).rename(self._directory / "model.safetensors")
            self.files = ["model.safetensors"]

    def _finish(self) -> None:
        if self._shard is not None:
            self._shard.__exit__(None, None, None)
            self._shard = None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _ref(path: Path, base: int, entry: Mapping[str, Any]) -> TensorRef:
    dtype, shape, (begin, end) = str(entry["dtype"]), entry["shape"], entry["data_offsets"]
    numbers = (*shape, begin, end)
    if any(type(number) is not int or not 0 <= number < 1 << 60 for number in numbers) or end < begin:
        raise ValueError("a shape or an offset is no sensible number")
    ref = TensorRef(path, dtype, tuple(shape), base + begin, end - begin)
    if dtype in BITS and ref.numel * BITS[dtype] != 8 * ref.bytes:
        raise ValueError(f"{dtype} of shape {list(shape)} does not take {ref.bytes} bytes")
    return ref
