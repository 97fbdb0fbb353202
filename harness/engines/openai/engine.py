"""The engine over an OpenAI-compatible endpoint: what is asked, what comes back, and what the record must say of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from harness.endpoint.transport import HttpTransport, check_base_url
from harness.engines._text import stop_at
from harness.engines.base import TextAnswer, TextRequest
from harness.engines.openai.failures import GiveUp
from harness.engines.openai.logprobs import continuation_logprob
from harness.engines.openai.options import EndpointOptions
from harness.engines.openai.session import Fields, Seen, Session, all_of
from harness.errors import ConfigError, EngineError

MAX_STOPS = 4
"""Stop texts that the API takes; all of them are applied here as well."""

Job = Callable[[Session], Awaitable[None]]


class OpenAIEngine:
    """A model behind an endpoint; tokenizer and chat template are the server's.

    Args:
        options: The endpoint.
    """

    name = "openai"

    def __init__(self, options: EndpointOptions) -> None:
        """Keep the options; nothing is sent yet.

        Raises:
            ConfigError: The base URL is none.
        """
        check_base_url(options.base_url)
        self._options = options
        self._seen = Seen()
        self._wrapped = False

    def complete(self, requests: Sequence[TextRequest], *, done: Callable[[TextAnswer], None]) -> None:
        """Complete requests, several at a time, in the order in which the server answers.

        Raises:
            ConfigError: The server refuses the key, the model or the path; or conversations were asked through
                `completions`.
            EngineError: Nobody answers, or many requests in a row failed.
        """
        self._run([partial(self._complete, request, done) for request in requests])

    def weigh(self, pairs: Mapping[str, tuple[str, str]], *, done: Callable[[str, float, int | None], None]) -> None:
        """Log-likelihoods through `/completions` with `echo` and `logprobs`.

        Raises:
            ConfigError: As for `complete`, or `api` is `chat`, which gives no log-probabilities of a prompt.
            EngineError: The server does not give them either, or one request failed after all tries.
        """
        if self._options.api == "chat":
            raise ConfigError("api chat gives no log-probabilities of a prompt; use api auto or completions")
        self._run([partial(self._weigh, name, pair, done) for name, pair in pairs.items()])

    @property
    def events(self) -> list[dict[str, str]]:
        """What a record must say: who answered, what was left out, what is unknown, what had to be tried again."""
        seen = self._seen
        served = ", ".join(sorted(name for name in seen.served if name)) or "unknown"
        details = [f"chat template, tokenizer and batching are the server's; answers by: {served}"]
        if self._wrapped:
            details.append("plain prompts were sent as the message of a user (api chat)")
        if seen.uncounted:
            details.append(f"{seen.uncounted} of {seen.answers} answers without usage: their token counts are unknown")
        if "seed" in seen.dropped:
            details.append("the server refuses seed: samples cannot be repeated")
        if seen.further_tries:
            worst = ", ".join(f"{reason} ({count})" for reason, count in seen.further_tries.most_common(3))
            details.append(f"{seen.further_tries.total()} further tries: {worst}")
        return [{"kind": "endpoint", "where": self._options.model, "detail": detail} for detail in details]

    def _run(self, jobs: Sequence[Job]) -> None:
        async def run() -> None:
            options = self._options
            key = options.key.reveal() if options.key else None
            transport = HttpTransport(options.base_url, api_key=key, connect_timeout=options.connect_timeout)
            async with transport:
                session = Session(options, transport.post, seen=self._seen)
                await all_of((partial(job, session) for job in jobs), concurrency=options.concurrency)

        asyncio.run(run())

    async def _complete(self, request: TextRequest, done: Callable[[TextAnswer], None], session: Session) -> None:
        began = time.monotonic()
        path, fields = self._asked(request)
        try:
            reply = await session.ask(path, fields)
        except GiveUp as error:
            seconds = time.monotonic() - began
            done(TextAnswer(request.request_id, "", error.finish, seconds=seconds, error=str(error)))
            return
        cut = stop_at(reply.text, request.stop)
        done(
            TextAnswer(
                request.request_id,
                reply.text[:cut],
                reply.finish if cut is None else "stop",
                n_in=reply.n_in,
                n_out=reply.n_out,
                seconds=time.monotonic() - began,
            )
        )

    def _asked(self, request: TextRequest) -> tuple[str, Fields]:
        """(path below the base URL, fields of the request)."""
        options, prompt = self._options, request.prompt
        if isinstance(prompt, str) and options.api == "chat":
            self._wrapped = True
            prompt = ({"role": "user", "content": prompt},)
        asked: Fields
        if isinstance(prompt, str):
            path, asked = "completions", {"prompt": prompt}
        elif options.api == "completions":
            raise ConfigError("api completions has no chat template, but this suite asks conversations; use api auto")
        else:
            path, asked = "chat/completions", {"messages": [dict(message) for message in prompt]}
        fields: Fields = {"model": options.model, **asked, "max_tokens": request.max_new_tokens}
        fields["temperature"] = request.temperature
        if request.temperature > 0:
            fields |= {"top_p": request.top_p, "seed": request.seed}
        if request.stop:
            fields["stop"] = list(request.stop[:MAX_STOPS])
        if options.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return path, fields

    async def _weigh(
        self,
        name: str,
        pair: tuple[str, str],
        done: Callable[[str, float, int | None], None],
        session: Session,
    ) -> None:
        context, continuation = pair
        fields: Fields = {
            "model": self._options.model,
            "prompt": context + continuation,
            "max_tokens": 1,  # 0 is refused by some servers
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        try:
            reply = await session.ask("completions", fields)
        except GiveUp as error:
            fix = "weigh choices with a local engine (--engine torch), or look at the server and run again"
            raise EngineError(f"the endpoint does not weigh {name}: {error}; {fix}") from None
        done(name, *continuation_logprob(reply.logprobs, context, continuation))
