"""Calibration text: which rows or windows, how they become batches, and a record of both."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify.corpus import encode_rows, read_rows
from sparsify.errors import SparsifyError
from sparsify.recipe import Calibration

BATCH_TOKENS = 8192
_TEXT_SUFFIXES = (".txt", ".md", ".text", ".raw")
# Text is tokenised in pieces of this many characters, cut at line ends.
_PIECE = 1 << 18


@dataclass(frozen=True)
class CalibrationRecord:
    """What the inputs were measured on."""

    source: str
    sha256: str
    samples: int
    seq: int
    seed: int
    holdout: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TokenBatch:
    """Sequences of similar length.

    Attributes:
        ids: Int64 [batch, seq], padded on the right.
        real: Bool [batch, seq], False on padding.
    """

    ids: Tensor
    real: Tensor


def draw_sequences(path: Path, tokenizer: Any, settings: Calibration) -> list[tuple[int, ...]]:
    """Draw `settings.samples` sequences without replacement.

    Of a JSONL corpus a sequence is a row, cut to `settings.seq` tokens. Of plain text (a text file, or JSONL rows of
    `text`) it is a window of exactly `settings.seq` tokens; texts of one file follow each other, with the end-of-text
    token between rows. Fewer come back where there are fewer.

    Raises:
        SparsifyError: The text is missing, empty, malformed or too short.
    """
    if not path.is_file():
        raise SparsifyError(f"calibration text {path} does not exist; give a JSONL or text file")
    if path.suffix.lower() in _TEXT_SUFFIXES or _is_text_rows(path):
        return _draw_windows(path, tokenizer, settings)
    rows = list(read_rows(path))
    random.Random(settings.seed).shuffle(rows)
    sequences: list[tuple[int, ...]] = []
    for start in range(0, len(rows), settings.samples):
        missing = settings.samples - len(sequences)
        if not missing:
            break
        encoded = encode_rows(rows[start : start + settings.samples], tokenizer)
        sequences += [row.ids[: settings.seq] for row in encoded if len(row.ids) > 1][:missing]
    if not sequences:
        raise SparsifyError(f"no row of {path} has two tokens or more; calibration needs text")
    return sequences


def split_holdout(
    sequences: Sequence[tuple[int, ...]], share: float
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Split drawn sequences into those to calibrate on and those held out: the last `share` of them, at least one.

    Raises:
        SparsifyError: There are fewer than two sequences.
    """
    if len(sequences) < 2:
        raise SparsifyError("a budget cannot be chosen on held-out text with a single sequence; use more samples")
    count = min(len(sequences) - 1, max(1, round(share * len(sequences))))
    return list(sequences[:-count]), list(sequences[-count:])


def make_batches(sequences: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS) -> list[TokenBatch]:
    """Group sequences of similar length into batches of at most `batch_tokens` tokens, padding included."""
    groups: list[list[Sequence[int]]] = []
    for sequence in sorted(sequences, key=len):
        if not groups or (len(groups[-1]) + 1) * len(sequence) > batch_tokens:
            groups.append([])
        groups[-1].append(sequence)
    return [_collate(group) for group in groups]


def _collate(group: Sequence[Sequence[int]]) -> TokenBatch:
    width = max(len(sequence) for sequence in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    real = torch.zeros(len(group), width, dtype=torch.bool)
    for index, sequence in enumerate(group):
        ids[index, : len(sequence)] = torch.tensor(list(sequence))
        real[index, : len(sequence)] = True
    return TokenBatch(ids, real)


def _is_text_rows(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as stream:
        first = next((line for line in stream if line.strip()), "")
    try:
        row = json.loads(first)
    except json.JSONDecodeError:
        return False
    return isinstance(row, dict) and isinstance(row.get("text"), str) and "messages" not in row


def _texts(path: Path) -> list[str]:
    try:
        whole = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SparsifyError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if path.suffix.lower() in _TEXT_SUFFIXES:
        return [whole]
    texts = []
    for number, line in enumerate(whole.splitlines(), start=1):
        if line.strip():
            try:
                texts.append(str(json.loads(line)["text"]))
            except (json.JSONDecodeError, KeyError, TypeError):
                raise SparsifyError(f"{path}:{number} is no JSON object with `text`; repair or remove it") from None
    return texts


def _draw_windows(path: Path, tokenizer: Any, settings: Calibration) -> list[tuple[int, ...]]:
    texts = _texts(path)
    random.Random(settings.seed).shuffle(texts)
    # A file of one text is read whole; of many rows, only as many as the windows can need, in shuffled order.
    wanted = None if len(texts) == 1 else 4 * settings.samples * settings.seq
    ids: list[int] = []
    for text in texts:
        for piece in _pieces(text):
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
        if len(texts) > 1 and tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        if wanted is not None and len(ids) >= wanted:
            break
    windows = [tuple(ids[at : at + settings.seq]) for at in range(0, len(ids) - settings.seq + 1, settings.seq)]
    if not windows:
        raise SparsifyError(
            f"{path} has {len(ids)} tokens, no window of {settings.seq}; use more text or a smaller seq"
        )
    random.Random(settings.seed).shuffle(windows)
    return windows[: settings.samples]


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        end = text.find("\n", at + _PIECE) + 1 or len(text)
        pieces.append(text[at:end])
        at = end
    return pieces
