"""Each setting that denies namespaces is found in a made-up /proc/sys, with the command that ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor import tools
from harness.errors import SandboxUnavailable
from harness.evaluate.sandbox.namespaces import namespace_denials


def _set(root: Path, name: str, value: str) -> None:
    path = root / "proc" / "sys" / name.replace(".", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value + "\n")


@pytest.mark.parametrize(
    ("name", "denying", "allowing", "fix"),
    [
        ("kernel.unprivileged_userns_clone", "0", "1", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0", "sudo apparmor_parser -r /etc/apparmor.d/bwrap"),
        ("user.max_user_namespaces", "0", "96365", "sudo sysctl -w user.max_user_namespaces=15000"),
        ("user.max_net_namespaces", "0", "96365", "sudo sysctl -w user.max_net_namespaces=15000"),
    ],
)
def test_a_denying_setting_names_its_command(tmp_path: Path, name: str, denying: str, allowing: str, fix: str) -> None:
    _set(tmp_path, name, allowing)
    assert namespace_denials(tmp_path, uid=1000) == ()
    _set(tmp_path, name, denying)
    (denial,) = namespace_denials(tmp_path, uid=1000)
    assert f"{name} is {denying}" in denial.reason and fix in denial.fix
    assert "\n" not in denial.fix
    bound = namespace_denials(tmp_path, uid=0)
    assert bound == ((denial,) if name.startswith("user.") else ())


def test_ci_runners_get_the_sysctl(tmp_path: Path) -> None:
    _set(tmp_path, "kernel.apparmor_restrict_unprivileged_userns", "1")
    (denial,) = namespace_denials(tmp_path, uid=1001)
    assert "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in denial.fix
    assert "Ubuntu" in denial.reason


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_a_container_is_recognised(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    (denial,) = namespace_denials(tmp_path, uid=0)
    assert "container" in denial.reason and "--security-opt seccomp=unconfined" in denial.fix


def test_absent_or_odd_settings_deny_nothing(tmp_path: Path) -> None:
    assert namespace_denials(tmp_path, uid=1000) == ()
    _set(tmp_path, "user.max_user_namespaces", "")
    _set(tmp_path, "kernel.unprivileged_userns_clone", "maybe")
    assert namespace_denials(tmp_path, uid=1000) == ()


def _fails(message: str) -> SandboxUnavailable:
    return SandboxUnavailable(message)


def test_the_doctor_names_the_setting_rather_than_the_package(tmp_path: Path) -> None:
    def denied() -> str:
        raise _fails(
            "no sandbox for generated code (bwrap: sandbox bwrap does not start: bwrap: setting up uid map: Permission "
            "denied; docker: docker is not installed); install one, e.g. apt-get install bubblewrap"
        )

    _set(tmp_path, "kernel.apparmor_restrict_unprivileged_userns", "1")
    _set(tmp_path, "user.max_user_namespaces", "0")
    finding = tools.sandbox(denied, tmp_path, uid=1000)
    assert finding.state == "warn" and "apparmor_restrict_unprivileged_userns is 1" in finding.detail
    assert "install" not in finding.fix
    assert "/etc/apparmor.d/bwrap" in finding.fix and "user.max_user_namespaces=15000" in finding.fix


def test_the_doctor_names_both_where_both_are_missing(tmp_path: Path) -> None:
    def absent() -> str:
        raise _fails("no sandbox (bwrap: bwrap is not installed); install one, e.g. apt-get install bubblewrap")

    _set(tmp_path, "kernel.unprivileged_userns_clone", "0")
    finding = tools.sandbox(absent, tmp_path, uid=1000)
    assert finding.fix == (
        "install one, e.g. apt-get install bubblewrap; then sudo sysctl -w kernel.unprivileged_userns_clone=1"
    )
