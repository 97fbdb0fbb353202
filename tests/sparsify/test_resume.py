"""kill -9 at many moments, then run again: the same bytes, and finished blocks are not solved again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsify import files, shards
from sparsify.errors import CheckpointError
from sparsify.progress import NullProgress, Progress
from sparsify.prune import budgets, journal, stage
from sparsify.recipe import Recipe, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import read_variant

STAGES = [
    {
        "prune": {
            "method": "sparsegpt",
            "sparsity": 0.7,
            "block_size": 16,
            "calibration": {"source": "text", "samples": 12, "seq": 16},
        }
    },
    {"finetune": {"data": ["text"], "tokens": 300, "batch_tokens": 64}},
    {"quantize": {}},
]
RECIPE = parse_recipe({"stages": STAGES}, name="all", where="test")


def make(root: Path, model: Path, corpus: Path, progress: Progress | None = None, *, recipe: Recipe = RECIPE) -> None:
    options = MakeOptions(store=root / "store", name="v", base="tiny", resolve_corpus=lambda _source: corpus)
    make_variant(model, recipe, root / "v", options=options, progress=progress)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process (torch is loaded already) and return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            # torch renews its thread pool in the first call after a fork; two loading threads would race for it.
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def artefacts(root: Path) -> dict[str, bytes]:
    """Weights, masks and configurations of the variant and of every finished stage."""
    found = {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".safetensors", ".jinja") or path.name == "config.json"
    }
    assert not any(".part" in name or ".work" in name for name in found)
    return found


@pytest.fixture(scope="module")
def uninterrupted(model_dir: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("whole")
    assert in_child(lambda: make(root, model_dir, corpus)) == 0
    return artefacts(root)


class KillAt:
    """Kills its own process at the n-th report of progress."""

    def __init__(self, number: int) -> None:
        self.left = number

    def update(self, done: float, total: float, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("moments", [[1], [2, 2], [3, 1, 1, 5], [5], [12]])
def test_killed_between_blocks(
    moments: list[int], uninterrupted: dict[str, bytes], model_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    for moment in moments:
        status = in_child(lambda moment=moment: make(tmp_path, model_dir, corpus, KillAt(moment)))  # type: ignore[misc]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert not (tmp_path / "v").exists()
    assert in_child(lambda: make(tmp_path, model_dir, corpus)) == 0
    assert artefacts(tmp_path) == uninterrupted


@pytest.mark.parametrize(
    ("number", "after"), [(1, False), (2, True), (4, False), (7, True), (8, False), (9, True), (14, False)]
)
def test_killed_around_a_rename(
    number: int, after: bool, uninterrupted: dict[str, bytes], model_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    """Every state on disk changes by a rename: die just before or just after the n-th."""

    def work() -> None:
        real, left = os.replace, [number]

        def replace(source: Path, target: Path) -> None:
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        files.os.replace = replace  # type: ignore[attr-defined]
        make(tmp_path, model_dir, corpus)

    status = in_child(work)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert in_child(lambda: make(tmp_path, model_dir, corpus)) == 0
    assert artefacts(tmp_path) == uninterrupted


SEARCHED = parse_recipe(
    {
        "stages": [
            {
                "prune": {
                    "method": "admm",
                    "sparsity": 0.6,
                    "refine": True,
                    "order": "sequential",
                    "allocation": {"kind": "slope"},
                    "calibration": {"source": "text", "samples": 12, "seq": 16, "holdout": 0.25},
                }
            }
        ]
    },
    name="searched",
    where="test",
)


@pytest.fixture(scope="module")
def searched(model_dir: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("searched")
    assert in_child(lambda: make(root, model_dir, corpus, recipe=SEARCHED)) == 0
    return artefacts(root)


def dies_at(owner: object, name: str, number: int) -> None:
    """Let the process kill itself at the `number`-th call of a function."""
    real, left = getattr(owner, name), [number]

    def counting(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, counting)


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        (stage, "solve", 4),  # within a block
        (stage, "solve", 11),
        (shards.ShardWriter, "add", 9),  # while a block is being collected
        (shards.ShardWriter, "_copy", 3),  # while its shard is being written
        (shards.ShardWriter, "_copy", 20),
        (shards.ShardWriter, "_copy", 60),  # while the result is assembled
        (journal, "write_json", 1),  # before the plan, and before the state of a finished block
        (journal, "write_json", 3),
        (budgets, "solve", 30),  # while a slope is being chosen
        (budgets, "write_json", 1),
    ],
)
def test_killed_within_a_block_or_a_file(
    owner: object, name: str, number: int, searched: dict[str, bytes], model_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    """The process dies inside a solver, a file or a search, twice, and what is made in the end is the same."""

    def work() -> None:
        dies_at(owner, name, number)
        make(tmp_path, model_dir, corpus, recipe=SEARCHED)

    for attempt in range(2):
        status = in_child(work)
        # The second time there may be less left to do than until the moment of death.
        assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) or (attempt and status == 0)
    assert in_child(lambda: make(tmp_path, model_dir, corpus, recipe=SEARCHED)) == 0
    assert artefacts(tmp_path) == searched


def test_work_of_another_environment_is_said(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    in_child(lambda: make(tmp_path, model_dir, corpus, KillAt(2)))
    plan = next((tmp_path / "store").glob("*.work")) / "plan.json"
    found = json.loads(plan.read_text())
    found["environment"]["threads"] = 99
    plan.write_text(json.dumps(found))
    make(tmp_path, model_dir, corpus)
    info = read_variant(tmp_path / "v")
    assert [(event.kind, event.detail) for event in info.events] == [("resumed_elsewhere", "threads 99 became 1")]
    assert info.stages[0]["used"]["resumed_blocks"] == 2


def test_foreign_or_damaged_work_is_refused(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    in_child(lambda: make(tmp_path, model_dir, corpus, KillAt(2)))
    work = next((tmp_path / "store").glob("*.work"))
    plan, block = work / "plan.json", work / "block_0000.safetensors"
    before, whole = plan.read_text(), block.read_bytes()
    found = json.loads(before)
    found["work"]["model"] = "another"
    plan.write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match="was begun for another recipe, model or text"):
        make(tmp_path, model_dir, corpus)
    plan.write_text(before)
    block.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"block_0000.safetensors is damaged; remove .* to start again"):
        make(tmp_path, model_dir, corpus)


def test_finished_blocks_are_not_solved_again(
    model_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child(lambda: make(tmp_path, model_dir, corpus, KillAt(2)))
    solved: list[int] = []
    solve = stage.solve

    def counting(*args: object) -> object:
        solved.append(1)
        return solve(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "solve", counting)
    make(tmp_path, model_dir, corpus)
    assert len(solved) == 7, "two of three blocks were finished; each has seven linears"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("size", ["64k", "190k"])
def test_full_disk_is_an_oserror_and_resumes(
    size: str, uninterrupted: dict[str, bytes], model_dir: Path, corpus: Path, tmp_path: Path
) -> None:
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        with pytest.raises(OSError, match="No space left on device") as caught:
            make(root, model_dir, corpus, NullProgress())
        assert caught.value.errno == 28
        subprocess.run(["mount", "-o", "remount,size=4m", str(root)], check=True)
        make(root, model_dir, corpus)
        assert artefacts(root) == uninterrupted
    finally:
        subprocess.run(["umount", str(root)], check=True)
