"""Which sandbox is chosen, what command it runs, and what is said where there is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigError, InfrastructureError, SandboxUnavailable
from harness.evaluate.sandbox import Job, Limits, Problem, Sandbox, SandboxInfo, open_sandbox, probe
from harness.evaluate.sandbox.backends import Bwrap, Container, Launch, Unshare, _filter_argument
from harness.evaluate.sandbox.interpreter import Interpreter, find_interpreter
from harness.evaluate.sandbox.protocol import decode

probe_module = sys.modules["harness.evaluate.sandbox.probe"]
_PYTHON = Interpreter("/usr/bin/python3.11", "3.11.2", ("/usr/bin/python3.11", "/usr/lib"), (("/lib", "usr/lib"),))
_JOB = Job(Problem("t", "", "def check(c):\n    assert c() == 1\n", "f"), "def f():\n    return 1\n")


def test_bwrap_shows_only_the_interpreter_and_drops_root() -> None:
    bwrap = Bwrap("/usr/bin/bwrap", frozenset({"--disable-userns"}), ("/usr/bin/setpriv", "--reuid=65534"), _PYTHON)
    argv = list(bwrap.launch(("-c", "pass"), Limits(tmp_bytes=4096), "tag").argv)
    assert argv[:3] == ["/usr/bin/setpriv", "--reuid=65534", "/usr/bin/bwrap"]
    wanted = "--unshare-all --unshare-user --die-with-parent --new-session --clearenv --disable-userns"
    assert set(wanted.split()) <= set(argv)
    assert argv[argv.index("--cap-drop") + 1] == "ALL"
    shown = [argv[i + 1] for i, word in enumerate(argv) if word.endswith("bind")]
    assert shown == ["/usr/bin/python3.11", "/usr/lib", "/dev/null", "/dev/urandom"]
    assert argv[argv.index("--size") + 1 : argv.index("--size") + 4] == ["4096", "--tmpfs", "/tmp"]
    assert argv[argv.index("--remount-ro") + 1] == "/"
    assert argv[argv.index("--") + 1] == "/usr/bin/python3.11"
    older = Bwrap("/usr/bin/bwrap", frozenset(), (), _PYTHON).launch(("-c", "pass"), Limits(), "tag").argv
    assert "--disable-userns" not in older
    assert older[0] == "/usr/bin/bwrap"


def test_container_has_no_network_no_rights_and_a_way_to_stop() -> None:
    launch = Container("/usr/bin/podman", "python:3", {"HOME": "/h"}, "podman").launch(("-c", "x"), Limits(), "tag-7")
    argv = " ".join(launch.argv)
    for part in (
        "--network none",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--user 65534:65534",
        "--pids-limit 17",
        "--ipc none",
        "--pull never",
        "--name tag-7",
        "--interactive",
    ):
        assert part in argv
    assert argv.endswith(" ".join(["python:3 -s -S -B -c x", *_filter_argument()]))
    assert launch.stop == ("/usr/bin/podman", "rm", "--force", "tag-7")
    assert "--volume" not in argv and "--env HOME=/h" not in argv


def test_unshare_gives_each_launch_a_user_of_its_own() -> None:
    unshare = Unshare("/bin/unshare", "/tmp/root", _PYTHON)
    first, second = (unshare.launch(("-c", "x"), Limits(), tag).argv for tag in ("a", "b"))
    assert {"--mount", "--pid", "--net", "--ipc", "--uts", "--kill-child"} <= {*first}
    specs = [decode(bytes.fromhex(argv[-1])) for argv in (first, second)]
    assert specs[0][4] != specs[1][4]
    assert all(spec[4] >= 2_000_000_000 for spec in specs)
    assert specs[0][0] == "/tmp/root" and specs[0][2:4] == (_PYTHON.paths, _PYTHON.links)


def test_the_interpreter_is_readable_by_everybody() -> None:
    found = find_interpreter(any_user=True)
    for path in (found.executable, *found.paths):
        for folder in Path(path).parents:
            assert folder.stat().st_mode & 0o001
    assert not any(path.startswith("/root") for path in found.paths)


def test_no_interpreter_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.evaluate.sandbox.interpreter._world_readable", lambda path: False)
    with pytest.raises(SandboxUnavailable, match="install the system's python3"):
        find_interpreter.__wrapped__(any_user=True)


def test_an_unknown_sandbox_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBENCH_SANDBOX", "process")
    with pytest.raises(ConfigError, match="choose one of auto, bwrap, docker, podman, unshare") as caught:
        probe()
    assert caught.value.exit_code == 2


def test_without_any_sandbox_the_reasons_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probe_module, "_PATH", str(tmp_path))
    monkeypatch.delenv("SPARSEBENCH_SANDBOX", raising=False)
    with pytest.raises(SandboxUnavailable) as caught:
        probe()
    message = str(caught.value)
    assert all(f"{name}: " in message for name in ("bwrap", "docker", "podman", "unshare"))
    assert "\n" not in message and "install" in message
    assert caught.value.exit_code == 3


def test_a_daemon_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="docker does not answer"):
        probe("docker")


def test_a_missing_image_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = tmp_path / "podman"
    client.write_text('#!/bin/sh\n[ "$1" = version ]\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SPARSEBENCH_SANDBOX_IMAGE", "own/image:1")
    with pytest.raises(SandboxUnavailable, match="podman pull own/image:1"):
        probe("podman")


class _Broken:
    name = "broken"
    python = None
    first = None

    def __init__(self, argv: tuple[str, ...]) -> None:
        self.argv = argv

    def launch(self, python_args: object, limits: Limits, tag: str) -> Launch:
        return Launch(self.argv)


@pytest.mark.parametrize("argv", [("/bin/sh", "-c", "echo no namespaces >&2; exit 1"), ("/nonexistent",)])
def test_a_sandbox_that_does_not_start_scores_nothing(argv: tuple[str, ...]) -> None:
    sandbox = Sandbox(_Broken(argv), SandboxInfo("broken", ""), workers=1)
    with pytest.raises(InfrastructureError, match="does not start: .*(no namespaces|No such file)") as caught:
        sandbox.run([_JOB])
    assert caught.value.exit_code == 3


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setenv("SPARSEBENCH_SANDBOX", "bwrap")
    try:
        info = probe()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert info.name == "bwrap" and "Python 3" in info.detail
    assert open_sandbox().run([_JOB])[0].passed
