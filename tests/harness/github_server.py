"""A local stand-in for api.github.com: pull requests, issue comments, and the refusals that a gate's comment meets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

REPOSITORY = "owner/repo"
BOT = "github-actions[bot]"


@dataclass
class Github:
    """What it holds, and what it was asked.

    Attributes:
        comments: of pull request 7, oldest first.
        pulls: open pull requests.
        refuse: (method, status) that is answered instead, for all requests of the method.
        failures: so many requests are answered with 502 first.
        redirect: address that every request is sent to.
        requests: (method, path, token) of all requests.
    """

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    redirect: str | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, body: str, login: str = BOT) -> dict[str, Any]:
        comment = {"id": 1000 + len(self.comments), "body": body, "user": {"login": login}}
        self.comments.append(comment)
        return comment

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        if self.failures:
            self.failures -= 1
            return 502, {}
        if method in self.refuse:
            return self.refuse[method], {"message": "Resource not accessible by integration"}
        url = urlsplit(path)
        query = parse_qs(url.query)
        if (method, url.path) == ("GET", f"/repos/{REPOSITORY}/pulls"):
            return 200, self.pulls
        if url.path == f"/repos/{REPOSITORY}/issues/7/comments":
            if method == "POST" and body is not None:
                if len(body["body"]) > 65_536:
                    return 422, {}
                return 201, self.add(body["body"])
            start = (int(query["page"][0]) - 1) * int(query["per_page"][0])
            return 200, self.comments[start : start + int(query["per_page"][0])]
        prefix = f"/repos/{REPOSITORY}/issues/comments/"
        if method == "PATCH" and url.path.startswith(prefix) and body is not None:
            found = [comment for comment in self.comments if str(comment["id"]) == url.path.removeprefix(prefix)]
            found[0]["body"] = body["body"]
            return 200, found[0]
        return 404, {}


@contextmanager
def github() -> Iterator[Github]:
    """Serve on a free port of this machine."""
    state = Github()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            state.requests.append((self.command, self.path, self.headers.get("Authorization")))
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            status, answer = state.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            if state.redirect is not None:
                status = 302
            self.send_response(status)
            if state.redirect is not None:
                self.send_header("Location", state.redirect)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
