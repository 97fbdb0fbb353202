"""Which commit a run belongs to: told, from the CI's environment, or from git."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from harness.errors import ConfigError
from harness.history.record import utc

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit's id and its time in UTC."""

    id: str
    time: str


def resolve_commit(commit: str | None, time: str | None) -> Commit:
    """Return the commit to record; what is not given comes from `GITHUB_SHA` and from git in the working folder.

    Raises:
        ConfigError: It cannot be told, or is no id or time.
    """
    found = commit or os.environ.get("GITHUB_SHA") or _git("rev-parse", "--verify", "HEAD")
    if found is None:
        raise ConfigError("which commit was measured is not known here: name it with --commit")
    if not _ID.fullmatch(found):
        raise ConfigError(f"{found[:40]!r} is no commit id: letters, digits, dots, dashes and underscores only")
    said = time or _git("show", "--no-patch", "--format=%cI", "--end-of-options", found)
    if said is None:
        raise ConfigError(f"the time of commit {found} is not known here: name it with --time 2026-01-31T12:00:00Z")
    try:
        return Commit(found, utc(said))
    except ValueError as error:
        raise ConfigError(f"{error}; write it like 2026-01-31T12:00:00Z") from None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None
