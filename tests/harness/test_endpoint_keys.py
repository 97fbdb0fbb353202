"""Keys go to the origins that the user listed, and nowhere else; a server that records headers is the witness."""

from __future__ import annotations

import os
import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.endpoint.keys import ENVIRONMENT, Secret, bindings, endpoints_file, key_for
from harness.endpoint.transport import check_base_url, is_local, origin_of
from harness.engines.base import TextAnswer, TextRequest
from harness.engines.openai import OpenAIEngine
from harness.errors import ConfigError
from harness.evaluate.served import endpoint_of
from harness.study import parse_study

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("endpoint_server.py"))))
KEY = "sk-Zy9-secret-of-the-user"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("MY_KEY", KEY)
    return tmp_path


def bind(text: str) -> None:
    endpoints_file().parent.mkdir(parents=True, exist_ok=True)
    endpoints_file().write_text(text, encoding="utf-8")


def ask(base_url: str) -> TextAnswer:
    """One request of a study that names an address, as a run makes it."""
    body = {
        "name": "s",
        "variants": {"v": {"endpoint": {"model": "m", "base_url": base_url}}},
        "engine": {"name": "openai", "tries": 1},
    }
    options = endpoint_of(parse_study(body, where="test"), "v")
    assert options is not None
    found: list[TextAnswer] = []
    OpenAIEngine(options).complete([TextRequest("r", "hello", 4)], done=found.append)
    return found[0]


def test_a_key_reaches_its_origin_and_no_other() -> None:
    with (
        kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as mine,
        kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as other,
    ):
        bind(f"{mine.origin}: MY_KEY\n")
        assert ask(mine.base_url).text == "x" and ask(other.base_url).text == "x"
        assert mine.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert all("authorization" not in sent.headers for sent in other.requests) and len(other.requests) == 1
        assert KEY not in str([sent.headers for sent in other.requests])


def test_a_redirect_is_not_followed_and_carries_no_key() -> None:
    with kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as thief:
        elsewhere = {"Location": f"{thief.base_url}/completions"}
        for status in (301, 302, 307, 308):
            with kit.EndpointServer(lambda k, sent, s=status: kit.json_body(s, {}, **elsewhere)) as mine:
                bind(f"{mine.origin}: MY_KEY\n")
                with pytest.raises(ConfigError, match="redirects elsewhere"):
                    ask(mine.base_url)
                assert mine.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert not thief.requests


def test_proxies_of_the_environment_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as mine,
        kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as proxy,
    ):
        bind(f"{mine.origin}: MY_KEY\n")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        assert ask(mine.base_url).text == "x"
        assert len(mine.requests) == 1 and not proxy.requests


@pytest.mark.parametrize(
    "listed",
    ["https://127.0.0.1:{port}", "http://localhost:{port}", "http://127.0.0.1:{next}", "http://127.0.0.1.evil:{port}"],
)
def test_origins_are_compared_whole(listed: str) -> None:
    """Scheme, host and port: a near miss gets nothing."""
    with kit.EndpointServer(lambda k, sent: kit.answer(sent, "x")) as server:
        bind(listed.format(port=server.port, next=server.port + 1) + ": MY_KEY\n")
        ask(server.base_url)
        assert "authorization" not in server.requests[0].headers


def test_a_path_or_capitals_do_not_matter() -> None:
    bind("HTTPS://API.Example.com/v1: MY_KEY\nhttp://[::1]:8000: MY_KEY\n")
    for url in ("https://api.example.com/v1", "https://api.example.com:443/other/v2/", "http://[::1]:8000/v1"):
        found = key_for(url)
        assert found is not None and found.reveal() == KEY
    for url in ("http://api.example.com/v1", "https://api.example.com.evil.org/v1", "https://example.com/v1"):
        assert key_for(url) is None


def test_the_environment_can_list_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bind("https://a.example: MY_KEY\n")
    monkeypatch.setenv(ENVIRONMENT, "https://b.example=MY_KEY, http://c.example:8000/v1=OTHER_KEY")
    assert bindings() == {"https://b.example:443": "MY_KEY", "http://c.example:8000": "OTHER_KEY"}
    assert key_for("https://a.example/v1") is None, "it stands in place of the file"
    monkeypatch.setenv(ENVIRONMENT, "")
    assert bindings() == {}


def test_nothing_configured_is_no_key() -> None:
    assert not endpoints_file().exists() and key_for("http://127.0.0.1:8000/v1") is None
    bind("# nothing yet\n")
    assert bindings() == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"https://a.example: {KEY}\n", "never the key itself"),
        ("https://a.example: hf_abcdefghijklmnop\n", "never the key itself"),
        ("https://a.example: 5\n", "never the key itself"),
        ("- https://a.example\n", "no mapping"),
        ("a: [\n", "cannot be read as YAML"),
        ("https://user:pw@a.example: MY_KEY\n", "no user or password"),
        ("a.example: MY_KEY\n", "is no base URL"),
        ("https://a.example:99999: MY_KEY\n", "no port"),
        ("https://a.example: UNSET_KEY\n", "export UNSET_KEY"),
    ],
)
def test_a_wrong_configuration_is_one_line_without_the_key(text: str, words: str) -> None:
    bind(text)
    with pytest.raises(ConfigError, match=words) as caught:
        key_for("https://a.example/v1")
    said = str(caught.value)
    assert "\n" not in said and KEY not in said and "hf_abc" not in said and "pw" not in said.replace("pwd", "")


def test_an_inline_key_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (KEY, f"https://a.example={KEY}", f"https://a.example:{KEY}"):
        monkeypatch.setenv(ENVIRONMENT, value)
        with pytest.raises(ConfigError) as caught:
            key_for("https://a.example/v1")
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "ключ", "tab\there"])
def test_what_no_header_carries_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bind("https://a.example: MY_KEY\n")
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="MY_KEY holds no key") as caught:
        key_for("https://a.example/v1")
    assert value not in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:pw@h/v1", "http://user@h/v1", "http://:pw@h/v1", "http://@h/v1"])
def test_userinfo_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="no user or password") as caught:
        check_base_url(url)
    assert "pw" not in str(caught.value) and "user:" not in str(caught.value)
    with pytest.raises(ConfigError):
        parse_study(
            {"name": "s", "variants": {"v": {"endpoint": {"model": "m", "base_url": url}}}, "engine": "openai"},
            where="test",
        )


@pytest.mark.parametrize(
    "url", ["ftp://h/v1", "h/v1", "http:///v1", "http://h/v1?key=1", "http://h/v1#x", "http://h:0x1/"]
)
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(ConfigError):
        origin_of(url)


def test_offline_asks_this_machine_only() -> None:
    body = {"name": "s", "variants": {"v": {"endpoint": {"model": "m"}}}}
    assert all(is_local(url) for url in ("http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://localhost/v1"))
    for url in ("http://10.0.0.1/v1", "http://localhost.example/v1", "https://api.example.com/v1"):
        assert not is_local(url)
        study = parse_study({**body, "engine": {"name": "openai", "base_url": url}}, where="test")
        assert endpoint_of(study, "v") is not None
        with pytest.raises(ConfigError, match="leave out --offline"):
            endpoint_of(study, "v", offline=True)


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {[secret]} {vars(type(secret))}"
    assert secret.scrub(f"a {KEY} b") == "a *** b"
    carried: Any = pickle.loads(pickle.dumps(secret))  # noqa: S301 (our own bytes: how a worker process gets it)
    assert carried.reveal() == KEY
    assert os.environ["MY_KEY"] == KEY
