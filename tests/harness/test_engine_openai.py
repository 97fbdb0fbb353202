"""Engine openai against a real local server with scripted faults: each leads to the promised row or error."""

from __future__ import annotations

import json
import runpy
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.endpoint.keys import Secret
from harness.engines.base import TextAnswer, TextEngine, TextRequest
from harness.engines.openai import EndpointOptions, OpenAIEngine
from harness.engines.openai.failures import failure_of
from harness.engines.openai.logprobs import continuation_logprob, token_starts
from harness.engines.openai.reply import ReplyReader
from harness.engines.openai.session import IN_A_ROW
from harness.errors import ConfigError, EngineError

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("endpoint_server.py"))))
EndpointServer, answer, json_body, raw_body = kit.EndpointServer, kit.answer, kit.json_body, kit.raw_body
Sent = Handler = Behaviour = Any

CHAT = ({"role": "user", "content": "hello"},)


def options(url: str, **changes: Any) -> EndpointOptions:
    patient: dict[str, Any] = {"tries": 3, "first_wait": 0.01, "chunk_timeout": 5.0, "total_timeout": 10.0}
    return EndpointOptions(base_url=url, model="m", **{**patient, **changes})


def request(name: str = "r", prompt: Any = CHAT, **changes: Any) -> TextRequest:
    return TextRequest(name, prompt, changes.pop("max_new_tokens", 16), **changes)


def complete(engine: OpenAIEngine, *requests: TextRequest) -> dict[str, TextAnswer]:
    found: list[TextAnswer] = []
    engine.complete(requests or (request(),), done=found.append)
    assert len({each.request_id for each in found}) == len(found), "each request is answered once"
    return {each.request_id: each for each in found}


def one(behave: Callable[[int, Sent], Behaviour], **changes: Any) -> tuple[TextAnswer, Any, OpenAIEngine]:
    with EndpointServer(behave) as server:
        engine = OpenAIEngine(options(server.base_url, **changes))
        return complete(engine)["r"], server, engine


def test_it_is_a_text_engine() -> None:
    assert isinstance(OpenAIEngine(options("http://127.0.0.1:1/v1")), TextEngine)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("prompt", "path"), [(CHAT, "/v1/chat/completions"), ("2 + 2 =", "/v1/completions")])
def test_an_answer_of_each_form(stream: bool, prompt: Any, path: str) -> None:
    with EndpointServer(lambda k, sent: answer(sent, "four é\U0001f600")) as server:
        found = complete(OpenAIEngine(options(server.base_url, stream=stream)), request(prompt=prompt))["r"]
    (sent,) = server.requests
    assert (found.text, found.finish, found.n_in, found.n_out, found.error) == ("four é\U0001f600", "stop", 7, 3, None)
    assert sent.path == path and sent.body["model"] == "m" and sent.body["temperature"] == 0
    assert sent.body.get("stream", False) is stream and sent.body["max_tokens"] == 16
    assert "seed" not in sent.body and "authorization" not in sent.headers


def test_stop_texts_are_sent_and_applied() -> None:
    stops = ("aa", "bb", "cc", "dd", "STOP")
    with EndpointServer(lambda k, sent: answer(sent, "one STOP two", finish="length")) as server:
        found = complete(OpenAIEngine(options(server.base_url)), request(stop=stops))["r"]
    assert server.requests[0].body["stop"] == list(stops[:4]), "the API takes four"
    assert (found.text, found.finish) == ("one ", "stop"), "the fifth is applied here"


def test_sampling_carries_a_seed() -> None:
    with EndpointServer(lambda k, sent: answer(sent, "x")) as server:
        complete(OpenAIEngine(options(server.base_url)), request(temperature=0.7, seed=5))
    assert (server.requests[0].body["temperature"], server.requests[0].body["seed"]) == (0.7, 5)


def test_plain_text_through_chat_is_said() -> None:
    with EndpointServer(lambda k, sent: answer(sent, "x")) as server:
        engine = OpenAIEngine(options(server.base_url, api="chat"))
        complete(engine, request(prompt="plain"))
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "plain"}]
    assert any("plain prompts were sent as the message of a user" in e["detail"] for e in engine.events)
    with pytest.raises(ConfigError, match="api completions has no chat template"):
        complete(OpenAIEngine(options("http://127.0.0.1:1/v1", api="completions")))


def test_missing_usage_is_unknown_and_said() -> None:
    found, _, engine = one(lambda k, sent: answer(sent, "x", usage=None))
    assert (found.n_in, found.n_out, found.finish) == (None, None, "stop")
    assert any("1 of 1 answers without usage" in e["detail"] for e in engine.events)
    assert any("answers by: served-1" in e["detail"] for e in engine.events)


FAULTS: dict[str, tuple[Callable[[Sent], Behaviour], str]] = {
    "500": (lambda sent: json_body(500, {"error": {"message": "boom"}}), "HTTP 500: boom"),
    "429": (lambda sent: json_body(429, {"error": "slow down"}), "HTTP 429: slow down"),
    "broken stream": (lambda sent: kit.broken_stream(sent, "half an ans"), "broke off before its finish_reason"),
    "truncated JSON": (lambda sent: raw_body(b'{"choices": [{"text": "ha'), "not whole JSON"),
    "connection cut": (lambda sent: raw_body(b'{"choices"', length=900), "the connection broke"),
    "nothing at all": (lambda sent: lambda handler: setattr(handler, "close_connection", True), "the connection broke"),
    "wrong content type": (lambda sent: raw_body(b"<html>", "text/html"), "content type 'text/html'"),
    "empty choices": (lambda sent: json_body(200, {"choices": []}), "no choices"),
    "null": (lambda sent: json_body(200, None), "no JSON object"),
    "strange choice": (lambda sent: json_body(200, {"choices": [[1]]}), "no JSON object"),
    "deep": (lambda sent: raw_body(b'{"choices":' + b"[" * 100_000), "not whole JSON"),
    "error in the stream": (
        lambda sent: raw_body(kit.event({"error": {"message": "worker died"}}), "text/event-stream"),
        "the server broke off: worker died",
    ),
    "unknown finish": (lambda sent: answer(sent, "x", finish="abort"), "finish_reason 'abort'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_costs_a_try(name: str) -> None:
    fault, reason = FAULTS[name]
    found, server, engine = one(lambda k, sent: fault(sent) if k == 0 else answer(sent, "well"))
    assert (found.text, found.finish, found.error) == ("well", "stop", None)
    assert len(server.requests) == 2
    assert any("1 further tries" in e["detail"] and reason in e["detail"] for e in engine.events), engine.events


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_is_one_error_row(name: str) -> None:
    fault, reason = FAULTS[name]
    bad = request("bad", ({"role": "user", "content": "BAD"},))
    with EndpointServer(lambda k, sent: fault(sent) if sent.question == "BAD" else answer(sent, "ok")) as server:
        found = complete(OpenAIEngine(options(server.base_url)), request("a"), bad, request("b"))
    assert {name: each.finish for name, each in found.items()} == {"a": "stop", "bad": "error", "b": "stop"}
    assert found["bad"].text == "" and reason in str(found["bad"].error) and "after 3 tries" in str(found["bad"].error)
    assert sum(sent.question == "BAD" for sent in server.requests) == 3


def test_a_hang_and_a_slow_drip_end() -> None:
    began = time.monotonic()
    found, _, _ = one(lambda k, sent: kit.hang(1.0), chunk_timeout=0.2, tries=2)
    assert found.finish == "error" and "sent nothing for 0.2 s" in str(found.error)
    found, _, _ = one(
        lambda k, sent: kit.drip(sent, every=0.05, pieces=60), total_timeout=0.4, chunk_timeout=5.0, tries=2
    )
    assert found.finish == "error" and "no whole answer within 0.4 s" in str(found.error)
    assert time.monotonic() - began < 30


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engines.openai.reply.MAX_BYTES", 2**20)
    found, _, _ = one(lambda k, sent: raw_body(b"x" * (2**20 + 1), "text/event-stream"), tries=1)
    assert "longer than 1 MiB" in str(found.error)


@pytest.mark.parametrize(
    ("status", "body", "finish"),
    [
        (400, {"error": {"message": "This model's maximum context length is 8 tokens."}}, "truncated_input"),
        (400, {"error": {"code": "context_length_exceeded", "message": "too long"}}, "truncated_input"),
        (400, {"error": {"code": "content_filter", "message": "The response was filtered"}}, "refused"),
        (400, {"detail": "messages: odd"}, "error"),
        (422, [1, 2], "error"),
        (413, {}, "error"),
    ],
)
def test_what_the_server_will_not_answer_is_not_tried_again(status: int, body: Any, finish: str) -> None:
    found, server, _ = one(lambda k, sent: json_body(status, body))
    assert (found.finish, found.text) == (finish, "") and f"HTTP {status}" in str(found.error)
    assert len(server.requests) == 1


def test_refusals_are_a_status() -> None:
    found, _, _ = one(lambda k, sent: answer(sent, "half of some", finish="content_filter"))
    assert (found.finish, found.text) == ("refused", "") and "content filter" in str(found.error)
    said = {"choices": [{"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}]}
    found, _, _ = one(lambda k, sent: json_body(200, said))
    assert (found.finish, found.error) == ("refused", "I will not")


@pytest.mark.parametrize(
    ("behave", "error", "words"),
    [
        (json_body(401, {"error": {"message": "no key"}}), ConfigError, "NAME_OF_A_VARIABLE"),
        (json_body(403, {"error": "not yours"}), ConfigError, "refuses access"),
        (json_body(404, {"error": {"message": "model m not found"}}), ConfigError, "does not know model 'm'"),
        (json_body(405, {}), ConfigError, "check base_url"),
        (json_body(302, {}, Location="http://127.0.0.1:9/"), ConfigError, "redirects elsewhere"),
        (json_body(429, {"error": {"code": "insufficient_quota"}}), EngineError, "no quota left"),
    ],
)
def test_where_no_request_can_succeed_the_first_ends_the_run(
    behave: Behaviour, error: type[Exception], words: str
) -> None:
    with EndpointServer(lambda k, sent: behave) as server:
        engine = OpenAIEngine(options(server.base_url, concurrency=1))
        with pytest.raises(error, match=words) as caught:
            complete(engine, *(request(str(i)) for i in range(9)))
    assert len(server.requests) == 1 and "\n" not in str(caught.value)


def test_nobody_there_is_one_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(EngineError, match="nobody answers at .*start the server, then run the same command again"):
        complete(OpenAIEngine(options(url)), *(request(str(i)) for i in range(20)))


def test_many_failures_in_a_row_end_the_run() -> None:
    found: list[TextAnswer] = []
    with EndpointServer(lambda k, sent: json_body(500, {"error": "out of memory"})) as server:
        engine = OpenAIEngine(options(server.base_url, tries=1, concurrency=2))
        with pytest.raises(EngineError, match=f"the last {IN_A_ROW} requests .*out of memory"):
            engine.complete([request(str(i)) for i in range(500)], done=found.append)
    assert len(server.requests) <= IN_A_ROW + 2
    assert {each.finish for each in found} == {"error"} and len(found) >= IN_A_ROW - 2


def test_concurrency_is_kept_and_rows_come_as_they_finish() -> None:
    four, others = threading.Barrier(4), threading.Event()

    def behave(number: int, sent: Sent) -> Behaviour:
        said = answer(sent, sent.question)

        def later(handler: Handler) -> None:
            if number <= 4:
                four.wait(30)  # the first four are there at once
            if sent.question == "slow":
                others.wait(30)
            said(handler)

        return later

    def done(found: TextAnswer) -> None:
        order.append(found.request_id)
        if len(order) == 11:
            others.set()

    prompts = [request("slow", ({"role": "user", "content": "slow"},)), *(request(str(i)) for i in range(11))]
    order: list[str] = []
    with EndpointServer(behave) as server:
        engine = OpenAIEngine(options(server.base_url, concurrency=4))
        engine.complete(prompts, done=done)
    assert server.most == 4 and len(order) == 12
    assert order[-1] == "slow", "a slow request holds up no row of another"


@pytest.mark.parametrize("name", ["stream_options", "stop", "seed"])
def test_a_server_that_refuses_an_optional_field_is_asked_without_it(name: str) -> None:
    def behave(number: int, sent: Sent) -> Behaviour:
        if name in sent.body:
            return json_body(400, {"error": {"message": f"Unsupported parameter: {name}"}})
        return answer(sent, "one STOP", usage=None)

    asked = [request(str(i), stop=("STOP",), temperature=1.0) for i in range(3)]
    with EndpointServer(behave) as server:
        engine = OpenAIEngine(options(server.base_url, concurrency=1))
        found = complete(engine, *asked)
    assert [each.text for each in found.values()] == ["one "] * 3
    assert len(server.requests) == 4, "it is remembered"
    assert any("refuses seed" in e["detail"] for e in engine.events) is (name == "seed")


def test_the_newer_name_of_the_token_limit() -> None:
    def behave(number: int, sent: Sent) -> Behaviour:
        if "max_tokens" in sent.body:
            return json_body(400, {"error": {"message": "'max_tokens' is not supported; use 'max_completion_tokens'"}})
        return answer(sent, "x")

    found, server, _ = one(behave)
    assert found.finish == "stop" and server.requests[1].body["max_completion_tokens"] == 16


def test_a_key_is_sent_and_never_said() -> None:
    key = Secret("sk-very-secret")
    for behave in (
        lambda k, sent: json_body(401, {"error": {"message": f"bad key {sent.headers['authorization']}"}}),
        lambda k, sent: json_body(400, {"error": {"message": f"bad key {sent.headers['authorization']}"}}),
        lambda k, sent: json_body(500, {"error": {"message": f"bad key {sent.headers['authorization']}"}}),
    ):
        with EndpointServer(behave) as server:
            engine = OpenAIEngine(options(server.base_url, key=key))
            try:
                said = str(complete(engine)["r"].error)
            except ConfigError as error:
                said = str(error)
        assert server.requests[0].headers["authorization"] == "Bearer sk-very-secret"
        assert "bad key Bearer ***" in said
        assert "sk-very" not in said + repr(engine.events) + repr(options(server.base_url, key=key))


def test_halves_of_a_pair_find_each_other() -> None:
    reader = ReplyReader()
    for text in (
        '{"choices":[{"delta":{"content":"a\\ud83d"}}]}',
        '{"choices":[{"delta":{"content":"\\ude00b\\ud800"}}]}',
    ):
        reader.take(text)
    reader.take(json.dumps({"choices": [kit.choice("", chat=True, finish="stop")]}))
    assert reader.reply().text == "a\U0001f600b\ufffd"


def test_messages_of_servers_are_made_harmless() -> None:
    found = failure_of(400, {}, json.dumps({"error": "a\nb\x1b[31m" + "c" * 999}).encode(), sent={})
    assert "\n" not in str(found) and "\x1b" not in str(found) and len(str(found)) < 230


# Log-probabilities of a prompt.


def echoed(tokens: list[str], values: list[float | None]) -> dict[str, Any]:
    return {"tokens": tokens, "token_logprobs": values}


@pytest.mark.parametrize("before", [[], ["<s>"]])
@pytest.mark.parametrize("after", [[], [" and"]])
def test_the_continuation_is_found_by_its_text(before: list[str], after: list[str]) -> None:
    tokens = [*before, "The", " sky", " is", " bl", "ue", *after]
    values = [None, -1.0, -1.0, -0.5, -0.25, -0.125, -9.0][: len(tokens)]
    wanted = sum(values[len(before) + 3 : len(before) + 5])  # type: ignore[arg-type]
    assert continuation_logprob(echoed(tokens, values), "The sky is", " blue") == (pytest.approx(wanted), 2)


@pytest.mark.parametrize(
    ("logprobs", "words"),
    [
        (None, "does not give back the log-probabilities"),
        (echoed([" blue"], [-1.0]), "does not give back the log-probabilities"),
        (echoed(["The sky", " is blue"], [None, -1.0]), "run across"),
        (echoed(["The sky is", " blue"], [None, None]), "no number"),
    ],
)
def test_what_cannot_be_weighed_is_refused(logprobs: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        continuation_logprob(logprobs, "The sky is", " blue")


@pytest.mark.parametrize(
    ("tokens", "text", "starts"),
    [
        (["a", "b"], "ab", [0, 1]),
        (["a", "b"], "abc", None),
        ([], "", []),
        (["caf", "\ufffd", "\ufffd", " x"], "caf\u00e9 x", [0, 3, None, 4]),
        ([" \ufffd", "\ufffd\ufffd", "\ufffdb", "c"], " \U0001f600bc", [0, None, None, 3]),
        (["\ufffd", "\ufffd", "\ufffd", "\ufffd", "."], "\u00e9\u00e8.", [0, None, None, None, 2]),
        (["a", "\ufffd", "b"], "axb", None),
        (["(", ".", "*", "\n"], "(.*\n", [0, 1, 2, 3]),
    ],
)
def test_where_tokens_begin(tokens: list[str], text: str, starts: list[int | None] | None) -> None:
    assert token_starts(tokens, text) == starts


def test_chat_gives_no_log_probabilities() -> None:
    engine = OpenAIEngine(options("http://127.0.0.1:1/v1", api="chat"))
    with pytest.raises(ConfigError, match="api auto or completions"):
        engine.weigh({"a": ("x", " y")}, done=lambda *found: None)
