"""Gram matrices of layer inputs, summed over real tokens in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sparsify.errors import NumericsError


class Gram:
    """Sum of x xᵀ over the real tokens that a layer saw.

    Attributes:
        total: Float32 [in, in].
        absmax: Largest magnitude of each input, float32 [in].
        tokens: Real tokens summed.
        sequences: Sequences they came from.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.total: Tensor | None = None
        self.absmax: Tensor | None = None
        self.tokens = 0
        self.sequences = 0

    def add(self, inputs: Tensor, real: Tensor) -> None:
        """Add a batch: `inputs` [batch, seq, in], `real` bool [batch, seq]."""
        rows = inputs[real].to(torch.float32)
        product = rows.T @ rows
        self.total = product if self.total is None else self.total.add_(product)
        if len(rows):
            largest = rows.abs().amax(0)
            self.absmax = largest if self.absmax is None else torch.maximum(self.absmax, largest)
        self.tokens += rows.shape[0]
        self.sequences += inputs.shape[0]

    def hessian(self, where: str) -> Tensor:
        """2 / sequences times the sum, float32 [in, in]: the Hessian of the layer's squared error in SparseGPT's scale.

        Raises:
            NumericsError: No token was seen, or a value is not finite.
        """
        if self.total is None or not self.tokens:
            raise NumericsError(f"{where} saw no tokens during calibration; use other calibration text or skip it")
        if not bool(torch.isfinite(self.total).all()):
            raise NumericsError(f"{where} saw non-finite inputs during calibration; the model overflows on this text")
        return self.total * (2.0 / self.sequences)


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TF32 off inside: its 10-bit mantissa breaks the Cholesky factorisation of a Gram matrix."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
