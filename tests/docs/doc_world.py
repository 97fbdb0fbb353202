"""The folder that a page's commands run in: what the page says it holds, made small, and a command line on the path."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HARNESS_TESTS = ROOT / "tests" / "harness"
WARM = Path(__file__).with_name("warm.py")
ADDRESS = "http://127.0.0.1:8000"


def kit(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HARNESS_TESTS / f"{name}.py")))


class World:
    """Makes folders for pages; what is dear to make is made once.

    Args:
        scratch: Where all of it lies.
        warm: Commands are forked from one process that has the libraries (warm.py); else each is a new process.
    """

    def __init__(self, scratch: Path, *, warm: bool) -> None:
        self.scratch = scratch
        self.bin = scratch / "bin"
        self.bin.mkdir()
        self._made: dict[str, Path] = {}
        self._held = ExitStack()
        self._server: Any = None
        # -P: the page's folder is not a place to import from.
        self._stub("python", f"'{sys.executable}' -P")
        if warm:
            self._stub("sparsebench", f"'{sys.executable}' -SE '{WARM}' call '{self._warm_server()}'")
        else:
            code = "import sys; from harness.cli import main; sys.exit(main())"
            self._stub("sparsebench", f"'{sys.executable}' -P -c \"{code}\"")

    def _stub(self, name: str, call: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        path.chmod(0o755)

    def _warm_server(self) -> Path:
        # Paths of sockets are short; that of the scratch folder may not be.
        socket = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="sb"))) / "s"
        command = [sys.executable, "-P", str(WARM), "serve", str(socket)]
        server = subprocess.Popen(command, env=self.environment(), stdout=subprocess.PIPE, text=True)
        self._held.callback(server.wait)
        self._held.callback(server.terminate)
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        return socket

    def environment(self) -> dict[str, str]:
        """What commands see: no key, no network, no configuration of the user."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SPARSEBENCH_", "HF_", "XDG_"))}
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        return {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
            "TERM": "dumb",
        }

    def run(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Carry out a block of commands."""
        address = self._server.origin if self._server is not None else ADDRESS
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, address)],
            cwd=folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
        )

    def prepare(self, names: tuple[str, ...], folder: Path) -> None:
        """Put what a page names into its folder."""
        makers = {
            "first-study": self._first_study,
            "my-model": self._my_model,
            "judge": self._judge,
            "data": self._data,
            "judge-data": self._judge_data,
            "endpoint": self._endpoint,
            "checkout": self._checkout,
        }
        for name in names:
            makers[name](folder)

    def keep_first_study(self, folder: Path) -> None:
        """Keep what the tutorial made, for the pages that go on from it."""
        self._made["first-study"] = folder

    def _first_study(self, folder: Path) -> None:
        made = self._made["first-study"]
        for name in ("first.yaml", "half.yaml"):
            shutil.copy(made / name, folder)
        shutil.copytree(made / "out" / "first", folder / "out" / "first")

    def _my_model(self, folder: Path) -> None:
        kit("tiny_llama").save_tiny(folder / "my-model", context=1024)

    def _judge(self, folder: Path) -> None:
        shutil.copytree(ROOT / "suites" / "pocket" / "model", folder / "judge")

    def _data(self, folder: Path) -> None:
        """Files in the benchmarks' own form, with few items of our own."""
        gsm8k = folder / "data" / "gsm8k"
        gsm8k.mkdir(parents=True)
        rows = [
            {"question": f"Tom has {n} apples and buys {n + 1} more. How many has he?", "answer": f"{n} + {n + 1} = "
             f"<<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1}\n#### {2 * n + 1}"}
            for n in range(2, 14)
        ]  # fmt: skip
        _lines(gsm8k / "test.jsonl", rows[:4])
        _lines(gsm8k / "train.jsonl", rows[4:])
        ifeval = folder / "data" / "ifeval"
        ifeval.mkdir()
        prompts = [
            {"key": 1000 + n, "prompt": f"Write about the number {n} without any comma.",
             "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
            for n in range(3)
        ]  # fmt: skip
        _lines(ifeval / "input_data.jsonl", prompts)

    def _judge_data(self, folder: Path) -> None:
        kit("judging").write_data(folder / "data")

    def _endpoint(self, folder: Path) -> None:
        """A server at the pages' address that answers every question in the same way."""
        if self._server is None:
            server = kit("endpoint_server")
            made = server.EndpointServer(lambda number, sent: server.answer(sent, "The answer is 7.\n#### 7"))
            self._server = self._held.enter_context(made)

    def _checkout(self, folder: Path) -> None:
        """The parts of a checkout that commands name."""
        for name in ("harness", "suites", "sparsify", "docs", "results", "tests"):
            (folder / name).symlink_to(ROOT / name)

    def close(self) -> None:
        self._held.close()


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
