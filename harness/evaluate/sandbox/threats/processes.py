"""Threats to other processes, and by way of the program's own."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_PROCESSES, _RIGHTS, _LIFE = "other processes", "the rights of other users", "what runs after the verdict"

PROCESSES: tuple[Threat, ...] = (
    Threat(
        name="see_processes",
        goal="machine",
        asset=_PROCESSES,
        attack="looks for processes by their numbers",
        control="a process table of its own",
        program="""
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
    ),
    Threat(
        name="kill_all",
        goal="machine",
        asset=_PROCESSES,
        attack="sends SIGKILL to the first process, its parent, everybody and itself",
        control="a process table of its own",
        ends=("killed",),
        program="""
        import os, signal
        def f(x):
            for pid in (1, os.getppid(), -1):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    ),
    Threat(
        name="stop_self",
        goal="machine",
        asset="time",
        attack="stops its parent and itself by SIGSTOP, so that nothing goes on",
        control="the harness's clock ends the sandbox",
        ends=("timeout",),
        quick=False,
        program="""
        import os, signal
        def f(x):
            for pid in (os.getppid(), os.getpid()):
                try:
                    os.kill(pid, signal.SIGSTOP)
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="ptrace",
        goal="machine",
        asset=_PROCESSES,
        attack="attaches to its parents as a debugger, and to a child of its own",
        control="a process table of its own; system call denied",
        marked=True,
        program="""
        import ctypes, os, signal
        libc = ctypes.CDLL(None, use_errno=True)
        def f(x):
            child = os.fork()
            if child == 0:
                signal.pause()
            got = [libc.ptrace(16, pid, 0, 0) for pid in (1, os.getppid(), child)]
            os.kill(child, signal.SIGKILL)
            return x + 1 if 0 in got else None
        """,
    ),
    Threat(
        name="other_memory",
        goal="machine",
        asset=_PROCESSES,
        attack="reads the memory of its parents (process_vm_readv, /proc/PID/mem)",
        control="a process table of its own; system call denied; no /proc",
        marked=True,
        program="""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        class Part(ctypes.Structure):
            _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))
        def f(x):
            room = ctypes.create_string_buffer(64)
            here, there = Part(ctypes.addressof(room), 64), Part(ctypes.addressof(room), 64)
            for pid in {1, os.getppid()} - {os.getpid()}:
                if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) >= 0:
                    return x + 1
                try:
                    open("/proc/" + str(pid) + "/mem", "rb")
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="become_root",
        goal="machine",
        asset=_RIGHTS,
        attack="takes root's user and group, changes its root folder",
        control="an unprivileged user without capabilities, who can gain none",
        program="""
        import os
        def f(x):
            for attack in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]),
                           lambda: os.chroot("/tmp")):
                try:
                    attack()
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="setuid_programs",
        goal="machine",
        asset=_RIGHTS,
        attack="runs su, sudo and mount, and a copy of Python with the set-user-id bit",
        control="none of them is there; nothing gains rights by being run; /tmp ignores the bit",
        program="""
        import os, shutil, subprocess, sys
        def f(x):
            try:
                shutil.copy(sys.executable, "/tmp/python")
                os.chmod("/tmp/python", 0o6755)
                run = subprocess.run(["/tmp/python", "-S", "-c", "import os; print(os.geteuid())"], capture_output=True)
                if run.returncode == 0 and int(run.stdout) != os.getuid():
                    return x + 1
            except OSError:
                pass
            for argv in (["/usr/bin/su", "-c", "true"], ["/usr/bin/sudo", "-n", "true"], ["/usr/bin/umount", "/tmp"],
                         ["/usr/bin/mount", "-t", "tmpfs", "x", "/tmp"], ["/usr/bin/umount", "-l", "/"]):
                try:
                    if subprocess.run(argv, capture_output=True, timeout=1).returncode == 0:
                        return x + 1
                except (OSError, subprocess.TimeoutExpired):
                    pass
        """,
    ),
    Threat(
        name="priority",
        goal="machine",
        asset="processor time of others",
        attack="asks for real-time scheduling and a higher priority",
        control="no capabilities",
        program="""
        import os
        def f(x):
            for attack in (lambda: os.nice(-20), lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
                           lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))):
                try:
                    attack()
                    return x + 1
                except OSError:
                    pass
        """,
    ),
    Threat(
        name="daemon",
        goal="machine",
        asset=_LIFE,
        attack="leaves a daemon behind (double fork, new session) and loops in it",
        control="the end of its first process ends the whole process table",
        program="""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    pass
            os._exit(0)
        def f(x):
            return None
        """,
        marked=True,
    ),
    Threat(
        name="outliving_thread",
        goal="machine",
        asset=_LIFE,
        attack="leaves a thread that ignores the end of the program",
        control="the sandbox is ended by SIGKILL once the verdict is there",
        program="""
        import threading, time
        def forever():
            while True:
                time.sleep(0.01)
        threading.Thread(target=forever, daemon=False).start()
        def f(x):
            return None
        """,
    ),
)
