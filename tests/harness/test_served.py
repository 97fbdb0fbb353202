"""Studies of models behind endpoints: rows, denominators, resume, a server that dies, and what the record says."""

from __future__ import annotations

import json
import runpy
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.endpoint.keys import ENVIRONMENT
from harness.errors import ConfigError, SparsebenchError
from harness.evaluate.plan import GenSettings
from harness.evaluate.suite import evaluate_suite, score_rows
from harness.journal import Journal
from harness.run import RunOptions, run_study
from harness.study import Study, parse_study
from suites.data import load_items
from suites.registry import ROOT, load_suite

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("endpoint_server.py"))))
POCKET = ROOT / "pocket" / "model"
OPTIONS = RunOptions(jobs=1, offline=True, quiet=True)
KEY = "sk-served-secret-41"


def study(base_url: str, suites: dict[str, int], **engine: Any) -> Study:
    body = {
        "name": "served",
        "variants": {"model": {"endpoint": {"model": "m"}}},
        "engine": {"name": "openai", "base_url": base_url, "tries": 2, "chunk_timeout": 20, **engine},
        "suites": {name: {"n": n} for name, n in suites.items()},
    }
    return parse_study(body, where="test")


def samples(out: Path, suite: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (out / "records" / "samples" / f"model.{suite}.jsonl").read_text().splitlines()
    ]


def right_answers(n: int) -> dict[str, str]:
    """A right answer to each gsm8k item, by its question."""
    items = load_items(load_suite("gsm8k"), "pocket", n=n)
    return {item.doc["question"]: "#### " + item.doc["answer"].split("####")[1].strip() for item in items}


def by_question(known: dict[str, str], question: str) -> str:
    return next(text for asked, text in known.items() if asked in question)


def test_faults_are_counted_and_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 items two fail, one is filtered, one is too long: all are in the denominator; the two are asked again."""
    known = right_answers(12)
    odd = dict(zip(list(known)[:4], ("broken", "garbage", "filtered", "long"), strict=True))
    well = threading.Event()

    def behave(number: int, sent: Any) -> Any:
        fault = next((kind for asked, kind in odd.items() if asked in sent.question), None)
        if fault == "filtered":
            return kit.answer(sent, "some", finish="content_filter")
        if fault == "long":
            return kit.json_body(400, {"error": {"code": "context_length_exceeded", "message": "too long"}})
        if fault == "broken" and not well.is_set():
            return kit.broken_stream(sent, "#### 1")
        if fault == "garbage" and not well.is_set():
            return kit.raw_body(b'{"choices": [{', "application/json")
        return kit.answer(sent, by_question(known, sent.question))

    out = tmp_path / "out"
    monkeypatch.setenv("SERVED_KEY", KEY)
    with kit.EndpointServer(behave) as server:
        monkeypatch.setenv(ENVIRONMENT, f"{server.origin}=SERVED_KEY")
        planned = study(server.base_url, {"gsm8k": 12})
        first = run_study(planned, out, OPTIONS).summary.variants[0].suites["gsm8k"]
        assert (first.n, first.n_total, first.n_error, first.n_truncated_input) == (12, 12, 2, 1)
        assert first.n_refused == 1 and first.value == pytest.approx(8 / 12)
        rows = samples(out, "gsm8k")
        assert Counter(row["status"] for row in rows) == {"ok": 8, "error": 2, "refused": 1, "truncated_input": 1}
        reasons = [row["error"] for row in rows if row["status"] == "error"]
        assert all("after 2 tries" in reason for reason in reasons) and "not whole JSON" in str(reasons)
        assert {row["n_out"][0] for row in rows if row["status"] == "ok"} == {3}
        assert {row["n_out"][0] for row in rows if row["status"] != "ok"} == {None}

        before = len(server.requests)
        well.set()
        again = run_study(planned, out, OPTIONS)
        assert again.did and len(server.requests) == before + 2, "only the failed ones are asked again"
        healed = again.summary.variants[0].suites["gsm8k"]
        assert (healed.n, healed.n_error, healed.value) == (12, 0, pytest.approx(10 / 12))
        assert not run_study(planned, out, OPTIONS).did and len(server.requests) == before + 2
        # Another pace is the same run.
        calm = study(server.base_url, {"gsm8k": 12}, concurrency=1, requests_per_minute=600, tries=5)
        assert not run_study(calm, out, OPTIONS).did
        assert all(sent.headers["authorization"] == f"Bearer {KEY}" for sent in server.requests)
    for path in out.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    events = [event.detail for event in again.summary.variants[0].events if event.kind == "endpoint"]
    assert any("chat template, tokenizer and batching are the server's; answers by: served-1" in e for e in events)
    text = (out / "summary.json").read_text() + (out / "leaderboard.md").read_text()
    assert "127.0.0.1" not in text, "a record names no machine"


def test_a_server_that_dies_is_one_message_and_the_rest_is_done_later(tmp_path: Path) -> None:
    known = right_answers(20)
    out = tmp_path / "out"
    server = kit.EndpointServer(lambda k, sent: kit.answer(sent, by_question(known, sent.question)))
    normal = server.behave

    def dying(number: int, sent: Any) -> Any:
        if number == 7:
            threading.Thread(target=server.stop).start()
        return normal(number, sent) if number < 7 else kit.hang(0.01)

    server.behave = dying
    with server:
        port = server.port
        planned = study(server.base_url, {"gsm8k": 20}, concurrency=2)
        with pytest.raises(SparsebenchError, match="nobody answers at .*finished rows are kept") as caught:
            run_study(planned, out, OPTIONS)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    kept = (out / "journal" / "model.gsm8k.jsonl").read_text().splitlines()[1:]
    done = {json.loads(line)["item_id"] for line in kept if json.loads(line)["status"] == "ok"}
    assert 5 <= len(done) <= 7
    with kit.EndpointServer(normal, port=port) as again:
        result = run_study(planned, out, OPTIONS).summary.variants[0].suites["gsm8k"]
        assert len(again.requests) == 20 - len(done), "finished rows are not asked again"
    assert (result.n, result.n_total, result.n_error, result.value) == (20, 20, 0, 1.0)


def test_conversations_have_two_turns_and_end_where_one_fails(tmp_path: Path) -> None:
    items = load_items(load_suite("chat"), "pocket", n=40)
    two = [item for item in items if len(item.doc["turns"]) > 1]
    assert two, "some conversations have two turns"
    cursed, well = two[0].doc["turns"][0], threading.Event()

    def behave(number: int, sent: Any) -> Any:
        if sent.body["messages"][0]["content"] == cursed and not well.is_set():
            return kit.json_body(500, {"error": "no"})
        return kit.answer(sent, f"turn {len(sent.body['messages']) // 2}")

    with kit.EndpointServer(behave) as server:
        planned = study(server.base_url, {"chat": 40})
        run_study(planned, tmp_path / "out", OPTIONS)
        rows = {row["item_id"]: row for row in samples(tmp_path / "out", "chat")}
        asked = list(server.requests)
        well.set()
        run_study(planned, tmp_path / "out", OPTIONS)
        healed = {row["item_id"]: row for row in samples(tmp_path / "out", "chat")}
        assert [len(sent.body["messages"]) for sent in server.requests[len(asked) :]] == [1, 3], "both turns, once"
        assert healed.pop(two[0].item_id)["outputs"] == ["turn 0", "turn 1"]
        assert healed == {name: row for name, row in rows.items() if name != two[0].item_id}
    assert len(rows) == 40
    for item in items:
        row, turns = rows[item.item_id], len(item.doc["turns"])
        assert len(row["outputs"]) == turns
        if item.doc["turns"][0] == cursed:
            assert row["status"] == "error" and row["outputs"] == [""] * turns
        else:
            assert row["outputs"] == [f"turn {turn}" for turn in range(turns)]
    later = [sent.body["messages"] for sent in asked if len(sent.body["messages"]) > 1]
    assert len(later) == sum(len(i.doc["turns"]) - 1 for i in two if i.doc["turns"][0] != cursed)
    assert all([m["role"] for m in messages] == ["user", "assistant", "user"] for messages in later)
    assert all(messages[1]["content"] == "turn 0" for messages in later)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "torch"}, "set `engine: {name: openai}`"),
        ({"engine": "openai"}, "give `base_url` in its endpoint or in `engine`"),
        ({"engine": {"name": "openai", "base_url": "nowhere"}}, "is no base URL"),
        ({"engine": {"name": "openai", "key": "x"}}, "engine.key: unknown key; allowed: name, api, base_url"),
        ({"engine": {"name": "openai", "concurrency": 0}}, "engine.concurrency"),
        ({"variants": {"a": {"endpoint": {"model": "m"}}, "b": {"path": "pocket"}}}, "run the others in a study"),
        ({"variants": {"a": {"endpoint": {"model": "m"}, "path": "pocket"}}}, "give either `from`"),
        ({"variants": {"a": {"endpoint": {"model": "m"}, "recipe": "int8"}}}, "takes no recipe"),
        ({"speed": [{"workload": "decode"}]}, "sparsebench bench serve"),
    ],
)
def test_what_a_study_of_endpoints_may_not_say(changes: dict[str, Any], words: str) -> None:
    body = {
        "name": "s",
        "variants": {"a": {"endpoint": {"model": "m"}}},
        "engine": {"name": "openai", "base_url": "http://127.0.0.1:1/v1"},
        **changes,
    }
    with pytest.raises(ConfigError) as caught:
        parse_study(body, where="test")
    assert words in str(caught.value)


def test_eval_from_the_command_line(tmp_path: Path) -> None:
    from harness.cli import app

    known = right_answers(5)
    with kit.EndpointServer(lambda k, sent: kit.answer(sent, by_question(known, sent.question))) as server:
        command = ["eval", "openai:some/model", "--suite", "gsm8k", "-n", "5", "-q", "--out", str(tmp_path / "out")]
        command += ["--requests-per-minute", "6000"]
        refused = CliRunner().invoke(app, command)
        assert isinstance(refused.exception, ConfigError) and "needs --base-url" in str(refused.exception)
        done = CliRunner().invoke(app, [*command, "--base-url", server.base_url])
        assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["variants"][0]["base"] == "some/model" and summary["variants"][0]["suites"]["gsm8k"]["value"] == 1.0
    assert {sent.body["model"] for sent in server.requests} == {"some/model"}
    assert '"requests_per_minute": 6000' in (tmp_path / "out" / "study.json").read_text()
    wrong = CliRunner().invoke(app, ["eval", "pocket", "--suite", "gsm8k", "--out", "x", "--base-url", "http://h/v1"])
    assert isinstance(wrong.exception, ConfigError) and "openai:pocket" in str(wrong.exception)


def test_dry_run_sends_nothing() -> None:
    from harness.dry_run import plan_text

    with kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as server:
        text = plan_text(study(server.base_url, {"gsm8k": 5}), Path("nowhere"), OPTIONS)
    assert "served" in text and "5 requests in all" in text and not server.requests


def test_choices_are_weighed_as_by_engine_torch(tmp_path: Path) -> None:
    """A server that echoes log-probabilities of the pocket model: the same likelihoods as the engine that serves it."""
    if not (POCKET / "config.json").is_file():
        pytest.skip("the pocket model is not in this checkout (suites/pocket/model)")
    from harness.engines.openai import EndpointOptions, OpenAIEngine
    from harness.engines.torch import TorchEngine

    engine = TorchEngine.load(POCKET, device="cpu", dtype="float32")
    lock = threading.Lock()

    def behave(number: int, sent: Any) -> Any:
        assert sent.body["echo"] is True and "stream" not in sent.body
        with lock:  # torch serves one request at a time
            ids = engine.encode(sent.body["prompt"])
            tokens = [engine.tokenizer.decode([i]) for i in ids]
            each = [engine.loglikelihoods([(ids[:at], [ids[at]])])[0][0] for at in range(1, len(ids))]
        logprobs = {"tokens": [*tokens, "!"], "token_logprobs": [None, *each, -1.0]}
        choice = {"text": sent.body["prompt"] + "!", "logprobs": logprobs, "finish_reason": "length"}
        return kit.json_body(200, {"choices": [choice]})

    suite = load_suite("piqa")
    assert suite.full is not None and suite.full.local is not None
    path = tmp_path / suite.full.local.path
    path.parent.mkdir()
    rows = [
        {"goal": f"Count {i} cups.", "sol1": f"say {i} é", "sol2": "eat them all", "label": i % 2} for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load_items(suite, "0shot", data_dir=tmp_path)
    found = {}
    with kit.EndpointServer(behave) as server:
        served = OpenAIEngine(EndpointOptions(base_url=server.base_url, model="m", tries=1))
        for name, runs in {"served": served, "torch": engine}.items():
            with Journal(tmp_path / f"{name}.jsonl", {}) as journal:
                found[name] = evaluate_suite(
                    runs, suite, items, preset="0shot", journal=journal, settings=GenSettings(batch_size=1)
                )
        asked = len(server.requests)
        with Journal(tmp_path / "served.jsonl", {}) as journal:
            evaluate_suite(served, suite, items, preset="0shot", journal=journal, settings=GenSettings(batch_size=1))
        assert len(server.requests) == asked == 8, "weighed rows are not asked again"
    for mine, theirs in zip(found["served"], found["torch"], strict=True):
        assert mine.n_out == theirs.n_out
        for a, b in zip(mine.outputs, theirs.outputs, strict=True):
            assert float(a.split(" ", 1)[0]) == pytest.approx(float(b.split(" ", 1)[0]), abs=2e-4)
            assert a.split(" ", 1)[1] == b.split(" ", 1)[1]
    assert score_rows(suite, items, found["served"]) == score_rows(suite, items, found["torch"])


def test_error_rows_of_a_journal_give_way(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    with Journal(path, {}) as journal:
        journal.append([{"request_id": "a", "status": "error"}, {"request_id": "b", "status": "ok"}])
        assert "a" not in journal and "b" in journal and len(journal) == 2
        journal.append([{"request_id": "a", "status": "error", "n": 2}])
        with pytest.raises(ValueError, match="there already"):
            journal.append([{"request_id": "b", "status": "ok"}])
    with Journal(path, {}) as journal:
        assert journal.rows["a"] == {"request_id": "a", "status": "error", "n": 2}
        journal.append([{"request_id": "a", "status": "ok"}])
        assert "a" in journal
    with Journal(path, {}) as journal:
        assert journal.rows["a"]["status"] == "ok" and len(journal) == 2
