"""Load on an endpoint: exact latencies against a scripted server, and whole loads in virtual time."""

from __future__ import annotations

import asyncio
import json
import runpy
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.bench.command import bench_app
from harness.bench.latency import Stamps, e2e, itl, tpot, ttft
from harness.bench.serve.arrivals import Load
from harness.bench.serve.client import Endpoint, Outcome, Prompt, ask
from harness.bench.serve.drive import drive
from harness.bench.serve.goodput import PRESETS, Slo, goodput, keeps, pick_slo
from harness.bench.serve.lag import LagMeter, lateness
from harness.bench.serve.mock import MockServer, Script
from harness.bench.serve.session import read_prompts
from harness.bench.serve.summary import summarise
from harness.endpoint.sse import EventReader
from harness.endpoint.transport import HttpTransport, TransportError, check_base_url
from harness.errors import ConfigError, InfrastructureError

virtually = runpy.run_path(str(Path(__file__).with_name("virtual_time.py")))["virtually"]

ENDPOINT = Endpoint("m", timeout=60.0)
PROMPT = Prompt("hello", 4)


class StubClock:
    """Time that only the scripted server moves, and only when the client has stamped what it was sent before."""

    def __init__(self) -> None:
        self.time, self.read, self.moved = 1000.0, 0, 0

    def __call__(self) -> float:
        self.read += 1
        return self.time

    async def sleep(self, seconds: float) -> None:
        # The client reads the clock when it sends, and once for each piece: by now 1 + the pieces sent so far.
        while self.read < 1 + self.moved:
            await asyncio.sleep(0)
        self.time += seconds
        self.moved += 1


async def one(script: Script, endpoint: Endpoint = ENDPOINT) -> tuple[Outcome, MockServer]:
    clock = StubClock()
    async with (
        MockServer(lambda number: script, sleep=clock.sleep) as server,
        HttpTransport(server.base_url, api_key="s3cret") as transport,
    ):
        async with asyncio.timeout(30):
            return await ask(transport.post, endpoint, PROMPT, clock=clock), server


def test_latencies_of_a_real_stream_are_exact() -> None:
    """Over real HTTP: a role event 0.25 s after sending is no token, the first text comes at 0.75 s."""
    outcome, server = asyncio.run(one(Script((0.5, 0.125, 0.25, 0.0625), role_after=0.25, tail=2.0)))
    assert (outcome.status, outcome.counted, outcome.stamps.tokens) == ("ok", True, 4)
    assert outcome.stamps == Stamps(1000.0, (1000.75, 1000.875, 1001.125, 1001.1875), 4)
    assert ttft(outcome.stamps) == 0.75
    assert e2e(outcome.stamps) == 1.1875, "the tail without text does not count"
    assert tpot(outcome.stamps) == 0.4375 / 3
    assert itl(outcome.stamps) == (0.125, 0.25, 0.0625)
    assert outcome.ended == 1003.1875
    assert server.requests[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert server.requests[0]["stream"] is True and server.requests[0]["max_tokens"] == 4
    assert server.headers[0]["authorization"] == "bearer s3cret"


def test_several_tokens_in_one_event_are_counted_by_the_server() -> None:
    outcome, _ = asyncio.run(one(Script((0.5, 1.0, 1.0), per_event=4), Endpoint("m", chat=False)))
    assert outcome.stamps.tokens == 12
    assert tpot(outcome.stamps) == 2.0 / 11 and itl(outcome.stamps) == (1.0, 1.0)
    uncounted, _ = asyncio.run(one(Script((0.5, 1.0, 1.0), usage=False)))
    assert (uncounted.counted, uncounted.stamps.tokens) == (False, 3)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (Script((0.1,), status=429), "http"),
        (Script((0.1, 0.1, 0.1), cut_after=2), "error"),
        (Script(()), "incomplete"),
    ],
)
def test_what_goes_wrong_has_a_status(script: Script, status: str) -> None:
    outcome, _ = asyncio.run(one(script))
    assert outcome.status == status and outcome.detail


def test_nobody_there_and_too_slow() -> None:
    async def refused() -> Outcome:
        async with MockServer(lambda number: Script((0.0,))) as server:
            url = server.base_url
        async with HttpTransport(url) as transport:
            return await ask(transport.post, ENDPOINT, PROMPT, clock=asyncio.get_running_loop().time)

    async def slow() -> Outcome:
        async with MockServer(lambda number: Script((30.0,))) as server, HttpTransport(server.base_url) as transport:
            endpoint = Endpoint("m", timeout=0.05)
            return await ask(transport.post, endpoint, PROMPT, clock=asyncio.get_running_loop().time)

    assert asyncio.run(refused()).status == "error"
    assert asyncio.run(slow()).status == "timeout"


# Whole loads, in virtual time.


class Scripted:
    """A transport in virtual time; counts how many requests it serves at once."""

    def __init__(self, script: dict[int, Script] | Script) -> None:
        self.script, self.asked, self.open, self.most = script, 0, 0, 0

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[Any]:
        script = self.script if isinstance(self.script, Script) else self.script.get(self.asked, Script((0.1,)))
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield Answer(script)
        finally:
            self.open -= 1


class Answer:
    def __init__(self, script: Script) -> None:
        self.script, self.status = script, script.status

    async def pieces(self) -> AsyncIterator[bytes]:
        for number, delay in enumerate(self.script.delays):
            if number == self.script.cut_after:
                raise TransportError("cut")
            await asyncio.sleep(delay)
            yield b'data: {"choices": [{"text": "w"}]}\n\n'
        yield b'data: {"choices": [], "usage": {"completion_tokens": %d}}\n\n' % len(self.script.delays)
        yield b"data: [DONE]\n\n"


def load_of(load: Load, transport: Scripted) -> list[Outcome]:
    async def main() -> list[Outcome]:
        clock = asyncio.get_running_loop().time
        return await drive(load, [PROMPT], post=transport.post, endpoint=ENDPOINT, clock=clock)

    return virtually(main())


def test_poisson_arrivals_are_kept_whatever_the_server_does() -> None:
    load = Load(400, rate=8.0, seed=3)
    transport = Scripted(Script((2.0, 0.5, 0.5)))
    outcomes = load_of(load, transport)
    due = load.arrivals()
    assert [outcome.stamps.sent for outcome in outcomes] == pytest.approx(due, abs=1e-9)
    gaps = [after - before for before, after in zip(due, due[1:], strict=False)]
    assert statistics.mean(gaps) == pytest.approx(1 / 8, rel=0.15)
    assert statistics.stdev(gaps) == pytest.approx(1 / 8, rel=0.2), "exponential: as spread as its mean"
    assert transport.most > 10, "an open loop does not wait for answers"
    summary = summarise(load, outcomes, slo=Slo(2.5, 0.6), lags=[0.0], lag_limit=0.001)
    assert summary["ttft"]["p50"]["value"] == pytest.approx(2.0) and summary["tpot"]["mean"] == pytest.approx(0.5)
    assert summary["e2e"]["p90"]["value"] == pytest.approx(3.0) and summary["itl"]["n"] == 800
    assert summary["seconds"] == pytest.approx(due[-1] + 3.0)
    assert summary["goodput"]["share"] == 1.0 and summary["valid"]
    assert load.arrivals() == due and Load(400, rate=8.0, seed=4).arrivals() != due


def test_a_closed_loop_keeps_its_users_busy() -> None:
    transport = Scripted(Script((0.5, 0.25, 0.25)))
    outcomes = load_of(Load(12, concurrency=3, warm_up=3), transport)
    assert transport.most == 3 and len(outcomes) == 15
    assert [outcome.index for outcome in outcomes] == list(range(15))
    assert [outcome.stamps.sent for outcome in outcomes] == pytest.approx([k // 3 for k in range(15)])
    summary = summarise(Load(12, concurrency=3, warm_up=3), outcomes, slo=None, lags=[])
    assert summary["requests"] == 12 and summary["seconds"] == pytest.approx(4.0), "warm-up is not counted"
    assert summary["requests_per_s"] == pytest.approx(3.0) and summary["output_tokens_per_s"] == pytest.approx(9.0)
    assert summary["goodput"] is None and summary["ttft"]["p90"]["value"] is None, "12 values do not support p90"


def test_failures_are_counted_and_never_good() -> None:
    bad = {1: Script((0.1,), status=500), 3: Script((0.1, 0.1), cut_after=1), 5: Script((5.0, 0.1))}
    outcomes = load_of(Load(10, concurrency=1), Scripted(bad))
    summary = summarise(Load(10, concurrency=1), outcomes, slo=Slo(ttft=1.0), lags=[])
    assert summary["statuses"] == {"error": 1, "http": 1, "ok": 8}
    assert summary["ttft"]["n"] == 8 and summary["goodput"]["good"] == 7 and summary["goodput"]["share"] == 0.7
    assert summary["goodput"]["per_second"] == pytest.approx(7 / summary["seconds"])


def test_goodput_is_the_and_of_all_limits() -> None:
    fast = Stamps(0.0, (0.4, 0.43), 2)
    late_first = Stamps(0.0, (0.6, 0.61), 2)
    slow_rest = Stamps(0.0, (0.1, 0.2), 2)
    slo = PRESETS["llama3.1-8b-interactive"]
    assert slo == Slo(0.5, 0.03)
    assert [keeps(stamps, slo) for stamps in (fast, late_first, slow_rest)] == [True, False, False]
    assert keeps(Stamps(0.0, (0.4,), 1), slo) and not keeps(Stamps(0.0, (), 0), slo)
    assert goodput([fast, late_first], slo=slo, asked=4, seconds=2.0) == {"good": 1, "share": 0.25, "per_second": 0.5}
    assert pick_slo("llama2-70b", tpot_ms=50) == Slo(2.0, 0.05) and pick_slo(None) is None
    with pytest.raises(ConfigError, match="unknown SLO preset 'fast'; choose one of llama2-70b"):
        pick_slo("fast")


def test_a_late_client_voids_its_result() -> None:
    async def blocked() -> list[float]:
        import time

        async with LagMeter(time.perf_counter, interval=0.001) as meter:
            await asyncio.sleep(0.01)
            time.sleep(0.05)
            await asyncio.sleep(0.01)
        return meter.lags

    lags = asyncio.run(blocked())
    assert max(lags) > 0.04 and lateness(lags) == max(lags), "too few for a p99: the maximum"
    assert lateness([0.0] * 600 + [1.0] * 3) == 0.0 and lateness([0.0] * 600 + [1.0] * 10) == 1.0
    assert lateness([]) is None
    outcomes = load_of(Load(3, rate=1.0), Scripted(Script((0.1,))))
    assert summarise(Load(3, rate=1.0), outcomes, slo=None, lags=[0.0])["valid"]
    assert "too short" in summarise(Load(3, rate=1.0), outcomes, slo=None, lags=[])["invalid_because"][0]
    summary = summarise(Load(3, rate=1.0), outcomes, slo=None, lags=lags)
    assert not summary["valid"] and "event loop" in summary["invalid_because"][0]
    slipped = [Outcome(o.index, o.due - 0.5, o.stamps, o.ended, o.status) for o in outcomes]
    summary = summarise(Load(3, rate=1.0), slipped, slo=None, lags=[0.0])
    assert not summary["valid"] and "sending was 500.00 ms late" in summary["invalid_because"][0]


@given(st.lists(st.text("ab:{}é", max_size=6), max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(texts: list[str], end: str, data: st.DataObject) -> None:
    stream = "".join(f": comment{end}data: {text}{end}{end}" for text in texts).encode()
    # After a lone CR one cannot know whether LF follows; the next byte of a stream settles it.
    stream += b": end\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, got = EventReader(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:stop])
    assert got == texts


def test_two_data_lines_are_one_event() -> None:
    assert EventReader().feed(b"data: a\ndata:b\nid: 7\n\ndata: c\n") == ["a\nb"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Load(5),
        lambda: Load(5, rate=1.0, concurrency=1),
        lambda: Load(5, rate=0.0),
        lambda: Load(5, rate=float("nan")),
        lambda: Load(0, rate=1.0),
        lambda: Load(5, concurrency=0),
        lambda: check_base_url("localhost:8000"),
        lambda: check_base_url("ftp://host/v1"),
        lambda: check_base_url("http://user:secret@host/v1"),
        lambda: pick_slo(None, ttft_ms=0),
        lambda: read_prompts(Path("nowhere.jsonl"), words=1, max_tokens=1, seed=0),
    ],
)
def test_wrong_input_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        wrong()
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_prompts(tmp_path: Path) -> None:
    made = read_prompts(None, words=16, max_tokens=9, seed=1)
    assert len({prompt.text for prompt in made}) == len(made) and all(len(p.text.split()) == 16 for p in made)
    assert made == read_prompts(None, words=16, max_tokens=9, seed=1)
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n\n{"prompt": "two", "more": 1}\n')
    assert read_prompts(tmp_path / "p.jsonl", words=1, max_tokens=2, seed=0) == (Prompt("one", 2), Prompt("two", 2))


class Server:
    """The scripted server in a thread of its own, with real time."""

    def __init__(self, script: Script) -> None:
        import threading

        self.script, self.started = script, threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.main(),), daemon=True)

    async def main(self) -> None:
        self.stop = asyncio.Event()
        async with MockServer(lambda number: self.script) as server:
            self.server = server
            self.started.set()
            await self.stop.wait()

    def __enter__(self) -> str:
        self.thread.start()
        assert self.started.wait(10)
        return self.server.base_url

    def __exit__(self, *exception: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)


def test_the_command_leaves_raw_stamps_and_no_address(tmp_path: Path) -> None:
    with Server(Script((0.02, 0.01, 0.01))) as url:
        options = ["--base-url", url, "--model", "m", "-n", "12", "--warm-up", "2", "--concurrency", "2"]
        # A busy machine wakes the client late; what voids a result is tested elsewhere.
        options += ["--ttft-ms", "60000", "--lag-limit-ms", "60000", "-o", str(tmp_path)]
        done = CliRunner().invoke(bench_app, ["serve", *options])
    assert done.exit_code == 0, done.output
    assert "ttft" in done.output and "12 ok" in done.output and "goodput" in done.output
    text = (tmp_path / "serve.jsonl").read_text()
    assert url not in text and "127.0.0.1" not in text
    head, *requests, summary = [json.loads(line) for line in text.splitlines()]
    assert head["load"]["concurrency"] == 2 and len(requests) == 14
    assert min(request["sent"] for request in requests) == 0.0
    assert all(len(r["arrivals"]) == r["tokens"] == 3 and r["arrivals"][0] - r["sent"] >= 0.02 for r in requests)
    assert summary["kind"] == "summary" and summary["goodput"]["share"] == 1.0


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    base = ["--base-url", "http://127.0.0.1:9/v1", "--model", "m", "-o", str(tmp_path)]
    with Server(Script((0.0,), status=404)) as url:
        arguments = ["serve", "--base-url", url, "--model", "m", "-o", str(tmp_path), "-n", "3", "--rate", "50"]
        refused = CliRunner().invoke(bench_app, arguments)
    assert isinstance(refused.exception, InfrastructureError) and "HTTP 404" in str(refused.exception)
    with Server(Script((0.05,))) as url:
        arguments = ["serve", "--base-url", url, "--model", "m", "-o", str(tmp_path), "-n", "3", "--concurrency", "1"]
        late = CliRunner().invoke(bench_app, [*arguments, "--lag-limit-ms", "0.01"])
    assert isinstance(late.exception, InfrastructureError) and "not valid" in str(late.exception)
    for extra, message in (
        (["--rate", "1", "--concurrency", "1"], "either a rate"),
        (["--rate", "1", "--slo", "x"], "unknown SLO"),
        (["--rate", "1", "--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
    ):
        wrong = CliRunner().invoke(bench_app, ["serve", *base, *extra])
        assert isinstance(wrong.exception, ConfigError) and message in str(wrong.exception)
