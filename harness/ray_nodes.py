"""The nodes of a Ray cluster: whether they see a run's folders, have the same versions, and room for its tasks."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import ConfigError

_PROBE_S = 120.0
_VERSIONS = ("python", "sparsebench", "torch", "transformers", "lm_eval", "compressed_tensors")


@dataclass(frozen=True)
class RayPlace:
    """Where and how tasks run.

    Attributes:
        address: `local` for a cluster of this machine alone, `auto`, or `HOST:PORT` of a cluster that it is a node of.
        folder: The run's folder, absolute.
        threads: CPU threads of a task.
        jobs: Tasks at a time at most; None for as many as the cluster has room for.
        device: `cpu`, or `cuda` for a GPU a task.
        data_dir: Folder of original data files, absolute, or None.
    """

    address: str
    folder: Path
    threads: int
    jobs: int | None = None
    device: Literal["cpu", "cuda"] | str = "cpu"
    data_dir: Path | None = None


@dataclass(frozen=True)
class Answer:
    """What a node says before it gets work.

    Attributes:
        token: What it reads in the run's folder; None where it does not see the folder or may not write there.
        data: Whether it sees the data directory.
        versions: Of what results may depend on.
    """

    token: str | None
    data: bool
    versions: Mapping[str, Any]


def check_nodes(ray: Any, nodes: Sequence[Mapping[str, Any]], place: RayPlace) -> None:
    """Ask every node whether it can work for a run.

    Args:
        ray: The module, joined to the cluster.
        nodes: As `ray.nodes()` has them.
        place: The run.

    Raises:
        ConfigError: One cannot.
    """
    token = secrets.token_hex(16)
    file = place.folder / f".ray-{token[:8]}"
    file.write_text(token, encoding="utf-8")
    try:
        probe = ray.remote(_probe)
        asked = []
        for node in nodes:
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": on_node(node["NodeID"])}
            asked.append((node["NodeManagerAddress"], probe.options(**options).remote(file, place.data_dir)))
        for address, ref in asked:
            problem = _problem(ray, ref, token, place)
            if problem is not None:
                raise ConfigError(f"Ray node {address} {problem}")
    finally:
        file.unlink()


def _problem(ray: Any, ref: Any, token: str, place: RayPlace) -> str | None:
    from ray.exceptions import GetTimeoutError, RayError

    try:
        answer = ray.get(ref, timeout=_PROBE_S)
    except GetTimeoutError:
        return f"did not answer for {_PROBE_S:.0f} s; check it with `ray status`"
    except RayError as error:
        return f"cannot run sparsebench ({one_line(error)}); install the same version there"
    return node_problem(answer, token, place)


def node_problem(answer: Answer, token: str, place: RayPlace) -> str | None:
    """Why a node cannot work for a run, with the fix; None if it can.

    Args:
        answer: What it says.
        token: What stands in the run's folder.
        place: The run.
    """
    if answer.token != token:
        return f"does not see {place.folder}, or cannot write there; put --out on a folder that all nodes share"
    if not answer.data:
        return f"does not see {place.data_dir}; put --data-dir on a folder that all nodes share"
    ours = versions()
    differing = [name for name in _VERSIONS if answer.versions.get(name) != ours[name]]
    if differing:
        told = ", ".join(f"{name} {answer.versions.get(name)} instead of {ours[name]}" for name in differing)
        return f"has {told}; install the same versions there, or results may differ"
    return None


def room(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many tasks fit a node at a time."""
    rooms = [int(resources.get("CPU", 0) // needs["num_cpus"])]
    if needs["num_gpus"]:
        rooms.append(int(resources.get("GPU", 0) // needs["num_gpus"]))
    return min(rooms)


def on_node(node: str) -> Any:
    """Says that a task or actor runs on this node and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def one_line(error: BaseException) -> str:
    """What an error of Ray says in the end: its last line, cut short."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join((lines[-1] if lines else type(error).__name__).split())[:200]


def versions() -> dict[str, Any]:
    """Versions here of what results may depend on."""
    from harness.fingerprint import environment

    found = environment()
    return {name: found[name] for name in _VERSIONS}


def _probe(file: Path, data_dir: Path | None) -> Answer:
    """On a node: what it sees of a run."""
    token = None
    with suppress(OSError):
        token = file.read_text(encoding="utf-8") if os.access(file.parent, os.W_OK) else None
    return Answer(token, data_dir is None or data_dir.is_dir(), versions())
