"""The formats of answers, one module each, by suite."""

from __future__ import annotations

from collections.abc import Mapping

from harness.score.answers import Format
from harness.score.formats.evalplus import EVALPLUS
from harness.score.formats.human_eval import HUMAN_EVAL, MODEL_TEXT
from harness.score.formats.ifeval import IFEVAL
from harness.score.formats.lm_eval import lm_eval_samples
from harness.score.formats.simple import ANSWERS, PREDICTIONS

FORMATS: Mapping[str, tuple[Format, ...]] = {
    "code": (HUMAN_EVAL, EVALPLUS, lm_eval_samples("code"), MODEL_TEXT),
    "gsm8k": (lm_eval_samples("gsm8k"), ANSWERS),
    "instruct": (IFEVAL, lm_eval_samples("instruct")),
    "summarization": (lm_eval_samples("summarization"), PREDICTIONS),
}
"""Suites whose answers are scored item by item; the first format that a file's first row fits is taken."""

SCORERS: Mapping[str, str] = {"chat": "harness.judge.rescore:score"}
"""Suites whose files hold more than answers, such as judgements: `module:function`, imported when it is asked for; it
takes the `harness.score.run.Request`, writes the folder, and gives the text for the terminal."""
