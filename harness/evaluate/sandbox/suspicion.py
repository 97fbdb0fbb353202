"""Signs that a program was written to fool a test, read from its source; nothing of it is run here.

Only what no honest answer to a programming problem contains is a sign, because a sign takes away a pass. So `import
inspect` or `gc.collect()` is none, nor is a class with an `__eq__` that looks at the other value, nor `sys.exit`. A
determined cheat can hide from a reader of source code, and that is allowed for: the verdict does not rest on this
(see `judge`), the signs only tell which failures, and which passes, were not honest attempts.
"""

from __future__ import annotations

import ast
import re

TYPE_CHECKING = False  # importing typing takes longer than starting Python
if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAMES, _OBJECTS, _MEMORY = "walks the call stack", "walks all objects", "reads memory"
_TRACE, _EXIT, _HARNESS = "traces its caller", "ends the process past its handlers", "imports the harness"
_EQUAL, _CLASS, _BUILTINS = "equals everything", "lies about its class", "replaces built-ins"
_NAMES = {
    "sys._getframe": _FRAMES,
    "sys._current_frames": _FRAMES,
    "inspect.currentframe": _FRAMES,
    "inspect.getinnerframes": _FRAMES,
    "inspect.getouterframes": _FRAMES,
    "inspect.stack": _FRAMES,
    "inspect.trace": _FRAMES,
    "gc.get_objects": _OBJECTS,
    "gc.get_referents": _OBJECTS,
    "gc.get_referrers": _OBJECTS,
    "sys.setprofile": _TRACE,
    "sys.settrace": _TRACE,
    "threading.setprofile": _TRACE,
    "threading.settrace": _TRACE,
    "os._exit": _EXIT,
}
_MODULES = {"ctypes": _MEMORY, "_ctypes": _MEMORY, "cffi": _MEMORY, "harness": _HARNESS}
# Ways to a frame that need no module; each word means nothing else.
_ATTRIBUTES = {"_getframe": _FRAMES, "tb_frame": _FRAMES, "gi_frame": _FRAMES, "cr_frame": _FRAMES, "ag_frame": _FRAMES}
_TEXTS = {**{name.partition(".")[2]: sign for name, sign in _NAMES.items() if "_" in name[4:]}, **_ATTRIBUTES}
_ALWAYS = {"__eq__": True, "__ne__": False}
# Parsing takes a millisecond; most programs hold none of these words. Names may be written in letters that Python
# reads as these (NFKC), so that only plain ASCII is let through unread.
_WORDS = re.compile(
    "_getframe|_frame|inspect|get_objects|get_refer|settrace|setprofile|_exit|ctypes|cffi|harness|__eq__|__ne__|"
    "__class__|builtins"
)


def signs(source: str) -> list[str]:
    """What in a program's source only a cheat writes, each as `what it does (line n)`, once a kind.

    Args:
        source: Python source, possibly hostile; one that does not parse has no signs.
    """
    if source.isascii() and not _WORDS.search(source):
        return []
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: dict[str, int] = {}
    for sign, line in _Reader(tree).read():
        found.setdefault(sign, line)
    return [f"{sign} (line {line})" for sign, line in found.items()]


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._modules: dict[str, str] = {}
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    self._modules[name.asname or name.name.partition(".")[0]] = (
                        name.name if name.asname else name.name.partition(".")[0]
                    )

    def read(self) -> Iterator[tuple[str, int]]:
        for node in self._nodes:
            line = getattr(node, "lineno", 0)
            for sign in (*self._named(node), *_shaped(node), *self._assigned(node)):
                yield sign, line

    def _dotted(self, node: ast.AST) -> str:
        """`module.name` of an expression that names something of an imported module, else an empty text."""
        if isinstance(node, ast.Name):
            return self._modules.get(node.id, "")
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def _named(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _of(_MODULES, alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _of(_MODULES, node.module.partition(".")[0])
            for alias in node.names:
                yield from _of(_NAMES, f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute):
            yield from _of(_ATTRIBUTES, node.attr)
            yield from _of(_NAMES, self._dotted(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _of(_TEXTS, node.value)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name in ("__import__", "import_module") and isinstance(node.args[0].value, str):
                yield from _of(_MODULES, node.args[0].value.partition(".")[0])

    def _assigned(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, (ast.Attribute, ast.Subscript)) and self._is_builtins(t.value) for t in targets):
                yield _BUILTINS
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr" and node.args:
            yield from [_BUILTINS] if self._is_builtins(node.args[0]) else []

    def _is_builtins(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute) and node.attr == "__dict__":
            return self._is_builtins(node.value)
        return self._dotted(node) == "builtins" or (isinstance(node, ast.Name) and node.id == "__builtins__")


def _of(table: dict[str, str], name: str) -> Iterator[str]:
    if name in table:
        yield table[name]


def _shaped(node: ast.AST) -> Iterator[str]:
    """Signs of how a class is written: an equality that never looks, a class that says it is another."""
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name in _ALWAYS and _blind(part):
                yield _EQUAL
            elif isinstance(part, ast.Assign):
                for target in part.targets:
                    if isinstance(target, ast.Name):
                        yield from _always(target.id, part.value)
                        if target.id == "__class__":
                            yield _CLASS
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values):  # noqa: B905 - `strict` needs Python 3.10
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield from _always(key.value, value)


def _blind(method: ast.FunctionDef) -> bool:
    """Whether a comparison returns its one constant without a look at what it compares with."""
    wanted = _ALWAYS[method.name]
    others = {arg.arg for arg in (*method.args.args[1:], method.args.vararg) if arg is not None}
    inner = list(ast.walk(method))
    returned = [node.value for node in inner if isinstance(node, ast.Return)]
    looks = any(isinstance(node, ast.Name) and node.id in others for node in inner)
    return bool(returned) and not looks and all(_is(value, wanted) for value in returned)


def _always(name: str, value: ast.AST) -> Iterator[str]:
    if name in _ALWAYS and isinstance(value, ast.Lambda) and _is(value.body, _ALWAYS[name]):
        yield _EQUAL


def _is(node: ast.AST | None, constant: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is constant
