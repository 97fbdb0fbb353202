"""Answers to compare scorers on: real texts and what models do to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def gsm8k_answers(doc: Mapping[str, Any]) -> Iterator[str]:
    """The reference answer of a GSM8K document, and some twenty ways to say or to miss it."""
    answer = str(doc["answer"])
    steps, _, number = answer.rpartition("#### ")
    wrong = str(int(number.replace(",", "")) + 1)
    yield answer
    yield answer + "\n\nQuestion: How many?"
    yield f"{steps}#### {wrong}"
    yield f"{steps}#### ${number}"
    yield f"{steps}#### {number}."
    yield f"{steps}#### {number}.00"
    yield f"{steps}#### {number}\n#### {wrong}"
    yield f"{steps}#### {wrong}\n#### {number}"
    yield f"{steps}####{number}"
    yield f"{steps}#### -{number}"
    yield f"{steps}The answer is {number}."
    yield f"{steps}The answer is {number}"
    yield f"{steps}The answer is ${number}."
    yield f"{steps}The answer is {wrong}. The answer is {number}."
    yield f"{steps}The answer is {number}, of course.\n\nQ: {wrong}"
    yield f"so it is {number} apples"
    yield f"so it is {number}..."
    yield f"\\boxed{{{number}}}"
    yield f"{number}%"
    yield "I do not know."
    yield ""
    yield "...,,, $"
    yield steps


def responses(data: Path) -> list[str]:
    """Texts as answers to IFEval's prompts: four models' outputs of AlpacaEval."""
    found: list[str] = []
    for name in ("gpt4_1106_preview", "gpt4", "text_davinci_003", "alpaca-7b"):
        file = data / "alpaca_eval" / f"{name}_outputs.json"
        found += [str(row["output"]) for row in json.loads(file.read_text(encoding="utf-8"))]
    return found


def reworked(prompt: str, text: str, other: str) -> Iterator[str]:
    """A response in forms that the kinds of instruction ask for, so that all of them are met as well as missed."""
    yield text
    yield text.upper()
    yield text.lower().replace(",", "")
    yield f'"{text}"'
    yield f"{prompt}\n\n{text}\n\nP.S. {other[:200]}"
    yield f"<<A title>>\n\n* one\n* two\n* three\n\n*high* *light* *ed*\n***\n{other}"
    yield f"{text}\n\n******\n\n{other}"
    yield f"SECTION 1\n{text}\n\nSection 2\n{other}\n\n[name] [place] [date]"
    yield f'```json\n{{"answer": {json.dumps(text)}}}\n```'
    yield "My answer is yes."
    yield f"Sure.\n\nParagraph 1\n\n{text}\n\nIs there anything else I can help with?"
    yield ""
