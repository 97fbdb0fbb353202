"""Speed panels: the arithmetic on stub clocks, and real panels on tiny models."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.bench import INT8_REASON, PanelOptions, PanelRunner, PanelSpec, read_panel
from harness.bench.command import bench_app
from harness.bench.machine import Activity, busy_between, describe_machine, machine_state
from harness.bench.memory import out_of_memory, read_memory, reset_peak
from harness.bench.rows import TWIN
from harness.errors import ConfigError, CorruptRecordError, EngineError

ROOT = Path(__file__).parents[2]
# One attempt and no confirmation: what those do is decided by pure functions, tested in test_bench_decide.py.
SPEC = PanelSpec("decode", "decode", 16, 1, 8, 1, "float32", "dense", 1.5, 7, attempts=1, confirm=False)


def test_machine_and_memory() -> None:
    assert describe_machine() == describe_machine() and describe_machine()["cores"] >= 1
    shares = busy_between(Activity(100, 50, 0), Activity(200, 75, 10))
    assert (shares["busy"], shares["steal"]) == (0.75, 0.1)
    assert busy_between(None, None)["busy"] is None
    assert set(machine_state()) == {"frequency_mhz", "governor", "load_average"}


def test_peak_of_memory_starts_again() -> None:
    if not reset_peak():
        pytest.skip("this system does not let a process start its peak of memory again")
    before = read_memory()
    assert before.rss is not None
    # Pages of its own: an array may lie in a hole that the heap keeps, and then what is resident does not change.
    with mmap.mmap(-1, 40_000_000) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        after = read_memory()
    assert after.peak_rss >= (after.rss or 0) > before.rss + 30_000_000
    assert reset_peak()
    assert read_memory().peak_rss < after.peak_rss - 20_000_000, "a new measurement has a peak of its own"


def test_frequency_and_governor_are_read_where_the_kernel_has_them(tmp_path: Path) -> None:
    for core, khz in enumerate((1_200_000, 3_400_500)):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
        (folder / "scaling_governor").write_text("powersave\n")
    (tmp_path / "cpufreq").mkdir()
    state = machine_state(tmp_path)
    assert state["frequency_mhz"] == [1200.0, 3400.5] and state["governor"] == "powersave"
    assert machine_state(tmp_path / "none")["governor"] is None


def test_out_of_memory_is_recognised() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert out_of_memory(caught.value) and out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError())
    assert not out_of_memory(RuntimeError("shape mismatch")) and not out_of_memory(ValueError("out of memory"))


# Real panels below.


def save_model(directory: Path, layers: int) -> Path:
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(layers)
    config = LlamaConfig(
        hidden_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
        vocab_size=256,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w1").save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    paths = {"dense": save_model(root / "dense", 2), "deep": save_model(root / "deep", 8), "int8": root / "int8"}
    paths["int8"].mkdir()
    quantised = {"quantization_config": {"quant_method": "compressed-tensors"}}
    (paths["int8"] / "config.json").write_text(json.dumps(quantised))
    return paths


@pytest.fixture(scope="module")
def runner() -> Iterator[PanelRunner]:
    with PanelRunner() as opened:
        yield opened


class Notes:
    """Collects progress."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, done: float, total: float, note: str = "") -> None:
        self.notes.append(note)


def host_children(runner: PanelRunner) -> list[int]:
    assert runner._host is not None
    pid = runner._host.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workload", ["decode", "prefill"])
def test_four_times_the_layers_are_slower_and_the_twin_is_not(
    runner: PanelRunner, variants: dict[str, Path], tmp_path: Path, workload: str
) -> None:
    spec = replace(SPEC, panel=workload, workload=workload, context=48)
    notes = Notes()
    assert read_panel(spec, variants, out=tmp_path) is None
    for _ in range(3):  # a starved machine may disturb one panel of two seconds, hardly three
        rows = {row.variant: row for row in runner.run(spec, variants, out=tmp_path, progress=notes)}
        deep, dense, floor = rows["deep"], rows["dense"], rows["dense"].noise_floor
        assert deep.ratio is not None and deep.ci95 is not None and floor is not None
        right = deep.ratio < 0.75 and deep.ci95[1] < 1 and floor["ci95"][0] < 1.1 and floor["ci95"][1] > 0.9
        if right:
            break
    assert right, (deep, floor)
    assert rows["int8"].reason == INT8_REASON and rows["int8"].tokens_per_s is None
    assert dense.n_blocks == deep.n_blocks >= 6 and dense.n_blocks % 2 == 0
    assert dense.tokens_per_s is not None and deep.tokens_per_s is not None
    assert deep.ratio == pytest.approx(deep.tokens_per_s / dense.tokens_per_s, rel=0.5), "the same, up to drift"
    assert any("block" in note for note in notes.notes)
    check_record(tmp_path / f"{workload}.jsonl", dense.n_blocks)
    assert read_panel(spec, variants, out=tmp_path) == list(rows.values())
    assert read_panel(replace(spec, seed=8), variants, out=tmp_path) is None
    assert read_panel(spec, {**variants, "deep": variants["dense"]}, out=tmp_path) is None


def check_record(path: Path, blocks: int) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    measures = [line for line in lines if line["kind"] == "measure"]
    orders = [tuple(m["process"] for m in measures if m["block"] == block) for block in range(blocks)]
    assert len(orders[0]) == 3 and set(orders[0]) == {"dense", "dense" + TWIN, "deep"}
    assert all(later == earlier[::-1] for earlier, later in zip(orders[::2], orders[1::2], strict=True))
    assert all(second > 0 for m in measures for second in m["seconds"])
    processes = [line for line in lines if line["kind"] == "process"]
    assert all(p["peak_rss"] > 50_000_000 and len(p["warm_up"]) > 0 for p in processes)
    assert lines[0]["machine"]["environment"]["THP_MEM_ALLOC_ENABLE"] == "1"
    (run,) = [line for line in lines if line["kind"] == "run"]
    for state in (run["before"], run["after"]):
        assert 1e8 < state["read_bandwidth"] < 1e12 and len(state["load_average"]) == 3
        assert state["frequency_mhz"] is None or all(mhz > 100 for mhz in state["frequency_mhz"])
    assert {"busy", "steal"} <= run["activity"].keys() and run["purpose"] == "first"
    assert set(run["priority"]) == {"nice", "session_nice"} and run["priority"]["nice"] <= 19
    assert not any(str(Path(path).parents[1]) in json.dumps(line) for line in lines), "no paths in records"


def test_a_restless_or_slow_run_is_repeated_with_new_processes(
    runner: PanelRunner, variants: dict[str, Path], tmp_path: Path
) -> None:
    """Eight layers against two are slower in every run; what a restless machine adds are attempts, not verdicts."""
    few = {name: variants[name] for name in ("dense", "deep")}
    pids: list[set[int]] = []

    class Watch(Notes):
        def update(self, done: float, total: float, note: str = "") -> None:
            if "block 1" in note:
                pids.append(set(host_children(runner)))

    spec = replace(SPEC, budget_s=0.5, attempts=2, confirm=True)
    row = next(r for r in runner.run(spec, few, out=tmp_path, progress=Watch()) if r.variant == "deep")
    runs = [json.loads(line) for line in (tmp_path / "decode.jsonl").read_text().splitlines()]
    runs = [line for line in runs if line["kind"] == "run"]
    purposes = [run["purpose"] for run in runs]
    if row.verdict == "slower":
        assert purposes[-1] == "confirmation" and row.confirmation and row.confirmation["ci95"][1] < 1
    elif row.verdict == "not decided":
        assert runs[-1]["restless"] and row.reason and row.reason.startswith("not decided")
    assert row.verdict in ("slower", "not decided", "unconfirmed") and len(runs) >= 2
    decided = [not run["restless"] for run in runs]
    assert all(decided[i] or runs[i + 1]["attempt"] == 2 for i in range(len(runs) - 1))
    # All but the bandwidth meter are new in every run.
    starts = pids[:: max(1, len(pids) // len(runs))]
    assert all(len(one & other) <= 1 for i, one in enumerate(starts) for other in starts[i + 1 :] if one != other)
    assert read_panel(spec, few, out=tmp_path) is not None


def test_a_sweep_stops_at_the_batch_that_does_not_fit(
    runner: PanelRunner, variants: dict[str, Path], tmp_path: Path
) -> None:
    few = {name: variants[name] for name in ("dense", "deep")}
    spec = replace(
        SPEC,
        panel="sweep",
        workload="throughput",
        context=96,
        new_tokens=2,
        batches=(1, 8, 20_000, 30_000),
        budget_s=0.8,
        memory_limit=400_000_000,
    )
    rows = {(row.variant, row.batch): row for row in runner.run(spec, few, out=tmp_path)}
    assert len(rows) == 8
    for name in few:
        small, big = rows[name, 1], rows[name, 8]
        assert small.tokens_per_s and big.tokens_per_s and small.peak_rss and big.peak_rss
        assert big.tokens_per_s > small.tokens_per_s and big.percentiles and big.percentiles["metric"] == "e2e"
        assert rows[name, 20_000].tokens_per_s is None and rows[name, 20_000].verdict == "not measured"
        assert "out of memory at batch 20000" in str(rows[name, 20_000].reason)
        assert rows[name, 30_000].reason == "not tried: out of memory at batch 20000"
    assert rows["deep", 8].ratio is not None and rows["dense", 8].noise_floor is not None
    assert read_panel(spec, few, out=tmp_path) == list(rows.values())
    with pytest.raises(EngineError, match="variant dense: out of memory; use a smaller batch"):
        runner.run(replace(spec, workload="prefill", batch=20_000, batches=()), {"dense": variants["dense"]})


def test_extra_work_takes_its_time(runner: PanelRunner, variants: dict[str, Path]) -> None:
    options = PanelOptions(extra={"same": 4})
    few = {"dense": variants["dense"], "same": variants["dense"]}
    for _ in range(3):
        rows = {row.variant: row for row in runner.run(replace(SPEC, budget_s=1.0), few, options=options)}
        assert rows["same"].ratio is not None
        if 0.12 < rows["same"].ratio < 0.3:  # five forwards for one: 0.2
            return
    raise AssertionError(rows["same"])


def test_workers_serve_several_panels(runner: PanelRunner, variants: dict[str, Path]) -> None:
    few = {name: variants[name] for name in ("dense", "deep")}
    runner.run(replace(SPEC, budget_s=0.2), few)
    before = host_children(runner)
    runner.run(replace(SPEC, budget_s=0.2, workload="prefill"), few)
    assert host_children(runner) == before and len(before) >= 4, "three workers and the bandwidth meter"
    if hasattr(os, "sched_getaffinity"):
        kept = [os.sched_getaffinity(pid) for pid in before]
        alone = [processors for processors in kept if len(processors) == SPEC.threads]
        assert len(alone) >= 3 and all(processors == alone[0] for processors in alone), "all on the same processor"


def test_the_command_shows_what_was_measured(
    runner: PanelRunner, variants: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the same panel is there already, so that no second set of processes is needed."""
    few = {name: variants[name] for name in ("dense", "deep", "int8")}
    spec = replace(SPEC, panel="decode-c16-b1", budget_s=0.3, confirm=True, seed=0)
    runner.run(spec, few, out=tmp_path)
    models = [f"dense={variants['dense']}", str(variants["deep"]), str(variants["int8"])]
    options = ["--workload", "decode", "--context", "16", "--new-tokens", "8", "--budget", "0.3", "--attempts", "1"]
    monkeypatch.setenv("COLUMNS", "160")
    done = CliRunner().invoke(bench_app, [*models, *options, "-o", str(tmp_path)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "already measured" in done.output and "Noise floor" in done.output and "energy: " in done.output
    assert all(name in done.output for name in few) and "INT8 is emulated" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pocket", "pocket"], "two models are called 'pocket'"),
        (["a b=pocket"], "is no name for a model"),
        (["pocket", "-w", "dance"], "unknown workload"),
        (["pocket", "-w", "serve"], "sparsebench bench serve"),
        (["pocket", "-w", "throughput", "--batches", "1,x"], "--batches is a list"),
        (["pocket", "-w", "throughput", "--batches", "4,1"], "ascends"),
        (["pocket", "--dtype", "int3"], "--dtype is one of"),
        (["./nowhere"], "does not exist"),
    ],
)
def test_the_command_names_wrong_input(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(bench_app, [*arguments, "-o", str(tmp_path)])
    assert isinstance(done.exception, ConfigError) and message in str(done.exception), done.exception


def test_a_damaged_record_is_named(variants: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "decode.jsonl").write_text('{"kind": "panel"')
    with pytest.raises(CorruptRecordError, match=r"decode\.jsonl"):
        read_panel(SPEC, variants, out=tmp_path)


def test_wrong_input_is_named(runner: PanelRunner, variants: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="baseline 'nobody'"):
        runner.run(replace(SPEC, baseline="nobody"), variants)
    with pytest.raises(ConfigError, match="baseline 'int8'"):
        runner.run(replace(SPEC, baseline="int8"), variants)
    with pytest.raises(ConfigError, match="positions"):
        runner.run(replace(SPEC, context=1000), {"dense": variants["dense"]})
    broken = save_model(tmp_path / "broken", 1)
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ConfigError, match="variant bad: .*damaged"):
        runner.run(SPEC, {"dense": variants["dense"], "bad": broken})
    rows = runner.run(replace(SPEC, budget_s=0.2), {"dense": variants["dense"]})
    assert [row.variant for row in rows] == ["dense"], "the runner goes on after an error"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_dies_is_an_engine_error_with_its_name(
    runner: PanelRunner, variants: dict[str, Path], tmp_path: Path
) -> None:
    class Killer(Notes):
        def update(self, done: float, total: float, note: str = "") -> None:
            if "block 2" in note:
                for child in host_children(runner):
                    os.kill(child, signal.SIGKILL)

    few = {name: variants[name] for name in ("deep", "dense")}
    with pytest.raises(EngineError, match=r"variant (deep|dense) was killed by signal 9"):
        runner.run(SPEC, few, out=tmp_path, progress=Killer())
    assert list(tmp_path.iterdir()) == [], "no half record"
    assert len(runner.run(replace(SPEC, budget_s=0.2), few)) == 2, "a new worker takes its place"
    with pytest.raises(EngineError, match="not running"):
        PanelRunner().run(SPEC, few)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_outlives_a_killed_parent(variants: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.bench import *\n"
        "class P:\n"
        "    def update(self, done, total, note=''):\n"
        "        if 'block 1' in note: print(runner._host.pid, flush=True)\n"
        "with PanelRunner() as runner:\n"
        "    spec = PanelSpec('decode', 'decode', 16, 1, 8, 1, 'float32', 'dense', 60.0, 7)\n"
        f"    runner.run(spec, {{'dense': Path({str(variants['dense'])!r})}}, progress=P())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    host = int(parent.stdout.readline())
    workers = [int(pid) for pid in Path(f"/proc/{host}/task/{host}/children").read_text().split()]
    assert len(workers) == 3, "two workers and the bandwidth meter"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(alive(pid) for pid in [host, *workers]):
        time.sleep(0.1)
    assert not any(alive(pid) for pid in [host, *workers])


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_importing_bench_imports_no_torch() -> None:
    code = "import sys, harness.bench; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
