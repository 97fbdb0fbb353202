"""Sandbox, data, compiler and hub."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from harness.doctor.environment import cpu_features
from harness.doctor.finding import Finding
from harness.engines.sparse import FIX, load_kernels
from harness.errors import ConfigError, EngineError, SandboxUnavailable

_SECONDS = 6.0


def sandbox(probe: Callable[[], str] | None = None, root: Path = Path("/"), *, uid: int | None = None) -> Finding:
    """Which sandbox runs generated code here; a process is really started in it.

    Args:
        probe: What starts it; None is the real one.
        root: The root folder whose settings say why there is none.
        uid: The user that is denied; None is this process's.
    """
    try:
        return Finding("sandbox", "backend", "ok", (probe or _probe)())
    except SandboxUnavailable as error:
        from harness.evaluate.sandbox.namespaces import namespace_denials

        reason, _, fix = str(error).partition("; install one")
        denials = namespace_denials(root, uid=uid)
        detail = f"{'; '.join([reason, *(denial.reason for denial in denials)])}: suite code is refused, all others run"
        # Where bubblewrap is there and does not start, installing it again is no fix.
        steps = [denial.fix for denial in denials]
        if not steps or "bwrap: bwrap is not installed" in reason:
            steps.insert(0, f"install one{fix}" if fix else "apt-get install bubblewrap")
        return Finding("sandbox", "backend", "warn", detail, "; then ".join(steps))
    except ConfigError as error:
        return Finding("sandbox", "backend", "warn", str(error), "unset SPARSEBENCH_SANDBOX")


def _probe() -> str:
    from harness.evaluate.sandbox import probe

    info = probe()
    return f"{info.name} ({info.detail})"


def bundled(models: Mapping[str, Path] | None = None) -> list[Finding]:
    """The bundled models: there, whole, and of the hash that their card states."""
    if models is None:
        from harness.models import BUNDLED

        models = BUNDLED
    return [_model(name, directory) for name, directory in models.items()]


def _model(name: str, directory: Path) -> Finding:
    from sparsify.checkpoint import open_checkpoint, read_header
    from sparsify.corpus import sha256_file
    from sparsify.errors import CheckpointError
    from sparsify.packed import PACKED, is_packed

    fix = "install sparsebench again; a clone needs the files of suites/pocket"
    try:
        if is_packed(directory):
            read_header(directory / PACKED)
            size = (directory / PACKED).stat().st_size
        else:
            size = open_checkpoint(directory).bytes
        hashes = [sha256_file(path) for path in sorted(directory.glob("*.safetensors"))]
        card = directory.parent / "README.md"
        stated = card.read_text(encoding="utf-8") if card.is_file() else None
    except (CheckpointError, OSError) as error:
        return Finding("data", f"model {name}", "fail", str(error), fix)
    if stated is not None and any(digest not in stated for digest in hashes):
        return Finding("data", f"model {name}", "fail", "its weights are not those that its card names", fix)
    return Finding("data", f"model {name}", "ok", f"{size / 1e6:.1f} MB, {'as its card says' if stated else 'no card'}")


def real_data(data_dir: Path | None) -> list[Finding]:
    """The real benchmarks' files below `--data-dir`."""
    from suites.verify import verify

    if data_dir is None:
        return [Finding("data", "benchmarks", "ok", "no --data-dir given; the pocket items are bundled and need none")]
    if not data_dir.is_dir():
        detail = f"{data_dir} does not exist: presets on real data cannot run from it"
        return [Finding("data", "benchmarks", "warn", detail, "name the folder that holds the files")]
    findings = []
    for status in verify(data_dir):
        state = "missing" if status.actual_sha256 is None else "not the expected file"
        detail = f"{status.path}: {f'{status.rows} rows' if status.ok else state}"
        findings.append(Finding("data", status.suite, "ok" if status.ok else "warn", detail, status.fix))
    return findings


def kernels(load: Callable[[], ModuleType] = load_kernels) -> Finding:
    """Whether the CPU kernels of engine sparse are built and load, and which instruction set they use."""
    try:
        module = load()
    except EngineError as error:
        detail = f"{str(error).partition(';')[0]}: engine torch runs everything, zeros save no time"
        return Finding("kernels", "engine sparse", "warn", detail, FIX)
    used, there = str(module.best_isa()), ", ".join(module.isas())
    chosen = f", by SPARSEBENCH_ISA={wanted}" if (wanted := os.environ.get("SPARSEBENCH_ISA")) else ""
    return Finding("kernels", "engine sparse", "ok", f"built; uses {used}{chosen} (built and possible here: {there})")


def compiler(find: Callable[[str], str | None] = shutil.which, environment: Mapping[str, str] = os.environ) -> Finding:
    """The C++ compiler that optional CPU kernels are built with."""
    wanted = (environment["CXX"],) if environment.get("CXX") else ("c++", "g++", "clang++")
    path = next((found for name in wanted if (found := find(name))), None)
    if path is None:
        detail = f"no {' or '.join(wanted)}: CPU kernels cannot be built; engine torch needs none"
        return Finding("kernels", "compiler", "warn", detail, "apt-get install g++, then install sparsebench again")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return Finding("kernels", "compiler", "warn", f"{path} does not run", "set CXX to one that does")
    return Finding("kernels", "compiler", "ok", (done.stdout.splitlines() or [path])[0])


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[Finding]:
    """Which instruction sets kernels can use here, and what their lack means."""
    if not cpuinfo.is_file():
        return [Finding("kernels", "instructions", "warn", "/proc/cpuinfo is not there: features are unknown", "")]
    have = set(cpu_features(cpuinfo.read_text(errors="replace")))
    groups = {
        "AVX-512": {"avx512f", "avx512bw"} <= have,
        "VNNI (int8)": bool({"avx512_vnni", "avx_vnni"} & have),
        "AMX": {"amx_tile", "amx_int8"} <= have,
    }
    if have & {"asimddp", "i8mm", "sve"}:
        groups = {"dot product": "asimddp" in have, "int8 matrices": "i8mm" in have, "SVE": "sve" in have}
    there = [name for name, present in groups.items() if present]
    lacking = [name for name, present in groups.items() if not present]
    found = [Finding("kernels", "instructions", "ok", ", ".join(there))] if there else []
    if lacking:
        detail = (
            f"no {', '.join(lacking)}: kernels fall back to slower code here; speed-ups of such machines do not show"
        )
        found.append(Finding("kernels", "instructions", "warn", detail, "measure speed on a machine that has them"))
    return found


def hub(*, offline: bool, reach: Callable[[str], str | None] | None = None) -> Finding:
    """Whether the hub answers; not tried when `offline`."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    set_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if offline or set_offline:
        why = "--offline" if offline else "HF_HUB_OFFLINE is set"
        return Finding("hub", "access", "ok", f"not tried ({why}); the pocket study needs none")
    problem = (reach or _reach)(endpoint)
    if problem is None:
        return Finding("hub", "access", "ok", "answers")
    detail = f"does not answer ({problem}): models and data of the hub cannot be fetched; the pocket study needs none"
    return Finding("hub", "access", "warn", detail, "give model folders and --data-dir, and say --offline")


def _reach(endpoint: str) -> str | None:
    """Ask for the start page; None where anything answers, else why not. Never longer than `_SECONDS`."""
    import threading
    import urllib.error
    import urllib.request

    if not endpoint.startswith(("https://", "http://")):
        return "HF_ENDPOINT is no URL"
    answer: list[str | None] = [f"no answer in {_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                answer[0] = None
        except urllib.error.HTTPError:
            answer[0] = None  # a refusal is an answer, too
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            answer[0] = (str(reason).splitlines() or ["no reason given"])[0]

    # A name lookup knows no time limit, so it may not be waited for.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answer[0]
