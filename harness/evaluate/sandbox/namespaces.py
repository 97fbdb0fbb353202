"""Why this machine does not let ordinary users make namespaces, and the command that lets them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# AppArmor's own way to allow one program; the sysctl would allow all of them.
_PROFILE = (
    "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile bwrap /usr/bin/bwrap flags=(unconfined) {\\n"
    "  userns,\\n}\\n' | sudo tee /etc/apparmor.d/bwrap && sudo apparmor_parser -r /etc/apparmor.d/bwrap"
)
_KINDS = ("user", "mnt", "pid", "net", "ipc", "uts")
_ENOUGH = 15_000
_MARKERS = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True)
class Denial:
    """One thing that forbids namespaces.

    Attributes:
        reason: What is set, and by whom it usually is.
        fix: A command, or what to change where no command can do it.
    """

    reason: str
    fix: str


def namespace_denials(root: Path = Path("/"), *, uid: int | None = None) -> tuple[Denial, ...]:
    """What forbids a user to make the namespaces that bubblewrap needs; empty where nothing is known to.

    Args:
        root: The root folder, below which `proc/sys` and the marks of containers are read.
        uid: The user; None is this process's. Root is bound by the limits on number only.
    """
    user = os.geteuid() if uid is None else uid
    settings = root / "proc" / "sys"
    found = []
    if user and _value(settings / "kernel" / "unprivileged_userns_clone") == 0:
        found.append(
            Denial(
                "kernel.unprivileged_userns_clone is 0 (Debian, hardened kernels)",
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            )
        )
    if user and (_value(settings / "kernel" / "apparmor_restrict_unprivileged_userns") or 0) > 0:
        github = " (a step of a CI job: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)"
        found.append(
            Denial(
                "kernel.apparmor_restrict_unprivileged_userns is 1 (Ubuntu 23.10 and later, CI runners built on it)",
                _PROFILE + github,
            )
        )
    for kind in _KINDS:
        name = f"max_{kind}_namespaces"
        if _value(settings / "user" / name) == 0:
            found.append(Denial(f"user.{name} is 0", f"sudo sysctl -w user.{name}={_ENOUGH}"))
    if any((root / mark.lstrip("/")).exists() for mark in _MARKERS):
        found.append(
            Denial(
                "this is a container, and container engines forbid namespaces inside by default",
                "start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
                "--security-opt systempaths=unconfined, or with --cap-add SYS_ADMIN as root",
            )
        )
    return tuple(found)


def _value(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
