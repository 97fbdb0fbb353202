"""Models and data from a hub on this machine: what is pinned is what is loaded, and every refusal names its fix."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("hub_server.py"))))
OLD, NEW = "a" * 40, "b" * 40
OPEN = """
import json, sys
from harness.errors import SparsebenchError
from harness.models import model_directory, public_name
name, revision, offline = sys.argv[1], sys.argv[2] or None, sys.argv[3] == "offline"
try:
    found = model_directory(name, revision=revision, offline=offline)
except SparsebenchError as error:
    print(json.dumps({"error": str(error), "exit": error.exit_code}))
else:
    config = json.loads((found / "config.json").read_text())
    files = {p.name: p.stat().st_size for p in found.iterdir()}
    print(json.dumps({"marker": config["marker"], "name": public_name(name, found), "files": files}))
"""
GSM8K = """
import json
from suites.data import load_items
from suites.errors import SuiteError
from suites.registry import load_suite
try:
    items = load_items(load_suite("gsm8k"), "5shot", n=2)
except SuiteError as error:
    print(json.dumps({"error": str(error), "exit": error.exit_code}))
else:
    print(json.dumps([item.doc for item in items]))
"""


def model(marker: str) -> dict[str, bytes]:
    return {
        "config.json": json.dumps({"marker": marker}).encode(),
        "model.safetensors": marker.encode() * 60_000,
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"a pickle, which is never fetched",
        "README.md": b"# model",
    }


@pytest.fixture
def hub() -> Iterator[Any]:
    repositories = {
        "models/org/open": kit.Repository({OLD: model("old"), NEW: model("new")}, {"main": NEW, "v1": OLD}),
        "models/org/gated": kit.Repository({OLD: model("gated")}, {"main": OLD}, gate="GatedRepo"),
    }
    with kit.Hub(repositories) as served:
        yield served


def run(hub: Any, home: Path, code: str, *arguments: str, **environment: str) -> Any:
    ours = ("HF_", "HUGGING", "TRANSFORMERS_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": path}
    more |= {"HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**clean, **more, **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def opened(hub: Any, home: Path, name: str, revision: str = "", mode: str = "online", **environment: str) -> Any:
    return run(hub, home, OPEN, name, revision, mode, **environment)


def test_what_is_pinned_is_what_is_loaded_and_recorded(hub: Any, tmp_path: Path) -> None:
    assert opened(hub, tmp_path, "org/open") == {
        "marker": "new",
        "name": f"org/open@{NEW}",
        "files": {"config.json": 17, "model.safetensors": 180_000, "tokenizer.json": 2},
    }
    for name, revision in (("org/open", OLD), ("org/open", "v1"), ("org/open", OLD[:12]), (f"org/open@{OLD}", "")):
        found = opened(hub, tmp_path, name, revision)
        assert (found["marker"], found["name"]) == ("old", f"org/open@{OLD}"), (name, revision)
    assert not any("pytorch_model.bin" in path for method, path, _, _ in hub.seen if method == "GET")
    # The branch moves; a pin does not.
    hub.repositories["models/org/open"].refs["main"] = OLD
    assert opened(hub, tmp_path, "org/open")["name"] == f"org/open@{OLD}"
    assert opened(hub, tmp_path, "org/open", NEW)["marker"] == "new"
    assert "name one of them" in opened(hub, tmp_path, f"org/open@{OLD}", NEW)["error"]


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_model_names_licence_and_token(hub: Any, tmp_path: Path, token: str | None) -> None:
    environment = {"HF_TOKEN": token} if token else {}
    found = opened(hub, tmp_path, "org/gated", **environment)
    assert found["exit"] == 2 and "\n" not in found["error"]
    assert f"accept its licence at {hub.url}/org/gated" in found["error"] and "HF_TOKEN" in found["error"]
    assert not token or token not in found["error"]


def test_a_member_of_a_gated_model_gets_it(hub: Any, tmp_path: Path) -> None:
    assert opened(hub, tmp_path, "org/gated", HF_TOKEN="hf_member")["marker"] == "gated"


def test_a_download_that_breaks_off_leaves_no_half_model(hub: Any, tmp_path: Path) -> None:
    hub.cut["model.safetensors"] = [0, 10**6]
    found = opened(hub, tmp_path, "org/open")
    assert found["exit"] == 3 and "\n" not in found["error"]
    assert "run the same command again" in found["error"]
    # Offline, the part that is there is not taken for a model.
    part = opened(hub, tmp_path, "org/open", mode="offline")
    assert part["exit"] == 2 and "only in part in the local cache" in part["error"]
    hub.cut.clear()
    whole = opened(hub, tmp_path, "org/open")
    assert whole["marker"] == "new" and whole["files"]["model.safetensors"] == 180_000
    assert opened(hub, tmp_path, "org/open", mode="offline")["marker"] == "new"


def test_a_download_that_breaks_off_once_goes_on_by_itself(hub: Any, tmp_path: Path) -> None:
    hub.cut["model.safetensors"] = [50_000, 1]
    assert opened(hub, tmp_path, "org/open")["files"]["model.safetensors"] == 180_000


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("org/nowhere", "", "not on the hub, or private; check the name"),
        ("org/open", "c" * 40, "no such revision"),
        ("org/open", "v9", "no such revision"),
        ("org/..bad--name", "", "no hub id"),
    ],
)
def test_what_is_not_there_is_one_line(hub: Any, tmp_path: Path, name: str, revision: str, words: str) -> None:
    found = opened(hub, tmp_path, name, revision)
    assert found["exit"] == 2 and words in found["error"] and "\n" not in found["error"], found


def test_a_hub_that_is_down_or_not_asked(hub: Any, tmp_path: Path) -> None:
    offline = opened(hub, tmp_path, "org/open", mode="offline")
    assert offline["exit"] == 2 and "not in the local cache; run once without --offline" in offline["error"]
    assert not hub.seen
    hub.down = True
    down = opened(hub, tmp_path, "org/open")
    assert down["exit"] == 3 and "did not come from the hub" in down["error"], down


ROWS = [{"question": f"How much is {i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"} for i in range(6)]


def data_files() -> dict[str, bytes]:
    test, train = ("".join(json.dumps(row) + "\n" for row in rows).encode() for rows in (ROWS, ROWS[::-1]))
    card = "configs:\n- config_name: main\n  data_files:\n"
    card += "  - {split: train, path: main/train.jsonl}\n  - {split: test, path: main/test.jsonl}\n"
    return {"README.md": f"---\n{card}---\n".encode(), "main/train.jsonl": train, "main/test.jsonl": test}


def test_rows_of_a_data_set_come_from_the_hub(hub: Any, tmp_path: Path) -> None:
    hub.repositories["datasets/openai/gsm8k"] = kit.Repository({OLD: data_files()}, {"main": OLD})
    found = run(hub, tmp_path, GSM8K)
    assert [doc["question"] for doc in found] == [row["question"] for row in ROWS[:2]]
    assert found[0]["answer"] == ROWS[0]["answer"]


def test_a_data_set_that_does_not_come_is_one_line(hub: Any, tmp_path: Path) -> None:
    found = run(hub, tmp_path, GSM8K)
    assert found["exit"] == 2 and "\n" not in found["error"] and "--data-dir" in found["error"], found
    hub.repositories["datasets/openai/gsm8k"] = kit.Repository({OLD: data_files()}, {"main": OLD}, gate="GatedRepo")
    gated = run(hub, tmp_path, GSM8K)
    assert "HF_TOKEN" in gated["error"] and "licence" in gated["error"] and "\n" not in gated["error"], gated


def test_a_data_set_that_breaks_off_is_one_line_and_comes_later(hub: Any, tmp_path: Path) -> None:
    hub.repositories["datasets/openai/gsm8k"] = kit.Repository({OLD: data_files()}, {"main": OLD})
    hub.cut["main/test.jsonl"] = [0, 10**6]
    cut = run(hub, tmp_path, GSM8K)
    assert cut["exit"] == 2 and "cannot load openai/gsm8k" in cut["error"] and "\n" not in cut["error"], cut
    hub.cut.clear()
    assert len(run(hub, tmp_path, GSM8K)) == 2
