"""JSON messages between the speed processes, and how a child ends with its parent."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

PR_SET_PDEATHSIG = 1


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send one message."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Wait for one message; EOFError when the other side is gone."""
    message: dict[str, Any] = json.loads(connection.recv_bytes())
    return message


def die_with_parent(parent: int) -> None:
    """On Linux, have the kernel kill this process when `parent` ends; elsewhere the closed pipe has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
