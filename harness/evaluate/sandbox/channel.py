"""Frames to and from a sandboxed process, with a deadline on every read and write."""

from __future__ import annotations

import os
import select
import time

from harness.evaluate.sandbox.protocol import MAX_FRAME


class ChannelClosed(Exception):
    """The other side is gone."""


class ChannelTimeout(Exception):
    """The other side did not answer in time."""


class ChannelMisuse(Exception):
    """The other side sent a frame that is too large."""


class Channel:
    """A pair of pipes that carries frames; the other side may be hostile, slow or dead.

    Args:
        source: Descriptor to read from; it becomes non-blocking and is owned by the channel.
        sink: Descriptor to write to, likewise.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        os.set_blocking(source, False)
        os.set_blocking(sink, False)

    def close(self) -> None:
        """Close both descriptors; closing twice is fine."""
        for fd in (self._source, self._sink):
            if fd >= 0:
                os.close(fd)
        self._source = self._sink = -1

    def send(self, payload: bytes, deadline: float) -> None:
        """Write one frame before `deadline`, a `time.monotonic` value.

        Raises:
            ChannelClosed: Nobody reads.
            ChannelTimeout: The deadline passed.
        """
        data = memoryview(len(payload).to_bytes(4, "big") + payload)
        while data:
            try:
                data = data[os.write(self._sink, data) :]
            except BlockingIOError:
                _wait(self._sink, select.POLLOUT, deadline)
            except BrokenPipeError:
                raise ChannelClosed from None

    def receive(self, deadline: float) -> bytes:
        """Read one frame before `deadline`, a `time.monotonic` value.

        Raises:
            ChannelClosed: The other side closed before a whole frame arrived.
            ChannelTimeout: The deadline passed.
            ChannelMisuse: The frame is larger than `MAX_FRAME`.
        """
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > MAX_FRAME:
            raise ChannelMisuse
        return self._read(size, deadline)

    def pending(self) -> bool:
        """Whether the other side has written what nobody asked for."""
        poller = select.poll()
        poller.register(self._source, select.POLLIN)
        return any(event & select.POLLIN for _, event in poller.poll(0))

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                part = os.read(self._source, size - len(data))
            except BlockingIOError:
                _wait(self._source, select.POLLIN, deadline)
                continue
            if not part:
                raise ChannelClosed
            data += part
        return bytes(data)


def _wait(fd: int, event: int, deadline: float) -> None:
    left = deadline - time.monotonic()
    poller = select.poll()
    poller.register(fd, event)
    if left <= 0 or not poller.poll(left * 1000):
        raise ChannelTimeout
