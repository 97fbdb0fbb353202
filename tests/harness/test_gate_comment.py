"""The action's comment against a stand-in for GitHub: one sticky comment, never a failure, never a stranger's word."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
script = SimpleNamespace(**runpy.run_path(str(ROOT / ".github" / "gate" / "comment.py")))
server = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("github_server.py"))))
MARK = "<!-- sparsebench-gate: gate -->"
SHA = "a" * 40
NUMBERED = {"pull_request": {"number": 7}}


@pytest.fixture
def hub() -> Iterator[Any]:
    with server.github() as state:
        yield state


@pytest.fixture
def comment(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the script; what it printed."""

    def call(event: Any = NUMBERED, text: str = "## Gate\n", **changes: str) -> str:
        (tmp_path / "event.json").write_text(json.dumps(event))
        (tmp_path / "summary.md").write_text(text)
        environment = {
            "GITHUB_API_URL": hub.url,
            "GITHUB_TOKEN": "t0ken",
            "GITHUB_REPOSITORY": server.REPOSITORY,
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GATE_SUMMARY": str(tmp_path / "summary.md"),
            "GATE_RETRY_SECONDS": "0",
            "GATE_PULL_REQUEST": "",
            "GATE_COMMENT_NAME": "",
            "GATE_COMMENT_AUTHOR": "",
            "no_proxy": "127.0.0.1",
            **changes,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        script.main()
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 1 and "t0ken" not in out
        return out

    return call


def test_one_comment_is_created_then_updated(hub: Any, comment: Callable[..., str]) -> None:
    hub.add("a reviewer's word", "alice")
    assert comment(text="## first\n") == "created the comment on #7\n"
    assert comment(text="## second\n") == "updated the comment on #7\n"
    assert [entry["body"] for entry in hub.comments] == ["a reviewer's word", f"{MARK}\n## second\n"]
    assert {token for _, _, token in hub.requests} == {"Bearer t0ken"}


def test_names_keep_comments_apart_and_pages_are_turned(hub: Any, comment: Callable[..., str]) -> None:
    for i in range(130):
        hub.add(f"word {i}", "alice")
    own = hub.add(f"{MARK}\nold")
    comment(text="new")
    assert own["body"] == f"{MARK}\nnew" and len(hub.comments) == 131
    comment(GATE_COMMENT_NAME="speed")
    assert hub.comments[-1]["body"].startswith("<!-- sparsebench-gate: speed -->") and len(hub.comments) == 132


def test_a_strangers_comment_with_our_mark_is_left_alone(hub: Any, comment: Callable[..., str]) -> None:
    theirs = hub.add(f"{MARK}\n**PASS**", "mallory")
    assert "created" in comment()
    assert theirs["body"] == f"{MARK}\n**PASS**"


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_forks_token_is_one_notice(hub: Any, comment: Callable[..., str], code: int) -> None:
    hub.refuse = {"POST": code}
    out = comment()
    assert out.startswith("::notice title=No comment on the pull request::GitHub refused the token")
    assert "workflow_run" in out and "The verdict is not touched" in out and not hub.comments


def test_no_token_no_pull_request_no_event(hub: Any, comment: Callable[..., str]) -> None:
    assert "the step has no token" in comment(GITHUB_TOKEN="")
    assert "belongs to no pull request" in comment({"ref": "refs/heads/main"})
    assert "cannot be read" in comment(GITHUB_EVENT_PATH="/nowhere")
    assert "belongs to no pull request" in comment(["not", "an", "event"])
    assert "is no number" in comment(GATE_PULL_REQUEST="7/../../other")
    assert "letters, digits" in comment(GATE_COMMENT_NAME="x --> <b>")
    assert "GITHUB_REPOSITORY" in comment(GITHUB_REPOSITORY="owner/repo/../../x")
    assert not hub.requests


def test_a_busy_server_is_asked_again_and_a_dead_one_is_a_notice(hub: Any, comment: Callable[..., str]) -> None:
    hub.failures = 2
    assert "created" in comment()
    hub.failures = 3
    assert "GitHub answered 502" in comment()
    assert "could not be reached" in comment(GITHUB_API_URL="http://127.0.0.1:9")


def test_the_token_does_not_follow_a_redirect(hub: Any, comment: Callable[..., str]) -> None:
    with server.github() as elsewhere:
        hub.redirect = elsewhere.url
        assert "GitHub answered 302" in comment()
        assert not elsewhere.requests


def pull(number: int = 7, sha: str = SHA, base: str = server.REPOSITORY) -> dict[str, Any]:
    return {"number": number, "head": {"sha": sha}, "base": {"repo": {"full_name": base}}}


def after_a_fork(**changes: Any) -> dict[str, Any]:
    run = {
        "event": "pull_request",
        "head_sha": SHA,
        "head_branch": "fix/a&b=c",
        "head_repository": {"owner": {"login": "mallory"}},
        "pull_requests": [],
    }
    return {"workflow_run": {**run, **changes}}


def test_workflow_run_finds_the_pull_request_by_its_commit(hub: Any, comment: Callable[..., str]) -> None:
    hub.pulls = [pull(), pull(8, "b" * 40), pull(9, SHA, "other/repo")]
    assert "created the comment on #7" in comment(after_a_fork())
    assert hub.requests[0][1].endswith("head=mallory%3Afix%2Fa%26b%3Dc")
    hub.pulls = [pull(sha="c" * 40)]
    assert "no single open pull request" in comment(after_a_fork())
    hub.pulls = [pull(), pull(8)]
    assert "no single open pull request" in comment(after_a_fork())
    assert "belongs to no pull request" in comment(after_a_fork(event="push"))


def test_strange_answers_are_a_notice(hub: Any, comment: Callable[..., str]) -> None:
    hub.pulls = [{"number": 7}]
    assert "was not understood (KeyError)" in comment(after_a_fork())


def test_a_long_summary_is_cut_where_nothing_breaks(hub: Any, comment: Callable[..., str]) -> None:
    rows = "".join(f"| pass | no_regression | variant {i} | {'x' * 100} |\n" for i in range(2000))
    text = f"## Gate\n\n<details>\n<summary>2000 passed</summary>\n\n{rows}\n</details>\n"
    assert "created" in comment(text=text)
    body = hub.comments[0]["body"]
    assert len(body) < 65_536 and body.count("<details>") == body.count("</details>") == 1
    assert body.endswith("The rest is in the summary of the job.")
    assert all(line.endswith("|") for line in body.splitlines() if line.startswith("| "))
