"""Budgets over layers: how many weights each linear gives, so that together they hit the target to the last weight.

Every function returns whole numbers of zeros by linear whose sum is `round(sparsity · weights)`. N:M patterns fix the
sparsity of each linear, so they take `uniform` only (`require_unstructured`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsify.errors import RecipeError, SparsifyError

_MOST = 0.99  # a linear that loses everything cuts the model in two
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Layer:
    """A linear that is to be pruned.

    Attributes:
        name: Its module name.
        size: Its weights.
        block: Index of the block that it is in.
    """

    name: str
    size: int
    block: int


@dataclass(frozen=True)
class SlopeSearch:
    """What a search for the slope tried.

    Attributes:
        beta: The slope with the lowest loss; of equals the one nearest to 0.
        losses: Loss by slope, all that were tried.
    """

    beta: float
    losses: dict[float, float]


def require_unstructured(kind: str, nm: tuple[int, int] | None) -> None:
    """Refuse to vary the sparsity of linears that an N:M pattern fixes.

    Raises:
        RecipeError: There is a pattern and `kind` is not uniform.
    """
    if nm is not None and kind != "uniform":
        raise RecipeError(f"pattern {nm[0]}:{nm[1]} fixes the sparsity of every linear; use allocation uniform")


def uniform(layers: Sequence[Layer], sparsity: float) -> dict[str, int]:
    """The same share of every linear, up to rounding."""
    return _whole(layers, [sparsity] * len(layers), _target(layers, sparsity))


def owl(
    layers: Sequence[Layer], sparsity: float, outliers: Mapping[int, float], *, spread: float = 0.08
) -> dict[str, int]:
    """Less sparsity where outliers are frequent (OWL, Yin et al. 2023, arXiv 2310.05175, §3).

    Args:
        layers: The linears.
        sparsity: Share of zeros over all of them.
        outliers: `outlier_ratio` of each block, by index.
        spread: λ: the ratios are rescaled to a span of 2λ, the sparsity of a block is the target minus its rescaled
            ratio's distance from the mean.

    Raises:
        SparsifyError: A block has no ratio, or a value cannot be used.
    """
    if not spread >= 0:
        raise SparsifyError(f"the spread of OWL is {spread}; give a number from 0, such as 0.08")
    for layer in layers:
        if not math.isfinite(outliers.get(layer.block, math.nan)):
            raise SparsifyError(f"block {layer.block} has no finite outlier ratio; measure it before allocating")
    ratios = [outliers[layer.block] for layer in layers]
    low, high = min(ratios, default=0.0), max(ratios, default=0.0)
    # Divided before it is multiplied: the span may be so small that its inverse is infinite.
    span = high - low
    places = [(ratio - low) / span if span > 0 else 0.0 for ratio in ratios]
    return _shifted(layers, [sparsity - 2 * spread * place for place in places], sparsity)


def outlier_ratio(linears: Sequence[tuple[Tensor, Tensor]], multiple: float = 5.0) -> float:
    """Share of a block's scores |w|·‖x‖₂ above `multiple` (M) times their mean (arXiv 2310.05175, §3, eq. 2).

    Args:
        linears: For each linear of the block its weight [out, in] and the diagonal [in] of its Gram matrix or Hessian.
            One scale must hold for all, as sums over the same tokens have.
        multiple: M, about 3 to 10.
    """
    norms = [power.clamp(min=0).sqrt() for _, power in linears]
    count = sum(weight.numel() for weight, _ in linears)
    if not count:
        raise SparsifyError("a block without linears has no outlier ratio")
    total = math.fsum(
        float((weight.abs() * norm).sum(dtype=torch.float64)) for (weight, _), norm in zip(linears, norms, strict=True)
    )
    limit = multiple * total / count
    above = sum(int((weight.abs() * norm > limit).sum()) for (weight, _), norm in zip(linears, norms, strict=True))
    return above / count


def slope(layers: Sequence[Layer], sparsity: float, beta: float) -> dict[str, int]:
    """Sparsity that rises by `beta` from the middle of the model to its last block, and falls as much to the first.

    Each linear's share stays within 0 and 0.99 (or the target where that is higher); what the limits cut off is spread
    over the others evenly.

    Raises:
        SparsifyError: `beta` is not finite.
    """
    if not math.isfinite(beta):
        raise SparsifyError(f"the slope is {beta}; give a finite number, such as 0.1")
    last = max((layer.block for layer in layers), default=0)
    return _shifted(layers, [sparsity + beta * (2 * layer.block / max(1, last) - 1) for layer in layers], sparsity)


def search_slope(
    loss: Callable[[float], float],
    *,
    grid: Sequence[float] = (-0.1, 0.0, 0.1, 0.2),
    refinements: int = 3,
) -> SlopeSearch:
    """Find the slope with the lowest loss: a coarse grid, then golden sections around the best of it.

    Args:
        loss: Loss of a slope, on text that was held out from the calibration (never on evaluation text). Values that
            are not finite count as worst.
        grid: Slopes to try first; 0, the uniform budget, is always among them.
        refinements: Further evaluations between the neighbours of the best.
    """
    losses: dict[float, float] = {}

    def measure(beta: float) -> float:
        if beta not in losses:
            found = float(loss(beta))
            losses[beta] = found if math.isfinite(found) else math.inf
        return losses[beta]

    points = sorted({0.0, *map(float, grid)})
    for point in points:
        measure(point)
    best = points.index(_best(losses))
    low, high = points[max(0, best - 1)], points[min(len(points) - 1, best + 1)]
    for _ in range(refinements):
        # The best so far is one of the two inner points; the other splits the wider side of it.
        middle = _best({beta: value for beta, value in losses.items() if low <= beta <= high})
        left, right = middle - low, high - middle
        new = middle + (1 - _GOLDEN) * right if right >= left else middle - (1 - _GOLDEN) * left
        if new in losses:
            break
        if measure(new) < losses[middle]:
            low, high = (middle, high) if new > middle else (low, middle)
        else:
            low, high = (low, new) if new > middle else (new, high)
    return SlopeSearch(_best(losses), losses)


def explicit(layers: Sequence[Layer], sparsity: float, wanted: Mapping[str, float]) -> dict[str, int]:
    """The sparsity that is asked for of some linears; the others share evenly what is left.

    Args:
        layers: The linears.
        sparsity: Share of zeros over all of them.
        wanted: Sparsity by a linear's name or glob. A name beats a glob.

    Raises:
        RecipeError: A name fits no linear, two globs disagree about one, or the target cannot be met.
    """
    named = _resolve(layers, wanted)
    total = _target(layers, sparsity)
    rest = [layer for layer in layers if layer.name not in named]
    if not rest:
        given = math.fsum(named[layer.name] * layer.size for layer in layers)
        if abs(given - total) > 0.5 + 1e-9 * total:
            share = given / sum(layer.size for layer in layers)
            raise RecipeError(
                f"the sparsities given for all linears make {share:.6g}, not {sparsity:g}; correct either"
            )
        return _whole(layers, [named[layer.name] for layer in layers], total)
    counts = {layer.name: round(named[layer.name] * layer.size) for layer in layers if layer.name in named}
    left, room = total - sum(counts.values()), sum(layer.size for layer in rest)
    if not 0 <= left < room:
        raise RecipeError(
            f"the sparsities given leave {left} zeros for {room} weights of the other linears; "
            f"the target {sparsity:g} cannot be met, correct either"
        )
    shared = _whole(rest, [left / room] * len(rest), left)
    return {layer.name: counts.get(layer.name, shared.get(layer.name, 0)) for layer in layers}


def from_file(layers: Sequence[Layer], sparsity: float, path: Path) -> dict[str, int]:
    """`explicit`, from a YAML or JSON file that maps names or globs to sparsities.

    Raises:
        RecipeError: The file cannot be read, is not such a mapping, or does not fit the linears.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"allocation file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"allocation file {path} is not YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise RecipeError(f"allocation file {path} must map names of linears to sparsities")
    try:
        return explicit(layers, sparsity, {name: _number(name, value) for name, value in data.items()})
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecipeError(f"{name}: {value!r} is no sparsity; give a number in [0, 1)")
    return float(value)


def _resolve(layers: Sequence[Layer], wanted: Mapping[str, float]) -> dict[str, float]:
    names = {layer.name for layer in layers}
    found: dict[str, tuple[str, float]] = {}
    for pattern, share in wanted.items():
        if not 0 <= share < 1:
            raise RecipeError(f"{pattern}: sparsity {share} is outside [0, 1)")
        matches = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise RecipeError(f"{pattern!r} fits no linear that is pruned; give names such as {min(names, default='')}")
        for name in matches:
            earlier, value = found.get(name, (pattern, share))
            if name in (pattern, earlier) and pattern != earlier:
                found[name] = (name, wanted[name])
            elif value != share:
                raise RecipeError(f"{name} fits both {earlier!r} and {pattern!r}, which disagree; make them differ")
            else:
                found[name] = (earlier, value)
    return {name: share for name, (_, share) in found.items()}


def _best(losses: Mapping[float, float]) -> float:
    return min(losses, key=lambda beta: (losses[beta], abs(beta), beta))


def _target(layers: Sequence[Layer], sparsity: float) -> int:
    if not 0 <= sparsity < 1:
        raise SparsifyError(f"sparsity {sparsity} is outside [0, 1); give the share of zeros, such as 0.7")
    return round(sparsity * sum(layer.size for layer in layers))


def _shifted(layers: Sequence[Layer], shares: Sequence[float], sparsity: float) -> dict[str, int]:
    """Move all `shares` by one amount, within their limits, until they meet the target; then whole numbers."""
    total = _target(layers, sparsity)
    most = max(_MOST, sparsity)

    def moved(shift: float) -> list[float]:
        return [min(max(share + shift, 0.0), most) for share in shares]

    low = -max(shares, default=0.0)
    high = most - min(shares, default=0.0)
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if sum(share * layer.size for share, layer in zip(moved(middle), layers, strict=True)) < total:
            low = middle
        else:
            high = middle
    return _whole(layers, moved(high), total)


def _whole(layers: Sequence[Layer], shares: Sequence[float], total: int) -> dict[str, int]:
    """Whole numbers nearest to share · size that sum to `total`: largest remainder, equal ones in order."""
    ideal = [share * layer.size for share, layer in zip(shares, layers, strict=True)]
    counts = [math.floor(value) for value in ideal]
    by_rest = sorted(range(len(ideal)), key=lambda i: (counts[i] - ideal[i], i))
    while (left := total - sum(counts)) != 0:
        step = 1 if left > 0 else -1
        order = by_rest if left > 0 else by_rest[::-1]
        able = [i for i in order if 0 <= counts[i] + step <= layers[i].size]
        if not able:
            raise SparsifyError(f"{total} zeros do not fit into {sum(layer.size for layer in layers)} weights")
        for i in able[: abs(left)]:
            counts[i] += step
    return {layer.name: count for layer, count in zip(layers, counts, strict=True)}
