"""Scores and cluster numbers of a cell's items as short text, so that a line of a history can hold thousands."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCALE = 65_535
"""Scores that are not 0 or 1 are kept in steps of 1 / 65 535."""


def pack_scores(scores: Sequence[float]) -> str:
    """Scores in 0..1, [n], as text: one bit each where all are 0 or 1, else 16."""
    import numpy as np

    values = np.asarray(scores, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("scores must lie between 0 and 1")
    if np.all((values == 0) | (values == 1)):
        return "b" + _text(np.packbits(values == 1).tobytes())
    return "w" + _text(np.rint(values * SCALE).astype("<u2").tobytes())


def unpack_scores(text: str, n: int) -> NDArray[np.float64]:
    """What `pack_scores` packed, [n]. Raises ValueError where the text is damaged or of another n."""
    import numpy as np

    kind, rest = text[:1], text[1:]
    if kind == "b":
        bits = np.frombuffer(_bytes(rest, (n + 7) // 8), dtype=np.uint8)
        return np.unpackbits(bits, count=n).astype(np.float64)
    if kind == "w":
        return np.frombuffer(_bytes(rest, 2 * n), dtype="<u2").astype(np.float64) / SCALE
    raise ValueError("packed scores begin with b or w")


def pack_codes(codes: Sequence[int]) -> str:
    """Whole numbers from 0, [n], as text."""
    import numpy as np

    return _text(np.asarray(codes, dtype="<u4").tobytes())


def unpack_codes(text: str, n: int) -> NDArray[np.int64]:
    """What `pack_codes` packed, [n]. Raises ValueError where the text is damaged or of another n."""
    import numpy as np

    return np.frombuffer(_bytes(text, 4 * n), dtype="<u4").astype(np.int64)


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _bytes(text: str, size: int) -> bytes:
    """Unpack exactly `size` bytes, and never more than one beyond them, whatever the text says."""
    try:
        found = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ValueError(f"packed data are damaged ({error})") from None
    if len(found) != size:
        raise ValueError(f"packed data hold {'more' if len(found) > size else 'fewer'} items than n says")
    return found
