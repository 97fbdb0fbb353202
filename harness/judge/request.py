"""What is to be judged, and how: the request behind the verb `judge`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from harness.errors import ConfigError
from harness.journal import Journal
from harness.judge.alpaca_eval import LIMITS
from harness.judge.prompts import Mode, Template
from harness.judge.records import Benchmark, JudgeInfo
from harness.judge.session import AskSettings, Judge, JudgeSession
from harness.progress import Phase

JOURNAL = "journal.jsonl"
_CHOICES: dict[str, tuple[str, ...]] = {
    "benchmark": get_args(Benchmark),
    "mode": get_args(Mode),
    "template": get_args(Template),
}
_MT_BENCH_LIMIT = 2048  # FastChat's max_tokens


@dataclass(frozen=True)
class JudgeRequest:
    """What is to be judged, and how.

    Attributes:
        benchmark: `mt-bench` or `alpaca-eval`.
        answers: What names them, one for each model; see `harness.judge.sources`.
        data_dir: Folder of the published files.
        out: Folder of the result.
        mode: Of MT-Bench; AlpacaEval is always pairwise.
        reference: Whom models are compared with; None takes the first of `answers` (MT-Bench in pairs) or the reference
            that the prompt was published with (AlpacaEval).
        template: The prompt of AlpacaEval.
        n: The first so many questions; None for all.
        batch_size: Prompts a batch.
        max_new_tokens: Limit of a judgement; None takes the published one.
        quiet: Show no progress.
    """

    benchmark: Benchmark
    answers: tuple[str, ...]
    data_dir: Path
    out: Path
    mode: Mode = "single"
    reference: str | None = None
    template: Template = "alpaca_eval_clf"
    n: int | None = None
    batch_size: int = 16
    max_new_tokens: int | None = None
    quiet: bool = False

    @property
    def settings(self) -> AskSettings:
        """How the judge is asked."""
        limit = _MT_BENCH_LIMIT if self.benchmark == "mt-bench" else LIMITS[self.template]
        return AskSettings(self.max_new_tokens or limit, self.batch_size)

    @property
    def prompts(self) -> str:
        """The prompts that the judge gets, by name."""
        if self.benchmark == "alpaca-eval":
            return self.template
        return "single-v1" if self.mode == "single" else "pair-v2"

    def info(self, judge: Judge) -> JudgeInfo:
        """Who judges, for the record."""
        return JudgeInfo(name=judge.name, identity=dict(judge.identity), settings=self.settings.key())

    def check_out(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            ConfigError: It does.
        """
        taken = self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir()))
        if taken and not (self.out / JOURNAL).is_file():
            raise ConfigError(f"{self.out} exists and holds no judgements; choose another --out")

    @contextmanager
    def session(self, judge: Judge, prompts: int) -> Iterator[JudgeSession]:
        """A judge with the journal of `out`, which holds the judgements of one judge, benchmark and prompt only.

        Args:
            judge: Who judges.
            prompts: How many there will be, for the progress.

        Raises:
            ConfigError: The folder holds the judgements of another judge, or another process uses it.
        """
        key = {
            **judge.identity,
            "judge": judge.name,
            **self.settings.key(),
            "benchmark": self.benchmark,
            "prompts": self.prompts,
        }
        with (
            Journal(self.out / JOURNAL, key) as journal,
            Phase("judging", prompts, quiet=self.quiet) as phase,
        ):
            yield JudgeSession(judge, journal, self.settings, phase)


def parse_request(**options: Any) -> JudgeRequest:
    """A request from what a user said.

    Raises:
        ConfigError: A choice is none of those there are, or does not fit the benchmark.
    """
    for name, known in _CHOICES.items():
        if options[name] not in known:
            said = {"template": "prompt"}.get(name, name)
            raise ConfigError(f"--{said} is {' or '.join(known)}, not {options[name]!r}")
    if options["benchmark"] == "alpaca-eval":
        options["mode"] = "pairwise"
    elif options["mode"] == "single" and options["reference"] is not None:
        raise ConfigError("--reference is for pairwise mode; add --mode pairwise")
    return JudgeRequest(**options)
