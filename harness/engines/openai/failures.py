"""What a failed try means: try again, give this request up, leave a field out, or stop altogether."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

DETAIL = 200
_AGAIN = frozenset({408, 409, 425, 429})
# A field that a server may refuse without a change of what is asked for: `stop` is applied here as well.
OPTIONAL = ("stream_options", "seed", "stop")
_TOO_LONG = re.compile(r"context[ _]length|context window|maximum (?:model |sequence )?length|too many tokens", re.I)
_FILTERED = re.compile(r"content[ _](?:filter|policy|management)", re.I)
_QUOTA = re.compile(r"insufficient_quota|billing", re.I)
_UNKNOWN = re.compile(r"unsupported|unexpected|unrecognized|unknown|not (?:supported|permitted|allowed)|extra", re.I)


class TryAgain(Exception):
    """This try failed; the next may not. `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, *, wait: float = 0.0, nobody: bool = False) -> None:
        """Keep why; `nobody` is set where no connection could be made."""
        super().__init__(reason)
        self.wait, self.nobody = wait, nobody


class GiveUp(Exception):
    """The server will not answer this request, however often it is sent."""

    def __init__(self, finish: Literal["error", "refused", "truncated_input"], reason: str) -> None:
        """Keep how the request ends, and why."""
        super().__init__(reason)
        self.finish = finish


class FieldRefused(Exception):
    """The server does not take one optional field, which is the message."""


class Hopeless(Exception):
    """No request can succeed; `kind` says what to fix."""

    def __init__(self, kind: Literal["key", "missing", "redirect", "quota"], reason: str) -> None:
        """Keep what is wrong, and the server's words."""
        super().__init__(reason)
        self.kind = kind


def one_line(text: str) -> str:
    """A server's words, fit for a message: one line, no control characters, not long."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:DETAIL]


def message_of(body: bytes) -> tuple[str, str]:
    """(the message of an error body, its whole text), both as one line."""
    text = body.decode("utf-8", errors="replace")
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    for name in ("error", "detail", "message"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    message = found if isinstance(found, str) else text
    return one_line(message), " ".join(text.split())


def failure_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    sent: Mapping[str, Any],
    now: Callable[[], float] = time.time,
) -> Exception:
    """The exception that a status other than 200 stands for.

    Args:
        status: HTTP status.
        headers: Of the answer.
        body: Of the answer.
        sent: The request's fields.
        now: Seconds since 1970, for a `Retry-After` that names a date.
    """
    message, text = message_of(body)
    reason = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if 300 <= status < 400:
        return Hopeless("redirect", f"HTTP {status}")
    if status in (401, 403):
        return GiveUp("refused", reason) if _FILTERED.search(text) else Hopeless("key", reason)
    if status in (404, 405):
        return Hopeless("missing", reason)
    if status == 429 and _QUOTA.search(text):
        return Hopeless("quota", reason)
    if status in _AGAIN or status >= 500:
        return TryAgain(reason, wait=retry_after(headers, now()))
    if (found := refusal_of(reason, text)) is not None:
        return found
    if "max_completion_tokens" in text and "max_tokens" in sent:
        return FieldRefused("max_tokens")
    refused = next((name for name in OPTIONAL if name in sent and re.search(rf"\b{name}\b", text)), None)
    if refused is not None and _UNKNOWN.search(text):
        return FieldRefused(refused)
    return GiveUp("error", reason)


def refusal_of(reason: str, text: str) -> GiveUp | None:
    """How a request ends whose prompt is too long or filtered, by the server's words; None where it is neither."""
    if _TOO_LONG.search(text):
        return GiveUp("truncated_input", reason)
    return GiveUp("refused", reason) if _FILTERED.search(text) else None


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that `Retry-After` asks to wait (RFC 9110, 10.2.3: a number or a date); 0 where it says nothing."""
    value = next((v for name, v in headers.items() if name.lower() == "retry-after"), "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if 0.0 < seconds < 1e9 else 0.0
