"""The wire format: plain values survive, everything else is refused, hostile bytes do no harm."""

from __future__ import annotations

import collections
import enum
import math
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluate.sandbox.channel import Channel, ChannelClosed, ChannelMisuse, ChannelTimeout
from harness.evaluate.sandbox.protocol import (
    MAX_DEPTH,
    MAX_FRAME,
    UnsupportedValue,
    WireError,
    decode,
    encode,
    read_frame,
    write_frame,
)

_HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
_VALUES = st.recursive(
    _HASHABLE | st.sets(_HASHABLE, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_HASHABLE, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(_VALUES)
def test_plain_values_survive(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text("NTFlstdSZribfcay0123456789:", max_size=60).map(str.encode))
def test_hostile_bytes_raise_only_wire_errors(data: bytes) -> None:
    try:
        value = decode(data)
    except WireError:
        return
    decode(encode(value))


def test_awkward_scalars() -> None:
    for value in (math.inf, -math.inf, -0.0, 5e-324, -(2**70), "\ud800", "a\x00b", b"", 10**5000):
        back = decode(encode(value))
        assert back == value and math.copysign(1, back if isinstance(back, float) else 1) == math.copysign(
            1, value if isinstance(value, float) else 1
        )


_MIXED = st.lists(
    st.floats() | st.integers(-(2**53), 2**53) | st.sampled_from([-0.0, 2**53, -(2**53)]), min_size=60, max_size=80
)


@settings(max_examples=60, deadline=None)
@given(_MIXED)
def test_many_numbers_keep_type_sign_and_value(numbers: list[float]) -> None:
    back = decode(encode([numbers, "after"]))
    assert back[1] == "after" and [type(x) for x in back[0]] == [type(x) for x in numbers]
    assert repr(back[0]) == repr(numbers)
    assert (b"a" in encode(numbers)[:1]) == (len(numbers) >= 64)


@pytest.mark.parametrize("odd", [True, 2**53 + 1, 1j, "1", None, enum.IntEnum("E", "A").A])
def test_lists_with_anything_else_go_item_by_item(odd: object) -> None:
    values = [*range(100), odd]
    back = decode(encode(values))
    assert back == values and encode(values)[:1] == b"l" and type(back[5]) is int


@pytest.mark.parametrize("data", [b"a3:\0\0\0", b"a1:\1" + b"\xff" * 8, b"a1:\1" + bytes(6) + b"\xf0\x7f", b"y3:int2"])
def test_hostile_words_are_wire_errors(data: bytes) -> None:
    with pytest.raises(WireError):  # too short; not a number or infinite as an integer; bytes after the value
        decode(data)


def test_plain_types_travel_and_others_do_not() -> None:
    assert decode(encode([int, str, {"a": float}])) == [int, str, {"a": float}]
    for kind in (type, object, OSError, collections.Counter, type("int", (), {})):
        with pytest.raises(UnsupportedValue):
            encode(kind)
    with pytest.raises(WireError):
        decode(b"y8:__import")


def test_nan() -> None:
    assert math.isnan(decode(encode(math.nan)))


def test_booleans_and_integers_stay_apart() -> None:
    assert [type(v) for v in decode(encode([True, 1, 1.0, 0, False]))] == [bool, int, float, int, bool]


def test_subclasses_are_sent_as_what_they_hold() -> None:
    class Evil(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __int__(self) -> int:
            return 99

        __index__ = __int__
        __hash__ = int.__hash__

    point = collections.namedtuple("point", "x y")
    colour = enum.IntEnum("colour", "RED BLUE")
    values = [Evil(3), collections.Counter("aab"), collections.OrderedDict(a=1), point(1, 2), colour.BLUE]
    back = decode(encode(values))
    assert back == [3, {"a": 2, "b": 1}, {"a": 1}, (1, 2), 2]
    assert [type(v) for v in back] == [int, dict, dict, tuple, int]


def test_iterators_stay_iterators_and_ranges_ranges() -> None:
    back = decode(encode(x * x for x in range(3)))
    assert back != [0, 1, 4]
    assert list(back) == [0, 1, 4]
    assert decode(encode(range(1, 9, 3))) == range(1, 9, 3)


@pytest.mark.parametrize("value", [object(), len, type, {1: object()}, [lambda: 1], ...])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(UnsupportedValue):
        encode(value)


def test_depth_is_bounded_both_ways() -> None:
    deep: list[object] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(WireError, match="deep"):
        encode(deep)
    with pytest.raises(WireError, match="deep"):
        decode(b"l1:" * 10_000 + b"N")
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(WireError, match="deep"):
        encode(endless)


def test_a_false_length_asks_for_no_memory() -> None:
    with pytest.raises(WireError, match="exceeds"):
        decode(b"l99999999999:N")


@pytest.fixture
def pipes() -> tuple[Channel, int, int]:
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    return Channel(ours_in, ours_out), theirs_in, theirs_out


def test_frames_cross_the_channel(pipes: tuple[Channel, int, int]) -> None:
    channel, theirs_in, theirs_out = pipes
    deadline = time.monotonic() + 5
    channel.send(b"hello", deadline)
    assert read_frame(theirs_in) == b"hello"
    write_frame(theirs_out, b"")
    write_frame(theirs_out, b"x" * 1000)
    assert channel.receive(deadline) == b""
    assert channel.receive(deadline) == b"x" * 1000
    os.close(theirs_out)
    with pytest.raises(ChannelClosed):
        channel.receive(deadline)
    os.close(theirs_in)
    with pytest.raises(ChannelClosed):
        channel.send(b"hello", deadline)
    channel.close()


def test_silence_deafness_and_greed_end_in_time(pipes: tuple[Channel, int, int]) -> None:
    channel, _, theirs_out = pipes
    start = time.monotonic()
    with pytest.raises(ChannelTimeout):
        channel.receive(start + 0.1)
    with pytest.raises(ChannelTimeout):  # nobody reads, and a pipe holds less than this
        channel.send(bytes(2**20), start + 0.2)
    os.write(theirs_out, (MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(ChannelMisuse):
        channel.receive(start + 60)
    assert time.monotonic() - start < 30
