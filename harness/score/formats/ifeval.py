"""The responses that google-research's instruction_following_eval reads; the prompt names the item."""

from __future__ import annotations

from harness.score.answers import Format, Said
from harness.score.formats.fields import has, text

IFEVAL = Format(
    name="ifeval",
    example='{"prompt": "Write a ...", "response": "..."}',
    accepts=has("prompt", "response"),
    read=lambda row: Said((f"prompt={text(row, 'prompt')}",), (text(row, "response"),)),
    names=lambda index, doc: (f"prompt={doc['prompt']}",),
)
