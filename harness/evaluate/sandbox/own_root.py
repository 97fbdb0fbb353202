"""The first steps of a process that `unshare` started as root: a root folder of its own, then no rights any more.

Runs inside the new namespaces, before any foreign code is known to the process, and in the very interpreter that will
load it: a shell that calls `mount` a dozen times takes several times as long as starting Python.
"""

from __future__ import annotations

import ctypes
import os

from harness.evaluate.sandbox.protocol import decode

TYPE_CHECKING = False  # importing typing takes longer than starting Python
if TYPE_CHECKING:
    from collections.abc import Sequence

# Of <linux/mount.h>, <linux/prctl.h> and <asm/unistd.h>.
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _DETACH = 1, 2, 4, 32, 4096, 2
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS, _SIGKILL = 1, 24, 38, 9
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class _Libc:
    """The few calls that Python's `os` lacks, each of which raises OSError where it fails."""

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None, use_errno=True)

    def mount(self, source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
        words = [os.fsencode(word) or None for word in (source, target, kind, options)]
        _check(self._c.mount(*words[:3], ctypes.c_ulong(flags), words[3]), f"mount {target}")

    def detach(self, target: str) -> None:
        _check(self._c.umount2(os.fsencode(target), _DETACH), f"umount {target}")

    def pivot_root(self, new: str, old: str) -> None:
        number = _PIVOT_ROOT[os.uname().machine]
        _check(self._c.syscall(number, os.fsencode(new), os.fsencode(old)), "pivot_root")

    def prctl(self, option: int, value: int) -> bool:
        return bool(self._c.prctl(option, value, 0, 0, 0) == 0)


def _build(libc: _Libc, root: str, tmp: str, paths: Sequence[str], links: Sequence[tuple[str, str]]) -> None:
    """Mount the new root: read-only views of `paths`, two devices, an empty `/tmp`, and nothing else."""
    safe = _NOSUID | _NODEV
    libc.mount("sandbox", root, "tmpfs", safe, "size=1m,mode=755")
    for name in ("dev", "tmp", "old"):
        os.mkdir(f"{root}/{name}")
    libc.mount("sandbox", f"{root}/tmp", "tmpfs", safe, tmp)
    for path in (*paths, "/dev/null", "/dev/urandom"):
        place = root + path
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        libc.mount(path, place, "", _BIND)
        if not path.startswith("/dev/"):
            libc.mount("", place, "", _REMOUNT | _BIND | _RDONLY | safe)
    for link, target in links:
        os.symlink(target, root + link)
    libc.mount("", root, "", _REMOUNT | _BIND | _RDONLY | safe)
    libc.pivot_root(root, f"{root}/old")
    libc.detach("/old")
    os.chdir("/tmp")


def _drop(libc: _Libc, uid: int) -> None:
    """Become a user without rights, for good."""
    number = 0
    while libc.prctl(_CAPBSET_DROP, number):
        number += 1
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # Changing the user clears the signal that `unshare --kill-child` has asked for.
    if not libc.prctl(_PDEATHSIG, _SIGKILL) or not libc.prctl(_NO_NEW_PRIVS, 1):
        raise OSError("prctl failed")
    for attempt in (os.setuid, os.setgid):
        try:
            attempt(0)
        except OSError:
            continue
        raise OSError("rights were not dropped")


def enter_root(spec: bytes) -> None:
    """Build and enter the new root, drop all rights, and go on in a child.

    The first process of the namespace stays behind to wait: the kernel spares it the signals of limits.

    Args:
        spec: Encoded (root, options of `/tmp`, paths, links, user id).
    """
    root, tmp, paths, links, uid = decode(spec)
    libc = _Libc()
    _build(libc, root, tmp, paths, links)
    _drop(libc, uid)
    pid = os.fork()
    if pid == 0:
        return
    for fd in (0, 1, 2):
        os.close(fd)
    _, status = os.waitpid(pid, 0)
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
