"""Pretraining: packed mixtures in proportion, attention within documents, resume in the middle of a document."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from sparsify.blocks import load_tokenizer
from sparsify.dataset import collect_python
from sparsify.errors import RecipeError, SparsifyError
from sparsify.masks import load_masks
from sparsify.recipe import load_recipe, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.train import TrainJob, train
from sparsify.train.batches import Batch, split
from sparsify.train.documents import FileDocuments, Side, StreamDocuments, encode_document
from sparsify.train.hooks import Single
from sparsify.train.mixture import MixtureData, Packer
from sparsify.train.objective import Objective
from sparsify.train.settings import MixtureSource, PretrainSettings, TrainSettings


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path):  # type: ignore[no-untyped-def]
    return load_tokenizer(model_dir)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSONL of plain text, of many lengths."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    with path.open("w") as stream:
        for number in range(60):
            text = f"{number}: " + " ".join(rng.choices(["cat", "dog", "a tree", "naïve"], k=rng.randint(1, 40)))
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    for number in range(12):
        (root / f"m{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 6)
    (root / "copy.py").write_text((root / "m1.py").read_text())
    (root / "broken.py").write_text("def f(:\n")
    return collect_python(f"python:{root}", tmp_path_factory.mktemp("cache"))


def settings(**changes: object) -> PretrainSettings:
    base: dict[str, object] = {
        "mixture": [{"source": "texts", "share": 3}, {"source": "python", "share": 1}],
        "tokens": 3000,
        "batch_tokens": 128,
        "seq": 32,
        "lr": 1e-2,
        "warmup": 2,
    }
    return PretrainSettings.model_validate({**base, **changes})


def test_python_source_is_collected_once_and_parsed(python: Path) -> None:
    rows = [json.loads(line) for line in python.read_text().splitlines()]
    # m1 stands for its copy too: `copy.py` comes first by name.
    assert [row["path"] for row in rows] == ["copy.py", *(f"m{n}.py" for n in (0, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9))]
    with pytest.raises(SparsifyError, match="is not a directory"):
        collect_python("python:/nowhere", python.parent)


def test_windows_hold_every_token_of_every_document_once(texts: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    documents, packer = (FileDocuments(texts, tokenizer, 3, Side()) for _ in range(2))
    whole: list[int] = []
    starts: set[int] = set()
    while documents.position()["at"] < 60:
        starts.add(len(whole))
        whole += documents.next()
    packed = Packer(packer, 32)
    windows = [packed.next() for _ in range(len(whole) // 32)]
    assert [token for window in windows for token in window.ids] == whole[: 32 * len(windows)]
    begins = {32 * i + j for i, window in enumerate(windows) for j, at in enumerate(window.positions) if at == 0}
    assert begins == {at for at in starts if at < 32 * len(windows)} | {32 * i for i in range(len(windows))}
    texts_back = tokenizer.decode(whole).split("<|eos|>")
    assert sorted(texts_back[:-1]) == sorted(json.loads(line)["text"] for line in texts.read_text().splitlines())


def test_each_epoch_has_another_order(texts: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    documents = FileDocuments(texts, tokenizer, 0, Side())
    first, second = ([tuple(documents.next()) for _ in range(60)] for _ in range(2))
    assert sorted(first) == sorted(second) and first != second


def test_sources_keep_their_shares_at_every_point(texts: Path, python: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    data = MixtureData([texts, python], tokenizer, settings())
    for step in range(1, 12):
        batch = data.next()
        assert batch.ids.shape == (4, 32) and bool(batch.real.all())
        drawn = [part["tokens"] / 32 for part in data.used()]
        assert abs(drawn[0] - 0.75 * 4 * step) < 1 and sum(drawn) == 4 * step
    assert data.steps == -(-3000 // 128)


@pytest.mark.parametrize("moment", [0, 1, 5, 17])
def test_the_position_is_found_again_within_a_document(
    moment: int,
    texts: Path,
    python: Path,
    tokenizer,  # type: ignore[no-untyped-def]
) -> None:
    whole, later = (MixtureData([texts, python], tokenizer, settings()) for _ in range(2))
    for _ in range(moment):
        whole.next()
    later.seek(json.loads(json.dumps(whole.position())))
    for _ in range(12):
        a, b = whole.next(), later.next()
        assert torch.equal(a.ids, b.ids) and torch.equal(a.target, b.target)
    assert whole.used() == later.used()


def test_rows_of_prompts_and_chats_are_documents_too(corpus: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    documents = FileDocuments(corpus, tokenizer, 0, Side())
    said = {tokenizer.decode(documents.next()) for _ in range(24)}
    assert any(text.startswith("<|user|>") for text in said) and any(text.endswith("<|eos|>") for text in said)


def test_plain_text_is_cut_at_line_ends(tmp_path: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "book.txt"
    path.write_text("a line of a book\n" * 9000)
    documents = FileDocuments(path, tokenizer, 0, Side())
    pieces = [documents.next() for _ in range(3)]
    assert documents.position() == {"epoch": 0, "at": 3}
    assert "".join(tokenizer.decode(piece[:-1]) for piece in pieces) == path.read_text()
    assert encode_document("x", tokenizer)[-1] == tokenizer.eos_token_id


def model_of(model_dir: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


def test_a_packed_document_is_computed_as_if_it_were_alone(model_dir: Path) -> None:
    """Loss and gradients of two documents in one window are those of the two apart."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randint(4, 300, (n,), generator=generator) for n in (11, 21)]
    positions = torch.cat([torch.arange(11), torch.arange(21)])[None]
    packed = Batch(torch.cat(parts)[None], torch.ones(1, 32, dtype=torch.bool), positions > 0, positions)
    model = model_of(model_dir)
    objective = Objective(model, None, settings(), Single())
    loss = objective(packed, objective.counts([packed])).total
    loss.backward()
    found = {name: param.grad.clone() for name, param in model.named_parameters()}
    model.zero_grad()
    total = torch.zeros(())
    for ids in parts:
        logits = model(input_ids=ids[None]).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")
    total = total / 30
    total.backward()
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    for name, param in model.named_parameters():
        torch.testing.assert_close(found[name], param.grad, rtol=1e-3, atol=1e-5)


def test_causal_attention_sees_the_document_before(model_dir: Path, texts: Path, python: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    batch = MixtureData([texts, python], tokenizer, settings(attention="causal")).next()
    assert batch.positions is None and bool(batch.target.all())


@pytest.mark.parametrize("changes", [{"checkpoint_activations": True}, {"accumulate": 2}, {"accumulate": 4}])
def test_saving_memory_changes_no_gradient(
    changes: dict[str, object], model_dir: Path, texts: Path, python: Path
) -> None:
    """Activation checkpointing and micro-batches give the gradients of the whole batch."""
    chosen = settings(losses={"ce": 1.0, "kl": 0.5}, **changes)
    data = MixtureData([texts, python], load_tokenizer(model_dir), chosen)
    batch = data.next()
    teacher = model_of(model_dir).eval().requires_grad_(False)
    with torch.no_grad():
        for param in teacher.parameters():
            param.add_(0.02 * torch.randn(param.shape, generator=torch.Generator().manual_seed(1)))
    found = []
    for used in (settings(losses={"ce": 1.0, "kl": 0.5}), chosen):
        model = model_of(model_dir)
        if used.checkpoint_activations:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
        objective = Objective(model, teacher, used, Single())
        parts = split(batch, used.accumulate)
        counts = objective.counts(parts)
        for part in parts:
            objective(part, counts).total.backward()
        found.append({name: param.grad for name, param in model.named_parameters()})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-3, atol=2e-6)


def test_micro_batches_of_rows_lose_no_token() -> None:
    real = torch.arange(12)[None] < torch.tensor([[3], [12], [7], [5], [1]])
    batch = Batch(torch.randint(9, (5, 12)), real, real)
    for parts in (1, 2, 3, 5, 9):
        cut = split(batch, parts)
        assert sum(int(part.real.sum()) for part in cut) == int(real.sum())
        assert len(cut) == min(parts, 5)


def test_bf16_autocast_keeps_float32_weights(model_dir: Path, texts: Path, python: Path, tmp_path: Path) -> None:
    job = TrainJob(model_dir, tmp_path / "o", tmp_path / "w", [texts, python])
    half = train(job, settings(precision="bf16", tokens=600))
    exact = train(TrainJob(model_dir, tmp_path / "p", tmp_path / "w", [texts, python]), settings(tokens=600))
    assert half.losses["ce"] == pytest.approx(exact.losses["ce"], rel=0.02) and half.losses != exact.losses


def test_too_little_text_is_one_clear_error(tmp_path: Path, texts: Path, model_dir: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "a cat"}\n')
    with pytest.raises(SparsifyError, match=r"python has \d+ tokens, less than its part of one batch \(32\)"):
        MixtureData([texts, few], tokenizer, settings())
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(SparsifyError, match="is empty"):
        FileDocuments(empty, tokenizer, 0, Side())
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"words": "a"}\n')
    with pytest.raises(SparsifyError, match="byte 0: a row needs `text`"):
        FileDocuments(wrong, tokenizer, 0, Side()).next()
    with pytest.raises(SparsifyError, match="less than one batch of 1000000; lower batch_tokens"):
        job = TrainJob(model_dir, tmp_path / "o", tmp_path / "w", [tmp_path / "rows.jsonl"])
        (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
        train(job, TrainSettings(tokens=10, batch_tokens=1000000, lr=1e-3))


def test_a_streamed_data_set_goes_on_where_it_was(tmp_path: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "set"
    folder.mkdir()
    for shard in range(3):
        rows = [{"id": f"{shard}-{n}", "content": f"row {shard} {n} of the set"} for n in range(7)]
        (folder / f"train-{shard}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = MixtureSource(source=f"hub:{folder}", share=1, stream=True)
    documents = StreamDocuments(source, tokenizer, Side())
    read = [documents.next() for _ in range(9)]
    where = json.loads(json.dumps(documents.position()))
    rest = [documents.next() for _ in range(20)]
    later = StreamDocuments(source, tokenizer, Side())
    later.seek(where)
    assert [later.next() for _ in range(20)] == rest
    assert len({tuple(ids) for ids in read + rest[:12]}) == 21 and documents.position()["epoch"] == 1
    with pytest.raises(SparsifyError, match="cannot be streamed"):
        StreamDocuments(MixtureSource(source="hub:no/such", share=1, stream=True), tokenizer, Side())


def test_the_papers_schedule_keeps_the_old_zeros(model_dir: Path, corpus: Path, texts: Path, tmp_path: Path) -> None:
    """50 %, pretraining, 70 %, pretraining: zeros only grow, and hold."""
    shipped = load_recipe("sparse70-pretrained")
    assert [stage.kind for stage in shipped.stages] == ["prune", "pretrain", "prune", "pretrain"]
    small = {"mixture": [{"source": "texts", "share": 2}, {"source": "rows", "share": 1}], "tokens": 500, "seq": 32}
    text = {"source": "rows", "samples": 12, "seq": 16}
    prune = {"method": "sparsegpt", "block_size": 16, "calibration": text}
    stages = [
        {"prune": {**prune, "sparsity": 0.5}},
        {"pretrain": {**small, "batch_tokens": 96, "lr": 1e-2}},
        {"prune": {**prune, "sparsity": 0.7}},
        {"pretrain": {**small, "batch_tokens": 96, "lr": 1e-2}},
    ]
    recipe = parse_recipe({"stages": stages}, name="paper", where="test")
    assert recipe.sources == ("rows", "texts")
    files = {"rows": corpus, "texts": texts}
    options = MakeOptions(store=tmp_path / "s", name="v", base="tiny", resolve_corpus=lambda name: files[name])
    info = make_variant(model_dir, recipe, tmp_path / "v", options=options)
    early = load_masks(tmp_path / "s" / info.stages[1]["key"])
    late = load_masks(tmp_path / "v")
    assert len(late) == 21 and info.masks is not None and info.masks.revived == 0
    assert all(not bool((late[name] & ~early[name]).any()) for name in late)
    assert info.sparsity.linears == pytest.approx(0.7, abs=1e-3)
    assert [(entry.source, entry.tokens) for entry in info.corpora] == 2 * [("texts", 384), ("rows", 192)]
    assert (tmp_path / "s" / info.stages[1]["key"] / "curves.jsonl").is_file()


def test_wrong_mixtures_are_refused() -> None:
    def recipe(**changes: object) -> None:
        stage = {"mixture": [{"source": "a", "share": 1}], "tokens": 10, "lr": 0.1, **changes}
        parse_recipe({"stages": [{"pretrain": stage}]}, name="r", where="r.yaml")

    with pytest.raises(RecipeError, match=r"unknown key 'weight' in stages\[0\].pretrain.mixture; allowed: column"):
        recipe(mixture=[{"source": "a", "weight": 1}])
    with pytest.raises(RecipeError, match="only hub data sets are streamed"):
        recipe(mixture=[{"source": "a", "share": 1, "stream": True}])
    with pytest.raises(RecipeError, match="less than one sequence of 512"):
        recipe(batch_tokens=256)
    with pytest.raises(RecipeError, match="need a teacher"):
        recipe(losses={"squarehead": 1})
