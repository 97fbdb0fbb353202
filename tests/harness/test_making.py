"""A study under torchrun: two processes make its variants, rank 0 does the rest, and the run is finished without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import ConfigError
from harness.making import check_trains, effort, longest_first
from harness.pool import Pool
from harness.study import parse_study
from harness.tasks import MakeTask
from sparsify.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "suites" / "pocket" / "model" / "model.safetensors"
CALL = [sys.executable, "-P", "-c", "import sys; from harness.cli import main; sys.exit(main())"]
# Says which processes trained: a file for each rank.
WATCHED = """
import os, sys
import sparsify.finetune
train = sparsify.finetune.run_training
def watched(*given):
    open("trained-by-" + os.environ["LOCAL_RANK"], "w").close()
    return train(*given)
sparsify.finetune.run_training = watched
from harness.cli import main
sys.exit(main())
"""
TORCHRUN = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
PRUNE = {"prune": {"method": "magnitude", "sparsity": 0.5}}
TRAIN = {"finetune": {"data": "suite:gsm8k/train", "tokens": 3000, "batch_tokens": 1024, "seq": 128, "teacher": "base"}}

pytestmark = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")


def run(folder: Path, *call: str, extra: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [*call, "run", "study.yaml", "--out", "out", "--offline", *extra]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "trained.yaml").write_text(yaml.safe_dump({"stages": [PRUNE, TRAIN]}), encoding="utf-8")
    (folder / "pruned.yaml").write_text(yaml.safe_dump({"stages": [PRUNE]}), encoding="utf-8")
    body: dict[str, Any] = {
        "version": 1,
        "models": {"base": {"path": "pocket"}},
        "variants": {
            "dense": {"from": "base"},
            "pruned": {"from": "base", "recipe": "pruned.yaml"},
            "trained": {"from": "base", "recipe": "trained.yaml"},
        },
        "suites": {"gsm8k": {"preset": "pocket", "n": 4}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    return folder


def test_two_processes_make_what_trains_and_one_goes_on(study: Path) -> None:
    done = run(study, *TORCHRUN, sys.executable, "-P", "-c", WATCHED)
    assert done.returncode == 0, done.stderr[-3000:]
    # Rank 0 alone evaluates and speaks, and nobody draws the bars of libraries.
    assert done.stdout.count("recovery.html") == 1 and "Loading weights" not in done.stderr
    assert (study / "trained-by-1").exists()
    summary = json.loads((study / "out" / "summary.json").read_text(encoding="utf-8"))
    assert [variant["name"] for variant in summary["variants"]] == ["dense", "pruned", "trained"]
    trained = summary["variants"][2]
    assert trained["sparsity"]["linears"] == pytest.approx(0.5, abs=0.01) and trained["masks"]["revived"] == 0
    assert trained["suites"]["gsm8k"]["n"] == 4
    # Nothing is missing then, and the second process is let go.
    again = run(study, *TORCHRUN, *CALL)
    assert again.returncode == 0 and again.stdout.count("nothing was missing") == 1, again.stderr
    plan = run(study, *TORCHRUN, *CALL, extra=["--dry-run"])
    assert plan.returncode == 0 and plan.stdout.count("requests in all") == 1, plan.stderr


def test_where_rank_0_fails_all_end_with_its_message(study: Path, tmp_path: Path) -> None:
    body = yaml.safe_load((study / "study.yaml").read_text(encoding="utf-8"))
    body["models"]["base"]["path"] = "./nowhere"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    for name in ("trained.yaml", "pruned.yaml"):
        (tmp_path / name).write_bytes((study / name).read_bytes())
    done = run(tmp_path, *TORCHRUN, *CALL)
    assert done.returncode != 0
    assert done.stderr.count("sparsebench: model directory ./nowhere does not exist") == 1, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("stages", "group", "words"),
    [
        ([PRUNE], "1", "torchrun shares stages that train, and this study has none"),
        ([{"finetune": {**TRAIN["finetune"], "gradual": {"initial": 0.1, "final": 0.5}}}], "1", "gradual"),
        ([PRUNE, TRAIN], "2", "`run` under torchrun is for one machine"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: list[Any], group: str, words: str
) -> None:
    monkeypatch.setenv("GROUP_WORLD_SIZE", group)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    body = {"version": 1, "name": "s", "models": {"base": {"path": "pocket"}}, "suites": {"gsm8k": {"n": 4}}}
    variants = {"dense": {"from": "base"}, "v": {"from": "base", "recipe": str(tmp_path / "r.yaml")}}
    with pytest.raises(ConfigError, match=words):
        check_trains(parse_study({**body, "variants": variants}, where="s"))


class Environment:
    """A task that returns the environment of its process."""

    name = "environment"

    def run(self, send: Any) -> dict[str, str]:
        return dict(os.environ)


def environment_of_workers(folder: Path) -> dict[str, str]:
    pool = Pool(1, folder / "errors.log")
    (message,) = [message for message in pool.run([Environment()]) if message.kind == "done"]
    return dict(message.value)


def test_workers_of_rank_0_are_members_of_nothing(tmp_path: Path) -> None:
    # What torchrun tells a process, in full: `torch.distributed.elastic.agent.server.local_elastic_agent`.
    told = {name: "1" for name in (
        "LOCAL_RANK", "RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "LOCAL_WORLD_SIZE", "WORLD_SIZE",
        "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCHELASTIC_ERROR_FILE",
    )}  # fmt: skip
    program = (
        f"import json, sys; from pathlib import Path; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from harness.making import _forget_torchrun; from test_making import environment_of_workers\n"
        "_forget_torchrun(); print(json.dumps(sorted(environment_of_workers(Path(sys.argv[1])))))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path)],
        env={**os.environ, **told}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    left = set(json.loads(done.stdout.splitlines()[-1])) & set(told)
    assert left == {"LOCAL_RANK"}


def test_what_trains_counts_for_more() -> None:
    def task(name: str, *stages: dict[str, Any]) -> MakeTask:
        recipe = parse_recipe({"stages": list(stages)}, name=name, where=name)
        return MakeTask(name, recipe, Path("m"), "m", None, Path("o"), Path("s"), {}, (), 1, "cpu")

    short, long = task("short", PRUNE), task("long", PRUNE, {"finetune": {**TRAIN["finetune"], "tokens": 400_000}})
    assert effort(short) == 1 and effort(long) == 21
    assert [one.variant for one in longest_first([short, long])] == ["long", "short"]
