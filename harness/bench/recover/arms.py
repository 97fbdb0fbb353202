"""What is compared: lineages of the base model, fixed before anything is measured.

Every sparse arm stands against the dense lineage of the same seeds that had the same fine-tuning tokens (`baseline`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.bench.chosen import named_arms
from harness.bench.recover.settings import SKILLS

MIX = "mix"
DENSE = "dense"
BASE = "base"
LONGER = "dense+pretrain"
ONE_SHOT, CE, CE_KL, CE_SQUAREHEAD = "one-shot", "ce", "ce+kl", "ce+squarehead"
FINAL = "pretrain+ce+squarehead"
COST = "cost"
PATTERNS = ("50", "70", "80", "2:4")
SINGLE_SKILLS = ("gsm8k", "code")
SEEDS = (0, 1, 2, 3, 4)
_CORE, _FEW = 5, 2
# What a claim with an interval rests on has as many seeds as the core.
_CORE_ARMS = {("70", ONE_SHOT), ("70", CE), ("70", CE_SQUAREHEAD), ("70", FINAL), ("50", ONE_SHOT), ("50", FINAL)}
# With two seeds, Student's t with one degree of freedom could not tell these two apart.
_ORDERED = {("80", CE), ("80", CE_SQUAREHEAD)}


@dataclass(frozen=True)
class Arm:
    """One lineage.

    Attributes:
        method: `base` is the untouched model; `dense` is fine-tuned with cross-entropy; `dense+pretrain` has had the
            pretraining tokens of 70 % before; `one-shot` prunes the dense lineage after its fine-tuning; `ce`, `ce+kl`
            and `ce+squarehead` prune the base model and fine-tune with these losses, the teacher being the dense
            lineage of the same seed; `pretrain+...` pretrains between pruning and fine-tuning; `cost` times training.
        pattern: Percentage of zeros, or N:M; empty where nothing is pruned.
        skill: What it is fine-tuned on: `mix` is all five.
        int8: Whether it is then quantized to INT8.
    """

    method: str
    pattern: str = ""
    skill: str = MIX
    int8: bool = False

    @property
    def name(self) -> str:
        """As tables and `--arms` call it, such as `ce+squarehead@70` or `dense/gsm8k`."""
        pattern = f"@{self.pattern}" if self.pattern else ""
        skill = "" if self.skill == MIX else f"/{self.skill}"
        return f"{self.method}{pattern}{skill}{'+int8' if self.int8 else ''}"

    @property
    def suites(self) -> tuple[str, ...]:
        """The skills it is measured on."""
        return SKILLS if self.skill == MIX else (self.skill,)

    @property
    def baseline(self) -> Arm | None:
        """The dense lineage with the same fine-tuning; None for that lineage itself."""
        return None if self.method == DENSE else Arm(DENSE, skill=self.skill)

    @property
    def rate_of(self) -> Arm:
        """The arm whose learning rate it has: its own, or that of the arm that it is made from."""
        if self.method == ONE_SHOT:
            return Arm(DENSE, skill=self.skill)
        return Arm(self.method, self.pattern, self.skill) if self.int8 else self

    @property
    def needs(self) -> tuple[Arm, ...]:
        """Arms of the same seed that must be finished before."""
        if self.method in (BASE, COST, DENSE):
            return ()
        return (Arm(DENSE, skill=self.skill), *([self.rate_of] if self.int8 else []))

    @property
    def taught(self) -> bool:
        """Whether the dense lineage teaches it."""
        return "squarehead" in self.method or "kl" in self.method

    @property
    def seeds(self) -> int:
        """With how many seeds it is measured, from 0 on."""
        if self.method in (BASE, COST, LONGER):
            return 1
        if (self.pattern, self.method) in _ORDERED:
            return 3
        core = self.skill == MIX and (self.method == DENSE or (self.pattern, self.method) in _CORE_ARMS)
        return _CORE if core else _FEW


def all_arms() -> tuple[Arm, ...]:
    """Every arm, those first that others need."""
    at70 = [Arm(method, "70") for method in (ONE_SHOT, CE, CE_SQUAREHEAD, FINAL)]
    at50 = [Arm(method, "50") for method in (ONE_SHOT, FINAL)]
    at80 = [Arm(method, "80") for method in (ONE_SHOT, CE, CE_SQUAREHEAD, FINAL)]
    nm = [Arm(method, "2:4") for method in (ONE_SHOT, FINAL)]
    single = [arm for skill in SINGLE_SKILLS for arm in (Arm(DENSE, skill=skill), Arm(FINAL, "70", skill=skill))]
    core = [Arm(BASE), Arm(DENSE), *at70, Arm(FINAL, "70", int8=True), *at50]
    return (*core, *at80, *nm, Arm(CE_KL, "70"), Arm(LONGER), *single, Arm(COST, "70"))


def chosen_arms(names: str | None) -> tuple[Arm, ...]:
    """The arms that `--arms` names (names or globs, separated by commas), and those that they need or stand against.

    Raises:
        ConfigError: A name fits none.
    """
    arms = all_arms()
    if not names:
        return arms
    chosen = set(named_arms(names, arms, "`--list` prints them"))
    if any(arm.method != COST for arm in chosen):
        chosen.add(Arm(BASE))
    for arm in tuple(chosen):
        chosen |= {*arm.needs, *(other for need in arm.needs for other in need.needs)}
    return tuple(arm for arm in arms if arm in chosen)


def pieces_of(arms: Iterable[Arm], seeds: Sequence[int]) -> list[tuple[Arm, int]]:
    """(arm, seed) in the order of work.

    A whole seed after the other, first of the arms that claims rest on, then of the others; the timing last, when
    nothing else runs.
    """
    arms = tuple(arms)
    work = [(arm, seed) for seed in seeds for arm in arms if seed < arm.seeds and arm.method != COST]
    work.sort(key=lambda piece: piece[0].seeds < _CORE and piece[0].method != BASE)
    return [*work, *((arm, 0) for arm in arms if arm.method == COST)]
