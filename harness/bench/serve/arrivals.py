"""When requests are sent: at random as users come (Poisson), or one after another by a fixed number of users."""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.errors import ConfigError


@dataclass(frozen=True)
class Load:
    """The shape of the load; give either a rate or a concurrency.

    Attributes:
        requests: Requests that are measured.
        rate: Mean arrivals per second of a Poisson process (open loop: a slow server is not spared).
        concurrency: Users who each send the next request when the last is finished (closed loop).
        warm_up: Requests before them that are sent alike and not counted.
        seed: Of the arrival times.
    """

    requests: int
    rate: float | None = None
    concurrency: int | None = None
    warm_up: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: One is impossible.
        """
        if (self.rate is None) == (self.concurrency is None):
            raise ConfigError("give either a rate (requests per second) or a concurrency (users), not both")
        if self.requests < 1 or self.warm_up < 0:
            raise ConfigError("a load needs at least one request, and warm-up requests are not negative")
        bad_rate = self.rate is not None and not 0 < self.rate < float("inf")
        if bad_rate or (self.concurrency is not None and self.concurrency < 1):
            raise ConfigError("a rate is above 0, a concurrency at least 1")

    @property
    def total(self) -> int:
        """Requests to send, warm-up included."""
        return self.requests + self.warm_up

    def arrivals(self) -> tuple[float, ...]:
        """Seconds from the start at which each request of a Poisson load is due, ascending; seeded."""
        stream, at, due = random.Random(self.seed), 0.0, []
        for _ in range(self.total):
            due.append(at)
            at += stream.expovariate(self.rate or 1.0)
        return tuple(due)
