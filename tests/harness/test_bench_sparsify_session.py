"""The sparsification benchmark: its course on a tiny model with stub workers, and the text model."""

from __future__ import annotations

import ast
import json
import runpy
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.bench.sparsify import peer_worker
from harness.bench.sparsify.arms import Arm, peer_steps
from harness.bench.sparsify.journal import Journal
from harness.bench.sparsify.session import Session
from harness.bench.sparsify.subjects import EvaluationText, Settings, Subject, calibration_windows
from harness.bench.sparsify.text_corpus import HELD_OUT_EVERY, documents
from harness.bench.sparsify.text_model import TextModel, make_text_model
from harness.bench.sparsify.windows import window_rows
from harness.bench.sparsify.workers import Worker, make_peer_environment, parse_answer
from harness.corpus import write_rows
from harness.errors import ConfigError, CorruptRecordError, InfrastructureError

shared = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sparsify_bench.py"))))
SMALL, text, model_dir, load, tokenizer_of = (
    shared.SMALL,
    shared.text,
    shared.model_dir,
    shared.load,
    shared.tokenizer_of,
)

# Workers


def echo_worker(tmp_path: Path, body: str) -> Worker:
    script = tmp_path / "worker.py"
    script.write_text("import json, sys\nprint(json.dumps({'ready': {'x': '1'}}), flush=True)\n" + body)
    return Worker([sys.executable, str(script)], log=tmp_path / "log")


def test_a_worker_answers_line_by_line(tmp_path: Path) -> None:
    body = "for line in sys.stdin: print(json.dumps({'got': json.loads(line)['n']}), flush=True)\n"
    with echo_worker(tmp_path, body) as worker:
        assert worker.versions == {}, "it starts with the first request"
        assert [worker.ask({"n": n}) for n in (1, 2)] == [{"got": 1}, {"got": 2}]
        assert worker.versions == {"x": "1"}


def test_a_worker_that_dies_or_talks_nonsense_is_said_so(tmp_path: Path) -> None:
    with (
        echo_worker(tmp_path, "sys.stdin.readline(); sys.exit(7)\n") as worker,
        pytest.raises(InfrastructureError, match="code 7"),
    ):
        worker.ask({})
    for nonsense in ("Traceback\n", "[1]\n"):
        with pytest.raises(InfrastructureError, match="no JSON object"):
            parse_answer(nonsense)


def test_the_peer_worker_imports_nothing_of_ours() -> None:
    source = Path(peer_worker.__file__).read_text()
    named = [node for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in named}
    assert {str(name).partition(".")[0] for name in names} <= set(sys.stdlib_module_names)
    assert not {"harness", "suites"} & {w for w in source.replace(".", " ").split() if w in ("harness", "suites")}


def test_steps_become_the_peers_modifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    def recorder(name: str) -> Any:
        return lambda **given: (name, given)

    for module, names in {
        "llmcompressor": (),
        "llmcompressor.modifiers": (),
        "llmcompressor.modifiers.gptq": ("GPTQModifier",),
        "llmcompressor.modifiers.pruning": ("SparseGPTModifier", "WandaPruningModifier"),
        "llmcompressor.modifiers.quantization": ("QuantizationModifier",),
    }.items():
        stub = types.ModuleType(module)
        for name in names:
            setattr(stub, name, recorder(name))
        monkeypatch.setitem(sys.modules, module, stub)
    made = peer_worker.modifiers(peer_steps(Arm("sparsegpt", "2:4", quantize="w8a8-gptq", peer=True)))
    assert [name for name, _ in made] == ["SparseGPTModifier", "GPTQModifier"]
    assert made[0][1] == {"sparsity": 0.5, "mask_structure": "2:4", "targets": ["Linear"], "ignore": ["re:.*lm_head"]}
    (wanda,) = peer_worker.modifiers(peer_steps(Arm("wanda", "70", peer=True)))
    assert wanda[0] == "WandaPruningModifier" and wanda[1]["mask_structure"] == "0:0"
    with pytest.raises(ValueError, match="unknown step"):
        peer_worker.modifiers([{"kind": "owl"}])


def test_a_folder_that_is_no_environment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="no virtual environment"):
        make_peer_environment(tmp_path)


# Journal and session


def test_the_journal_forgets_only_a_line_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.add({"kind": "arm", "arm": "a", "n": 1})
    journal.add({"kind": "arm", "arm": "a", "n": 2})
    with path.open("a") as stream:
        stream.write('{"kind": "ar')
    again = Journal(path)
    assert again.find(arm="a") == {"kind": "arm", "arm": "a", "n": 2} and again.find(arm="b") is None
    again.add({"arm": "b"})
    assert [entry.get("arm") for entry in Journal(path).lines] == ["a", "a", "b"]
    path.write_text('{"a": 1}\n{"b"\n{"c": 1}\n')
    with pytest.raises(CorruptRecordError, match=":2 is damaged"):
        Journal(path)


class InProcess:
    """A worker of ours without its process; counts what it was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.versions = {"torch": "here"}
        self.asked: list[dict[str, Any]] = []
        self.failing = ""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        from harness.bench.sparsify.our_worker import run

        self.asked.append(request)
        if self.failing and self.failing in json.dumps(request["recipe"]):
            return {"error": "SparsifyError: no"}
        return run(request, 0)


def session(model_dir: Path, work: Path, worker: InProcess, opened: list[str]) -> Session:
    tokenizer = tokenizer_of(model_dir)
    rows = list(window_rows([text(3)], tokenizer, SMALL.seq, "m"))
    write_rows(work / "probe.jsonl", iter(rows[:4]))
    write_rows(work / "calibration.jsonl", iter(rows[4:]))

    def read() -> str:
        opened.append("opened")
        return text(9)

    evaluation = EvaluationText("t", read, tokenizer, SMALL)
    subject = Subject(
        "m", model_dir, tokenizer, work / "calibration.jsonl", work / "probe.jsonl", (evaluation,), "text"
    )
    return Session(subject, SMALL, Journal(work / "arms.jsonl"), work, worker, None, True)  # type: ignore[arg-type]


ARMS = (Arm("magnitude", "50"), Arm("sparsegpt", "2:4"), Arm("sparsegpt", "2:4", peer=True))


def test_a_run_measures_every_arm_once(model_dir: Path, tmp_path: Path) -> None:
    worker, opened = InProcess(), []  # type: tuple[InProcess, list[str]]
    session(model_dir, tmp_path, worker, opened).run(ARMS, (0, 1))
    lines = Journal(tmp_path / "arms.jsonl").lines
    made = [(entry["arm"], entry["seed"]) for entry in lines if entry["kind"] == "arm"]
    assert made == [("sparsegpt@2:4", 0), ("sparsegpt@2:4", 1), ("magnitude@50", 0)], "magnitude has no seed"
    assert len(worker.asked) == 3 + 3, "and one timed arm in two rounds after one that does not count"
    assert len(lines) == 5 and len(lines[3]["times"]["sparsegpt@2:4"]) == 2
    pruned = lines[1]
    assert pruned["zeros"]["share"] == 0.5 and pruned["zeros"]["broken"] == pruned["zeros"]["revived"] == 0
    assert pruned["perplexity"]["t"] > 1 and 0 < pruned["linear_error"] < 1 and len(pruned["variant_sha256"]) == 64
    assert pruned["variant_sha256"] != lines[2]["variant_sha256"], "another seed, another calibration text"
    asked = len(worker.asked)
    session(model_dir, tmp_path, worker, opened).run(ARMS, (0, 1))
    assert len(worker.asked) == asked and Journal(tmp_path / "arms.jsonl").lines == lines, "nothing runs twice"


def test_a_variant_whose_embedding_changed_does_not_count(model_dir: Path, tmp_path: Path) -> None:
    running = session(model_dir, tmp_path, InProcess(), [])
    model = load(model_dir)
    assert running.errors.changed_others(model) == []
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 5] += 1
    assert running.errors.changed_others(model) == ["model.embed_tokens.weight"]


def test_a_failed_arm_is_recorded_and_tried_again(model_dir: Path, tmp_path: Path) -> None:
    worker = InProcess()
    worker.failing = '"magnitude"'
    assert "no" in session(model_dir, tmp_path, worker, []).arm(ARMS[0], 0)["error"]
    worker.failing = ""
    assert "error" not in session(model_dir, tmp_path, worker, []).arm(ARMS[0], 0)
    session(model_dir, tmp_path, worker, []).arm(ARMS[0], 0)
    assert len(worker.asked) == 2


def test_both_sides_get_the_same_windows(model_dir: Path, tmp_path: Path) -> None:
    from sparsify.calibration import draw_sequences
    from sparsify.recipe import Calibration

    subject = session(model_dir, tmp_path, InProcess(), []).subject
    theirs = calibration_windows(subject, SMALL, 1)
    ours = draw_sequences(
        subject.calibration, subject.tokenizer, Calibration(source="calibration", samples=6, seq=24, seed=1)
    )
    assert theirs == ours and {len(window) for window in theirs} == {24}
    assert theirs != calibration_windows(subject, SMALL, 2)
    with pytest.raises(ConfigError, match="windows, not 9999"):
        calibration_windows(subject, Settings(samples=9999, seq=24), 1)


def test_evaluation_text_stays_closed_until_there_is_a_hash(model_dir: Path, tmp_path: Path) -> None:
    opened: list[str] = []
    running = session(model_dir, tmp_path, InProcess(), opened)
    (evaluation,) = running.subject.texts
    with pytest.raises(ValueError, match="hashed"):
        evaluation.windows("")
    assert not opened
    running.dense()
    assert opened == ["opened"] and evaluation.windows("ab") is evaluation.windows("cd") and opened == ["opened"]


# The text model


def fake_data(root: Path) -> Path:
    for name in ("wikitext2_raw/wiki.valid.raw", "wikipedia_demo/wiki_demo.txt", "tinyshakespeare/input.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    articles = "".join(f" = Article {n} = \n\n {text(n, 30)}\n" for n in range(14))
    (root / "wikitext2_raw/wiki.valid.raw").write_text(articles)
    (root / "wikipedia_demo/wiki_demo.txt").write_text("\n".join(text(50 + n, 30) for n in range(13)))
    (root / "tinyshakespeare/input.txt").write_text("\n\n".join(text(90 + n, 300) for n in range(20)))
    rows: dict[str, list[dict[str, str]]] = {
        "c4_demo/c4_demo.jsonl": [{"text": text(n, 30)} for n in range(13)],
        "dialogsum/dialogsum.dev.jsonl": [{"dialogue": text(n, 9), "summary": "s", "topic": "t"} for n in range(3)],
        "gsm8k/train.jsonl": [{"question": text(n, 9), "answer": "#### 1"} for n in range(3)],
        "alpaca_demo/alpaca_en_demo.json": [{"instruction": text(1, 9), "input": "", "output": "o"}],
    }
    for name, entries in rows.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        lines = json.dumps(entries) if name.endswith(".json") else "\n".join(map(json.dumps, entries))
        (root / name).write_text(lines)
    return root


def test_held_out_documents_are_not_trained_on(tmp_path: Path) -> None:
    data = fake_data(tmp_path)
    trained = {body for source, body in documents(data, held_out=False) if source.name != "stdlib"}
    held = [(source.name, body) for source, body in documents(data, held_out=True) if source.name != "stdlib"]
    assert not trained & {body for _, body in held}
    assert [body[:14] for name, body in held if name.startswith("wikitext2")] == [f"= Article {HELD_OUT_EVERY - 1} ="]
    with pytest.raises(ConfigError, match="wiki.valid.raw does not exist"):
        list(documents(tmp_path / "nowhere", held_out=True))


def test_the_text_model_trains_and_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.bench.sparsify import text_corpus, text_model

    monkeypatch.setattr(text_corpus, "SOURCES", text_corpus.SOURCES[:2])
    monkeypatch.setattr(text_model, "_SAVE_EVERY_S", 0.0)
    data = fake_data(tmp_path / "data")
    shape = TextModel(270, 32, 64, 1, 4, 2, tokens=6 * 64, seq=32, batch=2, warmup=2)
    whole = json.loads((make_text_model(data, tmp_path / "whole", shape) / "training.json").read_text())
    step = text_model._Training._take_step
    monkeypatch.setattr(text_model._Training, "_take_step", lambda self: step(self) if self.step < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_text_model(data, tmp_path / "stopped", shape)
    monkeypatch.setattr(text_model._Training, "_take_step", step)
    stopped = json.loads((make_text_model(data, tmp_path / "stopped", shape) / "training.json").read_text())
    assert stopped["model_sha256"] == whole["model_sha256"] and whole["tokens"] == 6 * 64
