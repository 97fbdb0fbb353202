"""A small data directory in the published formats, answers to it, and an engine that judges by a script."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.engines.base import Completion, Request
from harness.errors import EngineError
from harness.judge.session import Judge

QUESTIONS = {81: "writing", 101: "reasoning", 111: "math", 141: "stem"}
INSTRUCTIONS = [f"Tell me fact number {i}." for i in range(12)]
Messages = Sequence[Mapping[str, str]]

_REFERENCE_1 = "[The Start of Reference Answer]\n{ref_answer_1}\n[The End of Reference Answer]\n\n"
_TALK = (
    "<|The Start of Assistant {0}'s Conversation|>\n{{question_1}}\n{{answer{1}_1}}\n{{question_2}}\n{{answer{1}_2}}\n"
    "<|End|>"
)
_REFERENCE_2 = "<|Reference|>\n{question_1}\n{ref_answer_1}\n{question_2}\n{ref_answer_2}\n<|End|>\n\n"
_ONE = "[Question]\n{question}\n\n[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"
_TWO = (
    "[User Question]\n{question}\n\n[The Start of Assistant A's Answer]\n{answer_a}\n[The End of Assistant A's Answer]"
    "\n\n[The Start of Assistant B's Answer]\n{answer_b}\n[The End of Assistant B's Answer]"
)
PROMPTS = {
    "single-v1": (_ONE, "[[rating]]"),
    "single-math-v1": (_REFERENCE_1 + _ONE, "[[rating]]"),
    "single-v1-multi-turn": (_TALK.format("A", ""), "[[rating]]"),
    "single-math-v1-multi-turn": (_REFERENCE_2 + _TALK.format("A", ""), "[[rating]]"),
    "pair-v2": (_TWO, "[[A]]"),
    "pair-math-v1": (_REFERENCE_1 + _TWO, "[[A]]"),
    "pair-v2-multi-turn": (_TALK.format("A", "_a") + "\n" + _TALK.format("B", "_b"), "[[A]]"),
    "pair-math-v1-multi-turn": (_REFERENCE_2 + _TALK.format("A", "_a") + "\n" + _TALK.format("B", "_b"), "[[A]]"),
}
CLF = (
    "<|im_start|>system\nYou choose.\n<|im_end|>\n<|im_start|>user\nAsked: {instruction}\nm: <<{output_1}>>\n"
    "M: <<{output_2}>>\nName the better: m or M.\n<|im_end|>"
)
RANK = (
    "<|im_start|>system\nYou rank.\n<|im_end|>\n<|im_start|>user\nAsked: {instruction}\nmodel_1: <<{output_1}>>\n"
    "model_2: <<{output_2}>>\nRank them.\n<|im_end|>"
)


def write_data(folder: Path) -> Path:
    """The published files, with texts of our own."""
    mt_bench, alpaca = folder / "mt_bench", folder / "alpaca_eval"
    mt_bench.mkdir(parents=True)
    alpaca.mkdir()
    questions = [
        {"question_id": number, "category": category, "turns": [f"First of {number}?", f"Then {number}?"]}
        for number, category in QUESTIONS.items()
    ]
    write_lines(mt_bench / "question.jsonl", questions)
    answered = {n: (f"right {n}", f"right again {n}") for n, c in QUESTIONS.items() if c in ("math", "reasoning")}
    write_lines(mt_bench / "reference_answer_gpt-4.jsonl", answer_rows("gpt-4", answered))
    prompts = [
        {"name": name, "type": "t", "system_prompt": "Judge.", "prompt_template": text, "output_format": form}
        for name, (text, form) in PROMPTS.items()
    ]
    write_lines(mt_bench / "judge_prompts.jsonl", prompts)
    (alpaca / "prompt_alpaca_eval_clf.txt").write_text(CLF)
    (alpaca / "prompt_alpaca_eval_gpt4.txt").write_text(RANK)
    for name in ("text_davinci_003", "gpt4_1106_preview"):
        write_outputs(alpaca / f"{name}_outputs.json", name, {text: f"By {name}: {text}" for text in INSTRUCTIONS})
    write_outputs(alpaca / "alpaca_eval.json", "text_davinci_003", {text: f"It is {text}" for text in INSTRUCTIONS})
    return folder


def answer_rows(model: str, turns: Mapping[int, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {
            "question_id": number,
            "answer_id": f"a{number}",
            "model_id": model,
            "choices": [{"index": 0, "turns": list(texts)}],
            "tstamp": 1.0,
        }
        for number, texts in turns.items()
    ]


def write_answers(path: Path, model: str, turns: Mapping[int, Sequence[str]] | None = None) -> Path:
    """A FastChat answer file; by default a whole one."""
    whole = {number: (f"{model} says {number}", f"{model} adds {number}") for number in QUESTIONS}
    write_lines(path, answer_rows(model, whole if turns is None else turns))
    return path


def write_outputs(path: Path, model: str, outputs: Mapping[str, str]) -> Path:
    rows = [
        {"instruction": text, "output": output, "generator": model, "dataset": f"set{len(text) % 2}"}
        for text, output in outputs.items()
    ]
    path.write_text(json.dumps(rows))
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class ScriptedEngine:
    """Answers by a function of the messages; its token ids are code points.

    Args:
        reply: The answer to a prompt.
        fail_after: Dies when asked for more prompts than that.
        context: Its context length.
    """

    name = "scripted"

    def __init__(
        self,
        reply: Callable[[Messages], str],
        *,
        fail_after: int | None = None,
        context: int = 10**6,
    ) -> None:
        self.context_length = context
        self.asked: list[str] = []
        self._reply, self._fail_after = reply, fail_after

    def encode(self, text: str | None = None, *, chat: Messages | None = None) -> list[int]:
        return [ord(letter) for letter in (json.dumps(list(chat)) if chat is not None else str(text))]

    def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        prompts = ["".join(map(chr, request.prompt_ids)) for request in requests]
        self._take(prompts)
        return [
            Completion(request.request_id, self._reply(json.loads(prompt)), len(prompt), 1, "stop", 0.0)
            for request, prompt in zip(requests, prompts, strict=True)
        ]

    def _take(self, prompts: Sequence[str]) -> None:
        if self._fail_after is not None and len(self.asked) + len(prompts) > self._fail_after:
            raise EngineError("the judge died; start it again")
        self.asked += prompts


class WeighingEngine(ScriptedEngine):
    """A scripted engine that also gives log-probabilities.

    Args:
        weigh: Log-probability of a name as the answer to a prompt.
        options: As `ScriptedEngine`.
    """

    def __init__(self, weigh: Callable[[Messages, str], float], **options: Any) -> None:
        super().__init__(lambda messages: "", **options)
        self._weigh = weigh

    def loglikelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        prompts = ["".join(map(chr, prompt)) for prompt, _ in pairs]
        self._take(prompts[::2])
        names = ["".join(map(chr, name)) for _, name in pairs]
        return [(self._weigh(json.loads(p), n), False) for p, n in zip(prompts, names, strict=True)]


def scripted(reply: Callable[[Messages], str], **options: Any) -> Judge:
    """A judge by a script."""
    return _judge(ScriptedEngine(reply, **options))


def weighing(weigh: Callable[[Messages, str], float], **options: Any) -> Judge:
    """A judge by a script of log-probabilities."""
    return _judge(WeighingEngine(weigh, **options))


def _judge(engine: Any) -> Judge:
    return Judge("scripted-judge", engine, {"engine": "scripted", "script": "1"})


def worth(text: str) -> int:
    """A grade from 1 to 10 that follows from a text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 10 + 1


_SAID = r"'s (?:Answer\]|Conversation(?: with User)?\|>)\n(.*?)\n(?:\[The End|<\|(?:The )?End)"


def sides(messages: Messages) -> tuple[str, str]:
    """What both sides of a pair said, in the order shown."""
    text = messages[-1]["content"]
    quoted = re.findall(r"<<(.*?)>>", text, re.DOTALL)
    one, other = quoted or re.findall(f"The Start of Assistant [AB]{_SAID}", text, re.DOTALL)
    return one, other


def rate_by_worth(messages: Messages) -> str:
    """A rating that follows from the last answer of the prompt."""
    answer = re.findall(f"The Start of Assistant(?: A)?{_SAID}", messages[-1]["content"], re.DOTALL)[-1]
    return f"A fair answer. Rating: [[{worth(answer)}]]"


def winner_by_worth(messages: Messages) -> str:
    """The worthier side of a pair, wherever it is shown; a tie where both are worth the same."""
    one, other = (worth(text) for text in sides(messages))
    return f"I choose [[{'C' if one == other else 'A' if one > other else 'B'}]]"
