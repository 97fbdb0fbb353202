"""The norm of a sliced model: no scale, no mean removal, and the mean square taken over the original width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaleFreeNorm(nn.Module):
    """x / sqrt(sum(x²) / width + eps) (2401.15024, section 3, equation 1, with scale and mean folded elsewhere).

    What slicing removes from the residual stream is (nearly) 0 in the basis of its principal components; dividing by
    the width that the stream had before keeps the norm's answer what it was. The reference code has an eps of 1e-5 for
    all models; here each keeps its own.
    """

    def __init__(self, width: int, eps: float) -> None:
        """Norm over a stream that was `width` wide before it was sliced."""
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Of [..., any], in at least float32, answered in the dtype of `hidden`."""
        exact = hidden if hidden.dtype == torch.float64 else hidden.float()
        mean_square = exact.square().sum(-1, keepdim=True) / self.width
        return (exact * torch.rsqrt(mean_square + self.eps)).to(hidden.dtype)

    def extra_repr(self) -> str:
        """For printing a model."""
        return f"width={self.width}, eps={self.eps}"
