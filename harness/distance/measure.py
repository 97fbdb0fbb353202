"""Runs the models: greedy continuations of one, and the logits of two on the same tokens, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.distance.maths import kl_nats
from harness.distance.passages import Encoded, Passage, batches
from harness.errors import EngineError
from sparsify.progress import Progress

if TYPE_CHECKING:
    from harness.engines.base import Engine, LogitsEngine
    from harness.journal import Journal

ROW_KEY = "passage"
# Of one model's logits at a time; a single passage may exceed it.
_LOGIT_BYTES = 2**29
_ALL = 2**62


def continue_greedily(
    engine: Engine, encoded: Encoded, *, new_tokens: int, batch: int, journal: Journal, progress: Progress
) -> None:
    """Continue every prompt greedily until the model ends or for `new_tokens` tokens; rows {passage, tokens}.

    A batch of which rows are missing in the journal is run again whole: a result may depend on its batch.

    Raises:
        EngineError: The engine failed, or gives text only; journaled rows stay.
    """
    from harness.engines.base import Request

    prompts = [each for each in encoded.passages if each.prompt]
    done = 0
    for part in batches(prompts, [len(each.prompt) for each in prompts], batch, _ALL):
        missing = {each.name for each in part if each.name not in journal}
        if missing:
            found = engine.generate_batch([Request(each.name, each.prompt, new_tokens) for each in part])
            if not all(completion.tokens for completion in found):
                raise EngineError(f"engine {engine.name} gives no token ids; use engine torch or sparse")
            rows = [{ROW_KEY: each.request_id, "tokens": list(each.tokens)} for each in found]
            journal.append([row for row in rows if row[ROW_KEY] in missing])
        done += len(part)
        progress.update(done, len(prompts))


def compare_logits(
    dense: LogitsEngine, variant: LogitsEngine, encoded: Encoded, *, batch: int, journal: Journal, progress: Progress
) -> None:
    """Compare what two models predict at each position; rows {passage, nats, agree}.

    `nats` is the sum of KL(dense || variant) over the compared positions, `agree` has a 1 for each position at which
    both find the same token likeliest. Never more than the logits of one batch of each model are in memory.

    Raises:
        EngineError: An engine failed, or the logits are not finite; journaled rows stay.
    """
    texts = [each for each in encoded.passages if each.compared]
    most = _LOGIT_BYTES // 4 // dense.vocabulary
    done = 0
    for part in batches(texts, [each.compared for each in texts], batch, most):
        if any(each.name not in journal for each in part):
            rows = _compared(dense, variant, part)
            journal.append([row for row in rows if row[ROW_KEY] not in journal])
        done += len(part)
        progress.update(done, len(texts))


def _compared(dense: LogitsEngine, variant: LogitsEngine, part: Sequence[Passage]) -> list[dict[str, Any]]:
    # The last token of a text is predicted, not read.
    ids, keep = [each.ids[:-1] for each in part], [each.compared for each in part]
    rows = []
    for each, base, other in zip(part, dense.logits(ids, keep=keep), variant.logits(ids, keep=keep), strict=True):
        nats = float(kl_nats(base, other).sum())
        if not nats < float("inf"):
            raise EngineError(f"the logits of {each.name} are not finite; the weights of one of the models are damaged")
        same = (base.argmax(-1) == other.argmax(-1)).tolist()
        rows.append({ROW_KEY: each.name, "nats": nats, "agree": "".join("1" if is_same else "0" for is_same in same)})
    return rows
