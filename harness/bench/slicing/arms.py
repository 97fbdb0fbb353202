"""What is compared: fixed before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.bench.chosen import named_arms
from harness.bench.slicing.settings import Settings

DENSE = "dense"
FRACTIONS = (10, 20, 25, 30)
LIKE, OTHER = "like", "other"
"""Calibration text: like what the model is evaluated on, or other text that it was trained on."""
TEXTS = (LIKE, OTHER)
SCHEDULES = ("uniform", "mass")
SIGNALS = ("norm", "stream")
NONE, CE, CE_KL, CE_SQUAREHEAD, KL_SQUAREHEAD = "", "ce", "ce+kl", "ce+squarehead", "kl+squarehead"
LORA, INT8, PRUNED = "lora", "int8", "50%"
RECOVERY = KL_SQUAREHEAD
"""What every fraction is recovered with."""
_LOSSES = {
    CE: {"ce": 1.0},
    LORA: {"ce": 1.0},
    CE_KL: {"ce": 1.0, "kl": 1.0, "squarehead": 0.0},
    CE_SQUAREHEAD: {"ce": 1.0, "kl": 0.0, "squarehead": 1.0},
    KL_SQUAREHEAD: {"ce": 0.0, "kl": 1.0, "squarehead": 1.0},
}


@dataclass(frozen=True)
class Arm:
    """One variant of one model.

    Attributes:
        model: `pocket` or `text`.
        fraction: Percentage of the stream that is cut off; 0 is the dense model.
        text: What it is calibrated on.
        schedule, signals, basis, orientation, head: Of the slice stage.
        after: What follows the slicing: `ce`, `ce+kl`, `ce+squarehead`, `kl+squarehead` (fine-tuning with these losses,
            the dense model teaching), `lora`, `int8` or `50%` (pruned by SparseGPT), or nothing.
    """

    model: str
    fraction: int = 0
    text: str = LIKE
    schedule: str = "uniform"
    signals: str = "norm"
    basis: str = "block"
    orientation: str = "pca"
    head: bool = False
    after: str = NONE

    @property
    def name(self) -> str:
        """As tables and `--arms` call it, such as `pocket/slice25-other-mass+ce`."""
        if not self.fraction:
            return f"{self.model}/{DENSE}" + (f"+{self.after}" if self.after else "")
        said = [f"slice{self.fraction}"]
        said += [self.text] if self.text != LIKE else []
        said += [self.schedule] if self.schedule != "uniform" else []
        said += [self.signals] if self.signals != "norm" else []
        said += [self.basis] if self.basis != "block" else []
        said += [self.orientation] if self.orientation != "pca" else []
        said += ["head"] if self.head else []
        return f"{self.model}/{'-'.join(said)}" + (f"+{self.after}" if self.after else "")

    @property
    def skilled(self) -> bool:
        """Whether its skills are measured: of all pocket variants but some that differ from another in one detail."""
        return self.model == "pocket" and (self.signals == "norm" or self.fraction == 25)

    def recipe(self, settings: Settings) -> dict[str, Any]:
        """The recipe, as `parse_recipe` takes it; corpora are called `like`, `other` and `train`."""
        return {"stages": [*self._sliced(settings), *self._after(settings)]}

    def _sliced(self, settings: Settings) -> list[dict[str, Any]]:
        if not self.fraction:
            return []
        calibration = {"source": self.text, "samples": settings.samples, "seq": settings.seq}
        return [
            {
                "slice": {
                    "fraction": self.fraction / 100,
                    "schedule": self.schedule,
                    "signals": self.signals,
                    "basis": self.basis,
                    "orientation": self.orientation,
                    "slice_head": self.head,
                    "keep_bases": self.after in (CE_SQUAREHEAD, KL_SQUAREHEAD),
                    "calibration": calibration,
                }
            }
        ]

    def _after(self, settings: Settings) -> list[dict[str, Any]]:
        if self.after == NONE:
            return []
        if self.after == INT8:
            return [{"quantize": {"scheme": "w8a8", "method": "rtn"}}]
        if self.after == PRUNED:
            calibration = {"source": self.text, "samples": settings.samples, "seq": settings.seq}
            return [{"prune": {"method": "sparsegpt", "sparsity": 0.5, "calibration": calibration}}]
        taught = self.after in (CE_KL, CE_SQUAREHEAD, KL_SQUAREHEAD)
        lr = settings.lora_lr if self.after == LORA else settings.lr
        return [
            {
                "finetune": {
                    "data": ["train"],
                    "tokens": settings.tokens,
                    "batch_tokens": settings.batch_tokens,
                    "seq": settings.train_seq,
                    "lr": lr,
                    "warmup": settings.warmup,
                    "schedule": "linear",
                    "precision": settings.precision,
                    "losses": _LOSSES[self.after],
                    "teacher": "base" if taught else "none",
                    **(
                        {"lora": {"rank": 32, "alpha": 10, "dropout": 0.05}, "clip": 1.0}
                        if self.after == LORA
                        else {"optimizer": "muon", "muon_lr": lr * settings.muon_ratio}
                    ),
                }
            }
        ]


def all_arms(models: Iterable[str]) -> tuple[Arm, ...]:
    """Every arm of these models."""
    return tuple(arm for model in models for arm in _of(model))


def _of(model: str) -> list[Arm]:
    grid = [
        Arm(model, fraction, text, schedule, signals)
        for signals in SIGNALS
        for fraction in FRACTIONS
        for text in TEXTS
        for schedule in SCHEDULES
    ]
    details = [
        Arm(model, 25, orientation="random"),
        Arm(model, 25, head=True),
        *(Arm(model, fraction, basis="shared") for fraction in (10, 25)),
        Arm(model, 25, after=INT8),
        Arm(model, 25, orientation="random", after=INT8),
        Arm(model, 25, after=PRUNED),
    ]
    trained = [Arm(model, after=CE), *(Arm(model, fraction, after=RECOVERY) for fraction in FRACTIONS)]
    trained += [Arm(model, 25, after=after) for after in (CE, CE_KL, CE_SQUAREHEAD, LORA)]
    trained += [Arm(model, 25, basis="shared", after=CE_KL)]
    return [Arm(model), *grid, *details, *trained]


def chosen_arms(names: str | None, models: Iterable[str]) -> tuple[Arm, ...]:
    """The arms that `--arms` names (names or globs, separated by commas), with the dense model of each.

    Raises:
        ConfigError: A name fits none.
    """
    arms = all_arms(models)
    chosen = set(named_arms(names, arms, "`--list` prints them"))
    chosen |= {baseline_of(arm) for arm in chosen} | {Arm(arm.model) for arm in chosen}
    return tuple(arm for arm in arms if arm in chosen)


def baseline_of(arm: Arm) -> Arm:
    """The dense model that had the same fine-tuning tokens; for what had none, the dense model."""
    return Arm(arm.model, after=CE if arm.after in _LOSSES else NONE)
