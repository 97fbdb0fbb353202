"""Programs that try to get out of the sandbox, to stall it, or to pass a test that they do not deserve to pass.

All face the same problem: `f(x)` must be `x + 1`. Those that attack the machine compute `x + 1` only where the attack
worked, the others never do; so each of them that passes has found a hole. `@PORT@`, `@SOCKET@` and `@PLANTED@` stand
for a listening TCP port, an abstract Unix socket and a file of the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent
from types import MappingProxyType

PROMPT = 'def f(x):\n    """Return x + 1."""\n'
TEST = "def check(candidate):\n    for x in (1, 2, 40):\n        assert candidate(x) == x + 1\n"

_MACHINE = {
    "write_outside": """
        import os
        def f(x):
            for path in ("@PLANTED@", "/hole", "/etc/hole", "/usr/lib/hole", "/dev/hole", "/dev/shm/hole", "/var/hole"):
                try:
                    with open(path, "w") as file:
                        file.write("hole")
                    return x + 1
                except OSError:
                    pass
        """,
    "read_host": """
        import glob, os
        def f(x):
            for path in ("@PLANTED@", "/etc/shadow", "/proc/1/environ", "/root/.bashrc", *glob.glob("/home/*/.*")):
                try:
                    with open(path, "rb") as file:
                        if file.read():
                            return x + 1
                except OSError:
                    pass
        """,
    "network": """
        import socket
        def f(x):
            for kind, address in (("AF_INET", ("127.0.0.1", @PORT@)), ("AF_INET", ("1.1.1.1", 53)),
                                  ("AF_UNIX", "\\0@SOCKET@")):
                try:
                    with socket.socket(getattr(socket, kind), socket.SOCK_STREAM) as s:
                        s.settimeout(1)
                        s.connect(address)
                    return x + 1
                except OSError:
                    pass
        """,
    "fork_bomb": """
        import os, time
        def f(x):
            children = 0
            try:
                while children < 64:
                    if os.fork() == 0:
                        while True:
                            time.sleep(9)
                    children += 1
            except OSError:
                return None
            return x + 1
        """,
    "memory": """
        def f(x):
            hoard = bytearray(2 << 30)
            return x + 1 if hoard[-1] == 0 else None
        """,
    "disk": """
        def f(x):
            written = 0
            try:
                for name in range(1000):
                    with open(f"/tmp/{name}", "wb", buffering=0) as file:
                        for _ in range(8):
                            written += file.write(bytes(1 << 20))
            except OSError:
                pass
            return x + 1 if written > 256 << 20 else None
        """,
    "see_processes": """
        import os
        def f(x):
            for pid in range(4, 40000):
                try:
                    if pid not in (os.getpid(), os.getppid()):
                        os.kill(pid, 0)
                        return x + 1
                except ProcessLookupError:
                    pass
                except PermissionError:
                    return x + 1
        """,
    "become_root": """
        import os
        def f(x):
            for attack in (lambda: os.setuid(0), lambda: os.chroot("/tmp"), lambda: os.mknod("/tmp/d", 0o60600, 1)):
                try:
                    attack()
                    return x + 1
                except OSError:
                    pass
        """,
    "raise_limits": """
        import resource
        def f(x):
            kind = resource.RLIMIT_AS
            try:
                resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            except (OSError, ValueError):
                return None
            return x + 1
        """,
    "endless_loop": """
        def f(x):
            while True:
                pass
        """,
    "endless_sleep": """
        import signal
        def f(x):
            for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                signal.pause()
        """,
    "endless_answer": """
        import itertools
        def f(x):
            return itertools.repeat(x)
        """,
    "kill_all": """
        import os, signal
        def f(x):
            for pid in (1, os.getppid(), -1):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    "crash": """
        def f(x):
            import ctypes
            return ctypes.string_at(0)
        """,
}

_VERDICT = {
    "exit_0": """
        import os
        os._exit(0)
        """,
    "exit_0_in_call": """
        import os
        def f(x):
            os._exit(0)
        """,
    "sys_exit": """
        import sys
        sys.exit(0)
        """,
    "exit_late": """
        import atexit, os
        atexit.register(os._exit, 0)
        def f(x):
            raise SystemExit(0)
        """,
    "print_passed": """
        import os
        def f(x):
            print("passed")
            os.write(1, b"passed\\n")
            os.write(2, b"passed\\n")
        """,
    "forge_verdict": """
        import os
        verdict = b"Vt2:s6:passeds0:"
        for fd in range(64):
            try:
                os.write(fd, len(verdict).to_bytes(4, "big") + verdict)
            except OSError:
                pass
        def f(x):
            return None
        """,
    "flood": """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    while True:
                        os.write(fd, b"\\xff" * 65536)
                except OSError:
                    pass
        """,
    "equal_to_all": """
        class Answer:
            def __eq__(self, other):
                return True
        def f(x):
            return Answer()
        """,
    "equal_int": """
        class Answer(int):
            def __eq__(self, other):
                return True
            def __ne__(self, other):
                return False
            __hash__ = int.__hash__
        def f(x):
            return Answer(0)
        """,
    "equal_others": """
        def evil(base):
            return type("Answer", (base,), {"__eq__": lambda *a: True, "__int__": lambda s: 3, "__class__": int})
        def f(x):
            return {1: evil(str)("2"), 2: evil(list)([3])}.get(x, evil(float)(0.5))
        """,
    "false_class": """
        class Answer:
            __class__ = int
            def __eq__(self, other):
                return True
            def __int__(self):
                return 2
            def __index__(self):
                return 2
        def f(x):
            return Answer()
        """,
    "walk_frames": """
        import sys
        def f(x):
            frame = sys._getframe()
            while frame is not None:
                for names in (frame.f_globals, frame.f_locals):
                    for name, value in list(names.items()):
                        if isinstance(value, list):
                            value.append("passed")
                        if name in ("status", "passed", "result", "verdict"):
                            names[name] = "passed"
                frame = frame.f_back
        """,
    "patch_builtins": """
        import builtins
        builtins.isinstance = builtins.issubclass = lambda *a: True
        builtins.AssertionError = type("AssertionError", (BaseException,), {"__new__": lambda *a: None})
        def f(x):
            builtins.type = lambda *a: int
        """,
    "patch_protocol": """
        import sys
        for name, module in list(sys.modules.items()):
            if name.startswith("harness"):
                module.encode = lambda *a: b"Vt2:s6:passeds0:"
                module.decode = lambda *a: ("passed", "", {})
        def f(x):
            return None
        """,
    "redefine_check": """
        def check(candidate):
            return None
        def f(x):
            return None
        """,
    "raise_in_call": """
        def f(x):
            raise KeyboardInterrupt
        """,
}

HOSTILE: Mapping[str, str] = MappingProxyType({name: dedent(text) for name, text in {**_MACHINE, **_VERDICT}.items()})
