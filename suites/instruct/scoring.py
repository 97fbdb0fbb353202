"""IFEval scores of one output, strict and loose, by prompt and by instruction (Zhou et al. 2023, arXiv:2311.07911).

The same rules as `lm_eval.tasks.ifeval.utils`; a test compares the two on real rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suites.instruct.checkers import load


def loose_variants(output: str) -> list[str]:
    """The eight readings of an output that loose scoring tries: without stars, first line, last line, or several."""
    lines = output.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [output, output.replace("*", ""), *cut, *(text.replace("*", "") for text in cut)]


def _follows(checker: Any, texts: Sequence[str]) -> float:
    try:
        return float(any(bool(text.strip()) and checker.check_following(text) for text in texts))
    except RecursionError:
        # A damaged model may write a thousand opening brackets; the JSON checker expects no more than a ValueError.
        return 0.0


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """IFEval's four metrics of one output.

    Args:
        doc: `prompt`, `instruction_id_list` and the aligned `kwargs`, which hold the set arguments only or, as on the
            hub, every argument with null where unset.
        output: The completion (or a sequence that holds just that).

    Returns:
        `prompt_level_strict` and `prompt_level_loose` (0 or 1), `inst_level_strict` and `inst_level_loose` (a list of
        0 or 1 by instruction).
    """
    text = output if isinstance(output, str) else output[0]
    variants = loose_variants(text)
    registry = load()
    strict: list[float] = []
    loose: list[float] = []
    for instruction, kwargs in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        checker = registry[instruction](instruction)
        checker.build_description(**{key: value for key, value in kwargs.items() if value})
        arguments = checker.get_instruction_args()
        if arguments and "prompt" in arguments:
            checker.build_description(prompt=doc["prompt"])
        strict.append(_follows(checker, [text]))
        loose.append(_follows(checker, variants))
    return {
        "prompt_level_strict": float(all(strict)),
        "inst_level_strict": strict,
        "prompt_level_loose": float(all(loose)),
        "inst_level_loose": loose,
    }
