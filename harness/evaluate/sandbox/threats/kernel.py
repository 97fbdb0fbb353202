"""Threats by way of system calls that no honest program makes."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_KERNEL, _WALLS = "the kernel", "the sandbox's own walls"
_DENIED = "system call denied"


def _calls(*calls: str, setup: str = "") -> str:
    """A program that makes system calls and has won if one of them succeeds.

    Args:
        calls: The arguments of `syscall`, the number by `nr(x86_64, aarch64)`.
        setup: A line before.
    """
    tries = "".join(f"            got.append(libc.syscall({call}))\n" for call in calls)
    return f"""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        room = ctypes.create_string_buffer(4096)
        def nr(intel, arm):
            return intel if os.uname().machine == "x86_64" else arm
        {setup}
        def f(x):
            got = []
{tries}            return x + 1 if max(got) >= 0 else None
        """


def _call(name: str, asset: str, attack: str, program: str, control: str = _DENIED) -> Threat:
    return Threat(name=name, goal="machine", asset=asset, attack=attack, control=control, program=program, marked=True)


KERNEL: tuple[Threat, ...] = (
    _call(
        "mount",
        _WALLS,
        "mounts a file system of its own, makes `/` writable, unmounts /tmp (mount, fsopen, open_tree)",
        _calls(
            'nr(165, 40), b"none", b"/tmp", b"tmpfs", 0, None',
            'nr(165, 40), None, b"/", None, 0x1020, None',
            'nr(166, 39), b"/tmp", 2',
            '430, b"tmpfs", 0',
            '428, -100, b"/", 1',
        ),
        "no capabilities; system calls denied",
    ),
    _call(
        "namespaces",
        _WALLS,
        "makes a user namespace, in which it would be root (unshare, clone, clone3, setns)",
        _calls(
            "nr(272, 97), 0x10000000",
            "nr(56, 220), 0x10000011, None, None, None, None",
            "435, args, 88",
            'nr(308, 268), os.open("/tmp", os.O_RDONLY), 0',
            setup='args = ctypes.create_string_buffer((0x10000000).to_bytes(8, "little") + bytes(80), 88)',
        ),
        "nested user namespaces forbidden; system calls denied",
    ),
    _call(
        "keyctl",
        "keys of the kernel",
        "stores and reads keys (keyctl, add_key)",
        _calls(
            "nr(250, 219), 0, -3, 1",
            'nr(248, 217), b"user", b"hole", b"x", 1, -4',
        ),
    ),
    _call("bpf", _KERNEL, "loads a program into the kernel", _calls("nr(321, 280), 0, room, 48")),
    _call(
        "perf",
        _KERNEL,
        "opens performance counters",
        _calls(
            "nr(298, 241), attributes, 0, -1, -1, 0",
            setup='attributes = ctypes.create_string_buffer((1).to_bytes(4, "little") + (64).to_bytes(4, "little")'
            ' + bytes(32) + (0x61).to_bytes(8, "little") + bytes(16), 64)',
        ),
    ),
    _call("io_uring", _KERNEL, "sets up a ring of requests, which go past other filters", _calls("425, 8, room")),
    _call("userfaultfd", _KERNEL, "handles page faults itself, to win races in the kernel", _calls("nr(323, 282), 1")),
    _call(
        "kernel_modules",
        _KERNEL,
        "loads a module, another kernel, and restarts the machine",
        _calls(
            'nr(175, 105), room, 64, b""',
            "nr(246, 104), 0, 0, None, 0",
            "nr(169, 142), 0xFEE1DEAD - (1 << 32), 672274793, 0",
        ),
        "no capabilities; system calls denied",
    ),
    _call(
        "clock",
        "the machine's clock and name",
        "sets the time and the host name",
        _calls(
            "nr(227, 112), 0, room",
            'nr(170, 161), b"hole", 4',
        ),
        "no capabilities; system calls denied",
    ),
    _call("kernel_log", _KERNEL, "reads the kernel's log", _calls("nr(103, 116), 3, room, 4096")),
)
