"""Sends requests with patience: pace, further tries with growing waits, and an end where nothing can succeed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from harness.endpoint.keys import binding_hint
from harness.endpoint.transport import Post, Response, TransportError, Unreachable, origin_of
from harness.engines.openai.failures import FieldRefused, GiveUp, Hopeless, TryAgain
from harness.engines.openai.options import EndpointOptions
from harness.engines.openai.reply import Reply, read_reply
from harness.errors import ConfigError, EngineError, SparsebenchError

MAX_BACKOFF = 60.0
MAX_WAIT = 300.0
"""Longest wait, in seconds, that a server may ask for; a request that is told to wait longer is given up."""
IN_A_ROW = 10
"""So many requests that fail one after the other, none succeeding between, end the run: it is not the requests."""
AGAIN = "then run the same command again; finished rows are kept"

Fields = dict[str, Any]


@dataclass
class Seen:
    """What a session has seen of its server, for the record."""

    served: Counter[str] = field(default_factory=Counter)
    further_tries: Counter[str] = field(default_factory=Counter)
    dropped: set[str] = field(default_factory=set)
    answers: int = 0
    uncounted: int = 0


class Pace:
    """Spaces requests evenly, and holds all of them while the server asks to wait."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float]) -> None:
        """No request has been sent yet."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = clock()
        self._queue = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until a request may be sent."""
        async with self._queue:
            while (wait := self._next - self._clock()) > 0:  # again, where the server asked to wait meanwhile
                await asyncio.sleep(wait)
            self._next = self._clock() + self._gap

    def hold(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._next = max(self._next, self._clock() + seconds)


class Session:
    """One connection pool's worth of requests to one endpoint."""

    def __init__(self, options: EndpointOptions, post: Post, *, seen: Seen, rng: random.Random | None = None) -> None:
        """Start; `rng` spreads the waits of requests that failed together."""
        self._options, self._post, self._seen = options, post, seen
        self._clock = asyncio.get_running_loop().time
        self._pace = Pace(options.requests_per_minute, self._clock)
        self._rng = rng or random.Random()
        self._in_a_row = 0

    async def ask(self, path: str, fields: Fields) -> Reply:
        """One answer, after as many tries as it takes and the options allow.

        Raises:
            GiveUp: There is no answer to this request; the reason has been scrubbed of the key.
            SparsebenchError: No request can succeed, with the fix.
        """
        try:
            reply = await self._tries(path, fields)
        except Hopeless as error:
            raise self._hopeless(error) from None
        except GiveUp as error:
            reason = self._scrub(str(error))
            if error.finish == "error":
                self._failed(reason)
            else:
                self._in_a_row = 0
            raise GiveUp(error.finish, reason) from None
        self._in_a_row = 0
        self._seen.served[reply.served] += 1
        self._seen.answers += 1
        self._seen.uncounted += reply.n_in is None or reply.n_out is None
        return reply

    async def _tries(self, path: str, fields: Fields) -> Reply:
        attempt = 0
        while True:
            await self._pace.turn()
            sent = self._adapted(fields)
            try:
                return await self._once(path, sent)
            except FieldRefused as refused:
                self._seen.dropped.add(str(refused))
            except TryAgain as failed:
                attempt += 1
                await self._wait(failed, attempt)

    async def _once(self, path: str, sent: Fields) -> Reply:
        options = self._options
        try:
            async with asyncio.timeout(options.total_timeout), AsyncExitStack() as stack:
                response = await self._begun(stack, path, sent)
                return await read_reply(response, sent=sent, chunk_timeout=options.chunk_timeout)
        except TimeoutError:
            raise TryAgain(f"no whole answer within {options.total_timeout:g} s") from None
        except Unreachable as error:
            raise TryAgain(f"no connection ({error})", nobody=True) from None
        except TransportError as error:
            raise TryAgain(f"the connection broke ({error})") from None

    async def _begun(self, stack: AsyncExitStack, path: str, sent: Fields) -> Response:
        """The answer, once its head is there."""
        seconds = self._options.chunk_timeout
        try:
            async with asyncio.timeout(seconds):
                return await stack.enter_async_context(self._post(path, sent))
        except TimeoutError:
            raise TryAgain(f"the server sent nothing for {seconds:g} s") from None

    async def _wait(self, failed: TryAgain, attempt: int) -> None:
        """Wait before the next try.

        Raises:
            GiveUp: There is none.
            EngineError: Nobody is there.
        """
        if attempt >= self._options.tries:
            if failed.nobody:
                raise EngineError(f"nobody answers at {self._where}: {failed}; start the server, {AGAIN}")
            raise GiveUp("error", f"{failed}, after {attempt} tries")
        if failed.wait > MAX_WAIT:
            raise GiveUp("error", f"{failed}; the server asks to wait {failed.wait:.0f} s")
        self._seen.further_tries[self._scrub(str(failed))] += 1
        backoff = min(MAX_BACKOFF, self._options.first_wait * 2 ** (attempt - 1)) * self._rng.uniform(0.5, 1.0)
        if failed.wait:
            self._pace.hold(failed.wait)
        await asyncio.sleep(max(failed.wait, backoff))

    def _adapted(self, fields: Fields) -> Fields:
        """The fields without those that the server refused before; the token limit under its newer name if need be."""
        sent = {name: value for name, value in fields.items() if name not in self._seen.dropped or name == "max_tokens"}
        if "max_tokens" in self._seen.dropped:
            sent["max_completion_tokens"] = sent.pop("max_tokens")
        return sent

    def _failed(self, reason: str) -> None:
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise EngineError(
                f"the last {IN_A_ROW} requests to {self._where} all failed ({reason}); look at the server, {AGAIN}"
            )

    def _hopeless(self, error: Hopeless) -> SparsebenchError:
        where, reason, model = self._where, self._scrub(str(error)), self._options.model
        if error.kind == "quota":
            return EngineError(f"{where} has no quota left ({reason}); top it up, {AGAIN}")
        if error.kind == "key":
            fix = "use a key that may use this model" if self._options.key else binding_hint(self._options.base_url)
            return ConfigError(f"{where} refuses access ({reason}); {fix}")
        if error.kind == "redirect":
            return ConfigError(
                f"{where} redirects elsewhere ({reason}), which is not followed; give the final base_url"
            )
        return ConfigError(
            f"{where} does not know model {model!r} or this path ({reason}); compare with GET base_url/models, and "
            "check base_url and api (chat or completions)"
        )

    @property
    def _where(self) -> str:
        return origin_of(self._options.base_url)

    def _scrub(self, text: str) -> str:
        return self._options.key.scrub(text) if self._options.key else text


async def all_of(jobs: Iterable[Callable[[], Awaitable[None]]], *, concurrency: int) -> None:
    """Run jobs, so many at a time; the first error stops all others and is raised as it is."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        first = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
