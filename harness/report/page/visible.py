"""Text of unknown origin made readable: what cannot be seen, or would reorder its surroundings, is written out."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_CONTROL_PICTURES, _DELETE = 0x2400, 0x7F


def visible(text: str) -> str:
    r"""Return `text` with invisible characters written out: NUL as `␀`, U+202E (right-to-left override) as `⟨U+202E⟩`.

    Newlines and tabs stay. Lone surrogates, which UTF-8 cannot hold, are written out too, so that the result can
    always be encoded. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
    """
    return _HIDDEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return "\u2421" if code == _DELETE else f"\u27e8U+{code:04X}\u27e9"
