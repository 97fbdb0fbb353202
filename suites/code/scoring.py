"""From a model's text to a whole program; running it is the harness's business.

Three forms of answer are read, in this order:

1. a fenced block, whole function or body;
2. a whole definition of the function, with or without text around it;
3. a continuation of the prompt, cut where it leaves the function (the stops of the HumanEval paper, Chen et al. 2021).
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any

_FENCE = re.compile(r"^[ \t]*```[ \t]*\w*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_OPENING = re.compile(r"^(?:import|from|def|class|async def)\b|^@", re.MULTILINE)
_MOST = 20  # bounds the time on a text that could begin or end in thousands of places
_KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def _parse(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's odd escapes are no concern of the user
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(tree: ast.Module, name: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def _definitions(source: str, name: str, body: int) -> str | None:
    """The imports, assignments and definitions of the longest readable beginning of `source`, if it defines `name`.

    Calls, assertions and a `__main__` block that a model adds as an example are left out: they are not its answer.
    `body` is the number of the line after the definition's first.
    """
    lines = source.splitlines()
    ends = [i for i in range(body, len(lines)) if lines[i].strip() and not lines[i][0].isspace()]
    for end in (len(lines), *reversed(ends[:_MOST])):
        beginning = "\n".join(lines[:end])
        tree = _parse(beginning)
        if tree is not None:
            return _kept_parts(tree, lines) if _defines(tree, name) else None
    return None


def _kept_parts(tree: ast.Module, lines: list[str]) -> str:
    parts = []
    for node in tree.body:
        if isinstance(node, _KEPT):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            parts.append("\n".join(lines[first - 1 : node.end_lineno]) + "\n")
    return "\n".join(parts)


def _whole(doc: Mapping[str, Any], text: str) -> str | None:
    """The program of a text that defines the function itself; the prompt stays in front for its imports and helpers."""
    found = re.search(rf"^def\s+{re.escape(doc['entry_point'])}\s*\(", text, re.MULTILINE)
    if found is None:
        return None
    # A text may open with an import or a helper, or with prose that looks like code ("from the docstring we see ...").
    opening = [match.start() for match in _OPENING.finditer(text) if match.start() <= found.start()]
    for start in opening[-_MOST:]:
        body = text.count("\n", start, found.start()) + 1
        definitions = _definitions(text[start:], doc["entry_point"], body)
        if definitions is not None:
            prompt = doc["prompt"]
            closed = prompt if _parse(prompt) else f"{prompt.rstrip()}\n    pass\n"
            return f"{closed}\n\n{definitions}"
    return None


def _cut(body: str) -> str:
    """The lines up to the first that is neither empty nor indented; a closing bracket does not leave the function."""
    kept: list[str] = []
    for line in body.splitlines():
        if line.strip() and not line[0].isspace() and line[0] not in ")]}":
            break
        kept.append(line)
    return "\n".join(kept).rstrip()


def _returns(node: ast.AST, *, inside: bool = False) -> bool:
    """Whether a function has a `return` of its own, not only in a function that it defines."""
    if isinstance(node, ast.Return) or (inside and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
        return isinstance(node, ast.Return)
    return any(_returns(child, inside=True) for child in ast.iter_child_nodes(node))


def _continued(prompt: str, text: str) -> str | None:
    """The program of a text that goes on where the prompt stops; the body's indent is restored if the model lost it."""
    if not prompt.endswith("\n"):
        rest_of_line, _, text = text.partition("\n")
        return f"{prompt}{rest_of_line}\n{_cut(text)}\n"
    body = _cut(text)
    if body.strip():
        return f"{prompt}{body}\n"
    plain = text.strip("\n")
    for repaired in (f"    {plain.lstrip()}", textwrap.indent(textwrap.dedent(plain), "    ")):
        program = f"{prompt}{_cut(repaired)}\n"
        tree = _parse(program)
        # Much prose of one word is Python as well, but it returns nothing.
        if tree is not None and _returns(tree.body[-1]):
            return program
    return None


def extract(doc: Mapping[str, Any], output: str) -> str | None:
    """The whole program that a model's text stands for, or None if there is no code in it.

    The program need not be valid Python: a body that stops in mid-line stays as it is, and fails.

    Args:
        doc: A problem in HumanEval's form; `prompt` and `entry_point` are read.
        output: The model's text.
    """
    text = output.replace("\r\n", "\n")
    blocks = [block for block in _FENCE.findall(text) if block.strip()]
    for block in blocks:
        program = _whole(doc, textwrap.dedent(block))
        if program is not None:
            return program
    if blocks:
        return _continued(doc["prompt"], blocks[0])
    if text[:1].isspace() and text.strip() and _cut(text).strip():
        return _continued(doc["prompt"], text)
    return _whole(doc, text) or (_continued(doc["prompt"], text) if text.strip() else None)
