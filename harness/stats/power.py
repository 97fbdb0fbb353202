"""Planning: the smallest loss a run can detect, and the items it takes to clear a margin."""

from __future__ import annotations

import math
from statistics import NormalDist

from harness.stats.binary import constrained_lost


def _quantiles(alpha: float, power: float, design_effect: float) -> tuple[float, float]:
    if not (0 < alpha < 0.5 and 0.5 <= power < 1):
        raise ValueError(f"need 0 < alpha < 0.5 <= power < 1, got alpha={alpha}, power={power}")
    if not design_effect >= 1:
        raise ValueError(f"a design effect is at least 1, got {design_effect}")
    return NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)


def minimum_detectable_difference(
    n: int, *, flip_rate: float, design_effect: float = 1.0, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true loss that `n` pairs detect with probability `power` in a one-sided test at `alpha`.

    Solves n d^2 = deff (z_alpha sqrt(f) + z_power sqrt(f - d^2))^2 for the paired difference d, f being the expected
    share of items whose score flips (Connor 1987, Biometrics 43:207). At least d items in a hundred must flip for a
    loss of d, so f is raised to d where `flip_rate` is less. 1.0 where not even a total loss would be detected.
    """
    z_alpha, z_power = _quantiles(alpha, power, design_effect)
    if n < 1 or not 0 <= flip_rate <= 1:
        raise ValueError(f"need n >= 1 and 0 <= flip_rate <= 1, got n={n}, flip_rate={flip_rate}")

    def lacks(d: float) -> bool:
        f = max(flip_rate, d)
        return math.sqrt(n / design_effect) * d < z_alpha * math.sqrt(f) + z_power * math.sqrt(f - d * d)

    if lacks(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if lacks(middle) else (low, middle)
    return high


def required_n(
    *,
    flip_rate: float,
    margin: float,
    difference: float = 0.0,
    design_effect: float = 1.0,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """Pairs it takes to decide "not worse by `margin`" with probability `power`, one-sided at `alpha`.

    Nam's (1997, Biometrics 53:1422) sample size for the score test that Tango's interval inverts. `difference` is the
    true paired difference that is assumed, variant minus baseline. Below -`margin` the answer is the n that shows the
    variant to be worse. Raises ValueError where `difference` is exactly -`margin`: no n decides then.
    """
    z_alpha, z_power = _quantiles(alpha, power, design_effect)
    if not 0 < margin < 1 or not 0 <= flip_rate <= 1 or not -1 <= difference <= 1:
        raise ValueError(f"need 0 < margin < 1 and 0 <= flip_rate <= 1, got {margin} and {flip_rate}")
    distance = abs(difference + margin)
    if distance < 1e-9:
        raise ValueError(f"a true difference of -{margin} lies on the margin: no number of items decides it")
    flips = max(flip_rate, abs(difference))
    gained, lost = (flips + difference) / 2, (flips - difference) / 2
    at_margin = 2 * constrained_lost(gained, lost, 1.0, -margin) - margin * (1 + margin)
    spread = z_alpha * math.sqrt(max(at_margin, 0.0)) + z_power * math.sqrt(max(flips - difference**2, 0.0))
    return max(1, math.ceil(design_effect * (spread / distance) ** 2))
