"""What the harness, the judge and the candidate say to each other: framed, typed, plain values.

The module also runs inside the sandbox, under whatever Python is found there, so it imports almost nothing and nothing
of ours. A frame is a big-endian 4-byte length and that many bytes. A value is one tag byte and its content; decoding
yields exact built-in types only, so that no object of generated code ever meets a test.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing takes longer than starting Python
if TYPE_CHECKING:
    from typing import Any

HELLO = b"sparsebench-sandbox 3"
# HumanEval+ asks for lists of a million floats, which take 25 MB.
MAX_FRAME = 64 * 2**20
# Each request to a candidate begins with so many random bytes, and its answer with the same: what a program wrote to
# the channel of its own accord is told from an answer.
TICKET = 8
MAX_DEPTH = 64
# Lists of so many numbers travel as machine words: one by one, a million of them take seconds.
_MANY = 64
_EXACT = 2**53
# A test may hand over a type, as `isinstance` wants one.
_TYPES = (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)


class WireError(ValueError):
    """Bytes that are not a value, or a value that has no plain form."""


class UnsupportedValue(WireError):
    """A value of a type outside the plain built-ins; the message is the type's name."""


def encode(value: Any) -> bytes:
    """Turn a value of plain built-in types into bytes.

    Subclasses of built-ins (`Counter`, named tuples, `IntEnum`) are sent as the built-in value that they hold, and
    iterators as their items, because honest code returns those; methods that a subclass overrides are not called.

    Raises:
        UnsupportedValue: The value, or one inside it, is of another type.
        WireError: It is nested deeper than `MAX_DEPTH` or larger than `MAX_FRAME`.
    """
    out: list[bytes] = []
    _put(value, out, 0)
    data = b"".join(out)
    if len(data) > MAX_FRAME - TICKET - 1:
        raise WireError("the value is too large")
    return data


def _scalar(tag: bytes, content: bytes) -> bytes:
    return tag + str(len(content)).encode() + b":" + content


def _put(value: Any, out: list[bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError("the value is nested too deeply")
    kind = type(value)
    if value is None:
        out.append(b"N")
    elif value is True or value is False:
        out.append(b"T" if value else b"F")
    elif issubclass(kind, int):
        # Hexadecimal: decimal conversion is quadratic and refused beyond 4,300 digits.
        out.append(_scalar(b"i", hex(int.__int__(value)).encode()))
    elif issubclass(kind, float):
        out.append(_scalar(b"f", float.hex(float.__float__(value)).encode()))
    elif issubclass(kind, complex):
        plain = complex.__pos__(value)
        out.append(b"c")
        _put(plain.real, out, depth + 1)
        _put(plain.imag, out, depth + 1)
    elif issubclass(kind, str):
        # Before it is copied: a character takes at least a byte.
        if str.__len__(value) > MAX_FRAME:
            raise WireError("the value is too large")
        out.append(_scalar(b"s", str.encode(value, "utf-8", "surrogatepass")))
    elif issubclass(kind, (bytes, bytearray)):
        out.append(_scalar(b"b", b"".join((value,))))
    elif kind is type and any(value is known for known in _TYPES):
        out.append(_scalar(b"y", str(value.__name__).encode()))
    else:
        _put_container(value, kind, out, depth)


def _put_container(value: Any, kind: type, out: list[bytes], depth: int) -> None:
    items: Any
    if issubclass(kind, list):
        tag, items = b"l", list.__getitem__(value, slice(None))
        words = _numbers(items)
        if words is not None:
            out.append(b"a" + str(len(items)).encode() + b":" + words)
            return
    elif issubclass(kind, tuple):
        tag, items = b"t", tuple.__getitem__(value, slice(None))
    elif issubclass(kind, dict):
        tag, items = b"d", [part for pair in dict.items(value) for part in pair]
    elif issubclass(kind, set):
        tag, items = b"S", list(set.__iter__(value))
    elif issubclass(kind, frozenset):
        tag, items = b"Z", list(frozenset.__iter__(value))
    elif kind is range:
        tag, items = b"r", [value.start, value.stop, value.step]
    elif hasattr(kind, "__next__"):
        tag, items = b"I", list(value)
    else:
        raise UnsupportedValue(str(kind.__name__))
    out.append(tag + str(len(items)).encode() + b":")
    for item in items:
        _put(item, out, depth + 1)


def _numbers(items: list[Any]) -> bytes | None:
    """Many plain numbers as a byte each, 1 for an integer, and then a double each; None where that would lose any."""
    if len(items) < _MANY or not set(map(type, items)) <= {int, float}:
        return None
    if any(type(item) is int and not -_EXACT <= item <= _EXACT for item in items):
        return None
    words = memoryview(bytearray(8 * len(items))).cast("d")
    for at, item in enumerate(items):
        words[at] = item
    return bytes([type(item) is int for item in items]) + words.tobytes()


def decode(data: bytes) -> Any:
    """Turn bytes into the value of plain built-in types that they encode; the bytes may be hostile.

    Raises:
        UnsupportedValue: A set or a dict holds what plain values cannot hash.
        WireError: The bytes are not exactly one well-formed value.
    """
    try:
        value, end = _get(data, 0, 0)
    except WireError:
        raise
    except TypeError:  # honest code may make a list hashable, a plain one is not
        raise UnsupportedValue("unhashable") from None
    except (ValueError, IndexError, OverflowError) as error:
        raise WireError(f"not a value: {type(error).__name__}") from None
    if end != len(data):
        raise WireError("bytes after the value")
    return value


def _number(data: bytes, at: int) -> tuple[int, int]:
    colon = data.index(b":", at, at + 12)
    digits = data[at:colon]
    if not digits.isdigit():
        raise WireError("a length is not a number")
    return int(digits), colon + 1


def _get(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH + 1:
        raise WireError("the value is nested too deeply")
    tag = data[at : at + 1]
    at += 1
    if tag == b"N":
        return None, at
    if tag == b"T":
        return True, at
    if tag == b"F":
        return False, at
    if tag == b"c":
        real, at = _get(data, at, depth + 1)
        imag, at = _get(data, at, depth + 1)
        if type(real) is not float or type(imag) is not float:
            raise WireError("a complex number needs two floats")
        return complex(real, imag), at
    size, at = _number(data, at)
    # One byte is the least that an item or a character takes, so a false length cannot ask for much memory.
    if size > len(data) - at:
        raise WireError("a length exceeds the data")
    if tag in (b"i", b"f", b"s", b"b", b"y"):
        return _get_scalar(tag, data[at : at + size]), at + size
    if tag == b"a":
        if 9 * size > len(data) - at:
            raise WireError("a length exceeds the data")
        words = memoryview(data[at + size : at + 9 * size]).cast("d").tolist()
        return [int(word) if whole else word for whole, word in zip(data[at : at + size], words)], at + 9 * size  # noqa: B905
    items = []
    for _ in range(size):
        item, at = _get(data, at, depth + 1)
        items.append(item)
    return _build(tag, items), at


def _get_scalar(tag: bytes, content: bytes) -> Any:
    if tag == b"i":
        return int(content, 16)
    if tag == b"f":
        return float.fromhex(content.decode("ascii"))
    if tag == b"y":
        known = [kind for kind in _TYPES if kind.__name__.encode() == content]
        if not known:
            raise WireError("unknown type")
        return known[0]
    return content.decode("utf-8", "surrogatepass") if tag == b"s" else content


def _build(tag: bytes, items: list[Any]) -> Any:
    if tag == b"l":
        return items
    if tag == b"t":
        return tuple(items)
    if tag == b"d":
        if len(items) % 2:
            raise WireError("a key without a value")
        return dict(zip(items[::2], items[1::2]))  # noqa: B905 - `strict` needs Python 3.10
    if tag == b"S":
        return set(items)
    if tag == b"Z":
        return frozenset(items)
    if tag == b"r":
        return range(*items)
    if tag == b"I":
        return iter(items)
    raise WireError("unknown tag")


def read_frame(fd: int) -> bytes:
    """Read one frame from a blocking descriptor.

    Raises:
        EOFError: The other side closed.
        WireError: The frame is larger than `MAX_FRAME`.
    """
    size = int.from_bytes(_read_exactly(fd, 4), "big")
    if size > MAX_FRAME:
        raise WireError("the frame is too large")
    return _read_exactly(fd, size)


def _read_exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(fd, min(size - len(data), 2**20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def write_frame(fd: int, payload: bytes) -> None:
    """Write one frame to a blocking descriptor."""
    data = memoryview(len(payload).to_bytes(4, "big") + payload)
    while data:
        data = data[os.write(fd, data) :]
