"""What a speed panel is asked for, and the row it answers with for each variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from harness.engines import ENGINES
from harness.errors import ConfigError

INT8_REASON = "INT8 is emulated in float by the torch engine: its speed means nothing"
INT4_REASON = "INT4 weights are expanded to float by the torch engine: its speed means nothing"
BASELINE_REASON = "the baseline itself: 1 by definition"
LEAST_BLOCKS = 6
LEAST_SECONDS = 0.25
DECODE_LEAD_IN = 2
WORKLOADS = ("decode", "prefill", "throughput")
DEFAULT_BATCHES = (1, 2, 4, 8, 16)

Verdict = Literal["baseline", "no difference", "faster", "slower", "unconfirmed", "not decided", "not measured"]
"""What a panel says of a variant.

`slower`: a significant slowdown, seen again in the confirmation run. `unconfirmed`: seen in the first run only.
`faster`: a significant gain in the first run. `not decided`: the machine was too restless in every attempt.
"""


@dataclass(frozen=True)
class PanelSpec:
    """One (workload, host) measurement of all variants against a baseline.

    Attributes:
        panel: Name of the panel, and of its record file.
        workload: `decode` (one token for every row, with `context` tokens in the cache), `prefill` (one forward over
            `context` tokens) or `throughput` (read `context` tokens and generate `new_tokens`, for every batch size of
            `batches`).
        context: Tokens, see `workload`.
        batch: Rows; throughput takes `batches` instead.
        new_tokens: Tokens that a decode measurement times, or that throughput generates; prefill does not use it.
        threads: CPU threads of each worker.
        dtype: `float32`, `bfloat16` or `float16`.
        baseline: Name of the variant that the others are compared with, on `engine`.
        budget_s: Seconds to spend on one run, warm-up included, loading excluded; at least six blocks and a quarter of
            a second of every process are measured in any case. Repeats and the confirmation cost as much again.
        seed: Of prompts and bootstrap.
        engine: Engine of the baseline.
        device: `cpu` or `cuda`.
        engines: Other engines that all variants are measured on as well.
        batches: Batch sizes of a throughput sweep, ascending.
        forwards: Units of work that one timed step does; several make the step of a tiny model long enough to time.
        attempts: Runs at most while the machine is too restless to decide.
        confirm: Whether a significant slowdown is measured again before it is reported.
        memory_limit: Bytes that a worker may allocate beyond the libraries, or None; a sweep stops there cleanly.
    """

    panel: str
    workload: Literal["decode", "prefill", "throughput"]
    context: int
    batch: int
    new_tokens: int
    threads: int
    dtype: str
    baseline: str
    budget_s: float
    seed: int
    engine: str = "torch"
    device: str = "cpu"
    engines: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    forwards: int = 1
    attempts: int = 3
    confirm: bool = True
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: One is impossible.
        """
        where = f"speed panel {self.panel}"
        if self.workload not in WORKLOADS:
            raise ConfigError(f"{where}: unknown workload {self.workload!r}; choose one of {', '.join(WORKLOADS)}")
        for engine in (self.engine, *self.engines):
            if engine not in ENGINES:
                raise ConfigError(f"{where}: unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
        if self.dtype == "float16" and "sparse" in (self.engine, *self.engines):
            raise ConfigError(f"{where}: engine sparse knows float32 and bfloat16, not float16")
        if len(set(self.engines)) < len(self.engines):
            raise ConfigError(f"{where}: an engine is named twice; name each once")
        if self.engine in self.engines:
            raise ConfigError(f"{where}: engine {self.engine} is named twice: it is measured anyway, name only others")
        if not self.panel or not all(c.isalnum() or c in "-_." for c in self.panel) or self.panel.startswith("."):
            raise ConfigError(f"speed panel name {self.panel!r} is not a file name; use letters, digits, '-', '_', '.'")
        for name in ("context", "batch", "new_tokens", "threads", "forwards", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{where}: {name} must be at least 1")
        if self.batches and (self.workload != "throughput" or list(self.batches) != sorted(set(self.batches))):
            raise ConfigError(f"{where}: `batches` is for throughput and ascends, such as 1, 2, 4")
        if self.batches and self.batches[0] < 1:
            raise ConfigError(f"{where}: a batch is at least 1")
        if not self.budget_s > 0 or (self.memory_limit is not None and self.memory_limit <= 0):
            raise ConfigError(f"{where}: budget_s and memory_limit must be above 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PanelSpec:
        """The inverse of `dataclasses.asdict`, also after JSON has made lists of tuples."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)

    @property
    def points(self) -> tuple[int, ...]:
        """Batch sizes to measure, in order."""
        return (self.batches or DEFAULT_BATCHES) if self.workload == "throughput" else (self.batch,)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one timed step processes."""
        each = {"decode": 1, "prefill": self.context, "throughput": self.new_tokens}[self.workload]
        return self.batch * self.forwards * each

    def longest(self, forwards: int) -> int:
        """Tokens that a measurement adds to the context when a step does `forwards` units of work."""
        if self.workload == "decode":
            return self.new_tokens * forwards + DECODE_LEAD_IN
        return self.new_tokens if self.workload == "throughput" else 0


@dataclass(frozen=True)
class PanelOptions:
    """What a panel is told beside its spec.

    Attributes:
        skip: Variants that get a row without numbers, with the reason; emulated ones are added.
        at_least: Ratios that variants are meant to reach; one that stays below is measured again before it is
            reported, so that a gate does not fail on one run.
        extra: Units of work that a variant does on top in every step: a real slowdown of known size, for measuring
            the error rates of the panel itself.
        fresh: Start new processes for the first run too, not only for those that repeat or confirm it.
    """

    skip: Mapping[str, str] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, int] = field(default_factory=dict)
    fresh: bool = False


@dataclass(frozen=True)
class PanelRow:
    """One variant's result in a panel; what is undefined is None and has a `reason`.

    Attributes:
        tokens_per_s: From the median step; only meaningful beside the machine it was taken on.
        ratio: Baseline time over this variant's time, medians over blocks of block-adjusted times; so it may differ a
            little from the quotient of two `tokens_per_s`, which are not adjusted.
        ci95: Its 95 % bootstrap interval over blocks.
        noise_floor: `ratio` and `ci95` of a second process of the baseline against the first, in the same blocks.
        p_value: Mann-Whitney test of the block medians, two-sided.
        verdict: What the panel says of the variant, see `Verdict`; None in records from before there was one.
        confirmation: `ratio`, `ci95`, `p_value`, `floor` and `decided` of the confirmation run, or None without one.
        attempts: Runs it took until the machine was quiet enough, or until they were used up.
        peak_rss: Bytes, the most that the process held in memory, interpreter and libraries included.
        peak_device: Bytes, the most on the accelerator, or None on the CPU.
        bytes: Size of the variant's safetensors files.
        packing: How engine sparse held the weights: instruction set, bytes, matrices by form, path; None on others.
        energy_j_per_token: Joules of the processor package per token, or `unavailable`; never 0 for want of a meter.
        percentiles: Of single steps, in seconds: `metric` (itl, ttft or e2e), `n`, and p50 to p99 where n supports
            them.
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
    p_value: float | None = None
    verdict: Verdict | None = None
    confirmation: Mapping[str, Any] | None = None
    attempts: int | None = None
    peak_rss: int | None = None
    peak_device: int | None = None
    bytes: int | None = None
    energy_j_per_token: float | Literal["unavailable"] | None = None
    percentiles: Mapping[str, Any] | None = None
    packing: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        row = asdict(self)
        row["ci95"] = list(self.ci95) if self.ci95 else None
        for name in ("baseline", "noise_floor", "confirmation", "percentiles", "packing"):
            value = getattr(self, name)
            row[name] = dict(value) if value else None
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PanelRow:
        """The inverse of `as_dict`; a row of an older record lacks the newer fields, which are then None."""
        known = {each.name for each in fields(cls)}
        if not row.keys() <= known:
            raise ValueError(f"unknown fields: {sorted(row.keys() - known)}")
        return cls(**{**row, "ci95": tuple(row["ci95"]) if row["ci95"] else None})
