"""Reconstruction within the prune stage: the dense stream beside the sparse one, and the training of each block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from sparsify.errors import SparsifyError
from sparsify.prune.problem import Note
from sparsify.prune.reconstruct import Training, reconstruct
from sparsify.specs import Reconstruct
from sparsify.stream import BlockStream


class Rebuilder:
    """Trains one pruned block after another against the dense model's outputs.

    Two streams of the same text run through one model, a block of which is dense while the dense stream passes and
    pruned while the sparse one does.
    """

    def __init__(self, settings: Reconstruct, sparse: BlockStream, dense: BlockStream) -> None:
        """Take both streams, before block 0.

        Raises:
            SparsifyError: The text is too short for a training and a held-out part.
        """
        if len(sparse.batches) < 2:
            raise SparsifyError(
                f"reconstruct needs two mini-batches of {settings.batch_tokens} tokens or more; use more calibration "
                "text or smaller batch_tokens"
            )
        self._settings, self._sparse, self._dense = settings, sparse, dense

    def pass_dense(self, index: int) -> None:
        """Run the dense block `index` on the dense stream: its outputs are what the pruned one is to give."""
        self._dense.advance(index)

    def train(self, index: int, masks: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[Note, ...]]:
        """Train block `index`, which is loaded and pruned, in place; what it came to as plain JSON, and notes.

        Args:
            index: The block, which `pass_dense` has passed.
            masks: By parameter within the block, True where kept.
        """
        settings, stream = self._settings, self._sparse
        found = reconstruct(
            stream.load(index),
            lambda batch: stream.run(index, batch),
            self._dense.hidden,
            masks,
            real=[batch.real for batch in stream.batches],
            training=Training(settings.epochs, settings.lr, settings.held),
        )
        record = asdict(found)
        del record["notes"]
        return record, found.notes

    def close(self) -> None:
        """Give back what the dense stream holds."""
        self._dense.close()
