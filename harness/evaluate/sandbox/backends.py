"""How each kind of sandbox starts a process: command lines only, nothing is run here.

All of them give the process no network, no capabilities, its own process table, a read-only view of one Python and
nothing else of the host, and a small private `/tmp`. What differs is who enforces it.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.evaluate.sandbox.interpreter import Interpreter
from harness.evaluate.sandbox.protocol import encode
from harness.evaluate.sandbox.syscall_filter import syscall_filter
from harness.evaluate.sandbox.types import Limits

NOBODY = 65534
# Ids that no distribution hands out to accounts, services or containers.
_FIRST_UID, _UIDS = 2_000_000_000, 100_000_000
# Sets and string hashing must come out the same in every run; without -I, since that would ignore PYTHONHASHSEED.
INSIDE_ENV: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
PYTHON_FLAGS = ("-s", "-S", "-B")
# Stands in a command line for the number of the descriptor that the filter is read from.
FILTER_FD = "@filter-fd@"
_INODES = 16_384


@dataclass(frozen=True)
class Launch:
    """A command line that starts one sandboxed process.

    Attributes:
        argv: The command.
        env: Its whole environment.
        stop: A command that ends the process where killing `argv` is not enough; empty otherwise.
        filter: The seccomp program that `argv` reads from the descriptor `FILTER_FD`; empty if it reads none.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
    stop: tuple[str, ...] = ()
    filter: bytes = b""


def _filter_argument() -> tuple[str, ...]:
    """The argument by which a guest installs the filter itself; none for an architecture without one."""
    program = syscall_filter(platform.machine())
    return (program.hex(),) if program else ()


class Backend(Protocol):
    """A kind of sandbox."""

    @property
    def name(self) -> str:
        """`bwrap`, `docker`, `podman` or `unshare`."""

    @property
    def python(self) -> str | None:
        """Path of the interpreter where it is one of this machine; None if it is inside an image."""

    @property
    def first(self) -> str | None:
        """The guest module whose `enter_root` takes the last argument before anything else happens, if there is one."""

    def launch(self, python_args: Sequence[str], limits: Limits, tag: str) -> Launch:
        """The command that runs Python with these arguments; `tag` is unique among the processes of this machine."""


@dataclass(frozen=True)
class Bwrap:
    """bubblewrap in an unprivileged user namespace.

    Attributes:
        executable: Path of `bwrap`.
        options: The options that this version of bubblewrap knows (`--help` names them).
        drop: Command prefix that gives up root first, because root is not bound by RLIMIT_NPROC; empty if not root.
        interpreter: What runs inside.
    """

    executable: str
    options: frozenset[str]
    drop: tuple[str, ...]
    interpreter: Interpreter
    name: str = "bwrap"
    first: str | None = None

    @property
    def python(self) -> str | None:
        """See `Backend`."""
        return self.interpreter.executable

    def launch(self, python_args: Sequence[str], limits: Limits, tag: str) -> Launch:
        """See `Backend`."""
        # No /proc: Python needs none, mounting one fails inside containers, and it would show the outer bwrap.
        argv = [*self.drop, self.executable, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
        argv += ["--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox"]
        if "--disable-userns" in self.options:
            argv += ["--disable-userns"]
        for key, value in INSIDE_ENV.items():
            argv += ["--setenv", key, value]
        for path in self.interpreter.paths:
            argv += ["--ro-bind", path, path]
        for link, target in self.interpreter.links:
            argv += ["--symlink", target, link]
        argv += ["--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"]
        argv += ["--size", str(limits.tmp_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
        filter_program = syscall_filter(platform.machine())
        if filter_program:
            argv += ["--seccomp", FILTER_FD]
        return Launch((*argv, "--", self.interpreter.executable, *PYTHON_FLAGS, *python_args), filter=filter_program)


@dataclass(frozen=True)
class Container:
    """docker or podman, for machines where a daemon answers but user namespaces are forbidden.

    Attributes:
        executable: Path of `docker` or `podman`.
        image: An image that is already present and holds `python3`.
        env: Environment of the client, which may need `DOCKER_HOST` and `HOME`.
        name: `docker` or `podman`.
    """

    executable: str
    image: str
    env: Mapping[str, str]
    name: str = "docker"
    python: str | None = None
    first: str | None = None

    def launch(self, python_args: Sequence[str], limits: Limits, tag: str) -> Launch:
        """See `Backend`."""
        user = f"{NOBODY}:{NOBODY}"
        argv = [self.executable, "run", "--rm", "--interactive", "--name", tag, "--pull", "never", "--network", "none"]
        argv += ["--ipc", "none"]  # no /dev/shm, which anyone may write to
        argv += ["--read-only", "--tmpfs", f"/tmp:rw,nosuid,nodev,size={limits.tmp_bytes},mode=1777"]
        argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", user, "--workdir", "/tmp"]
        # Python, its libraries and the garbage of a fork bomb together: twice the limit of one process.
        argv += ["--memory", str(2 * limits.memory_bytes), "--memory-swap", str(2 * limits.memory_bytes)]
        # One more: the first process only waits for the program's.
        argv += ["--pids-limit", str(limits.processes + 1), "--hostname", "sandbox", "--entrypoint", "python3"]
        for key, value in INSIDE_ENV.items():
            argv += ["--env", f"{key}={value}"]
        argv += [self.image, *PYTHON_FLAGS, *python_args, *_filter_argument()]
        return Launch(tuple(argv), self.env, (self.executable, "rm", "--force", tag))


@dataclass(frozen=True)
class Unshare:
    """util-linux's `unshare`, as root: namespaces, a new root of read-only binds, then an unprivileged user.

    Weaker than bubblewrap in one point: where the kernel knows no seccomp, the program may make user namespaces.

    Attributes:
        executable: Path of `unshare`.
        root: An empty folder to build the new root on; only ever mounted over in the private mount namespace.
        interpreter: What runs inside.
    """

    executable: str
    root: str
    interpreter: Interpreter
    name: str = "unshare"
    first: str | None = "own_root"

    @property
    def python(self) -> str | None:
        """See `Backend`."""
        return self.interpreter.executable

    def launch(self, python_args: Sequence[str], limits: Limits, tag: str) -> Launch:
        """See `Backend`."""
        # The kernel counts processes per user: with one user for all, a fork bomb would starve the judge.
        uid = _FIRST_UID + int.from_bytes(hashlib.sha256(tag.encode()).digest()[:4], "big") % _UIDS
        tmp = f"size={limits.tmp_bytes},nr_inodes={_INODES},mode=1777"
        spec = encode((self.root, tmp, self.interpreter.paths, self.interpreter.links, uid))
        argv = [self.executable, "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        argv += [self.interpreter.executable, *PYTHON_FLAGS, *python_args, *_filter_argument(), spec.hex()]
        return Launch(tuple(argv), env=dict(INSIDE_ENV))
