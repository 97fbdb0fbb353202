"""From a model's text to a program in MBPP's form: the text itself, up to the mark that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEVIATIONS = (
    "Mbpp/367 (and 601, 927 outside the test split) cannot be passed: its assertions build objects of a class that the "
    "program defines, and program and assertions run in processes of their own",
    "Mbpp/596 (outside the test split): the assertions have `sys` although a program may not import it",
)
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
