"""How wide the residual stream is left at each of its cuts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsify.errors import SparsifyError


def sliced_width(width: int, fraction: float, round_to: int) -> int:
    """What is left of `width` when `fraction` is cut off, rounded down to a multiple of `round_to`.

    Raises:
        SparsifyError: Nothing is left.
    """
    left = int((1 - fraction) * width) // round_to * round_to
    if left <= 0:
        raise SparsifyError(
            f"slicing {fraction:g} of a width of {width} leaves less than round_to ({round_to}); slice less"
        )
    return left


def uniform_widths(width: int, cuts: int, fraction: float, round_to: int, *, slice_head: bool) -> list[int]:
    """The same width at every cut; the last, in front of the head, stays whole unless `slice_head`."""
    left = sliced_width(width, fraction, round_to)
    return [left] * (cuts - 1) + [left if slice_head else width]


def widths_by_mass(
    spectra: Sequence[Tensor], fraction: float, round_to: int, *, slice_head: bool, least: float = 0.5
) -> list[int]:
    """Widths under which the least energy is lost, with as many columns in all as `uniform_widths` keeps.

    Columns are kept in order of their share of their cut's energy, whichever cut they are of. A unit of columns is
    `round_to`, taken by its mean share.

    Args:
        spectra: Eigenvalues of each cut, largest first, each float64 [width].
        fraction: Share that is cut off on average.
        round_to: Widths are multiples of this.
        slice_head: As in `uniform_widths`.
        least: No cut keeps less than this share of what the uniform schedule keeps: spectra say nothing of how an error
            grows on its way through the model.
    """
    width = len(spectra[0])
    even = sliced_width(width, fraction, round_to)
    sliced = list(spectra) if slice_head else list(spectra[:-1])
    floor = max(1, int(least * even) // round_to)
    ceiling = width // round_to
    shares = [(values / values.sum()).clamp(min=0.0).tolist() for values in sliced]
    units = sorted(
        (
            (sum(share[unit * round_to : (unit + 1) * round_to]), -cut, -unit)
            for cut, share in enumerate(shares)
            for unit in range(floor, ceiling)
        ),
        reverse=True,
    )
    widths = [floor * round_to] * len(sliced)
    for _, cut, _ in units[: len(sliced) * (even // round_to - floor)]:
        widths[-cut] += round_to
    return widths if slice_head else [*widths, width]
