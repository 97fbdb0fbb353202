"""`sparsebench doctor`: each look with the facts of other machines, and this machine as a whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from harness.doctor import Diagnosis, Finding, environment, tools
from harness.errors import EngineError, SandboxUnavailable

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "suites" / "pocket" / "model"
XEON = """processor\t: 0
flags\t\t: fpu sse2 avx2 fma avx512f avx512bw avx512_vnni amx_tile amx_int8 amx_bf16

processor\t: 1
flags\t\t: fpu sse2 avx2 fma avx512f avx512bw avx512_vnni amx_tile amx_int8
"""
OLD = "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_features_are_those_that_all_cores_have() -> None:
    assert environment.cpu_features(XEON) == (
        "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "amx_tile", "amx_int8"
    )  # fmt: skip
    assert environment.cpu_features(OLD) == ("avx2", "fma")
    assert environment.cpu_features("") == ()


def test_instructions_say_what_is_lacking(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(XEON)
    assert [(f.state, f.detail) for f in tools.instructions(cpuinfo)] == [("ok", "AVX-512, VNNI (int8), AMX")]
    cpuinfo.write_text(OLD)
    (warning,) = tools.instructions(cpuinfo)
    assert warning.state == "warn" and "no AVX-512, VNNI (int8), AMX" in warning.detail
    cpuinfo.write_text(ARM)
    there, lacking = tools.instructions(cpuinfo)
    assert there.detail == "dot product, int8 matrices" and "no SVE" in lacking.detail
    assert states(tools.instructions(tmp_path / "nowhere")) == ["warn"]


def test_missing_packages_stop_the_main_job_or_one_suite() -> None:
    assert states(environment.packages(lambda name: "1.0")) == ["ok"]
    (stop,) = environment.packages(lambda name: None if name in ("lm-eval", "pyarrow") else "1.0")
    assert stop.state == "fail" and "lm-eval, pyarrow" in stop.detail and "pip install" in stop.fix
    there, one_suite = environment.packages(lambda name: None if name == "langdetect" else "1.0")
    assert (there.state, one_suite.state) == ("ok", "warn") and "suite instruct" in one_suite.detail


def test_torch_that_is_missing_or_does_not_load() -> None:
    def absent() -> Mapping[str, str]:
        raise ModuleNotFoundError("No module named 'torch'")

    def broken() -> Mapping[str, str]:
        raise OSError("libcudart.so.12: cannot open shared object file")

    for load in (absent, broken):
        (finding,) = environment.torch(load)
        assert finding.state == "fail" and finding.fix
    findings = environment.torch(lambda: {"version": "2.13.0", "threads": "8", "accelerator": "NVIDIA H100"})
    assert states(findings) == ["ok", "ok"] and findings[1].detail == "NVIDIA H100"


def test_no_sandbox_is_a_warning_with_the_fix(tmp_path: Path) -> None:
    def none() -> str:
        raise SandboxUnavailable(
            "no sandbox for generated code (bwrap: x; docker: y); install one, e.g. apt-get install z"
        )

    finding = tools.sandbox(none, tmp_path)
    assert finding.state == "warn" and "suite code is refused" in finding.detail
    assert finding.fix == "install one, e.g. apt-get install z"
    assert tools.sandbox(lambda: "bwrap (Python 3.11)").state == "ok"


@pytest.mark.skipif(not (MODEL / "model.safetensors").is_file(), reason="the pocket model is not here")
def test_a_damaged_or_missing_bundled_model_stops_the_main_job(tmp_path: Path) -> None:
    assert states(tools.bundled()) == ["ok", "ok", "ok"]
    card = tmp_path / "README.md"
    shutil.copytree(MODEL, tmp_path / "model")
    shutil.copy(MODEL.parent / "README.md", card)
    models = {"pocket": tmp_path / "model"}
    assert states(tools.bundled(models)) == ["ok"]
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (finding,) = tools.bundled(models)
    assert finding.state == "fail" and "not those that its card names" in finding.detail
    weights.write_bytes(data[: len(data) // 2])
    assert states(tools.bundled(models)) == ["fail"]
    weights.unlink()
    assert states(tools.bundled(models)) == ["fail"]
    packed = Path(shutil.copytree(MODEL.parent / "sparse70", tmp_path / "sparse70"))
    assert states(tools.bundled({"pocket-sparse70": packed})) == ["ok"]
    (packed / "packed.safetensors").write_bytes((packed / "packed.safetensors").read_bytes()[:5000])
    assert states(tools.bundled({"pocket-sparse70": packed})) == ["fail"]


def test_real_data(tmp_path: Path) -> None:
    assert states(tools.real_data(None)) == ["ok"]
    (finding,) = tools.real_data(tmp_path / "nowhere")
    assert finding.state == "warn" and finding.fix
    found = {f.name: f for f in tools.real_data(tmp_path)}
    assert found["gsm8k"].state == "warn" and "missing" in found["gsm8k"].detail and found["gsm8k"].fix


def test_compiler(tmp_path: Path) -> None:
    assert tools.compiler(lambda name: None, {}).state == "warn"
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert tools.compiler(lambda name: str(broken), {}).state == "warn"
    broken.write_text("#!/bin/sh\necho c++ 1.2.3\n")
    finding = tools.compiler(lambda name: str(broken), {})
    assert (finding.state, finding.detail) == ("ok", "c++ 1.2.3")
    asked: list[str] = []
    tools.compiler(lambda name: asked.append(name), {"CXX": "icpx"})  # type: ignore[func-returns-value]
    assert asked == ["icpx"]


def test_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> ModuleType:
        raise EngineError("the CPU kernels of engine sparse were not built; install a compiler, or use engine torch")

    finding = tools.kernels(absent)
    assert finding.state == "warn" and "not built: engine torch runs everything" in finding.detail
    assert "apt-get install g++" in finding.fix
    module = ModuleType("_kernels")
    module.best_isa, module.isas = lambda: "avx2", lambda: ["scalar", "avx2", "avx512"]  # type: ignore[attr-defined]
    monkeypatch.delenv("SPARSEBENCH_ISA", raising=False)
    assert tools.kernels(lambda: module).detail == "built; uses avx2 (built and possible here: scalar, avx2, avx512)"
    monkeypatch.setenv("SPARSEBENCH_ISA", "avx2")
    assert "by SPARSEBENCH_ISA=avx2" in tools.kernels(lambda: module).detail


def test_the_hub_is_not_tried_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def reach(endpoint: str) -> str | None:
        raise AssertionError("the network was tried")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert "not tried" in tools.hub(offline=True, reach=reach).detail
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in tools.hub(offline=False, reach=reach).detail
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert tools.hub(offline=False, reach=lambda endpoint: None).state == "ok"
    finding = tools.hub(offline=False, reach=lambda endpoint: "no route")
    assert finding.state == "warn" and "no route" in finding.detail and finding.fix


def test_the_hub_is_asked_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server of this test that refuses, and a port where none listens."""
    import http.server
    import threading

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert tools.hub(offline=False).state == "ok"
    server.shutdown()
    server.server_close()
    assert tools.hub(offline=False).state == "warn"
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc/passwd")
    assert "no URL" in tools.hub(offline=False).detail


def test_low_memory_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n")
    assert environment.memory(meminfo).state == "warn"
    meminfo.write_text("MemTotal: 4194304 kB\nMemAvailable: 3145728 kB\n")
    finding = environment.memory(meminfo)
    assert (finding.state, finding.detail) == ("ok", "3.0 of 4.0 GiB available")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2**20))
    assert environment.disk(tmp_path).state == "warn"


def test_exit_codes_and_outputs() -> None:
    ok, warn, fail = (
        Finding("a", "b", state, "detail", "" if state == "ok" else "do it") for state in ("ok", "warn", "fail")
    )
    assert Diagnosis((ok, warn)).exit_code == 0
    assert Diagnosis((ok, warn, fail)).exit_code == 3
    assert Diagnosis(()).exit_code == 3
    text = Diagnosis((ok, warn, fail)).text()
    assert text.count("fix: do it") == 2 and text.splitlines()[-1].startswith("doctor: `sparsebench run` will not work")
    assert json.loads(Diagnosis((ok, warn)).json())["findings"][1]["fix"] == "do it"


def test_this_machine() -> None:
    command = [sys.executable, "-m", "harness.cli", "doctor", "--offline", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    body = json.loads(done.stdout)
    assert done.returncode == body["exit_code"] in (0, 3), done.stderr
    assert {f["area"] for f in body["findings"]} == {"environment", "sandbox", "data", "kernels", "hub"}
    assert all(f["fix"] for f in body["findings"] if f["state"] == "fail")
    assert (done.returncode == 0) == all(f["state"] != "fail" for f in body["findings"])
