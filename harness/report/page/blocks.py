"""Data inside a page, which scripts read and no parser takes for HTML or for a script."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from harness.report.page.element import Html

_LEVEL = 6


def json_block(identifier: str, value: Any) -> Html:
    r"""A JSON data block, for a script to read with `readJson(identifier)`.

    Everything but ASCII, and the characters that could end the block, is written as a `\u` escape.
    """
    return _block(identifier, "application/json", _ascii_json(value))


def packed_block(identifier: str, value: Any) -> Html:
    """A JSON value compressed (gzip, base64), for a script to read with `await readPacked(identifier)`."""
    return block_of(identifier, packed(value))


def packed(value: Any) -> str:
    """JSON, gzip (without a time stamp), base64."""
    raw = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(raw, _LEVEL, mtime=0)).decode()


def block_of(identifier: str, coded: str) -> Html:
    """A block of what `packed` returned."""
    return _block(identifier, "application/gzip", coded)


def _ascii_json(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Only inside strings can these occur, and there an escape means the same.
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _block(identifier: str, kind: str, content: str) -> Html:
    if not identifier.isidentifier():
        raise ValueError(f"{identifier!r} cannot be the id of a data block")
    return Html(f'<script type="{kind}" id="{identifier}">{content}</script>')
