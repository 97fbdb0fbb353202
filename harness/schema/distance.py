"""The distance of a variant to its dense model on fixed text, as `distance.json` and `summary.json` keep it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.schema.base import Record, Valued

ALL_TEXTS = "all"


class Measure(Valued):
    """One measure over the positions or the continuations of a text; intervals by template, document or window."""


class PositionShare(Record):
    """Top-1 agreement at some positions of a text."""

    first: int = Field(ge=1, description="position: predicted tokens counted from 1, of the answer or the window")
    last: int = Field(ge=1)
    n: int = Field(ge=1, description="predictions")
    share: float = Field(ge=0, le=1)


class FirstToken(Record):
    """Median over the continuations of the first token, counted from 1, that is not the dense model's."""

    value: int | None = Field(description="null where fewer than half of the continuations diverge")
    low: int | None = Field(description="lower 95 % limit; null where it is beyond the last token")
    high: int | None = Field(description="upper 95 % limit; null where it is beyond the last token")
    method: str
    reason: str | None = None

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> FirstToken:
        if self.value is None and not self.reason:
            raise ValueError("a null median needs a reason")
        return self


class TextDistance(Record):
    """The distance on one text, or on all of them together."""

    text: str = Field(description=f"a suite, the name of a text, or `{ALL_TEXTS}`")
    documents: int = Field(ge=0, description="documents or windows on which predictions are compared")
    tokens: int = Field(ge=0, description="predictions that are compared")
    top1: Measure = Field(description="share of predictions in which both models find the same token likeliest")
    kl: Measure = Field(description="mean KL(dense || variant) of a prediction, in nats")
    prompts: int = Field(ge=0, description="prompts that both models continue greedily")
    never: Measure = Field(description="share of continuations that never diverge")
    first_token: FirstToken
    survival: list[float] = Field(description="share of continuations still equal after 1, 2, ... tokens")
    agreement: list[PositionShare] = Field(description="top-1 agreement by position")
    left_out: int = Field(ge=0, description="documents that do not fit the model's context, in whole or in part")


class DistanceResult(Record):
    """The distance of one variant to its dense model."""

    baseline: str = Field(description="the dense model")
    engine: str = Field(description="what ran the variant, with its dtype")
    baseline_engine: str
    new_tokens: int = Field(ge=1, description="length of greedy continuations at most")
    texts: list[TextDistance] = Field(description="by text, then all together")

    def on(self, text: str) -> TextDistance | None:
        """The distance on one text."""
        return next((each for each in self.texts if each.text == text), None)


class DistanceModel(Record):
    """One model of `distance.json`."""

    name: str
    model: dict[str, str | None] = Field(description="hashes of weights, tokenizer and chat template")
    engine: str
    distance: DistanceResult | None = Field(description="null for the dense model")


class DistanceFile(Record):
    """The whole of `distance.json`."""

    schema_version: Literal[1] = 1
    texts: dict[str, object] = Field(description="the plan: suites as [name, preset, items], window as [text, ...]")
    texts_sha256: str = Field(description="over the token ids of all texts")
    models: list[DistanceModel]
