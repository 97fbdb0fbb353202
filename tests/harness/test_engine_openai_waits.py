"""Engine openai: when it asks, waits and asks again, in virtual time."""

from __future__ import annotations

import asyncio
import json
import random
import runpy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engines.openai import EndpointOptions
from harness.engines.openai.failures import retry_after
from harness.engines.openai.session import Seen, Session

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("endpoint_server.py"))))
virtually = runpy.run_path(str(Path(__file__).with_name("virtual_time.py")))["virtually"]


class Canned:
    """An answer of which all is known."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        self.status, self._body = status, json.dumps(body).encode()
        self.headers: Mapping[str, str] = {"content-type": "application/json", **headers}

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._body


WELL = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": kit.USAGE}


def moments(answers: list[Canned], *, asked: int = 1, **changes: Any) -> list[float]:
    """When requests were sent, in virtual seconds, if they are answered like this (the last for ever)."""
    sent: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()

        @asynccontextmanager
        async def post(path: str, body: dict[str, Any]) -> AsyncIterator[Any]:
            sent.append(loop.time())
            yield answers[min(len(sent), len(answers)) - 1]

        chosen = EndpointOptions(base_url="http://h/v1", model="m", **changes)
        session = Session(chosen, post, seen=Seen(), rng=random.Random(0))
        await asyncio.gather(*(session.ask("chat/completions", {}) for _ in range(asked)))

    virtually(run())
    return sent


def test_waits_grow_with_jitter() -> None:
    down = Canned(503, {})
    at = moments([down] * 5 + [Canned(200, WELL)], tries=6, first_wait=2.0)
    waits = [after - before for before, after in zip(at, at[1:], strict=False)]
    assert len(waits) == 5
    for number, wait in enumerate(waits):
        assert 0.5 * 2.0 * 2**number <= wait <= 2.0 * 2**number
    assert len({wait / 2**number for number, wait in enumerate(waits)}) > 1, "jitter"


def test_retry_after_is_kept_by_all_requests() -> None:
    slow = Canned(429, {}, **{"Retry-After": "40"})
    at = moments([slow, Canned(200, WELL)], asked=1)
    assert at[1] - at[0] >= 40
    limited = moments([slow, Canned(200, WELL)], asked=3, requests_per_minute=6)
    assert limited == [0.0, 40.0, 50.0, 60.0], "the others wait as well, and keep their distance"


def test_requests_per_minute_are_spaced() -> None:
    assert moments([Canned(200, WELL)], asked=5, requests_per_minute=30) == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert moments([Canned(200, WELL)], asked=5) == [0.0] * 5


def test_a_wait_beyond_reason_is_given_up() -> None:
    with pytest.raises(Exception, match="the server asks to wait 7200 s"):
        moments([Canned(429, {}, **{"Retry-After": "7200"})])


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"RETRY-AFTER": "2.5"}, 0.0) == 2.5
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0) == 40.0
    for useless in ("", "-3", "soon", "nan", "Thu, 01 Jan 1970 00:00:10 GMT", "9" * 400):
        assert retry_after({"Retry-After": useless}, 60.0) == 0.0
