"""A real HTTP server whose every answer a test scripts, faults of the wire included; it keeps what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Sent:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def question(self) -> str:
        """The last message, or the prompt."""
        return str(self.body["messages"][-1]["content"] if "messages" in self.body else self.body["prompt"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: EndpointServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        sent = Sent(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(raw))
        with self.owner.lock:
            number = len(self.owner.requests)
            self.owner.requests.append(sent)
            self.owner.under_way += 1
            self.owner.most = max(self.owner.most, self.owner.under_way)
        try:
            self.owner.behave(number, sent)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.owner.lock:
                self.owner.under_way -= 1

    do_GET = do_POST

    def log_message(self, *args: Any) -> None:
        pass

    def start(self, status: int, kind: str, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()


Behaviour = Callable[[Handler], None]


class EndpointServer:
    """Answers the k-th request (from 0) with `behave(k, request)`; a context manager."""

    def __init__(self, behave: Callable[[int, Sent], Behaviour], *, port: int = 0) -> None:
        self.behave, self.requests, self.lock = behave, list[Sent](), threading.Lock()
        self.under_way = self.most = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"owner": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> EndpointServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more."""
        self._http.shutdown()
        self._http.server_close()


def event(data: dict[str, Any] | str) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def choice(text: str, *, chat: bool, finish: str | None = None) -> dict[str, Any]:
    inner = {"delta": {"content": text}} if chat else {"text": text}
    return {"index": 0, **inner, "finish_reason": finish}


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def answer(
    sent: Sent, text: str, *, finish: str = "stop", usage: dict[str, Any] | None = USAGE, model: str = "served-1"
) -> Behaviour:
    """A whole and correct answer, in the form that was asked for."""
    chat = "messages" in sent.body

    def stream(handler: Handler) -> None:
        handler.start(200, "text/event-stream; charset=utf-8")
        half = len(text) // 2
        for part in (text[:half], text[half:]):
            handler.wfile.write(event({"model": model, "choices": [choice(part, chat=chat)]}))
        handler.wfile.write(event({"model": model, "choices": [choice("", chat=chat, finish=finish)]}))
        if usage is not None:
            handler.wfile.write(event({"model": model, "choices": [], "usage": usage}))
        handler.wfile.write(event("[DONE]"))

    def plain(handler: Handler) -> None:
        inner = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        body: dict[str, Any] = {"model": model, "choices": [{"index": 0, **inner, "finish_reason": finish}]}
        json_body(200, body if usage is None else {**body, "usage": usage})(handler)

    return stream if sent.body.get("stream") else plain


def json_body(status: int, body: Any, **headers: str) -> Behaviour:
    def behave(handler: Handler) -> None:
        raw = json.dumps(body).encode()
        handler.start(status, "application/json", len(raw), **headers)
        handler.wfile.write(raw)

    return behave


def raw_body(raw: bytes, kind: str = "application/json", *, length: int | None = None) -> Behaviour:
    """Bytes as they are; a `length` above theirs breaks the connection in the middle."""

    def behave(handler: Handler) -> None:
        handler.start(200, kind, len(raw) if length is None else length)
        handler.wfile.write(raw)
        handler.wfile.flush()
        if length is not None:
            handler.close_connection = True

    return behave


def hang(seconds: float) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.close_connection = True
        time.sleep(seconds)

    return behave


def broken_stream(sent: Sent, text: str) -> Behaviour:
    """Half an answer, then the end of the connection without a finish_reason."""

    def behave(handler: Handler) -> None:
        handler.start(200, "text/event-stream")
        handler.wfile.write(event({"choices": [choice(text, chat="messages" in sent.body)]}))

    return behave


def drip(sent: Sent, *, every: float, pieces: int) -> Behaviour:
    """A stream that never stops to say a little."""

    def behave(handler: Handler) -> None:
        handler.start(200, "text/event-stream")
        for _ in range(pieces):
            handler.wfile.write(event({"choices": [choice("a", chat="messages" in sent.body)]}))
            handler.wfile.flush()
            time.sleep(every)

    return behave
