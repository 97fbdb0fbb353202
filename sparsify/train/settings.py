"""Settings of a training stage, validated where a recipe enters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sparsify.strict import Strict
from sparsify.train.lora_settings import LoraSettings


class LossWeights(Strict):
    """Weights of the three losses; their sum is minimised.

    A stage that names a teacher and no losses has those of Kurtic et al. 2023 (arXiv 2310.06927): 1, 0 and 1.
    """

    ce: float = Field(1.0, ge=0, description="next-token cross-entropy")
    kl: float = Field(0.0, ge=0, description="KL divergence from the teacher's logits, target tokens only")
    squarehead: float = Field(0.0, ge=0, description="normalised MSE to the teacher's hidden states (2310.06927)")

    @property
    def needs_teacher(self) -> bool:
        """Whether any weighted loss compares with a teacher."""
        return self.kl > 0 or self.squarehead > 0


class Select(Strict):
    """Choice of checkpoint and learning rate by a dev split of the training text; evaluation items never take part."""

    dev: float = Field(gt=0, lt=0.5, description="share of the training text that is kept apart, whole items each")
    tokens: int = Field(32_768, gt=0, description="at most so many tokens of it are used")
    every: int = Field(50, gt=0, description="steps between two looks at the dev split; the last step is one too")
    lr: tuple[float, ...] = Field((), description="learning rates to try; empty = `lr` of the run alone")
    trial_tokens: int | None = Field(
        None, gt=0, description="budget of each trial; the best rate is then trained in full; not given = full trials"
    )

    @field_validator("lr")
    @classmethod
    def _positive(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if any(rate <= 0 for rate in rates) or len(set(rates)) < len(rates):
            raise ValueError("learning rates to try must be positive and differ")
        return rates


class Gradual(Strict):
    """Magnitude pruning while training goes on: s(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^3.

    Zhu & Gupta 2017 (arXiv 1710.01878), equation 1. Every linear of the blocks follows it alone; masks only grow.
    """

    final: float = Field(gt=0, lt=1, description="share of zeros in the end")
    initial: float = Field(0.0, ge=0, lt=1, description="share of zeros that the schedule begins with")
    begin: float = Field(0.0, ge=0, lt=1, description="where pruning begins, as a share of the steps")
    end: float = Field(0.6, gt=0, le=1, description="where the final share is reached, as a share of the steps")
    every: int = Field(10, gt=0, description="steps between two prunings")
    skip: tuple[str, ...] = Field((), description="linears left alone: a name, its dotted ending or a glob")

    @model_validator(mode="after")
    def _ordered(self) -> Gradual:
        if self.begin >= self.end:
            raise ValueError(f"pruning begins at {self.begin} but ends at {self.end}; begin must come before end")
        if self.initial > self.final:
            raise ValueError(f"initial {self.initial} is above final {self.final}; masks only grow")
        return self


class TrainSettings(Strict):
    """One training run: budget, optimizer and losses."""

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
    select: Select | None = Field(None, description="choose checkpoint and learning rate on a dev split")
    gradual: Gradual | None = Field(None, description="prune by magnitude while training")


class MixtureSource(Strict):
    """One source of a pretraining mixture."""

    source: str = Field(
        min_length=1,
        description="`suite:SKILL/train`, a JSONL or text file, `python:DIR` or `hub:NAME[/CONFIG][:SPLIT]`",
    )
    share: float = Field(gt=0, description="of the tokens, relative to the other sources")
    stream: bool = Field(False, description="hub data set: read while training, never stored")
    revision: str | None = Field(
        None, description="commit of the streamed data set; without it another run may read other text"
    )
    column: str | None = Field(None, description="column that holds the text; `text` or the first of text if not given")

    @model_validator(mode="after")
    def _consistent(self) -> MixtureSource:
        if self.stream and not self.source.startswith("hub:"):
            raise ValueError(f"only hub data sets are streamed, not {self.source!r}; remove stream")
        if not self.stream and (self.revision or self.column):
            raise ValueError("revision and column are for `stream: true`")
        return self


class PretrainSettings(TrainSettings):
    """Training on packed text of several sources."""

    mixture: tuple[MixtureSource, ...] = Field(min_length=1, description="sources and their shares of the tokens")
    attention: Literal["document", "causal"] = Field(
        "document",
        description="document: a token sees its own document only, and no document's first token is predicted; "
        "causal: all before it in the sequence, other documents too, as most pretraining code does",
    )
    prompt_weight: float = Field(0.0, ge=0, le=0, description="packed text has no prompts")
    pack: int = Field(0, ge=0, le=0, description="text is always packed")

    @model_validator(mode="after")
    def _fits(self) -> PretrainSettings:
        if self.batch_tokens < self.seq:
            raise ValueError(f"batch_tokens {self.batch_tokens} is less than one sequence of {self.seq}; raise it")
        return self
