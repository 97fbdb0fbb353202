"""The common start of both processes in the sandbox: limits lowered, standard streams closed, greeting sent.

Runs inside the sandbox under any Python from 3.9 on. The greeting leaves before any foreign code is known to the
process, so its absence always means that the sandbox itself does not work, never that a program failed.
"""

from __future__ import annotations

import os
import resource
import sys

from harness.evaluate.sandbox.protocol import HELLO, write_frame


def lower_limits(settings: str) -> None:
    """Lower the resource limits named in `settings`, such as `CPU=5,AS=1000`; none is ever raised."""
    for part in settings.split(","):
        name, _, wanted = part.partition("=")
        kind = getattr(resource, "RLIMIT_" + name)
        _, hard = resource.getrlimit(kind)
        value = int(wanted) if hard == resource.RLIM_INFINITY else min(int(wanted), hard)
        # SIGXCPU at the soft limit tells a time-out from other kills; SIGKILL follows a second later.
        top = value + 1 if name == "CPU" and (hard == resource.RLIM_INFINITY or hard > value) else value
        resource.setrlimit(kind, (value, top))


def enter() -> tuple[int, int]:
    """Take over the channel from the standard streams, lower the limits and greet.

    Returns:
        The descriptors to read frames from and to write frames to; input, output and errors lead to `/dev/null`.
    """
    source, sink = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    lower_limits(sys.argv[1])
    write_frame(sink, HELLO + b" Python " + sys.version.split()[0].encode())
    return source, sink
