"""What the tests of data sets need of numpy, for the judge's Python, which has no packages.

HumanEval+ compares floats by `numpy.allclose`. Importing numpy would take longer than judging ten programs, and the
sandbox shows only the standard library. Whatever else a test asks of numpy stops the run instead of failing a program.
"""

from __future__ import annotations

import cmath

TYPE_CHECKING = False  # importing typing takes longer than starting Python
if TYPE_CHECKING:
    from typing import Any, NoReturn


class ndarray:  # noqa: N801 - numpy's name
    """No value that reaches a test is one."""


class float32(float):  # noqa: N801 - numpy's name
    """No value that reaches a test is one."""


class float64(float):  # noqa: N801 - numpy's name
    """No value that reaches a test is one."""


class MissingFromStandIn(BaseException):
    """A test uses something of numpy that is not here; not an `Exception`, so that no test swallows it."""


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise MissingFromStandIn(f"its test uses numpy.{name}, which the judge does not offer")


def _array(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and items, in order, of nested sequences.

    Raises:
        TypeError: There is text in it, of which numpy makes no numbers.
        ValueError: The sequences of one level differ in shape.
    """
    if isinstance(value, (list, tuple, range)):
        parts = [_array(item) for item in value]
        shapes = {shape for shape, _ in parts}
        if len(shapes) > 1:
            raise ValueError("the sequences differ in shape")
        inner = shapes.pop() if shapes else ()
        return (len(parts), *inner), [item for _, items in parts for item in items]
    if isinstance(value, (str, bytes)):
        raise TypeError("text is no number")
    return (), [value]


def _needs_objects(shape: tuple[int, ...], items: list[Any]) -> bool:
    """Whether numpy would make an array of Python objects, which it cannot test for infinities."""
    if any(type(item) not in (bool, int, float, complex) for item in items):
        return True
    large = any(type(item) is int and not -(2**63) <= item < 2**64 for item in items)
    return large and bool(shape) and all(type(item) in (bool, int) for item in items)


def _broadcast(shape: tuple[int, ...], wanted: tuple[int, ...], items: list[Any]) -> list[Any]:
    """The items of an array repeated to a wanted shape, of as many dimensions."""
    if not wanted:
        return items
    size = len(items) // shape[0] if shape[0] else 0
    rows = [items[at * size : (at + 1) * size] for at in range(shape[0])]
    rows = [_broadcast(shape[1:], wanted[1:], row) for row in rows]
    if shape[0] != wanted[0]:
        rows = rows * wanted[0]
    return [item for row in rows for item in row]


def allclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether |a - b| <= atol + rtol |b| everywhere, as `numpy.allclose` defines it for numbers and nested sequences.

    Raises:
        TypeError: Something is no number.
        ValueError: The shapes do not fit together.
    """
    (shape_a, items_a), (shape_b, items_b) = _array(a), _array(b)
    if _needs_objects(shape_b, items_b):
        raise TypeError("the expected value is no number")
    if equal_nan and _needs_objects(shape_a or (1,), items_a):
        raise TypeError("the value is no number")  # numpy looks for NaN in it even where nothing is compared
    rank = max(len(shape_a), len(shape_b))
    shape_a, shape_b = (1,) * (rank - len(shape_a)) + shape_a, (1,) * (rank - len(shape_b)) + shape_b
    wanted = tuple(n if m == 1 else m for m, n in zip(shape_a, shape_b))  # noqa: B905 - `strict` needs Python 3.10
    if any(m not in (1, w) or n not in (1, w) for m, n, w in zip(shape_a, shape_b, wanted)):  # noqa: B905
        raise ValueError(f"the shapes {shape_a} and {shape_b} do not fit together")
    pairs = zip(_broadcast(shape_a, wanted, items_a), _broadcast(shape_b, wanted, items_b))  # noqa: B905
    return all(_close(x, y, rtol, atol, equal_nan) for x, y in pairs)


def _close(x: Any, y: complex | float, rtol: float, atol: float, equal_nan: bool) -> bool:
    if type(x) not in (bool, int, float, complex):
        raise TypeError(f"{type(x).__name__} is no number")
    if cmath.isnan(x) or cmath.isnan(y):
        return equal_nan and cmath.isnan(x) and cmath.isnan(y)
    return x == y or (cmath.isfinite(y) and abs(x - y) <= atol + rtol * abs(y))
