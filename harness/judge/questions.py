"""The questions of MT-Bench, with the reference answers that a judge is given for math, coding and reasoning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.judge.answers import read_model_answers
from suites.data import load_items
from suites.registry import load_suite

QUESTION_FILE = "mt_bench/question.jsonl"
REFERENCE_FILE = "mt_bench/reference_answer_gpt-4.jsonl"
NEED_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""Categories whose judge prompts hold a reference answer, as in FastChat."""


@dataclass(frozen=True)
class Question:
    """One question of MT-Bench.

    Attributes:
        question_id: FastChat's number.
        category: `writing`, `math`, ...
        turns: The user's messages.
        reference: One reference answer a turn; empty where the category needs none.
        item_id: The id that this question has in the suite `chat`.
        item_hash: Its hash there.
    """

    question_id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...]
    item_id: str
    item_hash: str

    @property
    def keys(self) -> list[tuple[int, int]]:
        """(question id, turn) of every turn, turns from 1."""
        return [(self.question_id, turn) for turn in range(1, len(self.turns) + 1)]


def load_questions(data_dir: Path) -> list[Question]:
    """All questions of the data directory, in order.

    Raises:
        SuiteError: The question file is missing or cannot be used.
        ConfigError: A question has no number or category, or lacks the reference answer that its category needs.
    """
    path = data_dir / REFERENCE_FILE
    if not path.is_file():
        raise ConfigError(f"{path} is missing; put FastChat's reference answers there")
    references = read_model_answers(path).turns
    questions: list[Question] = []
    for item in load_items(load_suite("chat"), "full", data_dir=data_dir):
        number, category = item.doc.get("question_id"), item.doc.get("category")
        if not isinstance(number, int) or not isinstance(category, str):
            raise ConfigError(
                f"{data_dir / QUESTION_FILE}: {item.item_id} lacks question_id or category; fetch it again"
            )
        turns = tuple(item.doc["turns"])
        if len(turns) > 2:
            raise ConfigError(f"question {number} has {len(turns)} turns; MT-Bench has prompts for two")
        reference: tuple[str, ...] = ()
        if category in NEED_REFERENCE:
            reference = tuple(text for text in references.get(number, ()) if text is not None)[: len(turns)]
            if len(reference) < len(turns):
                raise ConfigError(f"{path} has no whole answer to question {number} ({category}); fetch the file again")
        questions.append(Question(number, category, turns, reference, item.item_id, item.item_hash))
    if len({question.question_id for question in questions}) < len(questions):
        raise ConfigError(f"{data_dir / QUESTION_FILE} has a question_id twice; fetch the file again")
    return questions
