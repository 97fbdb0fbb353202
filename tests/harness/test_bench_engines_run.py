"""The engine benchmark for real on a tiny shape: workers, journal, resumption, and workers that fail."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bench.engines import environments
from harness.bench.engines.arms import SHAPES, WORKLOADS, Group, Variant
from harness.bench.engines.environments import ENVIRONMENTS, command_of, variables_of
from harness.bench.engines.process import WorkerProcess
from harness.bench.engines.run import JOURNAL, Plan, run_benchmark, sessions
from harness.bench.engines.session import Settings, last_level_cache
from harness.bench.sparsify.journal import Journal
from harness.errors import InfrastructureError

TINY = replace(SHAPES["tiny"], hidden=64, intermediate=96, vocab=128)
SETTINGS = Settings(budget=0.1, turn=0.001, flush_mb=1, warm_up=2)


def plan(folder: Path, *variants: Variant, workloads: tuple[str, ...] = ("decode-b1",)) -> Plan:
    return Plan(
        shapes=(TINY,),
        groups=(Group("bfloat16", variants),),
        threads=(1,),
        workloads=tuple(WORKLOADS[name] for name in workloads),
        out=folder / "out",
        work=folder / "work",
        peers=None,
        settings=SETTINGS,
        command="sparsebench bench engines",
    )


def worker(folder: Path, body: str) -> WorkerProcess:
    script = folder / "worker.py"
    script.write_text("import sys\n" + body, "utf-8")
    return WorkerProcess([sys.executable, str(script)], {}, folder / "log", threads=1)


def test_engines_are_measured_once_and_what_is_missing_is_said(tmp_path: Path) -> None:
    pytest.importorskip("harness.engines.sparse._kernels")
    wanted = plan(
        tmp_path,
        Variant("torch", "bf16"),
        Variant("ours", "bf16", 70),
        Variant("llama.cpp", "q4_0"),
        workloads=("decode-b4", "prefill-512"),
    )
    results = run_benchmark(wanted, quiet=True)
    assert [panel["workload"] for panel in results["panels"]] == ["decode-b4", "prefill-512"]
    decode, prefill = (({row["variant"]: row for row in panel["rows"]}) for panel in results["panels"])
    assert "--peers" in decode["llama.cpp:q4_0"]["error"]
    for name in ("torch:bf16", "ours:bf16@70"):
        assert decode[name]["error"] == "" and decode[name]["tokens_per_s"] == pytest.approx(
            4 / decode[name]["seconds"]
        )
        assert prefill[name]["tokens_per_s"] == pytest.approx(512 / prefill[name]["seconds"])
        assert prefill[name]["rate"] is None
    linears, head = TINY.parameters
    assert decode["torch:bf16"]["megabytes"] == pytest.approx(2 * (linears + head) / 1e6)
    # Survivors in two bytes and a mask bit per weight, the head dense; tiles are padded at their ends.
    expected = (linears * (0.3 * 2 + 1 / 8) + head * 2) / 1e6
    assert decode["ours:bf16@70"]["megabytes"] == pytest.approx(expected, rel=0.05)
    assert set(decode["ours:bf16@70"]["parts"]) == {"matrices", "attention", "other", "waiting", "head"}

    lines = [json.loads(line) for line in (wanted.out / JOURNAL).read_text("utf-8").splitlines()]
    assert {line["variant"] for line in lines if line["kind"] == "turn"} == {
        "reader:read",
        "torch:bf16",
        "ours:bf16@70",
    }
    before = (wanted.out / JOURNAL).read_bytes()
    run_benchmark(wanted, quiet=True)
    assert (wanted.out / JOURNAL).read_bytes() == before

    # A panel without its last line was interrupted: it is measured again, the other is not.
    (wanted.out / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]), "utf-8")
    ((session, missing),) = sessions(wanted, Journal(wanted.out / JOURNAL))
    assert session.group is wanted.groups[0] and [workload.name for workload in missing] == ["prefill-512"]
    more = replace(wanted, groups=(Group("bfloat16", (*wanted.groups[0].variants, Variant("ours", "bf16", 0))),))
    ((_, missing),) = sessions(more, Journal(wanted.out / JOURNAL))
    assert len(missing) == 2


def test_native_and_transformers_agree_on_the_same_random_weights() -> None:
    """What is compared computes the same: both workers' first token after the same prompt."""
    pytest.importorskip("harness.engines.sparse._kernels")
    import numpy as np
    import torch

    sys.path.insert(0, str(Path(sys.modules["harness.bench.engines"].__file__ or "").parent / "workers"))
    try:
        import our_worker
        import serving
        import torch_worker
    finally:
        sys.path.pop(0)
    shape = TINY.as_json()
    ids = serving.random_tokens(shape, 1, 12)
    model = torch_worker.skeleton(shape)
    torch_worker.fill(model, shape, "fp32")
    variant = {"engine": "ours", "kind": "f32", "sparsity": 0.0, "option": ""}
    request = {"variant": variant, "shape": shape, "threads": 1}
    engine, _ = our_worker.open_engine(request)
    native: Any = engine._model
    state = native.new_state(16)
    ours = native.forward(state, [0], [ids[0].tolist()])
    with torch.inference_mode():
        theirs = model(input_ids=torch.from_numpy(ids)).logits[0, -1].numpy()
    # The table of ours is bfloat16: an embedding is read by row, not multiplied.
    assert np.corrcoef(ours[0], theirs)[0, 1] > 0.9999
    assert engine.bytes == pytest.approx(4 * sum(TINY.parameters), rel=0.01)


def test_a_worker_that_dies_or_hangs_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with (
        worker(tmp_path, "input(); print('no such kernel', file=sys.stderr); sys.exit(7)") as process,
        pytest.raises(InfrastructureError, match="code 7: no such kernel"),
    ):
        process.ask(limit=20, op="open")
    with (
        worker(tmp_path, "import os, signal; input(); os.kill(os.getpid(), signal.SIGILL)") as process,
        pytest.raises(InfrastructureError, match="SIGILL"),
    ):
        process.ask(limit=20, op="open")
    with (
        worker(tmp_path, "input(); import time; time.sleep(60)") as process,
        pytest.raises(InfrastructureError, match="no answer within"),
    ):
        process.ask(limit=0.5, op="open")


def test_peers_see_none_of_our_packages_and_everybody_has_huge_pages() -> None:
    assert "PYTHONPATH" in variables_of("ours", 2) and "PYTHONPATH" not in variables_of("llama.cpp", 2)
    for engine in ("ours", "torch", "deepsparse"):
        assert variables_of(engine, 2)["OMP_NUM_THREADS"] == "2"
        assert "hugetlb=1" in variables_of(engine, 2)["GLIBC_TUNABLES"]
    with pytest.raises(InfrastructureError, match="--peers"):
        command_of("openvino", None)


def test_the_largest_cache_is_found(tmp_path: Path) -> None:
    for index, size in enumerate(("48K", "2048K", "266240K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert last_level_cache(tmp_path) == pytest.approx(272.6, abs=0.1)
    assert last_level_cache(tmp_path / "none") is None


def test_gcc_12_does_not_build_llama_cpp_where_there_is_amx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = ENVIRONMENTS["llama.cpp"]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environments, "_processor_flags", lambda: "avx512f amx_tile")
    for name, said in (("gcc", "12"), ("clang-15", ""), ("clang++-15", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / name).chmod(0o755)
    assert environments._compiler(llama) == {"CC": "clang-15", "CXX": "clang++-15"}
    assert environments._compiler(ENVIRONMENTS["openvino"]) == {}, "it comes as a wheel"
    (tmp_path / "gcc").write_text("#!/bin/sh\necho 14\n")
    assert environments._compiler(llama) == {}
    monkeypatch.setattr(environments, "_processor_flags", lambda: "avx512f")
    (tmp_path / "gcc").write_text("#!/bin/sh\necho 12\n")
    assert environments._compiler(llama) == {}
