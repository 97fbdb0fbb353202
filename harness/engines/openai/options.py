"""Which endpoint is asked, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.endpoint.keys import Secret

Api = Literal["auto", "chat", "completions"]


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """One model behind one endpoint.

    Attributes:
        base_url: Such as `http://127.0.0.1:8000/v1`.
        model: The model's name on the server.
        api: `chat` sends every prompt to `/chat/completions`, `completions` to `/completions`; `auto` sends
            conversations to the one and plain texts to the other.
        stream: Whether answers are streamed, so that a server that hangs is noticed early.
        concurrency: Requests under way at a time.
        requests_per_minute: Limit on requests, further tries included; None for none.
        tries: How often a request is sent at most.
        first_wait: Seconds before the second try, doubled before each further one, at most `MAX_BACKOFF`.
        connect_timeout: Seconds to make a connection.
        chunk_timeout: Seconds without a byte of an answer, the wait for its first included.
        total_timeout: Seconds that one try may take in all.
        key: Sent as a bearer token; see `harness.endpoint.keys.key_for`.
    """

    base_url: str
    model: str
    api: Api = "auto"
    stream: bool = True
    concurrency: int = 8
    requests_per_minute: float | None = None
    tries: int = 6
    first_wait: float = 1.0
    connect_timeout: float = 10.0
    chunk_timeout: float = 120.0
    total_timeout: float = 600.0
    key: Secret | None = None
