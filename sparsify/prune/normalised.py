"""A layer's problem in coordinates in which every input has unit power.

A few giant input channels are common. Damping relative to the mean of the diagonal then drowns all the others, and the
condition number is set by the units of the inputs. With D = diag(H)^½, W D and D⁻¹ H D⁻¹ describe the same outputs, and
damping `percdamp` · I there is `percdamp` · diag(H) in the old coordinates: each input is damped relative to itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalised:
    """A Hessian with unit diagonal.

    Attributes:
        scale: Float32 [in], D = diag(H)^½; 1 for inputs that are always zero.
        hessian: Float32 [in, in], D⁻¹ H D⁻¹ + damping · I.
        damping: The multiple of I that `hessian` includes.
        dead: Bool [in], inputs that are always zero.
    """

    scale: Tensor
    hessian: Tensor
    damping: float
    dead: Tensor

    def errors(self, change: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
        """The objective of each row, damped and plain, float32 [out] each.

        Args:
            change: W − W' in these coordinates, [out, in].
            product: `change` @ `hessian`.
        """
        damped = (change * product).sum(1)
        return damped, damped - self.damping * change.square().sum(1)


def normalise(hessian: Tensor, damping: float) -> Normalised:
    """Scale `hessian`, float32 [in, in], to unit diagonal and damp it."""
    power = hessian.diagonal().to(torch.float32)
    dead = power <= 0
    scale = power.masked_fill(dead, 1.0).sqrt()
    scaled = hessian / scale
    scaled.div_(scale[:, None])
    scaled.diagonal().fill_(1.0 + damping)
    return Normalised(scale, scaled, damping, dead)
