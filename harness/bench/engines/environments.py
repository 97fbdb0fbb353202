"""The peers' environments: made by the benchmark, never dependencies of ours; what cannot be had says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfrastructureError

WORKERS = Path(__file__).with_name("workers")
_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Environment:
    """What a peer needs.

    Attributes:
        script: Its worker.
        pins: What pip installs, in one call each.
        python: Version that its wheels are for; empty is any.
        variables: Of pip's environment (a build from source).
        source: pip's option for packages that are built here.
    """

    script: str
    pins: tuple[tuple[str, ...], ...] = ()
    python: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    source: tuple[str, ...] = ()


_ONNX = ("onnx==1.23.2", "numpy==2.4.6")
ENVIRONMENTS = {
    "ours": Environment("our_worker.py"),
    "kernels": Environment("our_worker.py"),
    "reader": Environment("our_worker.py"),
    "torch": Environment("torch_worker.py"),
    "llama.cpp": Environment(
        "llama_worker.py",
        (("llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy==2.4.6"),),
        variables={
            "CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF",
            "CMAKE_BUILD_PARALLEL_LEVEL": "1",
        },
        source=("--no-binary", "llama-cpp-python"),
    ),
    "openvino": Environment("onnx_worker.py", (("openvino==2026.4.1", *_ONNX),)),
    "onnxruntime": Environment("onnx_worker.py", (("onnxruntime==1.31.1", *_ONNX),)),
    "deepsparse": Environment("onnx_worker.py", (("deepsparse==1.8.0", "numpy==1.26.4"),), python="3.11"),
}
OURS = ("ours", "kernels", "reader", "torch")


def command_of(engine: str, peers: Path | None) -> list[str]:
    """How an engine's worker is started; a peer's environment is made if it is not there.

    Raises:
        InfrastructureError: The environment cannot be had.
    """
    environment = ENVIRONMENTS[engine]
    python = sys.executable if engine in OURS else str(_ready(engine, environment, peers))
    return [python, str(WORKERS / environment.script)]


def variables_of(engine: str, threads: int) -> dict[str, str]:
    """The environment variables of a worker: threads, and huge pages for everything that malloc gives out."""
    found = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "THP_MEM_ALLOC_ENABLE": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    found.pop("PYTHONPATH", None)
    if engine in OURS:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return found


def _compiler(environment: Environment) -> dict[str, str]:
    """Compilers for a build from source; empty leaves the choice to the build.

    Seen: llama.cpp built by gcc 12 crashes where it first loads AMX's configuration, and built by clang 14 it does not.
    Why is not known, nor of newer versions of gcc, which are left to the build.
    """
    if not environment.source or "amx_tile" not in _processor_flags():
        return {}
    gcc = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True) if shutil.which("gcc") else None
    if gcc is None or gcc.returncode or int(gcc.stdout.split(".")[0]) >= 13:
        return {}
    for version in ("", *(f"-{number}" for number in range(21, 13, -1))):
        if shutil.which(f"clang{version}") and shutil.which(f"clang++{version}"):
            return {"CC": f"clang{version}", "CXX": f"clang++{version}"}
    return {}


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""


def _ready(engine: str, environment: Environment, peers: Path | None) -> Path:
    if peers is None:
        raise InfrastructureError("not installed; --peers names the folder for the peers' environments")
    directory = peers / engine
    python, done = directory / "bin" / "python", directory / "installed.txt"
    wanted = "\n".join(" ".join(pins) for pins in environment.pins) + "\n"
    if done.exists() and done.read_text("utf-8") == wanted and python.exists():
        return python
    if not python.exists():
        _make(directory, environment.python)
    for pins in environment.pins:
        # A wheel that pip has kept may be another compiler's.
        cache = ["--no-cache-dir"] if environment.source else []
        install = [str(python), "-m", "pip", "install", "-q", *cache, *environment.source, *pins]
        variables = {**os.environ, **environment.variables, **_compiler(environment)}
        ran = subprocess.run(install, capture_output=True, text=True, env=variables)
        if ran.returncode:
            raise InfrastructureError(
                f"pip could not install {' '.join(pins)}: {' '.join(ran.stderr.split())[-300:] or 'no reason given'}"
            )
    done.write_text(wanted, "utf-8")
    return python


def _make(directory: Path, version: str) -> None:
    if not version or version == f"{sys.version_info.major}.{sys.version_info.minor}":
        venv.create(directory, with_pip=True)
        return
    try:
        ran = subprocess.run([f"python{version}", "-m", "venv", str(directory)], capture_output=True, text=True)
    except FileNotFoundError:
        raise InfrastructureError(f"needs Python {version}, and no python{version} is on the path") from None
    if ran.returncode:
        raise InfrastructureError(f"python{version} could not make an environment: {ran.stderr.strip()[-200:]}")
