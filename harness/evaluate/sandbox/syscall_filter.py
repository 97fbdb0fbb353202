"""The system calls that a sandboxed process may not make, as a seccomp filter in the kernel's own byte code.

A deny list: what Python needs differs by version and library, and a call that an honest program misses would cost it
its score. Denied is what reaches the kernel's rarely used parts (bpf, io_uring, perf, keys, user namespaces), what
leaves the network namespace (vsock is not part of it), and what holds memory that no limit of a process counts
(System V segments, memfd). No dependency and no file: the program is a few hundred bytes, made here.
"""

from __future__ import annotations

import struct

# Numbers of x86_64 and aarch64 (None where the architecture has no such call), from the kernel's unistd headers.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mbind": (237, 235),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semctl": (66, 191),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
}
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1), "arm64": (0xC00000B7, 1)}
_CLONE, _CLONE3 = (56, 220), 435
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; CLONE_NEWTIME is only known to unshare and clone3.
_NEW_NAMESPACES = 0x7E020000
_X32 = 0x40000000  # the third calling convention of x86_64 has numbers of its own
_ALLOW, _DENY, _NO_SUCH, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def denied_calls(machine: str) -> dict[str, int]:
    """Name and number of each call that is denied whatever its arguments; empty for an unknown architecture."""
    if machine not in _MACHINES:
        return {}
    column = _MACHINES[machine][1]
    return {name: number for name, numbers in _DENIED.items() if (number := numbers[column]) is not None}


def syscall_filter(machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`; empty for an architecture that it does not know.

    Denied calls fail with EPERM. `clone` may start threads and processes but no namespaces; `clone3`, whose flags lie
    in memory where no filter can read them, does not exist (ENOSYS), and the C library falls back to `clone`.

    Args:
        machine: As `platform.machine()` names it.
    """
    if machine not in _MACHINES:
        return b""
    architecture, column = _MACHINES[machine]
    body: list[tuple[int, int, str]] = [(_EQUAL, _CLONE3, "no_such"), (_EQUAL, _CLONE[column], "clone")]
    if column == 0:
        body.insert(0, (_AT_LEAST, _X32, "deny"))
    body += [(_EQUAL, number, "deny") for number in denied_calls(machine).values()]
    head = 3  # load the architecture, compare it, load the number
    allow = head + len(body)
    labels = {"clone": allow + 1, "deny": allow + 4, "no_such": allow + 5, "kill": allow + 6}
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, labels["kill"] - 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        *((kind, labels[target] - at - 1, 0, value) for at, (kind, value, target) in enumerate(body, head)),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 1, 0, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _NO_SUCH),
        (_RETURN, 0, 0, _KILL),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in code)
