"""ROUGE of summaries, as papers report it on CNN/DailyMail: stemmed F1, ROUGE-Lsum over one sentence per line.

References and predictions are split into lines by the same small rule (`sentences`), because ROUGE-Lsum depends on
where the lines end and a model does not break its lines as a reference does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from suites.errors import SuiteError

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
NEEDS_LATIN = "no reference has a letter a-z or a digit, which is all that ROUGE's tokenizer keeps"
_ARTICLE = ("article", "document", "dialogue")
_SUMMARY = ("highlights", "summary", "summaries")
_SEVERAL = ("summary1", "summary2", "summary3")
# After a full stop, question or exclamation mark and any closing quotes, before a capital, digit, quote or DialogSum's
# "#Person1#"; a title such as "Mr." ends no sentence.
_BREAK = re.compile(
    r"""(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?:(?<=[.!?])|(?<=[.!?]["')\]]))\s+(?=["'(\[]*[A-Z0-9#])"""
)
_WORD = re.compile(r"[a-z0-9]", re.IGNORECASE | re.ASCII)


def article(doc: Mapping[str, Any]) -> str:
    """The text to summarize: the document's `article`, `document` or `dialogue`.

    Raises:
        SuiteError: The document has none of them.
    """
    for field in _ARTICLE:
        if doc.get(field):
            return str(doc[field])
    raise SuiteError(f"a summarization item needs one of the fields {', '.join(_ARTICLE)}; it has {', '.join(doc)}")


def references(doc: Mapping[str, Any]) -> list[str]:
    """The references: `highlights`, `summary` or `summaries` (a text or a list), else `summary1` to `summary3`.

    Raises:
        SuiteError: The document has no reference.
    """
    for field in _SUMMARY:
        if doc.get(field):
            return [doc[field]] if isinstance(doc[field], str) else [str(text) for text in doc[field]]
    several = [str(doc[field]) for field in _SEVERAL if doc.get(field)]
    if not several:
        fields = ", ".join((*_SUMMARY, *_SEVERAL))
        raise SuiteError(f"a summarization item needs one of the fields {fields}; it has {', '.join(doc)}")
    return several


def prompt(doc: Mapping[str, Any]) -> str:
    """What the model is asked; the only place where the prompt is worded."""
    return f"Summarize the article.\n\n{article(doc)}\n\nSummary:"


def sentences(text: str) -> str:
    """The text with one sentence per line: line breaks stay, and each sentence end starts a new line."""
    lines = (line.strip() for part in text.splitlines() for line in _BREAK.split(part))
    return "\n".join(line for line in lines if line)


@functools.cache
def _scorer() -> Any:
    # rouge_score imports nltk (seconds) for its stemmer, and lm-eval builds a scorer per document: once is enough.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(METRICS), use_stemmer=True)


def scorable(doc: Mapping[str, Any]) -> str | None:
    """Why ROUGE says nothing about this document; None if it does."""
    return None if any(_WORD.search(text) for text in references(doc)) else NEEDS_LATIN


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """Score one summary.

    Args:
        doc: An item in any of the forms that `references` accepts.
        output: The model's text. An empty one scores 0, and so does one outside the Latin alphabet, because
            rouge-score's tokenizer drops all but a-z and 0-9.

    Returns:
        F1 of `rouge1`, `rouge2`, `rougeL` and `rougeLsum` on a 0..1 scale; of several references, for each metric the
        best.
    """
    text = sentences(output if isinstance(output, str) else output[0])
    targets = [sentences(reference) for reference in references(doc)]
    best = _scorer().score_multi(targets, text)
    return {metric: float(best[metric].fmeasure) for metric in METRICS}
