"""Programs that are known to be harmless: reference solutions, and the same with one small thing changed."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator

_FIXED = {
    "nothing": "    return None\n",
    "raises": "    raise ValueError('changed on purpose')\n",
    "exits": "    import sys\n    sys.exit(0)\n",
    "syntax": "    return (\n",
    "loops": "    while True:\n        pass\n",
}


class _Change(ast.NodeTransformer):
    """Changes the `wanted`-th place that can be changed; `seen` counts the places."""

    _SWAP = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
    _SWAP |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}

    def __init__(self, wanted: int) -> None:
        self.wanted, self.seen = wanted, 0

    def _here(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.wanted

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if type(node.op) in self._SWAP and self._here():
            node.op = self._SWAP[type(node.op)]()
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if type(node.ops[0]) in self._SWAP and self._here():
            node.ops[0] = self._SWAP[type(node.ops[0])]()
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is int and self._here():
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        # Defaults and annotations are left as they are: they are the problem's, not the solution's.
        node.body = [self.visit(part) for part in node.body]
        return node


def changed(program: str, count: int, seed: int) -> Iterator[str]:
    """Up to `count` versions of a program with one operator, comparison or whole number changed."""
    counter = _Change(-1)
    counter.visit(ast.parse(program))
    places = list(range(counter.seen))
    random.Random(seed).shuffle(places)
    for place in places[:count]:
        yield ast.unparse(ast.fix_missing_locations(_Change(place).visit(ast.parse(program)))) + "\n"


def completions(prompt: str, solution: str, entry_point: str, index: int) -> Iterator[tuple[str, str]]:
    """Completions of a HumanEval prompt by kind: the solution, fixed failures, and changed solutions.

    Loops are rare (every 16th problem): the official scorer waits for each.
    """
    yield "solution", solution
    for kind, body in _FIXED.items():
        if kind != "loops" or index % 16 == 0:
            yield kind, body
    for program in changed(prompt + solution, 2, index):
        # A second definition of the function after the prompt: it is the one that counts.
        yield "changed", "    pass\n\n" + program
