"""Settings of a training stage, validated where a recipe enters."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sparsify.train.lora_settings import LoraSettings


class LossWeights(BaseModel):
    """Weights of the three losses; their sum is minimised."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ce: float = Field(1.0, ge=0, description="next-token cross-entropy")
    kl: float = Field(0.0, ge=0, description="KL divergence from the teacher's logits, target tokens only")
    squarehead: float = Field(0.0, ge=0, description="normalised MSE to the teacher's hidden states (2310.06927)")

    @property
    def needs_teacher(self) -> bool:
        """Whether any weighted loss compares with a teacher."""
        return self.kl > 0 or self.squarehead > 0


class TrainSettings(BaseModel):
    """One training run: budget, optimizer and losses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(gt=0, description="real (non-padding) tokens to train on")
    batch_tokens: int = Field(8192, gt=0, description="tokens per optimizer step, padding included")
    seq: int = Field(512, gt=1, description="rows are cut to this many tokens")
    pack: int = Field(0, ge=0, description="tokens of joined rows in every `pack_every`-th batch; 0 = never")
    pack_every: int = Field(16, gt=0, description="how often a packed batch comes")
    lr: float = Field(gt=0, description="peak learning rate (of AdamW; Muon's matrices use `muon_lr`)")
    muon_lr: float = Field(0.02, gt=0, description="peak learning rate of the matrices under Muon")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(0.0, ge=0, description="clip the global gradient norm; 0 = never")
    prompt_weight: float = Field(0.0, ge=0, description="weight of shown tokens in the cross-entropy")
    losses: LossWeights = LossWeights()
    temperature: float = Field(1.0, gt=0, description="of the KL loss; its square multiplies the loss")
    squarehead_eps: float = Field(
        1e-9, gt=0, description="added to the teacher's energy (the reference uses bf16's 0.0078)"
    )
    seed: int = 0
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: matrices are multiplied in bfloat16; weights, moments and losses stay float32"
    )
    accumulate: int = Field(1, gt=0, description="micro-batches that a batch is split into, to save memory")
    checkpoint_activations: bool = Field(
        False, description="keep one state per block and compute the rest again backwards"
    )
    lora: LoraSettings | None = Field(
        None, description="train low-rank adapters and merge them at the end; {} = defaults; none = train the weights"
    )
