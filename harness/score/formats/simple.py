"""Plain answers and summaries, which have no official file format."""

from __future__ import annotations

from collections.abc import Iterable

from harness.score.answers import Doc, Format, Said
from harness.score.formats.fields import identifier, text

_PLACES = ("index", "doc_id")


def _said(row: Doc, own: str, output: str) -> Said:
    for name in _PLACES:
        if name in row:
            return Said((f"index={identifier(row, name)}",), (text(row, output),))
    value = identifier(row, own) if own == "id" else text(row, own)
    return Said((f"{own}={value}",), (text(row, output),))


def _accepts(row: Doc, own: str, output: str) -> bool:
    return output in row and any(name in row for name in (own, *_PLACES))


def _summary_names(index: int, doc: Doc) -> Iterable[str]:
    yield f"index={index}"
    if doc.get("id") is not None:
        yield f"id={doc['id']}"


ANSWERS = Format(
    name="answers",
    example='{"question" or "index" or "doc_id": ..., "output": "... #### 18"}',
    accepts=lambda row: _accepts(row, "question", "output"),
    read=lambda row: _said(row, "question", "output"),
    names=lambda index, doc: (f"index={index}", f"question={doc['question']}"),
)

PREDICTIONS = Format(
    name="predictions",
    example='{"id" or "index" or "doc_id": ..., "prediction": "..."}',
    accepts=lambda row: _accepts(row, "id", "prediction"),
    read=lambda row: _said(row, "id", "prediction"),
    names=_summary_names,
)
