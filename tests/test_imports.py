"""The rooms keep their doors: import directions, no side effects, a light command line."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.engines.sparse import kernels_problem

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {"suites": {"suites"}, "sparsify": {"sparsify"}, "harness": {"harness", "suites", "sparsify"}}
OURS = frozenset(ALLOWED)


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no modules in {package}"
    return found


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_import_directions(package: str) -> None:
    for path in modules(package):
        ours = {name.partition(".")[0] for name in imported(path)} & OURS
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {sorted(ours - ALLOWED[package])}"


def test_suites_never_import_torch() -> None:
    for path in modules("suites"):
        assert "torch" not in {name.partition(".")[0] for name in imported(path)}, path


def test_the_sparse_engine_and_others_see_only_their_room() -> None:
    for path in modules("harness/evaluate/sandbox"):
        assert not {"torch", "transformers"} & {name.partition(".")[0] for name in imported(path)}, path


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_any_module_has_no_side_effect() -> None:
    """No output, no new file, no new thread, no environment change, no socket; guests of the sandbox are programs."""
    names = []
    for package in sorted(ALLOWED):
        for path in modules(package):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            # `preload` exists to be imported by worker processes and sets their environment. Workers of the engines'
            # benchmark are programs that run in environments of other engines.
            program = name.endswith("__main__") or name.startswith("harness.bench.engines.workers.")
            needs_kernels = "harness.engines.sparse._kernels" in imported(path)
            if not program and name != "harness.preload" and not (needs_kernels and kernels_problem()):
                names.append(name)
    code = f"""
import importlib, os, signal, socket, threading
real = socket.socket.connect
def refuse(*a): raise AssertionError("a socket was opened at import")
socket.socket.connect = refuse
import torch, transformers.masking_utils, transformers.modeling_utils, lm_eval.api.task, lm_eval.tasks  # theirs
import pyarrow, scipy.stats, datasets
before = (dict(os.environ), os.getcwd(), signal.getsignal(signal.SIGINT), threading.active_count())
for name in {names!r}:
    importlib.import_module(name)
    after = (dict(os.environ), os.getcwd(), signal.getsignal(signal.SIGINT), threading.active_count())
    assert after == before, name
"""
    assert run(code) == ""


def test_help_loads_nothing_heavy() -> None:
    code = """
import json, sys
sys.argv = ["sparsebench", "--help"]
from harness.cli import main
try:
    main()
except SystemExit as done:
    assert done.code == 0, done.code
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    out = run(code)
    loaded = set(json.loads(out.splitlines()[-1]))
    assert "sparsebench" in out or "Usage" in out
    assert not loaded & {
        "torch",
        "transformers",
        "lm_eval",
        "datasets",
        "scipy",
        "numpy",
        "pyarrow",
        "nltk",
        "pydantic",
    }
