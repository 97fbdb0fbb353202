"""Token windows: for calibration, for the errors of single linears, and for perplexity."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# Text of a window tokenised again may come out shorter than the window: rows carry some more than is needed.
_SPARE = 32


def cut(ids: Sequence[int], context: int, limit: int) -> list[list[int]]:
    """Windows of `context` tokens from the first `limit` tokens, one after another; a rest is left out.

    Raises:
        ConfigError: There is not one whole window.
    """
    used = min(len(ids), limit)
    windows = [list(ids[start : start + context]) for start in range(0, used - context + 1, context)]
    if not windows:
        raise ConfigError(f"the text has {used} tokens, less than one window of {context}; use a smaller --context")
    return windows


def perplexity(model: Any, windows: Sequence[Sequence[int]], *, batch: int = 8) -> float:
    """The exponential of the mean negative log-likelihood of every token but the first of its window, in float32.

    Raises:
        ArithmeticError: The model answers with NaN.
    """
    losses = window_losses(model, windows, batch=batch)
    return math.exp(min(sum(losses) / len(losses), 700.0))


def window_losses(model: Any, windows: Sequence[Sequence[int]], *, batch: int = 8) -> list[float]:
    """Of each window (all of one length): the mean negative log-likelihood of its tokens but the first, in nats.

    Raises:
        ArithmeticError: The model answers with NaN.
    """
    import torch

    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(windows), batch):
            ids = torch.tensor(windows[start : start + batch])
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            found += _losses(logits, ids[:, 1:]).tolist()
    if not all(map(math.isfinite, found)):
        raise ArithmeticError(f"the model's loss is {next(loss for loss in found if not math.isfinite(loss))}")
    return found


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    import torch

    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.double().unflatten(0, targets.shape).mean(1)


def window_rows(texts: Iterable[str], tokenizer: Any, length: int, source: str) -> Iterator[dict[str, Any]]:
    """Rows of the training-data contract that each give at least `length` tokens: documents joined and cut."""
    ids: list[int] = []
    index = 0
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.append(int(tokenizer.eos_token_id))
        while len(ids) >= length + _SPARE:
            said = tokenizer.decode(ids[: length + _SPARE], clean_up_tokenization_spaces=False)
            ids = ids[length + _SPARE :]
            if len(tokenizer(said, add_special_tokens=False)["input_ids"]) >= length:
                yield {"prompt": "", "completion": said, "source": source, "item_hash": f"{source}/{index}"}
                index += 1


def write_token_file(path: Path, sequences: Sequence[Sequence[int]]) -> None:
    """Write windows for another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([list(sequence) for sequence in sequences]), "utf-8")
