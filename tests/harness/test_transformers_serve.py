"""Engine openai against a real server, transformers' own `serve`: the same answers as engine torch, item by item."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engines.openai import EndpointOptions, OpenAIEngine
from harness.errors import ConfigError, EngineError
from harness.evaluate.plan import GenRow, GenSettings
from harness.evaluate.suite import evaluate_suite
from harness.journal import Journal
from suites.data import load_items
from suites.registry import ROOT, load_suite

POCKET = ROOT / "pocket" / "model"
NEEDED = ("fastapi", "uvicorn", "openai")
N = {"gsm8k": 12, "chat": 8, "code": 4}
pytestmark = [
    pytest.mark.skipif(not (POCKET / "config.json").is_file(), reason="the pocket model is not here"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="transformers serve needs its extra: pip install 'transformers[serving]'",
    ),
]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(POCKET)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as server:
        try:
            for _ in range(600):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as health:  # noqa: S310
                        assert health.status == 200
                    break
                except OSError:
                    assert server.poll() is None, log.read_text()[-3000:]
                    time.sleep(0.2)
            else:
                pytest.fail(f"the server did not start: {log.read_text()[-3000:]}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def torch_engine() -> Any:
    from harness.engines.torch import TorchEngine

    return TorchEngine.load(POCKET, device="cpu", dtype="float32")


def answers(engine: Any, name: str, path: Path) -> list[GenRow]:
    suite = load_suite(name)
    items = load_items(suite, "pocket", n=N[name])
    settings = GenSettings(batch_size=1, max_new_tokens=64)
    with Journal(path, {}) as journal:
        return evaluate_suite(engine, suite, items, preset="pocket", journal=journal, settings=settings)


def endpoint(base_url: str, **changes: Any) -> OpenAIEngine:
    return OpenAIEngine(EndpointOptions(base_url=base_url, model=str(POCKET), concurrency=2, tries=2, **changes))


@pytest.mark.parametrize(("name", "stream"), [("gsm8k", True), ("chat", True), ("code", True), ("code", False)])
def test_answers_are_those_of_engine_torch(
    name: str, stream: bool, base_url: str, torch_engine: Any, tmp_path: Path
) -> None:
    """Conversations go to /chat/completions (chat has two turns), the plain prompts of code to /completions."""
    served = answers(endpoint(base_url, stream=stream), name, tmp_path / "served.jsonl")
    local = answers(torch_engine, name, tmp_path / "local.jsonl")
    assert [row.outputs for row in served] == [row.outputs for row in local]
    assert [row.n_in for row in served] == [row.n_in for row in local], "the server renders the same template"
    assert all(row.outputs[0] for row in served) and {row.status for row in served} <= {"ok", "truncated_output"}
    assert [row.prompt_hash for row in served] == [row.prompt_hash for row in local]


def test_it_gives_no_log_probabilities_and_that_is_one_refusal(base_url: str) -> None:
    with pytest.raises(EngineError, match="does not give back the log-probabilities of the prompt"):
        endpoint(base_url).weigh({"a": ("The sky is", " blue")}, done=lambda *found: None)


def test_another_model_is_refused(base_url: str, tmp_path: Path) -> None:
    from harness.engines.base import TextAnswer, TextRequest

    found: list[TextAnswer] = []
    wrong = OpenAIEngine(EndpointOptions(base_url=base_url, model="someone/else", tries=1))
    try:
        wrong.complete([TextRequest("r", "x", 4)], done=found.append)
    except ConfigError as error:
        assert "does not know model" in str(error)
    else:
        assert found[0].finish == "error" and "pinned" in str(found[0].error)
