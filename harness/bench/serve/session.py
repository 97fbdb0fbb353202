"""A whole serving benchmark: prompts, load, transport and record."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.machine import describe_machine, machine_state
from harness.bench.serve.arrivals import Load
from harness.bench.serve.client import Endpoint, Outcome, Prompt
from harness.bench.serve.drive import drive
from harness.bench.serve.goodput import Slo
from harness.bench.serve.lag import LIMIT_S, LagMeter
from harness.bench.serve.summary import summarise
from harness.endpoint.transport import HttpTransport, check_base_url
from harness.errors import ConfigError
from sparsify.progress import NullProgress, Progress

SCHEMA_VERSION = 1
PROMPTS = 64
_WORDS = "time year people way day thing world life hand part child eye place work week case point company number group"


@dataclass(frozen=True)
class ServePlan:
    """What is sent, how, and what it is held against."""

    load: Load
    endpoint: Endpoint
    prompts: tuple[Prompt, ...]
    slo: Slo | None = None
    lag_limit: float = LIMIT_S


def read_prompts(path: Path | None, *, words: int, max_tokens: int, seed: int) -> tuple[Prompt, ...]:
    """Prompts of a JSONL file, or 64 different ones of seeded words, so that a prefix cache finds nothing.

    Raises:
        ConfigError: The file is none, or a line has no `prompt`.
    """
    if path is None:
        stream, known = random.Random(seed), _WORDS.split()
        return tuple(Prompt(" ".join(stream.choices(known, k=words)), max_tokens) for _ in range(PROMPTS))
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        texts = [line["prompt"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} is no JSONL of {{"prompt": ...}} ({error!r})') from None
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"{path} holds no prompts, or one that is no text")
    return tuple(Prompt(text, max_tokens) for text in texts)


def measure_endpoint(
    plan: ServePlan, base_url: str, *, api_key: str | None = None, progress: Progress | None = None
) -> tuple[list[Outcome], dict[str, Any]]:
    """Put the load on the endpoint; the outcome of every request, and the summary.

    Raises:
        ConfigError: The URL is none, or aiohttp is missing.
    """
    check_base_url(base_url)
    listener = progress or NullProgress()

    async def session() -> tuple[list[Outcome], list[float]]:
        async with HttpTransport(base_url, api_key=api_key) as transport, LagMeter(time.perf_counter) as meter:
            outcomes = await drive(
                plan.load,
                plan.prompts,
                post=transport.post,
                endpoint=plan.endpoint,
                clock=time.perf_counter,
                done=lambda count: listener.update(count, plan.load.total),
            )
        return outcomes, meter.lags

    outcomes, lags = asyncio.run(session())
    summary = summarise(plan.load, outcomes, slo=plan.slo, lags=lags, lag_limit=plan.lag_limit)
    return outcomes, summary


def write_serve_record(path: Path, plan: ServePlan, outcomes: Sequence[Outcome], summary: dict[str, Any]) -> None:
    """Write the record: a head, a line per request with its raw stamps (0 is the first request sent), the summary.

    The address and the key are left out: a record names no machine.
    """
    from harness.records import write_text_atomic

    zero = min(outcome.stamps.sent for outcome in outcomes)
    head = {
        "kind": "serve",
        "schema_version": SCHEMA_VERSION,
        "load": asdict(plan.load),
        "endpoint": asdict(plan.endpoint),
        "max_tokens": plan.prompts[0].max_tokens,
        "slo": asdict(plan.slo) if plan.slo else None,
        "client": {**describe_machine(), **machine_state()},
    }
    lines = [head, *(_line(outcome, zero) for outcome in outcomes), {"kind": "summary", **summary}]
    write_text_atomic(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def _line(outcome: Outcome, zero: float) -> dict[str, Any]:
    return {
        "kind": "request",
        "index": outcome.index,
        "status": outcome.status,
        "detail": outcome.detail,
        "due": outcome.due - zero,
        "sent": outcome.stamps.sent - zero,
        "arrivals": [at - zero for at in outcome.stamps.arrivals],
        "ended": outcome.ended - zero,
        "tokens": outcome.stamps.tokens,
        "counted_by": "server" if outcome.counted else "events",
    }
