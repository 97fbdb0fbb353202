"""From a model's text to a program in MBPP's form: the text itself, up to the mark that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_END = "[DONE]"


def extract(doc: Mapping[str, Any], output: str) -> str | None:
    """The program that a model's text stands for, or None if the text is blank.

    Nothing is searched for inside the text: as in the paper and in lm-eval's `mbpp`, what the model writes between
    `[BEGIN]` and `[DONE]` is the program.

    Args:
        doc: The problem; not read.
        output: The model's text.
    """
    program = output.partition(_END)[0]
    return program if program.strip() else None
