"""The samples that `lm_eval --log_samples` writes: one row for each item and filter, with the model's raw text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from harness.score.answers import Doc, Format, Said
from harness.score.formats.fields import has, identifier
from suites.rows import NORMALISE

_NAMED_BY = {"gsm8k": "question", "code": "task_id", "instruct": "prompt", "summarization": "article"}


def lm_eval_samples(suite: str) -> Format:
    """The format for one suite. The document inside a row names the item, so that its order does not matter."""
    field = _NAMED_BY[suite]

    def read(row: Doc) -> Said:
        doc = row["doc"]
        if not isinstance(doc, Mapping):
            raise ValueError("field doc is not a JSON object")
        # A stock run over this project's own tasks carries the whole document as text.
        whole: Any = json.loads(doc["doc_json"]) if isinstance(doc.get("doc_json"), str) else doc
        kind = "mbpp" if suite == "code" and "test_list" in whole else suite
        named = whole if suite == "code" and "test" in whole else NORMALISE[kind](whole)
        names = (f"{field}={named[field]}", f"doc_id={identifier(row, 'doc_id')}")
        return Said(names, _outputs(row["resps"]))

    def names(index: int, doc: Doc) -> Iterable[str]:
        return f"{field}={doc[field]}", f"doc_id={index}"

    return Format(
        name="lm-eval",
        example='{"doc_id": 0, "doc": {...}, "resps": [["..."]], "filter": "..."}',
        accepts=has("doc_id", "doc", "resps"),
        read=read,
        names=names,
        keep=lambda row, first: bool(row.get("filter") == first.get("filter")),
        program=(lambda doc, output: str(doc["prompt"]) + output) if suite == "code" else None,
    )


def _outputs(resps: Any) -> tuple[str, ...]:
    texts = resps[0] if isinstance(resps, list) and len(resps) == 1 else None
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("field resps is not a list of one list of texts")
    return tuple(texts)
