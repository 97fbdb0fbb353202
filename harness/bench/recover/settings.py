"""Every budget of the recovery benchmark in one place: tokens, learning rates, text, items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from suites.registry import SUITES

LEAD_SEED = 0
"""The seed that chooses the learning rate of each arm; the other seeds train with the chosen one."""
SKILLS: tuple[str, ...] = tuple(SUITES)


@dataclass(frozen=True)
class Settings:
    """What is the same for every arm.

    Attributes:
        model: The model that every lineage starts from.
        items: First items of each skill's test set.
        batch: Prompts per batch when skills are measured.
        finetune_tokens: Real tokens of a fine-tuning on the five skills, dense or sparse.
        skill_tokens: The same for a fine-tuning on one skill.
        pretrain_tokens: Tokens of the sparse pretraining after the pruning to each pattern; 70 % comes after 50 %, and
            80 % after 70 %, so that their budgets add up.
        pretrain_more: Tokens of a second pretraining with the mask of a pattern kept: 50 % reads as much as 70 %; what
            is pruned further starts from the first.
        rates: Peak learning rates that the dev split chooses from, for each arm alike.
        trial_tokens: Budget of each trial of a rate.
        muon_ratio: Rate of Muon's matrices, in units of the learning rate.
        batch_tokens, seq, warmup: Of a fine-tuning.
        dev, dev_tokens, dev_every: Share of the training prompts kept for the dev split, its size at most, and the
            steps between two looks at it.
        pretrain_lr, pretrain_seq, pretrain_warmup: Of the pretraining.
        pretrain_losses: Of the pretraining of what was pruned; the teacher is the untouched model. (A dense lineage is
            pretrained with cross-entropy: it would teach itself what it knows.)
        precision: Of every training, dense or sparse.
        shares: The pretraining mixture: skills, plain text and Python source, as shares of the tokens.
        rows: Rows of the fine-tuning text of each corpus.
        pretrain_rows: Rows of each corpus of the mixture, drawn apart from the fine-tuning text.
        samples, calibration_seq: Calibration rows of SparseGPT, and their tokens at most.
        cost_tokens, cost_rounds: Tokens of each timed training, and counted rounds.
    """

    model: str = "pocket-base"
    items: int = 1000
    batch: int = 100
    finetune_tokens: int = 450_000
    skill_tokens: int = 300_000
    pretrain_tokens: Mapping[str, int] = field(
        default_factory=lambda: {"50": 4_000_000, "70": 3_000_000, "80": 1_500_000, "2:4": 3_000_000}
    )
    pretrain_more: Mapping[str, int] = field(default_factory=lambda: {"50": 3_000_000})
    rates: tuple[float, ...] = (6e-5, 2.5e-4, 1e-3, 2e-3, 4e-3)
    trial_tokens: int = 150_000
    muon_ratio: float = 6.0
    batch_tokens: int = 4096
    seq: int = 512
    warmup: int = 10
    dev: float = 0.02
    dev_tokens: int = 32_768
    dev_every: int = 25
    pretrain_lr: float = 3e-3
    pretrain_seq: int = 1024
    pretrain_warmup: int = 20
    pretrain_losses: Mapping[str, float] = field(default_factory=lambda: {"ce": 0.0, "kl": 1.0, "squarehead": 1.0})
    precision: str = "bf16"
    shares: Mapping[str, float] = field(default_factory=lambda: {"mix": 0.6, "text": 0.2, "code": 0.2})
    rows: int = 12_000
    pretrain_rows: int = 24_000
    samples: int = 128
    calibration_seq: int = 512
    cost_tokens: int = 40_000
    cost_rounds: int = 4
