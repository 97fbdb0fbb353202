"""Skill cells on a local Ray: the same records as without it, also when a worker is killed; and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import ConfigError, EngineError, SandboxUnavailable
from harness.journal import Journal
from harness.pool import RemoteError
from harness.ray_nodes import Answer, RayPlace, node_problem, versions
from harness.ray_pool import RayPool

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "suites" / "pocket" / "model" / "model.safetensors"
pytestmark = pytest.mark.timeout(1200)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra ray)")
needs_pocket = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
PLACE = RayPlace("local", Path("/runs/a"), 1)


# --- what is refused, without Ray


def test_a_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sparsebench\[ray\]'"):
        RayPool(PLACE, Path("errors.log"))


def test_the_client_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="start this on a node of the cluster with --ray auto"):
        RayPool(RayPlace("ray://head:10001", Path("/runs/a"), 1), Path("errors.log"))


def test_a_node_must_see_the_folders_and_have_the_same_versions() -> None:
    good = versions()
    assert node_problem(Answer("t", True, good), "t", PLACE) is None
    assert "does not see /runs/a" in str(node_problem(Answer(None, True, good), "t", PLACE))
    # A folder of the same name with a run of its own is not the shared one.
    assert "does not see /runs/a" in str(node_problem(Answer("another", True, good), "t", PLACE))
    place = RayPlace("auto", Path("/runs/a"), 1, data_dir=Path("/data"))
    assert "does not see /data" in str(node_problem(Answer("t", False, good), "t", place))
    old = {**good, "torch": "1.0"}
    assert "has torch 1.0 instead of" in str(node_problem(Answer("t", True, old), "t", PLACE))


# --- on a local Ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray")
    body = {
        "variants": {"dense": {"path": "pocket"}, "s70": {"path": "pocket-sparse70"}},
        "suites": {"gsm8k": {"n": 48}, "chat": {"n": 24}},
        "engine": {"name": "torch", "batch_size": 4},
        "distance": {"items": 3, "new_tokens": 8},
    }
    (path / "mini.yaml").write_text(yaml.safe_dump(body))
    return path


def command(folder: Path, out: str, *more: str) -> list[str]:
    study = str(folder / "mini.yaml")
    return [sys.executable, "-m", "harness.cli", "run", study, "--out", str(folder / out), "--jobs", "2", *more]


def finish(folder: Path, out: str, *more: str) -> Path:
    done = subprocess.run(command(folder, out, *more), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / out


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run without Ray."""
    return finish(folder, "whole")


def records(out: Path) -> dict[str, object]:
    """What a run leaves of its results, without the clock's part."""
    kept: dict[str, object] = {}
    for path in sorted((out / "records").rglob("*")):
        if path.suffix == ".jsonl":
            kept[str(path.relative_to(out))] = path.read_bytes()
        elif path.suffix == ".json" and path.name != "sandbox.json":
            kept[str(path.relative_to(out))] = {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
    for path in sorted((out / "journal").rglob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept[str(path.relative_to(out))] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    kept["summary"] = (out / "summary.json").read_bytes()
    kept["recovery"] = (out / "recovery.md").read_bytes()
    return kept


def workers_of(driver: int) -> list[int]:
    """Processes below `driver` in which Ray runs a task of ours."""
    parents: dict[int, int] = {}
    busy: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if (process / "cmdline").read_bytes().startswith(b"ray::_work"):
                    busy.append(int(process.name))
            except OSError:
                continue

    def below(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    return [pid for pid in busy if below(pid)]


def wait_for(what: Callable[[], object], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def started(folder: Path, out: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(folder, out, "--ray", "local"), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def journaled(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (out / "journal").glob("*.jsonl"))


@dataclass(frozen=True)
class Count:
    """Writes the numbers up to `last` into a journal, slowly; what is there is not written again."""

    name: str
    journal: Path
    last: int
    pause: float = 0.1

    def run(self, send: Callable[[str, Any], None]) -> int:
        with Journal(self.journal, {"last": self.last}) as journal:
            for number in range(self.last):
                if str(number) not in journal:
                    journal.append([{"request_id": str(number), "pid": os.getpid()}])
                    send("progress", ((number + 1) / self.last, ""))
                    time.sleep(self.pause)
            return len(journal)


@dataclass(frozen=True)
class Fail:
    """Ends with an error of ours, or with a bug."""

    name: str
    bug: bool

    def run(self, send: Callable[[str, Any], None]) -> None:
        raise ValueError("a bug") if self.bug else SandboxUnavailable("no sandbox; use bubblewrap")


def pids(journal: Path) -> list[int]:
    return [json.loads(line)["pid"] for line in journal.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayPool]:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import a test
    folder = tmp_path_factory.mktemp("pool")
    with RayPool(RayPlace("local", folder, 1, jobs=2), folder / "errors.log") as pool:
        assert pool.jobs == 2
        yield pool


@needs_ray
def test_tasks_say_what_they_do(pool: RayPool, tmp_path: Path) -> None:
    tasks: list[Any] = [Count(f"t{i}", tmp_path / f"{i}.jsonl", 3, 0.0) for i in range(4)]
    said = list(pool.run(tasks))
    for task in tasks:
        own = [(message.kind, message.value) for message in said if message.task == task]
        assert own == [("progress", ((i + 1) / 3, "")) for i in range(3)] + [("done", 3)]


@needs_ray
def test_a_lost_worker_is_replaced_and_its_journal_goes_on(pool: RayPool, tmp_path: Path) -> None:
    tasks: list[Any] = [Count("killed", tmp_path / "k.jsonl", 40), Count("other", tmp_path / "o.jsonl", 5)]
    kinds, struck = [], 0
    for message in pool.run(tasks):
        if message.task.name == "killed":
            kinds.append(message.kind)
            if message.kind == "progress" and not struck:
                struck = pids(tmp_path / "k.jsonl")[0]
                os.kill(struck, signal.SIGKILL)
    assert kinds.count("retry") == 1 and kinds[-1] == "done"
    found = pids(tmp_path / "k.jsonl")
    assert len(found) == 40 and found[0] == struck and found[-1] != struck
    assert len(set(pids(tmp_path / "o.jsonl"))) == 1


@needs_ray
def test_a_worker_that_is_always_lost_ends_the_run(pool: RayPool, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="its worker was lost 3 times .* again to continue"):
        for message in pool.run([Count("doomed", tmp_path / "d.jsonl", 200)]):
            if message.kind == "progress":
                with suppress(ProcessLookupError):
                    os.kill(pids(tmp_path / "d.jsonl")[-1], signal.SIGKILL)
    assert len(set(pids(tmp_path / "d.jsonl"))) == 3


@needs_ray
def test_errors_come_back_as_one_line(pool: RayPool) -> None:
    with pytest.raises(RemoteError, match="no sandbox; use bubblewrap") as typed:
        list(pool.run([Fail("typed", bug=False)]))
    assert typed.value.exit_code == 3
    with pytest.raises(RemoteError, match="buggy: unexpected ValueError: a bug; the traceback is in .*errors.log"):
        list(pool.run([Fail("buggy", bug=True)]))


@needs_ray
@needs_proc
def test_what_runs_is_cancelled_when_nobody_listens(pool: RayPool, tmp_path: Path) -> None:
    messages = pool.run([Count("long", tmp_path / "l.jsonl", 10_000)])
    next(messages)
    worker = pids(tmp_path / "l.jsonl")[0]
    messages.close()  # type: ignore[attr-defined]
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), 60)


@needs_ray
@needs_pocket
def test_the_records_are_those_of_a_local_run(folder: Path, whole: Path) -> None:
    out = finish(folder, "ray", "--ray", "local")
    assert records(out) == records(whole)
    assert not list(out.glob(".ray-*"))


@needs_ray
@needs_pocket
@needs_proc
def test_a_killed_worker_is_started_again(folder: Path, whole: Path) -> None:
    out = folder / "killed"
    with started(folder, "killed") as process:
        wait_for(lambda: journaled(out) >= 10 and workers_of(process.pid))
        before = {path.name: path.read_bytes().rpartition(b"\n")[0] for path in (out / "journal").glob("*.jsonl")}
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert "its worker was lost" in told and "started again" in told
    assert records(out) == records(whole)
    for name, rows in before.items():
        assert (out / "journal" / name).read_bytes().startswith(rows), "a journaled row was made again"


@needs_ray
@needs_pocket
@needs_proc
def test_ctrl_c_cancels_and_a_second_run_goes_on(folder: Path, whole: Path) -> None:
    out = folder / "interrupted"
    with started(folder, "interrupted") as process:
        wait_for(lambda: journaled(out) >= 10 and workers_of(process.pid))
        running = workers_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "interrupted; run the same command again to continue" in told and "Traceback" not in told
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running), 30)
    assert records(finish(folder, "interrupted", "--ray", "local")) == records(whole)


@needs_ray
@needs_pocket
def test_an_address_without_a_cluster_is_one_line(folder: Path) -> None:
    done = subprocess.run(
        command(folder, "nowhere", "--ray", "127.0.0.1:1"), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "cannot join it" in done.stderr and "Traceback" not in done.stderr
