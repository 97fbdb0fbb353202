"""A small hub on this machine: the endpoints that huggingface_hub and datasets use, over made-up commits."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 100_000  # files above are told as LFS objects, whose ETag is a SHA-256


@dataclass
class Repository:
    """Files of each commit, and where branches point; `gate` is an error code that refuses all files."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gate: str | None = None


@dataclass
class Hub:
    """Repositories by `models/org/name` or `datasets/org/name`; a context manager that serves them.

    Attributes:
        cut: Files of which the next downloads break off: bytes sent of each, and how often.
        seen: (method, path, authorization, range) of each request.
    """

    repositories: dict[str, Repository]
    cut: dict[str, list[int]] = field(default_factory=dict)
    down: bool = False
    seen: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def __enter__(self) -> Hub:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"


def etag(data: bytes) -> str:
    """A git blob id, or for large files the SHA-256."""
    if len(data) > LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append((self.command, path, self.headers.get("authorization"), self.headers.get("range")))
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.hub.down:
            self._error(503, None, "down")
            return
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) >= 4:
            self._api("/".join(parts[1:4]), parts[4:], body)
            return
        kind = "datasets" if parts[0] == "datasets" else "models"
        rest = parts[1:] if parts[0] == "datasets" else parts
        if len(rest) >= 5 and rest[2] == "resolve":
            self._file(f"{kind}/{rest[0]}/{rest[1]}", rest[3], "/".join(rest[4:]))
        else:
            self._error(404, "RepoNotFound", "nothing here")

    do_HEAD = do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def _repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._error(401, "RepoNotFound", "Repository Not Found")
        return found

    def _commit(self, repository: Repository, revision: str) -> str | None:
        sha = repository.refs.get(revision, revision)
        short = [full for full in repository.commits if full.startswith(sha)]
        if len(short) != 1:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return short[0]

    def _api(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        sha = self._commit(repository, rest[1] if len(rest) > 1 else "main")
        if sha is None:
            return
        files = repository.commits[sha]
        verb = rest[0] if rest else "revision"
        if verb == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name.partition("/")[2], "sha": sha, "siblings": siblings, "private": False, "tags": []})
        elif verb == "tree":
            below = "/".join(rest[2:])
            self._json([_entry(p, data) for p, data in files.items() if p.startswith(below)])
        elif verb == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else _form(body)
            self._json([_entry(path, files[path]) for path in asked if path in files])
        elif verb == "refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": s} for n, s in repository.refs.items()]
            self._json({"branches": refs})
        else:
            self._error(404, "EntryNotFound", "no such call")

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        if repository.gate is not None and not self.headers.get("authorization"):
            self._error(401, repository.gate, f"Access to model {name} is restricted")
            return
        if repository.gate is not None and "member" not in str(self.headers.get("authorization")):
            self._error(403, repository.gate, f"Access to model {name} is restricted and you are not in the list")
            return
        sha = self._commit(repository, revision)
        if sha is None:
            return
        data = repository.commits[sha].get(path)
        if data is None:
            self._error(404, "EntryNotFound", f"{path} does not exist", sha)
            return
        start = 0
        asked = self.headers.get("range")
        if asked and self.command == "GET":
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", sha)
        self.send_header("ETag", f'"{etag(data)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        if len(data) > LARGE:
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Linked-Etag", f'"{etag(data)}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = self.hub.cut.get(path)
        if left and left[1] > 0:
            left[1] -= 1
            self.wfile.write(data[start : start + left[0]])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(data[start:])

    def _json(self, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _error(self, status: int, code: str | None, message: str, sha: str | None = None) -> None:
        raw = json.dumps({"error": message}).encode()
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
        if sha is not None:
            self.send_header("X-Repo-Commit", sha)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": etag(data)}
    if len(data) > LARGE:
        entry["lfs"] = {"oid": etag(data), "size": len(data), "pointerSize": 130}
    return entry


def _form(body: bytes) -> list[str]:
    from urllib.parse import parse_qs

    return parse_qs(body.decode()).get("paths", [])
