"""Threats to memory and disk space."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_MEMORY, _DISK = "memory", "disk space"
_SPACE = "limit on the address space"

MEMORY: tuple[Threat, ...] = (
    Threat(
        name="memory",
        goal="machine",
        asset=_MEMORY,
        attack="takes 2 GiB at once",
        control=_SPACE,
        ends=("oom",),
        program="""
        def f(x):
            hoard = bytearray(2 << 30)
            return x + 1 if hoard[-1] == 0 else None
        """,
    ),
    Threat(
        name="memory_in_pieces",
        goal="machine",
        asset=_MEMORY,
        attack="takes memory piece by piece and holds on to it when it is refused",
        control=_SPACE,
        # Where the machine gives pages slowly, the processor time ends it first.
        ends=("oom", "failed_assert", "timeout"),
        program="""
        hoard = []
        def f(x):
            try:
                for _ in range(640):
                    hoard.append(bytearray(1 << 20))
            except MemoryError:
                return None
            return x + 1
        """,
    ),
    Threat(
        name="memory_of_children",
        goal="machine",
        asset=_MEMORY,
        attack="takes memory in many child processes at a time",
        control="limits on the address space and on processes",
        ends=("failed_assert", "killed"),
        quick=False,
        program="""
        import os, time
        def f(x):
            reads, writes = os.pipe()
            for _ in range(64):
                try:
                    if os.fork() == 0:
                        hoard = bytearray(64 << 20)
                        hoard[::4096] = b"x" * len(hoard[::4096])
                        os.write(writes, b"x")
                        time.sleep(60)
                except OSError:
                    break
            time.sleep(1.0)
            os.write(writes, b"x")
            return x + 1 if len(os.read(reads, 100)) > 32 else None
        """,
    ),
    Threat(
        name="shared_memory",
        goal="machine",
        asset=_MEMORY,
        attack="fills System V segments and lets go of them, which no limit of a process counts",
        control="system call denied; in a container, its memory limit",
        marked=True,
        ends=("failed_assert", "killed"),
        program="""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        libc.shmdt.argtypes = (ctypes.c_void_p,)
        def f(x):
            taken = 0
            while taken < 640 << 20:
                segment = libc.shmget(0, 16 << 20, 0o1600)
                if segment < 0:
                    return None
                at = libc.shmat(segment, None, 0)
                ctypes.memset(at, 1, 16 << 20)
                libc.shmdt(at)
                taken += 16 << 20
            return x + 1
        """,
    ),
    Threat(
        name="memory_files",
        goal="machine",
        asset=_MEMORY,
        attack="fills anonymous memory files (memfd), which no limit on the address space counts",
        control="system call denied; in a container, its memory limit",
        ends=("failed_assert", "killed"),
        program="""
        import os
        def f(x):
            files = []
            try:
                for _ in range(43):
                    files.append(os.memfd_create("hole"))
                    for _ in range(15):
                        os.write(files[-1], bytes(1 << 20))
            except OSError:
                return None
            return x + 1
        """,
    ),
    Threat(
        name="memory_program",
        goal="machine",
        asset="the host's files",
        attack="runs a program that lies in no file (memfd), which then looks for the host",
        control="system call denied; what is run is in the same sandbox",
        program="""
        import os, sys
        def f(x):
            try:
                fd = os.memfd_create("hole", 0)
                with open(sys.executable, "rb") as file:
                    while part := file.read(1 << 20):
                        os.write(fd, part)
            except OSError:
                return None
            pid = os.fork()
            if pid == 0:
                os.execve(fd, ["python", "-S", "-c", "open('@PLANTED@').read()"], dict(os.environ))
            return x + 1 if os.waitpid(pid, 0)[1] == 0 else None
        """,
    ),
    Threat(
        name="locked_memory",
        goal="machine",
        asset=_MEMORY,
        attack="locks 64 MiB, so that they cannot be swapped out",
        control="limit on locked memory",
        marked=True,
        program="""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            room = ctypes.create_string_buffer(64 << 20)
            return x + 1 if libc.mlock(room, len(room)) == 0 or libc.mlockall(3) == 0 else None
        """,
    ),
    Threat(
        name="huge_pages",
        goal="machine",
        asset=_MEMORY,
        attack="takes 1 GiB of huge pages",
        control=_SPACE,
        program="""
        import mmap
        def f(x):
            try:
                room = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
                room[0] = 1
                return x + 1
            except OSError:
                return None
        """,
    ),
    Threat(
        name="disk",
        goal="machine",
        asset=_DISK,
        attack="fills the disk with files",
        control="/tmp of its own, in memory, of a fixed size",
        program="""
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
    ),
    Threat(
        name="large_file",
        goal="machine",
        asset=_DISK,
        attack="writes one file beyond the limit, ignoring the signal",
        control="limit on the size of a file",
        program="""
        import signal
        def f(x):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            written = 0
            try:
                with open("/tmp/large", "wb", buffering=0) as file:
                    while written < 24 << 20:
                        written += file.write(bytes(1 << 20))
            except OSError:
                return None
            return x + 1
        """,
    ),
    Threat(
        name="sparse_file",
        goal="machine",
        asset=_DISK,
        attack="makes a file of 1 TiB that holds nothing",
        control="limit on the size of a file",
        program="""
        import os
        def f(x):
            try:
                with open("/tmp/sparse", "wb") as file:
                    os.truncate(file.fileno(), 1 << 40)
            except OSError:
                return None
            return x + 1
        """,
    ),
    Threat(
        name="inode_flood",
        goal="machine",
        asset=_MEMORY,
        attack="makes empty files without end, each of which takes memory of the kernel",
        control="limit on processor time, and with `unshare` on files; /tmp ends with the program",
        ends=("failed_assert", "timeout"),
        quick=False,
        program="""
        import os
        def f(x):
            try:
                for name in range(1_000_000):
                    os.close(os.open(f"/tmp/{name}", os.O_CREAT | os.O_WRONLY))
            except OSError:
                return None
            return x + 1
        """,
    ),
)
