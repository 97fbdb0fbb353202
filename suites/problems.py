"""What the tests of HumanEval+ and MBPP need to become tests that a judge apart from the program can run."""

from __future__ import annotations

import ast
from collections.abc import Sequence

# The judge compares plain built-in values, so `ndarray` never occurs. numpy broadcasts, compares NaN as unequal and
# equal infinities as equal, and raises on shapes that do not fit and on values that are no numbers; so does this. It
# runs inside the judge, hence as source.
NUMPY_STAND_IN = '''
class np:
    """numpy's `allclose` over plain numbers and lists of them."""

    class ndarray:
        dtype = None

    float64 = float32 = float

    @staticmethod
    def _flat(value):
        if isinstance(value, (list, tuple, range)):
            parts = [np._flat(part) for part in value]
            if any(shape != parts[0][0] for shape, _ in parts):
                raise ValueError("setting an array element with a sequence")
            return (len(parts), *(parts[0][0] if parts else ())), [x for _, flat in parts for x in flat]
        if isinstance(value, (bool, int, float, complex)):
            return (), [value]
        raise TypeError("ufunc 'isfinite' not supported for the input types")

    @staticmethod
    def _spread(flat, shape, wanted):
        shape = (1,) * (len(wanted) - len(shape)) + shape
        for axis in range(len(wanted) - 1, -1, -1):
            if shape[axis] == wanted[axis]:
                continue
            if shape[axis] != 1:
                raise ValueError("operands could not be broadcast together")
            inner = 1
            for size in wanted[axis + 1 :]:
                inner *= size
            blocks = [flat[i : i + inner] for i in range(0, len(flat), inner)] if inner else []
            flat = [x for block in blocks for _ in range(wanted[axis]) for x in block]
        return flat

    @staticmethod
    def allclose(a, b, rtol=1e-05, atol=1e-08):
        (left, xs), (right, ys) = np._flat(a), np._flat(b)
        size = max(len(left), len(right))
        left, right = (1,) * (size - len(left)) + left, (1,) * (size - len(right)) + right
        wanted = tuple(n if m == 1 else m for m, n in zip(left, right))
        xs, ys = np._spread(xs, left, wanted), np._spread(ys, right, wanted)
        return all(x == y or (abs(y) != float("inf") and abs(x - y) <= atol + rtol * abs(y)) for x, y in zip(xs, ys))

'''


def called(solution: str, tests: Sequence[str]) -> str:
    """The function under test: the first that the assertions call and the reference solution defines.

    Raises:
        ValueError: The assertions are not Python, or call no function.
    """
    try:
        calls = [
            node.func.id
            for test in tests
            for node in ast.walk(ast.parse(test))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        defined = {n.name for n in ast.walk(ast.parse(solution)) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    except SyntaxError as error:
        raise ValueError(f"field test_list or code is not Python ({error.msg})") from None
    if not calls:
        raise ValueError("field test_list calls no function")
    return next((name for name in calls if name in defined), calls[0])
