"""The sparse engine against the torch engine: every format, every architecture, and everything that may go wrong."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engines import Request, load_engine, why_not
from harness.engines.torch import TorchEngine
from harness.errors import ConfigError, EngineError
from harness.models import BUNDLED
from sparsify.errors import CheckpointError
from sparsify.packed import pack_checkpoint
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant

pytest.importorskip("harness.engines.sparse._kernels", reason="the kernels are not built here")
from harness.engines.sparse.engine import SparseEngine  # noqa: E402  (needs the kernels)

ROOT = Path(__file__).resolve().parents[2]
build_model = runpy.run_path(str(ROOT / "sparsify" / "conftest.py"))["build_model"]
write_corpus = runpy.run_path(str(ROOT / "sparsify" / "conftest.py"))["write_corpus"]

CALIBRATION = {"source": "text", "samples": 8, "seq": 24}
PRUNE = {"prune": {"method": "magnitude", "sparsity": 0.7}}
STAGES: dict[str, list[dict[str, Any]]] = {
    "dense": [],
    "sparse70": [PRUNE],
    "w8a8": [{"quantize": {"scheme": "w8a8"}}],
    "sparse70-w8a8": [PRUNE, {"quantize": {"scheme": "w8a8"}}],
    "static": [{"quantize": {"scheme": "w8a8", "activations": "static", "calibration": CALIBRATION}}],
    "w4a16": [{"quantize": {"scheme": "w4a16", "group_size": 32}}],
    "sparse70-w4a16": [PRUNE, {"quantize": {"scheme": "w4a16", "group_size": 32}}],
}
# Largest difference of two logits, as a share of the largest logit. Quantized: an activation that lies between two
# steps may round either way, as sums are taken in another order; W4A16 also rounds activations, which torch does not.
BOUNDS = {"f32": 1e-5, "bf16": 0.02, "i8": 0.06, "i4": 0.08}
FORMS = {
    "dense": "dense f32",
    "sparse70": "sparse f32",
    "w8a8": "dense i8",
    "sparse70-w8a8": "sparse i8",
    "static": "dense i8",
    "w4a16": "dense i4",
    "sparse70-w4a16": "sparse i4",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    torch.set_num_threads(1)


def make(model: Path, out: Path, stages: list[dict[str, Any]]) -> Path:
    corpus = write_corpus(out.parent / f"{out.name}.jsonl")
    recipe = parse_recipe({"stages": stages}, name=out.name, where="test")
    options = MakeOptions(store=out.parent / "store", name=out.name, base="t", resolve_corpus=lambda _: corpus)
    make_variant(model, recipe, out, options=options)
    return out


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Variants of the pocket model, made when they are first asked for."""
    folder = tmp_path_factory.mktemp("variants")

    def variant(name: str) -> Path:
        return folder / name if (folder / name).is_dir() else make(BUNDLED["pocket"], folder / name, STAGES[name])

    return variant


def requests(engine: Any, count: int = 6, new: int = 16) -> list[Request]:
    chats = [
        [{"role": "user", "content": f"Tom has {i} apples and buys {i + 2} more. How many?"}] for i in range(count)
    ]
    return [Request(str(i), tuple(engine.encode(chat=chat)), new) for i, chat in enumerate(chats)]


def logits(engine: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = engine.model(input_ids=ids).logits
    return found


def assert_alike(ours: SparseEngine, theirs: TorchEngine, bound: float) -> None:
    """Logits of a prompt, by transformers on packed linears and by what the engine runs; and greedy tokens."""
    prompts = [request.prompt_ids for request in requests(theirs)]
    ids = torch.tensor([prompts[0]])
    expected = logits(theirs, ids)
    scale = float(expected.abs().max())
    assert float((logits(ours, ids) - expected).abs().max()) < bound * scale
    pairs = [(prompt[:-5], prompt[-5:]) for prompt in prompts]
    for (mine, _), (other, _) in zip(ours.loglikelihoods(pairs), theirs.loglikelihoods(pairs), strict=True):
        assert mine == pytest.approx(other, abs=2 * 5 * bound * scale)
    # Tokens must agree as long as the choice was clear: within the rounding, either may win.
    rows = ours._front._runner.generate(requests(theirs), ends=theirs.end_ids, hit_stop=lambda row: False)
    for row in rows:
        assert_clear_choices(theirs, row.request, row.tokens, bound * scale)


def assert_clear_choices(engine: TorchEngine, request: Request, tokens: list[int], slack: float) -> None:
    """Every token of a completion is one that the engine would have chosen, or almost."""
    whole = [*request.prompt_ids, *tokens]
    found = logits(engine, torch.tensor([whole]))[0, len(request.prompt_ids) - 1 : -1]
    best, chosen = found.max(-1).values, found.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert float((best - chosen).max()) <= 2 * slack


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("native", [True, False])
def test_every_format_says_what_torch_says(name: str, native: bool, variants: Callable[[str], Path]) -> None:
    ours = SparseEngine.load(variants(name), native=native)
    kind = FORMS[name].split()[1]
    assert ours.packing["matrices"][FORMS[name]] >= 35, "all linears of the blocks"
    assert ours.packing["path"] == ("native" if native else "transformers")
    assert_alike(ours, TorchEngine.load(variants(name)), BOUNDS[kind])


@pytest.mark.parametrize("name", ["dense", "sparse70"])
def test_greedy_tokens_of_floats_are_those_of_torch(name: str, variants: Callable[[str], Path]) -> None:
    ours, theirs = SparseEngine.load(variants(name)), TorchEngine.load(variants(name))
    batch = requests(theirs, count=9, new=40)
    mine, other = ours.generate_batch(batch), theirs.generate_batch(batch)
    assert [(c.request_id, c.text, c.n_in, c.n_out, c.finish) for c in mine] == [
        (c.request_id, c.text, c.n_in, c.n_out, c.finish) for c in other
    ]


def test_bfloat16(variants: Callable[[str], Path]) -> None:
    ours = SparseEngine.load(variants("sparse70"), dtype="bfloat16")
    assert ours.packing["matrices"] == {"dense bf16": 1, "sparse bf16": 35}
    assert_alike(ours, TorchEngine.load(variants("sparse70")), BOUNDS["bf16"])
    assert SparseEngine.load(variants("sparse70"), dtype="auto").packing["matrices"] == ours.packing["matrices"]


def test_a_head_in_int8(variants: Callable[[str], Path]) -> None:
    plain = SparseEngine.load(variants("w8a8"))
    ours = SparseEngine.load(variants("w8a8"), head="int8")
    assert plain.packing["matrices"] == {"dense f32": 1, "dense i8": 35}
    assert ours.packing["matrices"] == {"dense i8": 36} and ours.packing["bytes"] < plain.packing["bytes"]
    assert_alike(ours, TorchEngine.load(variants("w8a8")), 2 * BOUNDS["i8"])


def test_bitmask_storage(variants: Callable[[str], Path], tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    pack_checkpoint(variants("sparse70"), packed)
    ours, plain = SparseEngine.load(packed), SparseEngine.load(variants("sparse70"))
    ids = torch.tensor([requests(plain)[0].prompt_ids])
    assert torch.equal(logits(ours, ids), logits(plain, ids))
    assert not (packed / ".sparsebench").exists(), "the folder that was given stays as it was"


def test_packing_takes_the_fewer_bytes(variants: Callable[[str], Path]) -> None:
    sizes = {
        name: SparseEngine.load(variants(name)).packing["bytes"] for name in ("dense", "sparse70", "sparse70-w8a8")
    }
    assert 0.33 < sizes["sparse70"] / sizes["dense"] < 0.45, "0.3 of the values and a bit for each weight"
    assert sizes["sparse70-w8a8"] < 0.6 * sizes["sparse70"], "the head, a third of it, stays in float"


def test_sampling_and_stops_are_those_of_torch(variants: Callable[[str], Path]) -> None:
    ours, theirs = SparseEngine.load(variants("dense")), TorchEngine.load(variants("dense"))
    base = requests(theirs, count=5, new=20)
    sampled = [Request(r.request_id, r.prompt_ids, 20, (), 0.8, 0.9, seed) for seed, r in enumerate(base)]
    stopped = [Request(r.request_id, r.prompt_ids, 20, ("a", "e")) for r in base]
    over = [base[0], Request("over", base[0].prompt_ids, ours.context_length), base[1]]
    for batch in (sampled, stopped, over):
        mine, other = ours.generate_batch(batch), theirs.generate_batch(batch)
        assert [(c.text, c.n_out, c.finish) for c in mine] == [(c.text, c.n_out, c.finish) for c in other]
    assert ours.vocabulary == theirs.vocabulary


# --- use --------------------------------------------------------------------------------------------------------------


def test_requests_from_several_threads(variants: Callable[[str], Path]) -> None:
    engine = SparseEngine.load(variants("sparse70-w8a8"))
    batch = requests(engine, count=8, new=12)
    alone = [engine.generate_batch([request])[0].text for request in batch]
    wrong: list[str] = []

    def ask(index: int) -> None:
        torch.set_num_threads(1 + index % 2)
        for _ in range(3):
            text = engine.generate_batch([batch[index]])[0].text
            wrong.extend([text] * (text != alone[index]))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("workload", ["decode", "prefill", "throughput"])
def test_speed_workloads(workload: str, native: bool, variants: Callable[[str], Path]) -> None:
    """The tokens that a session gives are those of torch, whatever was measured and forgotten before."""
    from harness.bench.workloads import build_workload, random_prompt

    ours, theirs = SparseEngine.load(variants("dense"), native=native), TorchEngine.load(variants("dense"))
    for engine in (ours, theirs):
        work = build_workload(engine, workload=workload, context=12, batch=3, new_tokens=4, seed=0, longest=6)
        for _ in range(2):
            work.reset()
            for _ in range(4):
                work.step()
        engine.synchronise()
    ids = random_prompt(theirs, 3, 12, 0)

    def tokens(engine: Any) -> Tensor:
        session = engine.session(batch=3, tokens=20)
        first = session.forward(ids)
        session.forward(session.forward(first))
        session.crop(12)
        return torch.cat([first, session.forward(first)], 1)

    assert torch.equal(tokens(ours), tokens(theirs))


def test_it_is_packed_once_and_again_when_the_weights_change(variants: Callable[[str], Path], tmp_path: Path) -> None:
    made = Path(shutil.copytree(variants("sparse70"), tmp_path / "v", ignore=shutil.ignore_patterns(".sparsebench")))
    SparseEngine.load(made)
    (packed,) = (made / ".sparsebench").iterdir()
    before = packed.stat().st_mtime_ns
    SparseEngine.load(made)
    assert packed.stat().st_mtime_ns == before
    other = make(BUNDLED["pocket"], tmp_path / "w", [{"prune": {"method": "magnitude", "sparsity": 0.5}}])
    shutil.copy(other / "model.safetensors", made / "model.safetensors")
    ours = SparseEngine.load(made)
    (after,) = (made / ".sparsebench").iterdir()
    assert after.name != packed.name
    ids = torch.tensor([requests(ours)[0].prompt_ids])
    torch.testing.assert_close(logits(ours, ids), logits(TorchEngine.load(other), ids), rtol=1e-4, atol=1e-4)


def test_a_damaged_packed_file_is_packed_again(variants: Callable[[str], Path], tmp_path: Path) -> None:
    made = Path(shutil.copytree(variants("w8a8"), tmp_path / "v", ignore=shutil.ignore_patterns(".sparsebench")))
    first = SparseEngine.load(made)
    (packed,) = (made / ".sparsebench").iterdir()
    raw = bytearray(packed.read_bytes())
    raw[len(raw) // 2] ^= 255
    packed.write_bytes(raw)
    again = SparseEngine.load(made)
    assert any("packed again" in event["detail"] for event in again.events)
    ids = torch.tensor([requests(first)[0].prompt_ids])
    assert torch.equal(logits(again, ids), logits(first, ids))


def test_a_compiled_model_gives_the_same(variants: Callable[[str], Path]) -> None:
    engine = SparseEngine.load(variants("sparse70"), native=False)
    block = engine.model.model.layers[0].mlp
    x = torch.randn(1, 5, engine.model.config.hidden_size)
    with torch.inference_mode():
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")(x)
        torch.testing.assert_close(compiled, block(x), rtol=1e-5, atol=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_wrong_options(variants: Callable[[str], Path], tmp_path: Path) -> None:
    made = variants("dense")
    for options, error, match in (
        ({"device": "cuda"}, EngineError, "runs on the CPU"),
        ({"dtype": "float16"}, ConfigError, "not 'float16'"),
        ({"head": "int4"}, ConfigError, "unknown head"),
        ({"memory": "swap"}, ConfigError, "unknown memory"),
    ):
        with pytest.raises(error, match=match):
            load_engine("sparse", made, **options)
    with pytest.raises(ConfigError, match="does not exist"):
        load_engine("sparse", tmp_path / "nowhere")
    assert why_not("sparse", device="cuda") and why_not("sparse") is None and why_not("torch", device="cuda") is None


def test_damaged_checkpoints(variants: Callable[[str], Path], tmp_path: Path) -> None:
    made = Path(shutil.copytree(variants("w8a8"), tmp_path / "v", ignore=shutil.ignore_patterns(".sparsebench")))
    weights = made / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CheckpointError, match="model.safetensors is truncated"):
        load_engine("sparse", made)
    weights.write_bytes(raw)
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = False
    (made / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match="both symmetric.*use engine torch"):
        load_engine("sparse", made)
    del config["quantization_config"]
    (made / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="stores integers without"):
        load_engine("sparse", made)


def test_without_kernels_the_error_names_the_fix_and_all_else_works(variants: Callable[[str], Path]) -> None:
    code = f"""
import sys
sys.modules["harness.engines.sparse._kernels"] = None
from pathlib import Path
from harness.bench.panel import panel_entries
from harness.bench.spec import PanelOptions, PanelSpec
from harness.doctor.tools import kernels
from harness.engines import load_engine
from harness.errors import EngineError
import harness.engines.sparse.engine
made = Path({str(variants("dense"))!r})
try:
    load_engine("sparse", made)
except EngineError as error:
    assert "not built" in str(error) or "do not load" in str(error), error
    assert "apt-get install g++" in str(error) and "engine torch" in str(error)
else:
    raise AssertionError("it loaded")
assert kernels().state == "warn" and "g++" in kernels().fix
spec = dict(panel="p", workload="decode", context=8, batch=1, new_tokens=2, threads=1, dtype="float32",
            baseline="dense", budget_s=1, seed=0)
entries = panel_entries(PanelSpec(**spec, engines=("sparse",)), {{"dense": made}}, PanelOptions())
assert [entry.skip is None for entry in entries] == [True, False], entries
try:
    panel_entries(PanelSpec(**spec, engine="sparse"), {{"dense": made}}, PanelOptions())
except EngineError as error:
    assert "takes its baseline on engine sparse" in str(error)
else:
    raise AssertionError("a panel without a baseline")
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-2000:]
