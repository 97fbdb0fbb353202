"""Processes of our own import what is installed, whatever lies in the current folder.

A checkout is such a folder: its packages have no compiled kernels, which lie where it was installed to. Here a package
called torch stands for ours, because an editable install finds ours before it looks into any folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

POOL = """
import os
from pathlib import Path
from harness.pool import Pool

class Ask:
    name = "ask"
    def run(self, send):
        import harness
        return str(Path(harness.__file__).resolve()), os.environ.get("PYTHONSAFEPATH")

if __name__ == "__main__":
    for message in Pool(1, Path("errors.log")).run([Ask()]):
        print(message.kind, *message.value, os.environ.get("PYTHONSAFEPATH"))
"""
HOST = """
from harness.bench.panel import PanelRunner
with PanelRunner() as runner:
    print(open(f"/proc/{runner._host.pid}/cmdline").read().split(chr(0))[:4])
    import time
    for _ in range(100):
        time.sleep(0.1)
        if runner._host.poll() is not None or "torch" in open(f"/proc/{runner._host.pid}/maps").read():
            break
    print("alive", runner._host.poll() is None)
"""


@pytest.mark.parametrize(("script", "said"), [(POOL, "done"), (HOST, "alive True")], ids=["pool", "host"])
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_package_in_the_current_folder_is_not_imported(tmp_path: Path, script: str, said: str) -> None:
    decoy = tmp_path / "here" / "torch"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w'); raise ImportError")
    (tmp_path / "script.py").write_text(script)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        cwd=decoy.parent,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "imported").exists()
    if script is POOL:
        # The caller's environment is left as it was.
        assert done.stdout.split()[-1] == "None"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server notices only when it has imported all")
def test_the_server_of_workers_ends_with_a_program_that_is_refused(tmp_path: Path) -> None:
    """It imports for seconds, here for ever; who reads the output through a pipe would wait for it."""
    (tmp_path / "slow" / "torch").mkdir(parents=True)
    (tmp_path / "slow" / "torch" / "__init__.py").write_text(
        f"import time; open({str(tmp_path / 'imported')!r}, 'w'); time.sleep(900)"
    )
    script = (
        "import sys, time; from pathlib import Path; from harness.pool import Pool; Pool(1, Path('errors.log'))\n"
        f"while not Path({str(tmp_path / 'imported')!r}).exists(): time.sleep(0.01)\n"
        "sys.exit('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "slow")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "refused\n")
