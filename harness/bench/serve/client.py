"""One streamed request to an OpenAI-compatible endpoint, to raw stamps. Time and transport come in as arguments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.bench.latency import Stamps
from harness.endpoint.sse import EventReader
from harness.endpoint.transport import Post, TransportError

Status = Literal["ok", "http", "error", "timeout", "incomplete"]
"""`incomplete`: the stream ended, or gave no token, without saying that it was finished."""

DETAIL = 200


@dataclass(frozen=True)
class Prompt:
    """What is asked: a text, and how many tokens the answer may have."""

    text: str
    max_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """How requests are written.

    Attributes:
        model: The model's name on the server.
        chat: Use `/chat/completions`, else `/completions`.
        ignore_eos: Ask for exactly `max_tokens` tokens (vLLM, SGLang; others refuse the field).
        timeout: Seconds that a request may take in all.
    """

    model: str
    chat: bool = True
    ignore_eos: bool = False
    timeout: float = 600.0

    @property
    def path(self) -> str:
        """Below the base URL."""
        return "chat/completions" if self.chat else "completions"

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """The request's JSON: greedy, streamed, with a final count of tokens."""
        asked: dict[str, Any] = (
            {"messages": [{"role": "user", "content": prompt.text}]} if self.chat else {"prompt": prompt.text}
        )
        more: dict[str, Any] = {"ignore_eos": True} if self.ignore_eos else {}
        return {
            "model": self.model,
            **asked,
            "max_tokens": prompt.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        index: Its place in the load.
        due: When it was to be sent, on the client's clock.
        stamps: Raw times.
        ended: When it was over, well or not.
        status: How it ended.
        detail: Why, unless `ok`.
        counted: Whether the number of tokens is the server's own count.
    """

    index: int
    due: float
    stamps: Stamps
    ended: float
    status: Status
    detail: str | None = None
    counted: bool = False


def text_of(event: dict[str, Any]) -> bool:
    """Whether an event holds output text: an answer's or a reasoning model's; a role or an empty string is none."""
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or choice
        if any(delta.get(name) for name in ("content", "text", "reasoning_content", "reasoning")):
            return True
    return False


class _Reading:
    """What has been received of one answer."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.tokens: int | None = None
        self.finished = False
        self.error: str | None = None

    def take(self, data: str, now: float) -> None:
        """Take one event, received at `now`."""
        if data == "[DONE]":
            self.finished = True
            return
        event = json.loads(data)
        if event.get("error"):
            self.error = str(event["error"])[:DETAIL]
            return
        if text_of(event):
            self.arrivals.append(now)
        if any(choice.get("finish_reason") for choice in event.get("choices") or []):
            self.finished = True
        usage = event.get("usage") or {}
        self.tokens = usage.get("completion_tokens", self.tokens)

    def verdict(self) -> tuple[Status, str | None]:
        """How it ended, once the stream is over."""
        if self.error is not None:
            return "error", self.error
        if not self.finished or not self.arrivals:
            return "incomplete", "the stream ended early" if not self.finished else "no token came"
        return "ok", None


async def ask(
    post: Post, endpoint: Endpoint, prompt: Prompt, *, clock: Callable[[], float], index: int = 0, due: float = 0.0
) -> Outcome:
    """Send one request and stamp every piece of its answer; never raises for what a server or network does."""
    events, reading = EventReader(), _Reading()
    sent = clock()
    status: Status
    detail: str | None
    try:
        async with asyncio.timeout(endpoint.timeout), post(endpoint.path, endpoint.body(prompt)) as response:
            if response.status != 200:
                status, detail = "http", f"HTTP {response.status}"
            else:
                async for piece in response.pieces():
                    now = clock()
                    for data in events.feed(piece):
                        reading.take(data, now)
                status, detail = reading.verdict()
    except TimeoutError:
        status, detail = "timeout", f"no end within {endpoint.timeout:g} s"
    except (TransportError, ValueError, AttributeError, TypeError) as error:  # the last three: not the JSON we know
        status, detail = "error", f"{type(error).__name__}: {error}"[:DETAIL]
    arrivals = tuple(reading.arrivals)
    tokens = len(arrivals) if reading.tokens is None else int(reading.tokens)
    stamps = Stamps(sent, arrivals, tokens)
    return Outcome(index, due, stamps, clock(), status, detail, counted=reading.tokens is not None)
