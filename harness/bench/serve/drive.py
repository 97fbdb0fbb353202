"""Sends a whole load and collects what became of every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from harness.bench.serve.arrivals import Load
from harness.bench.serve.client import Endpoint, Outcome, Prompt, ask
from harness.endpoint.transport import Post


async def drive(
    load: Load,
    prompts: Sequence[Prompt],
    *,
    post: Post,
    endpoint: Endpoint,
    clock: Callable[[], float],
    done: Callable[[int], None] = lambda count: None,
) -> list[Outcome]:
    """Send the load; outcomes in the order in which requests were due.

    Args:
        load: When to send.
        prompts: Taken in turn, again from the first when they are used up.
        post: The transport.
        endpoint: How requests are written.
        clock: Seconds; must run with the event loop's own sleep.
        done: Told how many requests have ended.
    """
    begun, finished = clock(), 0

    async def one(index: int, due: float) -> Outcome:
        nonlocal finished
        prompt = prompts[index % len(prompts)]
        outcome = await ask(post, endpoint, prompt, clock=clock, index=index, due=due)
        finished += 1
        done(finished)
        return outcome

    async def at(index: int, offset: float) -> Outcome:
        # Slept in one go from the start: sleeping from request to request would add up every lateness.
        await asyncio.sleep(max(0.0, begun + offset - clock()))
        return await one(index, begun + offset)

    async def user(indices: Iterator[int]) -> list[Outcome]:
        return [await one(index, clock()) for index in indices]

    if load.concurrency is None:
        return list(await asyncio.gather(*(at(index, offset) for index, offset in enumerate(load.arrivals()))))
    shared = iter(range(load.total))
    lists = await asyncio.gather(*(user(shared) for _ in range(load.concurrency)))
    return sorted((outcome for own in lists for outcome in own), key=lambda outcome: outcome.index)
