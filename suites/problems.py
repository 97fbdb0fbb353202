"""What the tests of MBPP need to become tests that a judge apart from the program can run."""

from __future__ import annotations

import ast
from collections.abc import Sequence


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


def modules(solution: str, tests: Sequence[str]) -> list[str]:
    """Modules that the assertions name and only the reference solution imports, as one of MBPP does with `sys`."""
    try:
        named = {node.id for test in tests for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
        imports = [node for node in ast.parse(solution).body if isinstance(node, ast.Import)]
    except SyntaxError as error:
        raise ValueError(f"field test_list or code is not Python ({error.msg})") from None
    imported = {alias.name for node in imports for alias in node.names if alias.asname is None}
    return sorted(named & imported)
