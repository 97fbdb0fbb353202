"""Server-sent events, as far as OpenAI-compatible endpoints use them (WHATWG HTML, section 9.2)."""

from __future__ import annotations


class EventReader:
    """Takes bytes as they come and gives the data of each complete event."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._rest = b""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that `piece` completes; comments and other fields are dropped.

        Lines end with LF, CRLF or CR. An event ends with an empty line; several data lines are joined with LF.
        """
        # A CR at the very end may be half of a CRLF, and waits for what follows.
        lines = (self._rest + piece).replace(b"\r\n", b"\n")
        held = b"\r" if lines.endswith(b"\r") else b""
        *complete, rest = lines.removesuffix(b"\r").replace(b"\r", b"\n").split(b"\n")
        self._rest = rest + held
        events = []
        for line in complete:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" ").decode("utf-8", errors="replace"))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events
