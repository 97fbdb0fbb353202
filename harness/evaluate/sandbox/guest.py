"""The common start of both processes in the sandbox: limits lowered, standard streams closed, greeting sent.

Runs inside the sandbox under any Python from 3.9 on. The greeting leaves before any foreign code is known to the
process, so its absence always means that the sandbox itself does not work, never that a program failed.
"""

from __future__ import annotations

import os
import resource
import sys

from harness.evaluate.sandbox.protocol import HELLO, write_frame

_DUMPABLE = 4  # of <linux/prctl.h>
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2  # of <linux/prctl.h> and <linux/seccomp.h>


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


def forbid_calls(program: bytes) -> str:
    """Install a seccomp filter for this process and all that it starts; what came of it, for the greeting.

    Needed where the tool that starts the sandbox cannot do it. The other walls stand without it, so that a Python
    without `ctypes` or a kernel without seccomp is reported, not refused.
    """
    try:
        import ctypes
    except ImportError:
        return "no system call filter: this Python has no ctypes"
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    told = Filter(len(program) // 8, ctypes.addressof(code))
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(told), 0, 0):
        return f"no system call filter: {os.strerror(ctypes.get_errno())}"
    return "system call filter"


def _readable(wanted: bool) -> None:
    """Let processes of the same user read this one's memory, or not; a Python without `ctypes` leaves it as it is."""
    try:
        import ctypes
    except ImportError:
        return
    ctypes.CDLL(None).prctl(_DUMPABLE, int(wanted), 0, 0, 0)


def leave_first_place() -> None:
    """Go on in a child where this is the first process of a container without an init.

    The kernel spares that process signals, the one at the limit of processor time among them, and a program there could
    neither end nor stop itself. What is left behind ends as the child does.
    """
    if os.getpid() != 1:
        return
    _readable(False)
    child = os.fork()
    if child == 0:
        _readable(True)
        return
    for fd in (0, 1, 2):
        os.close(fd)
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def enter(later: str = "") -> tuple[int, int]:
    """Take over the channel from the standard streams, lower the limits and greet.

    Reads the limits from the first argument and a filter in hexadecimal from the second, if there is one.

    Args:
        later: Name of a limit that is not lowered yet.

    Returns:
        The descriptors to read frames from and to write frames to; input, output and errors lead to `/dev/null`.
    """
    leave_first_place()
    source, sink = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    lower_limits(",".join(part for part in sys.argv[1].split(",") if part.partition("=")[0] != later))
    greeting = "Python " + sys.version.split()[0]
    if sys.argv[2:]:
        greeting += ", " + forbid_calls(bytes.fromhex(sys.argv[2]))
    write_frame(sink, HELLO + b" " + greeting.encode())
    return source, sink
