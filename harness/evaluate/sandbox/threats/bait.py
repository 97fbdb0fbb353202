"""Things of the host for hostile programs to reach for, and whether any of them was reached."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from harness.errors import SandboxError

_KEY = "SPARSEBENCH_BAIT_KEY"


@contextmanager
def bait() -> Iterator[Mapping[str, str]]:
    """A file, a TCP and a UDP port, an abstract Unix socket and a key in the environment, by the marks of `Threat`.

    Raises:
        SandboxError: A program has changed the file or sent something to a socket.
    """
    name = f"sparsebench-{os.getpid()}-{secrets.token_hex(4)}"
    with (
        tempfile.TemporaryDirectory(prefix="sparsebench-bait-") as folder,
        closing(socket.create_server(("127.0.0.1", 0), backlog=8)) as port,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as local,
    ):
        os.chmod(folder, 0o777)
        planted = Path(folder, "planted")
        planted.write_text("untouched")
        planted.chmod(0o666)
        datagrams.bind(("127.0.0.1", 0))
        local.bind(f"\0{name}")
        local.listen(8)
        os.environ[_KEY] = secrets.token_hex(8)
        try:
            yield {
                "@PORT@": str(port.getsockname()[1]),
                "@UDP@": str(datagrams.getsockname()[1]),
                "@SOCKET@": name,
                "@PLANTED@": str(planted),
            }
        finally:
            os.environ.pop(_KEY, None)
        if not planted.is_file() or planted.read_text() != "untouched":
            raise SandboxError("sandbox preflight failed: a program changed a file of the host; do not use it")
        if any(_reached(sock) for sock in (port, datagrams, local)):
            raise SandboxError("sandbox preflight failed: a program reached a socket of the host; do not use it")


def _reached(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        if sock.type == socket.SOCK_DGRAM:
            sock.recv(1)
        else:
            sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True
