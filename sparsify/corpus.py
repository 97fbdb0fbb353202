"""The training-data contract: JSONL rows, their hash, and how a row becomes tokens.

A row is either `{"messages": [{"role", "content"}, ...], "source", "item_hash"}` or
`{"prompt", "completion", "source", "item_hash"}`. Every piece that the model is to say is tokenised apart from what it
is shown, because a prompt joined with its answer tokenises differently from the prompt alone that the model meets when
it is evaluated. For the same reason a prompt/completion row begins with the tokens that the tokenizer puts before a
text (Llama's BOS); a chat template writes its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsify.errors import SparsifyError


@dataclass(frozen=True)
class EncodedRow:
    """A row as tokens.

    Attributes:
        ids: Token ids.
        target: Per token, whether it is something that the model is to say (True) or only shown (False).
    """

    ids: tuple[int, ...]
    target: tuple[bool, ...]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a corpus file.

    Raises:
        SparsifyError: The file is absent, empty or has a line that is not a row; the message names the line.
    """
    if not path.is_file():
        raise SparsifyError(
            f"training corpus {path} does not exist; give a JSONL file of messages or prompt/completion"
        )
    count = 0
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise SparsifyError(f"{path}:{number} is not JSON ({error.msg}); repair or remove the line") from None
            if not isinstance(row, dict) or not ("messages" in row or {"prompt", "completion"} <= row.keys()):
                raise SparsifyError(f"{path}:{number} has neither 'messages' nor 'prompt' and 'completion'")
            count += 1
            yield row
    if not count:
        raise SparsifyError(f"training corpus {path} is empty; it needs at least one row")


def pieces(row: Mapping[str, Any], tokenizer: Any) -> list[tuple[str, bool]]:
    """Split a row into texts that are shown (False) and texts that are to be said (True), in order."""
    if "messages" not in row:
        return [(str(row["prompt"]), False), (str(row["completion"]) + (tokenizer.eos_token or ""), True)]
    return _message_pieces(row["messages"], tokenizer)


def _message_pieces(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> list[tuple[str, bool]]:
    if tokenizer.chat_template is None:
        raise SparsifyError(
            "the corpus holds chat messages but the tokenizer has no chat template; use prompt/completion"
        )
    out: list[tuple[str, bool]] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        shown = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        full = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
        if not (shown.startswith(done) and full.startswith(shown)):
            raise SparsifyError("this chat template rewrites earlier turns, so single turns cannot be trained on")
        out += [(shown[len(done) :], False), (full[len(shown) :], True)]
        done = full
    return out


def encode_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[EncodedRow]:
    """Tokenise rows; pieces are tokenised one by one and concatenated."""
    split = [pieces(row, tokenizer) for row in rows]
    texts = [text for parts in split for text, _ in parts]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else iter(())
    opening, bos = _opening(tokenizer), tokenizer.bos_token
    out = []
    for row, parts in zip(rows, split, strict=True):
        opened = "messages" in row or (bos and parts[0][0].startswith(bos))
        ids: list[int] = [] if opened else [*opening]
        target: list[bool] = [False] * len(ids)
        for _, said in parts:
            piece = next(encoded)
            ids += piece
            target += [said] * len(piece)
        out.append(EncodedRow(tuple(ids), tuple(target)))
    return out


def _opening(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer puts before a text."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    return list(whole[:at])
