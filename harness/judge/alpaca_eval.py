"""AlpacaEval: which pairs a judge gets in which order, and what its words make of them.

Protocol of the package's `annotate_head2head`: output 1 is the reference's, output 2 the model's, which of them is
shown first follows from the instruction alone, and equal outputs are a draw without a question.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import ConfigError
from harness.evaluate.plan import ChatText
from harness.judge.answers import ModelOutputs, check_known
from harness.judge.prompts import JudgePrompt, Template
from harness.judge.session import Judgement
from harness.judge.verdicts import parse_ranking

Status = Literal["judged", "same_output", "unparsable", "truncated_input", "no_answer", "refused", "error"]
DRAW = 1.5
LIMITS: dict[Template, int] = {"alpaca_eval_gpt4": 100, "alpaca_eval_clf": 1}
"""Tokens that a judge may say, as published."""
REFERENCES: dict[Template, str] = {"alpaca_eval_gpt4": "text_davinci_003", "alpaca_eval_clf": "gpt4_1106_preview"}
"""The reference that each prompt was published with: AlpacaEval 1 and 2."""
_SEED = 0  # the package's


@dataclass(frozen=True)
class Duel:
    """One instruction with the outputs of the reference and of a model.

    Attributes:
        instruction: What was asked.
        dataset: The part of the set that it belongs to; None where unknown.
        reference: The reference's output.
        output: The model's; None where it has none.
        text: What the judge is asked; None where nothing has to be, or can be.
        switched: Whether the model's output is shown first.
    """

    instruction: str
    dataset: str | None
    reference: str
    output: str | None
    text: ChatText | None
    switched: bool


@dataclass(frozen=True)
class Annotation:
    """The verdict on one duel.

    Attributes:
        duel: The duel.
        preference: 1 (the reference) to 2 (the model), as the package has it; None without a verdict.
        status: `judged`, `same_output`, or why there is no verdict.
        words: The judge's.
    """

    duel: Duel
    preference: float | None
    status: Status
    words: str = ""

    @property
    def win(self) -> float | None:
        """Preference for the model, 0 to 1."""
        return None if self.preference is None else self.preference - 1


def plan_duels(outputs: ModelOutputs, reference: ModelOutputs, prompt: JudgePrompt, n: int | None = None) -> list[Duel]:
    """A duel for each of the first `n` instructions of the reference, or for all.

    Raises:
        ConfigError: The model has outputs for other instructions.
    """
    check_known(outputs.source, list(outputs.outputs), reference.outputs, "instruction")
    duels = []
    for instruction, given in list(reference.outputs.items())[:n]:
        output, switched = outputs.outputs.get(instruction), is_switched(instruction)
        text = None
        if output is not None and output != given:
            first, second = (output, given) if switched else (given, output)
            text = prompt.fill({"instruction": instruction, "output_1": first, "output_2": second})
        duels.append(Duel(instruction, reference.datasets.get(instruction), given, output, text, switched))
    if all(duel.output is None for duel in duels):
        raise ConfigError(f"{outputs.source} has no output for the first {len(duels)} instructions; give a larger --n")
    return duels


def is_switched(instruction: str) -> bool:
    """Whether the model's output is shown first: the package's own draw, seeded by the instruction."""
    return random.Random(f"is_switched_outputs{instruction}{_SEED}").choices([False, True], k=1)[0]


def annotate(duel: Duel, said: Mapping[str, Judgement], template: Template) -> Annotation:
    """The verdict that the judge's words, or the log-probabilities of its words, give."""
    if duel.output is None:
        return Annotation(duel, None, "no_answer")
    if duel.text is None:
        return Annotation(duel, DRAW, "same_output")
    judgement = said[duel.text]
    if judgement.status in ("truncated_input", "refused", "error"):
        return Annotation(duel, None, judgement.status, judgement.text)
    shown = parse_ranking(judgement.text) if template == "alpaca_eval_gpt4" else judgement.preference
    if shown is None:
        return Annotation(duel, None, "unparsable", judgement.text)
    return Annotation(duel, 3 - shown if duel.switched else shown, "judged", judgement.text)


def annotation_rows(
    annotations: Sequence[Annotation], *, model: str, reference: str, annotator: str
) -> list[dict[str, Any]]:
    """The rows of the package's `annotations.json`; without a verdict `preference` is null.

    The package leaves instructions out that the model did not answer; here they are kept, with `output_2` null.
    """
    return [
        {
            "instruction": one.duel.instruction,
            "output_1": one.duel.reference,
            "generator_1": reference,
            **({"dataset": one.duel.dataset} if one.duel.dataset is not None else {}),
            "output_2": one.duel.output,
            "generator_2": model,
            "annotator": annotator,
            "preference": one.preference,
            "raw_completion": one.words,
        }
        for one in annotations
    ]
