"""Engine vllm over a stand-in for the package (`vllm_standin.py`): calls as documented, results as of engine torch.

Real vLLM needs a GPU and is not installed here: these tests say nothing about it beyond its documented interface.
"""

from __future__ import annotations

import importlib
import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cells import plan_suites
from harness.dry_run import plan_text
from harness.engines import load_engine, why_not
from harness.engines.base import Engine, Request
from harness.errors import ConfigError, EngineError
from harness.run import RunOptions, run_study
from harness.study import builtin_studies, load_study, parse_study
from sparsify.errors import CheckpointError
from suites.registry import ROOT

HERE = Path(__file__).parent
POCKET = ROOT / "pocket" / "model"


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    shutil.copy(HERE / "vllm_standin.py", tmp_path / "vllm.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("vllm")
    sys.modules.pop("vllm")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kit = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_llama.py")))
    return Path(kit.save_tiny(tmp_path_factory.mktemp("tiny"), context=128))


def requests(engine: Engine, **changes: Any) -> list[Request]:
    texts = ("the cat sat", "one and two", "stop here now and then", "a", "the mat on the cat " * 3)
    return [Request(str(i), tuple(engine.encode(text)), 24, **changes) for i, text in enumerate(texts)]


def test_greedy_completions_are_those_of_engine_torch(vllm: Any, tiny: Path) -> None:
    mine, torch = load_engine("vllm", tiny, dtype="float32"), load_engine("torch", tiny)
    assert isinstance(mine.context_length, int) and mine.context_length == torch.context_length == 128
    chat = [{"role": "user", "content": "stop now"}]
    assert mine.encode(chat=chat) == torch.encode(chat=chat) and mine.encode("the cat") == torch.encode("the cat")
    stops = (torch.generate_batch(requests(torch))[0].text[4:7],)
    for changes in ({}, {"stop": stops}):
        found, wanted = mine.generate_batch(requests(mine, **changes)), torch.generate_batch(requests(torch, **changes))
        for a, b in zip(found, wanted, strict=True):
            assert (a.request_id, a.text, a.n_in) == (b.request_id, b.text, b.n_in)
            assert (a.n_out, a.finish) == (b.n_out, b.finish)
    assert stops[0] and all(stops[0] not in each.text for each in mine.generate_batch(requests(mine, stop=stops)))
    greedy = [params for params in vllm.SAMPLED if params.prompt_logprobs is None]
    assert {params.temperature for params in greedy} == {0.0} and {params.seed for params in greedy} == {None}
    assert all(params.stop_token_ids for params in greedy), "the end of a turn ends an answer"


def test_log_likelihoods_are_those_of_engine_torch(vllm: Any, tiny: Path) -> None:
    mine, torch = load_engine("vllm", tiny, dtype="float32"), load_engine("torch", tiny)
    greedy = torch.generate_batch([Request("g", tuple(torch.encode("the cat")), 3)])[0]
    pairs = [
        (torch.encode("the cat"), torch.encode(" sat on")),
        (torch.encode("one and"), torch.encode(" two are three")),
        (torch.encode("the cat"), torch.encode(greedy.text)),
    ]
    for a, b in zip(mine.loglikelihoods(pairs), torch.loglikelihoods(pairs), strict=True):
        assert a[0] == pytest.approx(b[0], abs=1e-4) and a[1] == b[1]
    assert [flag for _, flag in mine.loglikelihoods(pairs)][:2] == [False, False]
    long = [([5] * 300, [6, 7])]
    assert mine.loglikelihoods(long)[0][0] == pytest.approx(torch.loglikelihoods([([5] * 125, [6, 7])])[0][0], abs=1e-4)
    with pytest.raises(ConfigError, match="context length"):
        mine.loglikelihoods([([5], [6] * 128)])


def test_options_sampling_and_prompts_that_do_not_fit(vllm: Any, tiny: Path) -> None:
    options = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "max_model_len": 40}
    engine = load_engine("vllm", tiny, dtype="float32", **options)
    opened = vllm.OPENED[-1]
    assert {name: opened[name] for name in options} == options
    assert opened["load_format"] == "safetensors" and opened["trust_remote_code"] is False
    found = engine.generate_batch([Request("long", (5,) * 30, 24), Request("short", (5,) * 3, 24)])
    assert [each.finish for each in found][0] == "truncated_input" and found[1].n_out > 0
    engine.generate_batch(requests(engine, temperature=0.8, seed=11)[:1])
    assert (vllm.SAMPLED[-1].temperature, vllm.SAMPLED[-1].seed) == (0.8, 11)
    with pytest.raises(ConfigError, match="empty prompt"):
        engine.generate_batch([Request("none", (), 4)])


def test_what_vllm_gives_up_is_an_error(vllm: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine("vllm", tiny, dtype="float32")
    plain = vllm.LLM.generate

    def aborted(self: Any, *args: Any, **kw: Any) -> Any:
        outputs = plain(self, *args, **kw)
        outputs[0].outputs[0].finish_reason = "abort"
        return outputs

    monkeypatch.setattr(vllm.LLM, "generate", aborted)
    with pytest.raises(EngineError, match=r"gave 0 up \(abort\)"):
        engine.generate_batch(requests(engine))
    monkeypatch.setattr(vllm.LLM, "generate", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("CUDA\nerror")))
    with pytest.raises(EngineError, match="vLLM failed: CUDA error; run the same command again"):
        engine.generate_batch(requests(engine))
    with pytest.raises(EngineError, match="does not open .*tensor_parallel_size"):
        load_engine("vllm", tiny, tensor_parallel_size=16)


def test_without_the_package_one_line_names_the_fix(tiny: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    assert why_not("vllm") == "engine vllm needs package vllm; pip install 'sparsebench[vllm]'"
    with pytest.raises(EngineError, match=r"pip install 'sparsebench\[vllm\]'"):
        load_engine("vllm", tiny)
    body = {"name": "s", "variants": {"v": {"path": str(tiny)}}, "suites": {"gsm8k": {"n": 2}}, "engine": "vllm"}
    with pytest.raises(EngineError, match=r"pip install 'sparsebench\[vllm\]'"):
        run_study(parse_study(body, where="t"), tmp_path / "out", RunOptions(quiet=True, offline=True))
    assert not (tmp_path / "out").exists()


def test_no_pickle_is_opened(vllm: Any, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_engine("vllm", tmp_path / "m")


def test_a_study_runs_on_it(vllm: Any, tmp_path: Path) -> None:
    """The same answers as engine torch, through the worker processes of a run."""
    if not (POCKET / "config.json").is_file():
        pytest.skip("the pocket model is not in this checkout (suites/pocket/model)")
    found = {}
    for engine in ({"name": "vllm", "dtype": "float32", "max_model_len": 1024}, {"name": "torch", "batch_size": 1}):
        body = {"name": "s", "variants": {"v": {"path": "pocket"}}, "suites": {"gsm8k": {"n": 4}}, "engine": engine}
        out = tmp_path / engine["name"]
        run_study(parse_study(body, where="t"), out, RunOptions(jobs=1, quiet=True, offline=True))
        found[engine["name"]] = [r for r in (out / "records" / "samples" / "v.gsm8k.jsonl").read_text().splitlines()]
    import json

    mine, torch = ([json.loads(row) for row in found[name]] for name in ("vllm", "torch"))
    assert [row["outputs"] for row in mine] == [row["outputs"] for row in torch]
    assert {row["engine"] for row in mine} == {"vllm/float32"}


def test_the_built_in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "vllm-w8a8" in builtin_studies()
    study = load_study("vllm-w8a8")
    assert study.engine.name == "vllm" and list(study.variants) == ["dense", "w8a8"]
    assert {name: spec.preset for name, spec in study.suites.items()}["gsm8k"] == "5shot"
    assert {plan.preset for plan in plan_suites(study, None).values()} == {"5shot", "full"}
    data = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parents[1] / "shared" / "data"))
    if not (data / "gsm8k").is_dir():
        pytest.skip("no real data; set SPARSEBENCH_DATA to its folder")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    here = parse_study(
        {**study.resolved(), "suites": {"gsm8k": {"preset": "5shot"}, "code": {"preset": "full"}}}, where="t"
    )
    text = plan_text(here, tmp_path / "out", RunOptions(data_dir=data))
    assert "1319 requests" in text and "164 requests" in text
    assert text.count("meta-llama/Llama-3.2-1B-Instruct is not in the cache") == 2, "nothing is fetched for a plan"


def test_unknown_keys_of_the_engine_are_named() -> None:
    study = load_study("vllm-w8a8")
    with pytest.raises(ConfigError, match="allowed: name, dtype, batch_size, tensor_parallel_size"):
        parse_study({**study.resolved(), "engine": {"name": "vllm", "threads": 2}}, where="t")
