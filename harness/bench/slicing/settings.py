"""What is the same for every arm of the slicing benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Budgets.

    Attributes:
        samples, seq: Calibration rows, and their tokens at most.
        context: Tokens of a window of evaluation text.
        eval_tokens: How much of an evaluation text is read, from its beginning.
        items: First items of each skill's test set, of models that have skills.
        batch: Prompts per batch when skills are measured.
        rows: Rows of the pocket model's training text; of each calibration text a third as many.
        tokens: Real tokens of a recovery fine-tuning.
        lr, lora_lr: Its peak learning rate, and that of low-rank adapters.
        muon_ratio: Rate of Muon's matrices, in units of the learning rate.
        train_seq, batch_tokens, warmup: Of the fine-tuning.
        precision: Of the fine-tuning.
    """

    samples: int = 128
    seq: int = 512
    context: int = 512
    eval_tokens: int = 32_768
    items: int = 1000
    batch: int = 100
    rows: int = 12_000
    tokens: int = 450_000
    lr: float = 2.5e-4
    lora_lr: float = 1e-3
    muon_ratio: float = 6.0
    train_seq: int = 512
    batch_tokens: int = 4096
    warmup: int = 10
    precision: str = "bf16"
