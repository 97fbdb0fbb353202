"""Reads an answer, streamed or whole, into one reply; whatever a server sends ends in a reply or a typed failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.endpoint.sse import EventReader
from harness.endpoint.transport import Response
from harness.engines.openai.failures import GiveUp, TryAgain, failure_of, message_of, one_line, refusal_of

MAX_BYTES = 32 * 2**20
_ERROR_BYTES = 2**16
_MAX_TOKENS = 2**31
_FINISH: Mapping[str, Literal["stop", "length"]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
}


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: As the server gave it.
        finish: Why it ended there.
        n_in: Tokens of the prompt by the server's count; None without one.
        n_out: Tokens of the answer by the server's count; None without one.
        served: What the server calls the model that answered, with its fingerprint if it names one.
        logprobs: The `logprobs` object of the answer, as it came.
    """

    text: str
    finish: Literal["stop", "length"]
    n_in: int | None
    n_out: int | None
    served: str
    logprobs: Any = None


class ReplyReader:
    """Puts the objects of one answer together: one of a plain answer, several of a stream."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._parts: list[str] = []
        self._refusal: list[str] = []
        self._reason: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._served = ""
        self._logprobs: Any = None
        self._choices = 0

    def take(self, data: str) -> None:
        """Take one JSON object.

        Raises:
            TryAgain: It is none, or an error of the server.
        """
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise TryAgain("the answer is not whole JSON") from None
        if not isinstance(event, dict):
            raise TryAgain("the answer is no JSON object")
        if event.get("error"):
            message, text = message_of(data.encode("utf-8", "replace"))
            raise refusal_of(message, text) or TryAgain(f"the server broke off: {message}")
        self._usage = event["usage"] if isinstance(event.get("usage"), dict) else self._usage
        named = (event.get("model"), event.get("system_fingerprint"))
        self._served = " ".join(one_line(each) for each in named if isinstance(each, str)) or self._served
        choices = event.get("choices")
        if isinstance(choices, list) and choices:
            self._take_choice(choices[0])

    def _take_choice(self, choice: Any) -> None:
        if not isinstance(choice, dict):
            raise TryAgain("the answer has a choice that is no JSON object")
        self._choices += 1
        inner = choice.get("delta") or choice.get("message") or choice
        if not isinstance(inner, dict):
            raise TryAgain("the answer has a message that is no JSON object")
        self._parts.append(_text(inner.get("content") if inner is not choice else inner.get("text")))
        self._refusal.append(_text(inner.get("refusal")))
        if choice.get("finish_reason"):
            self._reason = str(choice["finish_reason"])
        self._logprobs = choice.get("logprobs") or self._logprobs

    def reply(self) -> Reply:
        """The whole answer, once nothing more comes.

        Raises:
            TryAgain: It is not complete.
            GiveUp: The model or a filter refused.
        """
        if not self._choices:
            raise TryAgain("the answer has no choices")
        if self._reason is None:
            raise TryAgain("the answer broke off before its finish_reason")
        refusal = one_line("".join(self._refusal))
        if self._reason == "content_filter" or refusal:
            raise GiveUp("refused", refusal or "the server's content filter cut the answer")
        if self._reason not in _FINISH:
            raise TryAgain(f"the answer ended with finish_reason {one_line(self._reason)!r}")
        # Halves of a pair that came in two pieces find each other; what stays alone cannot be stored as UTF-8.
        text = "".join(self._parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        n_in, n_out = (_count(self._usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(text, _FINISH[self._reason], n_in, n_out, self._served, self._logprobs)


async def read_reply(response: Response, *, sent: Mapping[str, Any], chunk_timeout: float) -> Reply:
    """Receive one answer.

    Args:
        response: What the server sends.
        sent: The request's fields.
        chunk_timeout: Seconds that may pass without a byte.

    Raises:
        TryAgain, GiveUp, FieldRefused, Hopeless: There is no usable answer.
    """
    pieces = _timed(response, chunk_timeout)
    if response.status != 200:
        body = b""
        async for piece in pieces:
            body += piece
            if len(body) > _ERROR_BYTES:
                break
        raise failure_of(response.status, response.headers, body[:_ERROR_BYTES], sent=sent)
    kind = next((value for name, value in response.headers.items() if name.lower() == "content-type"), "")
    reader, size = ReplyReader(), 0
    if "event-stream" in kind:
        events = EventReader()
        async for piece in pieces:
            size = _grown(size, piece)
            for data in events.feed(piece):
                if data.strip() == "[DONE]":
                    return reader.reply()
                reader.take(data)
    elif "json" in kind:
        whole = bytearray()
        async for piece in pieces:
            size = _grown(size, piece)
            whole += piece
        reader.take(whole.decode("utf-8", errors="replace"))
    else:
        raise TryAgain(f"the server answers with content type {one_line(kind) or 'none'!r}; is this its base URL?")
    return reader.reply()


async def _timed(response: Response, seconds: float) -> AsyncIterator[bytes]:
    pieces = response.pieces()
    while True:
        try:
            async with asyncio.timeout(seconds):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TryAgain(f"the server sent nothing for {seconds:g} s") from None
        yield piece


def _grown(size: int, piece: bytes) -> int:
    if size + len(piece) > MAX_BYTES:
        raise TryAgain(f"the answer is longer than {MAX_BYTES // 2**20} MiB")
    return size + len(piece)


def _text(content: Any) -> str:
    if isinstance(content, list):  # parts, as some servers write a message
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS else None
