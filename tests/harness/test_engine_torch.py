"""The torch engine against transformers' own generation, on small random models."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.engines import Request, load_engine
from harness.engines._cache import GrowingLayer, new_cache
from harness.engines._decode import DROP_SHARE
from harness.engines._text import stop_at
from harness.engines.torch import TorchEngine
from harness.errors import ConfigError, EngineError
from sparsify.errors import CheckpointError

tiny_llama = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_llama.py"))))
save_tiny, prompts = tiny_llama.save_tiny, tiny_llama.prompts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> TorchEngine:
    return TorchEngine.load(tiny, threads=1)


def hf_tokens(engine: TorchEngine, batch: list[tuple[int, ...]], new: int, ends: set[int]) -> list[list[int]]:
    """transformers' own greedy generation of the same left-padded batch, cut after the first end token."""
    width = max(map(len, batch))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in batch])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch])
    out = engine.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=0,
    )
    rows = []
    for row in out[:, width:].tolist():
        at = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
        rows.append(row[: at + 1])
    return rows


def run_tokens(engine: TorchEngine, batch: list[tuple[int, ...]], new: int) -> list[list[int]]:
    from harness.engines._decode import decode

    requests = [Request(str(i), p, new) for i, p in enumerate(batch)]
    return [row.tokens for row in decode(engine.model, requests, ends=engine.end_ids, hit_stop=lambda row: False)]


@pytest.mark.parametrize("seed", range(4))
def test_greedy_equals_transformers_in_the_same_batch_though_rows_leave_it(engine: TorchEngine, seed: int) -> None:
    batch = prompts(12, seed=seed)
    plain = run_tokens(engine, batch, 40)
    # Make ends of tokens that many rows produce, at different times, so that rows leave and padding is dropped.
    ends = {token for row in plain[:6] for token in row[7:10]} | {plain[6][15], plain[7][20]}
    original, engine.end_ids = engine.end_ids, frozenset(ends)
    try:
        ours, theirs = run_tokens(engine, batch, 40), hf_tokens(engine, batch, 40, ends)
    finally:
        engine.end_ids = original
    assert len({len(row) for row in ours}) >= 4
    assert ours == theirs


def test_rows_leave_the_cache(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    update = GrowingLayer.update

    def watched(self: GrowingLayer, keys: torch.Tensor, values: torch.Tensor, *args: object, **kw: object) -> object:
        out = update(self, keys, values, *args, **kw)
        sizes.append(tuple(out[0].shape[0:3:2]))
        return out

    monkeypatch.setattr(GrowingLayer, "update", watched)
    long, short = tuple(range(10, 60)), tuple(range(10, 20))
    requests = [Request("a", long, 3), Request("b", long, 3), Request("c", short, 9)]
    done = engine.generate_batch(requests)
    assert [c.n_out for c in done if c.finish == "length"] == [3, 3, 9]
    assert sizes[0] == (3, 50)
    assert sizes[-1] == (1, 10 + 8), "the two finished rows and the padding of the third should be gone"
    assert 0 < DROP_SHARE < 1


def test_a_growing_cache_holds_what_a_concatenating_one_holds(engine: TorchEngine) -> None:
    cache, parts = new_cache(engine.model), []
    layer = cache.layers[0]
    assert isinstance(layer, GrowingLayer)
    for tokens in (5, 1, 70, 1, 64, 2):
        part = torch.randn(3, 2, tokens, 4)
        parts.append(part)
        keys, values = layer.update(part, part * 2)
        assert torch.equal(keys, torch.cat(parts, 2)) and torch.equal(values, torch.cat(parts, 2) * 2)
    whole = torch.cat(parts, 2)
    layer.batch_select_indices(torch.tensor([2, 0]))
    layer.drop_left(4)
    layer.crop(-3)
    assert torch.equal(layer.keys, whole[[2, 0], :, 4:-3]) and layer.get_seq_length() == whole.shape[2] - 7
    keys, _ = layer.update(part[:2], part[:2])
    assert torch.equal(keys, torch.cat([whole[[2, 0], :, 4:-3], part[:2]], 2))


def test_generation_asks_nothing_of_transformers_that_is_going_away(tiny: Path) -> None:
    """Deprecations are filtered elsewhere in the tests; a user would see each of them on every batch."""
    code = f"""
from pathlib import Path
from harness.bench.workloads import build_workload
from harness.engines import Request
from harness.engines.torch import TorchEngine
engine = TorchEngine.load(Path({str(tiny)!r}), threads=1)
engine.generate_batch([Request("r", (5, 6), 4)])
for name in ("decode", "prefill", "throughput"):
    work = build_workload(engine, workload=name, context=8, batch=1, new_tokens=2, seed=0, longest=4)
    work.step()
print("done")
"""
    warn = ["-W", "error::FutureWarning", "-W", "error::DeprecationWarning:transformers"]
    done = subprocess.run([sys.executable, *warn, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-800:]


def test_a_batch_repeats_itself_and_keeps_the_order(engine: TorchEngine) -> None:
    requests = [Request(f"r{i}", p, 12) for i, p in enumerate(prompts(7))]
    first, again = engine.generate_batch(requests), engine.generate_batch(requests)
    assert [c.request_id for c in first] == [r.request_id for r in requests]
    assert [(c.text, c.n_out, c.finish) for c in first] == [(c.text, c.n_out, c.finish) for c in again]
    assert all(c.n_in == len(r.prompt_ids) and c.seconds > 0 for c, r in zip(first, requests, strict=True))


def test_too_long_a_prompt_is_reported_and_its_neighbours_are_not_disturbed(engine: TorchEngine) -> None:
    fits = Request("fits", tuple(range(10, 30)), 6)
    edge = Request("edge", tuple(10 + i % 200 for i in range(250)), 6)
    over = Request("over", tuple(10 + i % 200 for i in range(251)), 6)
    done = engine.generate_batch([over, fits, edge])
    assert [c.finish for c in done] == ["truncated_input", done[1].finish, done[2].finish]
    assert (done[0].n_in, done[0].n_out, done[0].text) == (251, 0, "")
    assert done[1].n_out > 0 and done[2].n_out > 0
    assert engine.generate_batch([fits, edge])[0].text == done[1].text
    assert engine.generate_batch([over])[0].finish == "truncated_input"
    assert engine.generate_batch([]) == []


def test_end_token_ends_the_text_and_counts(engine: TorchEngine) -> None:
    prompt = prompts(1)[0]
    tokens = run_tokens(engine, [prompt], 10)[0]
    original, engine.end_ids = engine.end_ids, frozenset([tokens[4]])
    try:
        (done,) = engine.generate_batch([Request("x", prompt, 10)])
    finally:
        engine.end_ids = original
    first = tokens.index(tokens[4])
    assert (done.finish, done.n_out) == ("stop", first + 1)
    assert done.text == engine.tokenizer.decode(tokens[:first], skip_special_tokens=True)


def test_the_templates_end_token_is_an_end_though_it_is_not_eos(engine: TorchEngine) -> None:
    names = {engine.tokenizer.convert_ids_to_tokens(i) for i in engine.end_ids}
    assert names == {"<|endoftext|>", "<|end|>"}


def test_a_stop_text_is_cut_wherever_the_token_borders_are(engine: TorchEngine) -> None:
    prompt = prompts(1, seed=3)[0]
    (free,) = engine.generate_batch([Request("free", prompt, 30)])
    text = free.text
    at = next(i for i in range(6, len(text)) if text.find(text[i : i + 3]) == i and text[i].isascii())
    stop = text[at : at + 3]
    (cut,) = engine.generate_batch([Request("cut", prompt, 30, stop=("never this", stop))])
    assert (cut.text, cut.finish) == (free.text[:at], "stop")
    assert cut.n_out < free.n_out


def test_stop_at_takes_the_first_in_the_text_not_in_the_list() -> None:
    assert stop_at("abcdef", ("e", "c")) == 2
    assert stop_at("abcdef", ("x", "")) is None


def test_sampling_has_its_own_stream_per_request(engine: TorchEngine) -> None:
    prompt, other = prompts(2, seed=5)
    warm = [Request(str(seed), prompt, 16, temperature=1.5, seed=seed) for seed in (1, 2)]
    one, two = engine.generate_batch(warm)
    assert one.text != two.text
    mixed = engine.generate_batch([Request("greedy", other, 16), warm[1]])
    assert mixed[1].text == two.text
    assert mixed[0].text == engine.generate_batch([Request("greedy", other, 16)])[0].text
    (nucleus,) = engine.generate_batch([Request("n", prompt, 16, temperature=1.5, top_p=1e-6, seed=9)])
    assert nucleus.text == engine.generate_batch([Request("g", prompt, 16)])[0].text


def test_sampling_follows_the_softmax(engine: TorchEngine) -> None:
    from harness.engines._decode import Picker

    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    request = Request("r", (1,), 1, temperature=1.0, top_p=0.9, seed=3)
    picker = Picker([request])
    drawn = [picker(chances.log()[None], [request], [0])[0] for _ in range(3000)]
    share = [drawn.count(token) / len(drawn) for token in range(4)]
    assert share[3] == 0
    assert share[:3] == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95], abs=0.04)


def test_loglikelihoods_equal_single_forwards(engine: TorchEngine) -> None:
    pairs = [(p[: len(p) // 2], p[len(p) // 2 :]) for p in prompts(20, seed=8)]
    greedy = run_tokens(engine, [pairs[0][0]], 3)[0]
    pairs.append((pairs[0][0], tuple(greedy)))
    got = engine.loglikelihoods(pairs)
    for (context, continuation), (total, is_greedy) in zip(pairs, got, strict=True):
        with torch.inference_mode():
            logits = engine.model(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
        want = logits.log_softmax(-1)[range(len(continuation)), list(continuation)].sum()
        assert total == pytest.approx(float(want), abs=1e-3)
        assert is_greedy == (logits.argmax(-1).tolist() == list(continuation))
    assert got[-1][1] is True
    with pytest.raises(ConfigError):
        engine.loglikelihoods([((), (1,))])


def test_encode_chat_and_text(engine: TorchEngine) -> None:
    ids = engine.encode(chat=[{"role": "user", "content": "the cat"}])
    assert engine.tokenizer.decode(ids) == "<|user|>the cat<|end|><|assistant|>"
    assert engine.tokenizer.decode(engine.encode("the mat")) == "the mat"
    with pytest.raises(ConfigError):
        engine.encode()


def test_wrong_directories_say_what_is_wrong(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        TorchEngine.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        TorchEngine.load(tmp_path)
    with pytest.raises(ConfigError, match="unknown dtype"):
        TorchEngine.load(tiny, dtype="float7")
    with pytest.raises(ConfigError, match="unknown device"):
        TorchEngine.load(tiny, device="toaster")
    with pytest.raises(ConfigError, match="unknown engine"):
        load_engine("abacus", tiny)


@pytest.mark.parametrize("damage", ["cut", "garbage", "absent", "tensor", "config", "tokenizer", "foreign"])
def test_damaged_checkpoints_are_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = save_tiny(tmp_path / "m", layers=1)
    shard, config = path / "model.safetensors", path / "config.json"
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "garbage":
        shard.write_bytes(b"\xff" * 4096)
    elif damage == "absent":
        shard.unlink()
    elif damage == "tensor":
        weights = load_file(shard)
        del weights["model.layers.0.mlp.up_proj.weight"]
        save_file(weights, shard, metadata={"format": "pt"})
    elif damage == "config":
        config.write_text("{")
    elif damage == "tokenizer":
        (path / "tokenizer.json").write_text("{")
    else:
        raw = json.loads(config.read_text())
        raw |= {"model_type": "unheard-of", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}
        config.write_text(json.dumps(raw))
        (path / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    with pytest.raises(CheckpointError) as caught:
        TorchEngine.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_weights_that_are_not_finite_are_an_error_not_text(tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "broken", layers=1)
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match="variant broken: .*not finite"):
        TorchEngine.load(path).generate_batch([Request("r", (5, 6), 4)])


def test_importing_the_engines_imports_no_torch() -> None:
    code = "import sys, harness.engines; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x",
            "System",
        ),
        ("{{ messages[0]['role'] | nothing }}", "nothing"),
        ("{% for m in messages %}{{ m['role']", "TemplateSyntaxError"),
        ("{{ messages[9]['role']['x'] }}", "UndefinedError"),
        ("{{ messages[0]['content'] + 1 }}", "TypeError"),
    ],
)
def test_a_chat_template_that_fails_is_an_error_and_drops_no_message(tmp_path: Path, template: str, words: str) -> None:
    """lm-eval leaves the system message out and goes on; an answer to another prompt is no answer."""
    engine = TorchEngine.load(save_tiny(tmp_path / "mine"))
    engine.tokenizer.chat_template = template
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "stop now"}]
    with pytest.raises(
        ConfigError, match="variant mine: its chat template fails on messages of system, user"
    ) as caught:
        engine.encode(chat=messages)
    assert words in str(caught.value) and "chat_template.jinja" in str(caught.value) and "\n" not in str(caught.value)
