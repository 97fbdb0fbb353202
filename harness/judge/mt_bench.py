"""MT-Bench: which prompts a judge gets for which answers, and what its words make of them.

Protocol of FastChat's `gen_judgment.py`: the first turn is judged alone, the second with the whole conversation; math,
coding and reasoning come with reference answers; pairs are judged in both orders, and verdicts that disagree are a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.evaluate.plan import ChatText
from harness.judge.answers import ModelAnswers
from harness.judge.prompts import JudgePrompt
from harness.judge.questions import Question
from harness.judge.session import Judgement
from harness.judge.verdicts import Winner, parse_rating, parse_winner

Status = Literal[
    "judged", "unparsable", "out_of_range", "truncated_input", "no_answer", "refused", "error", "no_judgement"
]
Outcome = Literal["win", "loss", "tie"]
Prompts = Mapping[tuple[bool, int], JudgePrompt]
_UNANSWERED: tuple[Literal["error", "refused", "truncated_input"], ...] = ("error", "refused", "truncated_input")
LOWEST, HIGHEST = 1.0, 10.0
"""The scale that the prompts ask for."""


@dataclass(frozen=True)
class Match:
    """One turn of one model's answer to one question, as it goes to the judge.

    Attributes:
        question: The question.
        turn: 1 or 2.
        model: Whose answer is judged.
        prompt: Name of the judge prompt.
        texts: One prompt, or two of a pair: the model as A, then the opponent as A; empty where an answer is missing.
        opponent: Whom it is compared with; None in single mode.
    """

    question: Question
    turn: int
    model: str
    prompt: str
    texts: tuple[ChatText, ...]
    opponent: str | None = None


@dataclass(frozen=True)
class Grade:
    """The rating of one turn.

    Attributes:
        question_id: The question.
        category: Its category; None where it is not known.
        turn: 1 or 2.
        model: Whose answer it is.
        status: `judged`, or why there is no rating that counts.
        score: The rating as FastChat parses it, -1 for none.
        how: `strict`, `lenient` or `unparsable`.
        ambiguous: Whether the judge wrote several ratings.
    """

    question_id: int
    category: str | None
    turn: int
    model: str
    status: Status
    score: float
    how: str = "unparsable"
    ambiguous: bool = False


@dataclass(frozen=True)
class Game:
    """The verdict on one turn of two models.

    Attributes:
        question_id: The question.
        category: Its category; None where it is not known.
        turn: 1 or 2.
        model: Whose result it is.
        opponent: Whom it played.
        status: `judged`, or why there is no verdict.
        outcome: For the model; None unless judged.
        winners: Verdicts in both orders: `model_1` (the model), `model_2`, `tie` or `error`.
        ambiguous: Whether a judgement names several winners.
    """

    question_id: int
    category: str | None
    turn: int
    model: str
    opponent: str
    status: Status
    outcome: Outcome | None
    winners: tuple[str, str]
    ambiguous: bool = False

    @property
    def consistent(self) -> bool:
        """Whether both orders gave the same verdict."""
        return self.winners[0] == self.winners[1]


def plan_single(questions: Sequence[Question], answers: ModelAnswers, prompts: Prompts) -> list[Match]:
    """Every turn of every question as a match of single mode."""
    matches = []
    for question in questions:
        for _, turn in question.keys:
            prompt = prompts[bool(question.reference), turn]
            said = answers.upto(question.question_id, turn)
            texts = () if said is None else (prompt.fill(_asked(question, turn) | _side("", said)),)
            matches.append(Match(question, turn, answers.model, prompt.name, texts))
    return matches


def plan_pairs(
    questions: Sequence[Question], answers: ModelAnswers, baseline: ModelAnswers, prompts: Prompts
) -> list[Match]:
    """Every turn of every question as a match of `answers` against `baseline`, in both orders."""
    matches = []
    for question in questions:
        for _, turn in question.keys:
            prompt = prompts[bool(question.reference), turn]
            one, other = (side.upto(question.question_id, turn) for side in (answers, baseline))
            texts: tuple[ChatText, ...] = ()
            if one is not None and other is not None:
                fixed = _asked(question, turn)
                texts = tuple(
                    prompt.fill(fixed | _side("_a", a) | _side("_b", b)) for a, b in ((one, other), (other, one))
                )
            matches.append(Match(question, turn, answers.model, prompt.name, texts, baseline.model))
    return matches


def grade(match: Match, said: Mapping[str, Judgement]) -> Grade:
    """The rating that the judge's words give."""
    question = match.question
    status, score, how, ambiguous = _status(match, said), -1.0, "unparsable", False
    if status == "judged":
        status, score, how, ambiguous = rate(said[match.texts[0]].text)
    return Grade(question.question_id, question.category, match.turn, match.model, status, score, how, ambiguous)


def rate(text: str) -> tuple[Status, float, str, bool]:
    """Status, score as FastChat gives it (-1 for none), how it was found, and whether there were several."""
    rating = parse_rating(text)
    if rating.value is None:
        return "unparsable", -1.0, rating.how, rating.ambiguous
    return in_range(rating.value), rating.value, rating.how, rating.ambiguous


def in_range(score: float) -> Status:
    """Whether a score lies on the scale that the prompts ask for."""
    return "judged" if LOWEST <= score <= HIGHEST else "out_of_range"


def play(match: Match, said: Mapping[str, Judgement]) -> Game:
    """The verdict that the judge's words in both orders give."""
    status, ambiguous, winners = _status(match, said), False, ("error", "error")
    if status == "judged":
        (first, both), (second, more) = (parse_winner(said[text].text) for text in match.texts)
        winners, ambiguous = (_named(first, "A"), _named(second, "B")), both or more
    status = "unparsable" if status == "judged" and "error" in winners else status
    assert match.opponent is not None
    outcome = decide(*winners) if status == "judged" else None
    question = match.question
    keys = (question.question_id, question.category, match.turn, match.model, match.opponent)
    return Game(*keys, status, outcome, winners, ambiguous)


def decide(first: str, second: str) -> Outcome:
    """The outcome for `model_1` of verdicts in both orders: a win only where both say so."""
    if first != second or first == "tie":
        return "tie"
    return "win" if first == "model_1" else "loss"


def single_row(match: Match, found: Grade, said: Mapping[str, Judgement], judge: str) -> dict[str, Any]:
    """A grade as a row of FastChat's `model_judgment/*_single.jsonl`, but for its time stamp."""
    return {
        "question_id": found.question_id,
        "model": found.model,
        "judge": [judge, match.prompt],
        "user_prompt": _user(match.texts[0]) if match.texts else "",
        "judgment": said[match.texts[0]].text if match.texts else "",
        "score": found.score,
        "turn": found.turn,
    }


def pair_row(match: Match, found: Game, said: Mapping[str, Judgement], judge: str) -> dict[str, Any]:
    """A game as a row of FastChat's `model_judgment/*_pair.jsonl`, but for its time stamp."""
    texts = match.texts or (None, None)
    return {
        "question_id": found.question_id,
        "model_1": found.model,
        "model_2": found.opponent,
        "g1_winner": found.winners[0],
        "g2_winner": found.winners[1],
        "judge": [judge, match.prompt],
        **{f"g{i}_user_prompt": _user(text) if text else "" for i, text in enumerate(texts, 1)},
        **{f"g{i}_judgment": said[text].text if text else "" for i, text in enumerate(texts, 1)},
        "turn": found.turn,
    }


def _asked(question: Question, turn: int) -> dict[str, str]:
    values = {f"ref_answer_{n}": text for n, text in enumerate(question.reference, 1)}
    if turn == 1:
        return {**values, "question": question.turns[0]}
    return {**values, **{f"question_{n}": text for n, text in enumerate(question.turns, 1)}}


def _side(side: str, said: Sequence[str]) -> dict[str, str]:
    if len(said) == 1:
        return {f"answer{side}": said[0]}
    return {f"answer{side}_{n}": text for n, text in enumerate(said, 1)}


def _status(match: Match, said: Mapping[str, Judgement]) -> Status:
    if not match.texts:
        return "no_answer"
    found = {said[text].status for text in match.texts}
    return next((status for status in _UNANSWERED if status in found), "judged")


def _named(winner: Winner, model: str) -> str:
    return {model: "model_1"}.get(winner, "model_2") if winner in ("A", "B") else winner


def _user(text: ChatText) -> str:
    return next(message["content"] for message in text.messages if message["role"] == "user")
