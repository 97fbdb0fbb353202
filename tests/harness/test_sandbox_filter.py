"""The seccomp program: its numbers against the kernel's headers, its decisions by a machine that runs it."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from harness.evaluate.sandbox.syscall_filter import denied_calls, syscall_filter

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


def _decide(program: bytes, number: int, architecture: int, argument: int = 0) -> int:
    """Run the program as the kernel does, with its checks: forward jumps inside the program, aligned loads only."""
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, argument, 0, 0, 0, 0, 0)
    at, accumulator = 0, 0
    while True:
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x06:
            return value
        if kind == 0x20:
            assert value % 4 == 0 and value < len(data)
            accumulator = struct.unpack_from("<I", data, value)[0]
            continue
        taken = {
            0x15: accumulator == value,
            0x35: accumulator >= value,
            0x45: bool(accumulator & value),
        }[kind]
        at += yes if taken else no
        assert at < len(code)


def _numbers(machine: str) -> dict[str, int]:
    path = HEADERS[machine]
    if not path.is_file():
        pytest.skip(f"{path} is not here (apt-get install linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", path.read_text())
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_is_the_kernels(machine: str) -> None:
    known = _numbers(machine)
    denied = denied_calls(machine)
    assert len(denied) > 60
    # A header older than a call does not know it.
    assert {name: known[name] for name in denied if name in known} == {n: v for n, v in denied.items() if n in known}
    assert len([name for name in denied if name in known]) > 60
    assert len(set(denied.values())) == len(denied)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_denied_is_denied_and_nothing_else(machine: str) -> None:
    program, architecture = syscall_filter(machine), ARCHITECTURES[machine]
    denied = set(denied_calls(machine).values())
    clone = {"x86_64": 56, "aarch64": 220}[machine]
    for number in range(0, 600):
        expected = EPERM if number in denied else ENOSYS if number == 435 else ALLOW
        assert _decide(program, number, architecture) == expected, number
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert _decide(program, clone, architecture, flag | 17) == EPERM
    thread = 0x00000100 | 0x00000200 | 0x00000400 | 0x00000800 | 0x00010000 | 0x00040000 | 0x00080000 | 0x01200000
    assert _decide(program, clone, architecture, thread) == ALLOW
    assert _decide(program, clone, architecture, 17) == ALLOW


def test_another_calling_convention_is_no_way_round() -> None:
    program = syscall_filter("x86_64")
    assert _decide(program, 26, 0x40000003) == KILL  # ptrace of i386
    assert _decide(program, 0x40000000 | 521, ARCHITECTURES["x86_64"]) == EPERM  # ptrace of x32
    assert _decide(syscall_filter("aarch64"), 26, 0x40000028) == KILL


def test_an_unknown_architecture_has_no_filter() -> None:
    assert syscall_filter("riscv64") == b"" and denied_calls("riscv64") == {}
    assert syscall_filter("arm64") == syscall_filter("aarch64")


def test_the_program_fits_the_kernels_limits() -> None:
    for machine in ARCHITECTURES:
        program = syscall_filter(machine)
        assert len(program) % 8 == 0 and len(program) // 8 <= 4096
