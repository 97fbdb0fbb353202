"""A server that answers by a script: the same wire format as a real endpoint, with known delays.

Tests assert latencies exactly against it, and `python -m harness.bench.serve.mock` lets one try the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True)
class Script:
    """One answer.

    Attributes:
        delays: Seconds before each piece of text.
        role_after: Seconds before an event that holds a role and no text, sent first; None sends none.
        per_event: Tokens that each event holds, as `usage` will count them.
        usage: Whether a last event counts the tokens.
        status: HTTP status; other than 200, nothing is streamed.
        cut_after: Pieces of text after which the connection breaks.
        tail: Seconds between the last piece of text and the end of the stream.
    """

    delays: tuple[float, ...]
    role_after: float | None = None
    per_event: int = 1
    usage: bool = True
    status: int = 200
    cut_after: int | None = None
    tail: float = 0.0


class MockServer:
    """Serves `/v1/chat/completions` and `/v1/completions` on a free port of this machine.

    Use it as an asynchronous context manager. The k-th request (from 0) is answered by `script(k)`.
    """

    def __init__(
        self,
        script: Callable[[int], Script],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        port: int = 0,
    ) -> None:
        """Wait with `sleep`; port 0 takes any that is free."""
        self._script, self._sleep, self._port = script, sleep, port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> MockServer:
        """Listen."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, open connections included."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                number = len(self.requests)
                self.requests.append(body)
                self.headers.append(fields)
                if not await self._answer(writer, self._script(number), chat="messages" in body):
                    break
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, script: Script, *, chat: bool) -> bool:
        """Answer one request; whether the connection is still good."""
        if script.status != 200:
            head = f"HTTP/1.1 {script.status} {REASONS.get(script.status, 'Error')}\r\nContent-Length: 2\r\n\r\n{{}}"
            writer.write(head.encode())
            await writer.drain()
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        if script.role_after is not None:
            await self._sleep(script.role_after)
            await self._event(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for number, delay in enumerate(script.delays):
            if number == script.cut_after:
                writer.transport.abort()
                return False
            await self._sleep(delay)
            text = {"delta": {"content": "word "}} if chat else {"text": "word "}
            await self._event(writer, {"choices": [text]})
        if script.tail:
            await self._sleep(script.tail)
        done = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        usage = {"completion_tokens": len(script.delays) * script.per_event}
        ends = [done, *([{"choices": [], "usage": usage}] if script.usage else [])]
        for event in (*map(json.dumps, ends), "[DONE]"):
            writer.write(_chunk(f"data: {event}\n\n"))
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        writer.write(_chunk(f"data: {json.dumps(event)}\n\n"))
        await writer.drain()


def _chunk(text: str) -> bytes:
    data = text.encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _serve_forever(port: int) -> None:
    script = Script((0.05, *(0.01,) * 31), role_after=0.001)
    async with MockServer(lambda number: script, port=port) as server:
        print(f"answers at {server.base_url}: ttft 51 ms, tpot 10 ms, 32 tokens; Ctrl-C ends it", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve on port 8000 until interrupted."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(8000))


if __name__ == "__main__":
    main()
