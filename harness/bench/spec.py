"""What a speed panel is asked for, and the row it answers with for each variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.errors import ConfigError

INT8_REASON = "INT8 is emulated in float by the torch engine: its speed means nothing"
BASELINE_REASON = "the baseline itself: 1 by definition"
LEAST_BLOCKS = 6
DECODE_LEAD_IN = 2


@dataclass(frozen=True)
class PanelSpec:
    """One (workload, host) measurement of all variants against a baseline.

    Attributes:
        panel: Name of the panel, and of its record file.
        workload: `decode` (one token for every row, with `context` tokens in the cache) or `prefill` (one forward over
            `context` tokens).
        context: Tokens, see `workload`.
        batch: Rows.
        new_tokens: Tokens that a decode measurement times; prefill does not use it.
        threads: CPU threads of each worker.
        dtype: `float32`, `bfloat16` or `float16`.
        baseline: Name of the variant that the others are compared with.
        budget_s: Seconds to spend, warm-up included, loading excluded; at least six blocks are measured in any case.
        seed: Of prompts and bootstrap.
        engine: Only `torch`.
        device: `cpu` or `cuda`.
    """

    panel: str
    workload: Literal["decode", "prefill"]
    context: int
    batch: int
    new_tokens: int
    threads: int
    dtype: str
    baseline: str
    budget_s: float
    seed: int
    engine: Literal["torch"] = "torch"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: One is impossible.
        """
        if self.workload not in ("decode", "prefill"):
            raise ConfigError(f"speed panel {self.panel}: unknown workload {self.workload!r}; choose decode or prefill")
        if self.engine != "torch":
            raise ConfigError(f"speed panel {self.panel}: unknown engine {self.engine!r}; choose torch")
        if not self.panel or not all(c.isalnum() or c in "-_." for c in self.panel) or self.panel.startswith("."):
            raise ConfigError(f"speed panel name {self.panel!r} is not a file name; use letters, digits, '-', '_', '.'")
        for name in ("context", "batch", "new_tokens", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"speed panel {self.panel}: {name} must be at least 1")
        if not self.budget_s > 0:
            raise ConfigError(f"speed panel {self.panel}: budget_s must be above 0")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one timed step processes."""
        return self.batch if self.workload == "decode" else self.batch * self.context

    @property
    def longest(self) -> int:
        """Tokens that a measurement adds to the context."""
        return self.new_tokens + DECODE_LEAD_IN if self.workload == "decode" else 0


@dataclass(frozen=True)
class PanelRow:
    """One variant's result in a panel; what is undefined is None and has a `reason`.

    Attributes:
        tokens_per_s: From the median step; only meaningful beside the machine it was taken on.
        ratio: Baseline time over this variant's time, medians over blocks.
        ci95: Its 95 % bootstrap interval over blocks.
        noise_floor: `ratio` and `ci95` of a second process of the baseline against the first, in the same blocks.
    """

    panel: str
    workload: str
    engine: str
    variant: str
    dtype: str
    threads: int
    batch: int
    context: int
    tokens_per_s: float | None
    baseline: Mapping[str, str]
    ratio: float | None
    ci95: tuple[float, float] | None
    noise_floor: Mapping[str, Any] | None
    n_blocks: int
    reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        row = asdict(self)
        row["baseline"] = dict(self.baseline)
        row["ci95"] = list(self.ci95) if self.ci95 else None
        row["noise_floor"] = dict(self.noise_floor) if self.noise_floor else None
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PanelRow:
        """The inverse of `as_dict`."""
        return cls(**{**row, "ci95": tuple(row["ci95"]) if row["ci95"] else None})
