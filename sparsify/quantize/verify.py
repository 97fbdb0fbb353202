"""The last look at a quantized checkpoint: no pruned weight came back, and no N:M group holds more than before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sparsify.checkpoint import Checkpoint
from sparsify.errors import NumericsError
from sparsify.masks import broken_groups, count_violations
from sparsify.quantize.stored import read_weight

_GROUPS = (2, 4, 8, 16, 32)


def patterns(mask: Tensor) -> list[tuple[int, int]]:
    """The N:M patterns that a mask [out, in] keeps to, for M a power of two up to 32; not those that others imply."""
    found: list[tuple[int, int]] = []
    for m in _GROUPS:
        if mask.shape[1] % m == 0:
            most = int(mask.reshape(mask.shape[0], -1, m).sum(-1).max())
            implied = min((n * (m // smaller) for n, smaller in found), default=m)
            found += [(most, m)] if most < implied else []
    return found


def verify_zeros(
    written: Checkpoint, masks: Mapping[str, Tensor], parent: Checkpoint, linears: Sequence[str]
) -> dict[str, int]:
    """Count pruned places, revived ones and broken groups in what was written to disk.

    A linear without a mask is held to the zeros of the parent's weight.

    Returns:
        {"pruned", "revived", "broken_groups"}, the last two 0.

    Raises:
        NumericsError: Some came back.
    """
    counts = {"pruned": 0, "revived": count_violations(masks, written), "broken_groups": 0}
    for name in sorted({*masks, *(f"{linear}.weight" for linear in linears)}):
        weight = read_weight(written, name)
        assert weight is not None, "written by this program"
        mask = masks[name] if name in masks else parent.read(name) != 0
        counts["pruned"] += int((~mask).sum())
        if name not in masks:
            counts["revived"] += int((weight[~mask] != 0).sum())
        counts["broken_groups"] += sum(broken_groups(weight, n, m) for n, m in patterns(mask))
    if counts["revived"] or counts["broken_groups"]:
        raise NumericsError(
            f"{counts['revived']} pruned weights are not zero and {counts['broken_groups']} N:M groups are broken in "
            f"{written.path}; please report this"
        )
    return counts
