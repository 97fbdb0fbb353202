"""Text that XML can hold."""

from __future__ import annotations


def xml_legal(text: str) -> str:
    """Drop what XML 1.0 cannot hold, not even escaped: most control characters, surrogates, U+FFFE and U+FFFF."""
    return "".join(
        character
        for character in text
        if character in "\t\n\r"
        or (" " <= character and not "\ud800" <= character <= "\udfff" and character < "\ufffe")
        or character > "\uffff"
    )
