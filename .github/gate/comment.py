"""Keeps one comment on a pull request up to date with the gate's summary; standard library only.

Never fails the job: a token that may not write (a pull request from a fork), no pull request or a server that does not
answer is one notice in the log. The pull request is taken from the event or from GitHub's own list of open ones by the
commit that was measured, never from an artifact. Only comments of `GATE_COMMENT_AUTHOR` are updated: anyone may post
one that looks like ours.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

LIMIT = 60_000
"""GitHub takes 65,536 characters a comment."""
_PAGES = 50
_TRIES = 3
_SECONDS = 20


class Notice(Exception):
    """Why there is no comment."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to wherever it leads."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Api:
    """GitHub's REST interface for one repository."""

    def __init__(self, base: str, repository: str, token: str) -> None:
        """Keep where to ask and the token."""
        self._base, self._repository, self._token = base.rstrip("/"), repository, token
        self._opener = urllib.request.build_opener(_NoRedirect)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer's JSON; Notice where there is none. Server errors are tried again."""
        request = urllib.request.Request(
            f"{self._base}/repos/{self._repository}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Accept": "application/vnd.github+json",
                "Content-Type": "application/json",
                "User-Agent": "sparsebench-gate",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        for tried in range(_TRIES):
            try:
                with self._opener.open(request, timeout=_SECONDS) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise Notice(_refusal(error.code)) from None
                reason = f"GitHub answered {error.code}"
            except (OSError, ValueError) as error:
                reason = f"GitHub could not be reached ({type(error).__name__})"
            # A request that creates something may have been carried out before its answer was lost.
            if method == "POST" or tried == _TRIES - 1:
                break
            time.sleep(float(os.environ.get("GATE_RETRY_SECONDS", "2")))
        raise Notice(reason)


def _refusal(code: int) -> str:
    if code in (401, 403, 404):
        return (
            f"GitHub refused the token ({code}). A pull request from a fork gets one that may not write: let a "
            "workflow_run job comment (see .github/gate/README.md of the action), or give the job the permission "
            "pull-requests: write"
        )
    return f"GitHub answered {code}"


def pull_request(event: dict[str, Any], api: Api, repository: str) -> int:
    """The number of the pull request that was measured.

    Raises:
        Notice: There is none, or it has newer commits than those that were measured.
    """
    given = os.environ.get("GATE_PULL_REQUEST", "")
    if given:
        if not re.fullmatch(r"[1-9][0-9]{0,9}", given):
            raise Notice("the input pull-request is no number")
        return int(given)
    number = (event.get("pull_request") or {}).get("number")
    if isinstance(number, int):
        return number
    run = event.get("workflow_run")
    if not isinstance(run, dict) or run.get("event") not in ("pull_request", "pull_request_target"):
        raise Notice("this run belongs to no pull request")
    owner = ((run.get("head_repository") or {}).get("owner") or {}).get("login") or ""
    head = urllib.parse.quote(f"{owner}:{run.get('head_branch') or ''}", safe="")
    found = api.call("GET", f"/pulls?state=open&per_page=100&head={head}")
    # `head=` is ignored by GitHub where it is malformed, so all of it is checked again.
    numbers = [
        pull["number"]
        for pull in found
        if pull["head"]["sha"] == run.get("head_sha") and pull["base"]["repo"]["full_name"] == repository
    ]
    if len(numbers) != 1:
        raise Notice("no single open pull request has the commit that was measured as its newest")
    return int(numbers[0])


def shorten(text: str) -> str:
    """Cut at a line break so that the comment fits, and close what is open."""
    if len(text) <= LIMIT:
        return text
    cut = text[:LIMIT].rpartition("\n")[0]
    close = "\n\n</details>" if cut.count("<details>") > cut.count("</details>") else ""
    return f"{cut}{close}\n\nThe rest is in the summary of the job."


def put_comment(api: Api, number: int, mark: str, body: str, author: str) -> str:
    """Update the comment of `author` that begins with `mark`, or create it; what was done."""
    for page in range(1, _PAGES + 1):
        comments = api.call("GET", f"/issues/{number}/comments?per_page=100&page={page}")
        for comment in comments:
            own = (comment.get("user") or {}).get("login") == author
            if own and str(comment.get("body") or "").startswith(mark):
                api.call("PATCH", f"/issues/comments/{int(comment['id'])}", {"body": body})
                return "updated"
        if len(comments) < 100:
            break
    api.call("POST", f"/issues/{number}/comments", {"body": body})
    return "created"


def comment() -> str:
    """Do it and say what was done. Raises Notice."""
    token = os.environ.get("GITHUB_TOKEN", "")
    if not token:
        raise Notice("the step has no token")
    name = os.environ.get("GATE_COMMENT_NAME") or "gate"
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,60}", name) or "--" in name:
        raise Notice("the input comment-name takes letters, digits, dots and single dashes")
    repository = os.environ.get("GITHUB_REPOSITORY", "")
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", repository):
        raise Notice("GITHUB_REPOSITORY is not set")
    try:
        event = json.loads(Path(os.environ.get("GITHUB_EVENT_PATH", "")).read_text(encoding="utf-8"))
        summary = Path(os.environ.get("GATE_SUMMARY", "")).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise Notice("the event or the summary cannot be read") from None
    api = Api(os.environ.get("GITHUB_API_URL") or "https://api.github.com", repository, token)
    number = pull_request(event if isinstance(event, dict) else {}, api, repository)
    mark = f"<!-- sparsebench-gate: {name} -->"
    author = os.environ.get("GATE_COMMENT_AUTHOR") or "github-actions[bot]"
    return f"{put_comment(api, number, mark, mark + chr(10) + shorten(summary), author)} the comment on #{number}"


def main() -> None:
    """Comment, or say why not; always ends with 0."""
    try:
        print(comment())
    except Notice as notice:
        print(f"::notice title=No comment on the pull request::{notice}. The verdict is not touched by this.")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        print(
            "::notice title=No comment on the pull request::GitHub's answer was not understood "
            f"({type(error).__name__}). The verdict is not touched by this."
        )


if __name__ == "__main__":
    sys.exit(main())
