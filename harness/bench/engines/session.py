"""One group of engines on one shape: opened together, measured in turn, with the read-bandwidth probe in between."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.bench.clock import Least, block_order, blocks_to_go
from harness.bench.engines.arms import Group, Shape, Variant, Workload
from harness.bench.engines.environments import command_of, variables_of
from harness.bench.engines.process import WorkerProcess
from harness.bench.machine import busy_between, describe_machine, machine_state, read_activity
from harness.bench.sparsify.journal import Journal
from harness.errors import InfrastructureError
from sparsify.files import sha256_json

READER = Variant("reader", "read")
_LEAST_BLOCKS = 4
_MOST_STEPS = 8
_PROBE_STEPS = 2
_OPEN_LIMIT_S = 1800.0
_STEP_LIMIT_S = 900.0
_SPARE_GB = 1.0
_DIGITS = 7

Report = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Settings:
    """What is the same for every panel.

    Attributes:
        budget: Seconds of measuring one panel; a few blocks are measured whatever they take.
        turn: Seconds that an engine measures at a time, before the next one's turn.
        flush_mb: Size of the file that is read before every step, above the size of the last-level cache.
        warm_up: Steps that do not count.
    """

    budget: float = 60.0
    turn: float = 0.6
    flush_mb: int = 512
    warm_up: int = 3


@dataclass
class Session:
    """One group on one shape with one number of threads.

    Attributes:
        shape: Of the model.
        group: Who takes part.
        threads: Of every engine.
        settings: Of all panels.
        journal: Where results go.
        work: Folder for the peers' model files, logs and the flush file.
        peers: Folder of the peers' environments; None leaves them out.
    """

    shape: Shape
    group: Group
    threads: int
    settings: Settings
    journal: Journal
    work: Path
    peers: Path | None
    _open: dict[str, WorkerProcess] = field(default_factory=dict, init=False)
    _told: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def key(self, workload: Workload) -> dict[str, Any]:
        """What a panel is known by."""
        return {
            "shape": self.shape.name,
            "group": self.group.name,
            "threads": self.threads,
            "workload": workload.name,
        }

    def missing(self, workloads: Sequence[Workload]) -> list[Workload]:
        """Those that were not measured yet with all of the group's variants and these settings."""
        return [workload for workload in workloads if not self._known(workload)]

    def _known(self, workload: Workload) -> bool:
        line = self.journal.find(kind="panel", settings_sha256=sha256_json(asdict(self.settings)), **self.key(workload))
        return line is not None and {variant.name for variant in self.group.variants} <= set(line["told"])

    def run(self, workloads: Sequence[Workload], report: Report) -> Iterator[Workload]:
        """Open everything and measure the workloads one after another; each comes back when it is in the journal."""
        flush = self._flush_file()
        with ExitStack() as stack:
            everybody = (READER, *self.group.variants)
            room, taken = available_gigabytes(), 0.0
            for index, variant in enumerate(everybody):
                report(0, 1, f"opening {variant.name} ({index + 1} of {len(everybody)})")
                needed = variant.gigabytes(self.shape)
                opening = needed + variant.opening_gigabytes(self.shape)
                if room is not None and taken + opening + _SPARE_GB > room:
                    left = f"{room - taken:.1f} of {room:.1f} GB are left beside the others; measure fewer at a time"
                    self._told[variant.name] = {"error": f"takes about {opening:.1f} GB, and {left}"}
                    continue
                self._told[variant.name] = self._opened(variant, stack)
                taken += needed if "error" not in self._told[variant.name] else 0.0
            for workload in workloads:
                self._measure(workload, str(flush), report)
                yield workload

    def _opened(self, variant: Variant, stack: ExitStack) -> dict[str, Any]:
        gather_free_memory()
        log = self.work / "logs" / f"{variant.name.replace(':', '-')}-{self.group.name}-{self.threads}.log"
        try:
            command = command_of(variant.engine, self.peers)
            process = WorkerProcess(command, variables_of(variant.engine, self.threads), log, threads=self.threads)
            stack.callback(process.close)
            answer = process.ask(
                limit=_OPEN_LIMIT_S,
                op="open",
                variant={**variant.as_json(), "engine": variant.engine},
                shape=self.shape.as_json(),
                threads=self.threads,
                work=str(self.work),
            )
        except InfrastructureError as error:
            return {"error": str(error)}
        if "error" not in answer:
            self._open[variant.name] = process
        else:
            process.close()
        return answer

    def _measure(self, workload: Workload, flush: str, report: Report) -> None:
        run = 1 + max((line["run"] for line in self.journal.lines if "run" in line), default=0)
        told = {name: dict(known) for name, known in self._told.items()}
        steps: dict[str, int] = {}
        label = f"{self.shape.name} {self.group.name} {workload.name} {self.threads} thread(s)"
        for name in list(self._open):
            report(0, 1, f"{label}: warming {name}")
            request = {"workload": workload.kind, "batch": workload.batch, "context": workload.context}
            answer = self._ask(told, name, op="prepare", warm_up=self.settings.warm_up, **request)
            if answer is not None:
                told[name] |= answer
                step = statistics.median(answer["warm_up"][1:] or answer["warm_up"])
                steps[name] = _PROBE_STEPS if name == READER.name else steps_of_turn(step, self.settings.turn)
        before, activity, began = machine_state(), read_activity(), time.perf_counter()
        least = Least(_LEAST_BLOCKS)
        blocks = 0
        while _measured(steps) and blocks_to_go(
            blocks, elapsed=time.perf_counter() - began, budget=self.settings.budget, least=least
        ):
            for position, name in enumerate(block_order(_measured(steps), blocks)):
                for each in (name, READER.name):
                    if each not in steps:
                        continue
                    # The reader too: of a gigabyte read again, the last-level cache would still hold a part.
                    answer = self._ask(told, each, op="measure", steps=steps[each], flush=flush)
                    if answer is None:
                        steps.pop(each)
                        continue
                    self.journal.add(
                        {
                            "kind": "turn",
                            "run": run,
                            "block": blocks,
                            "position": position,
                            "variant": each,
                            "seconds": [round(value, _DIGITS) for value in answer["seconds"]],
                            "cpu": round(answer["cpu"], 4),
                        }
                    )
            blocks += 1
            report(time.perf_counter() - began, self.settings.budget, f"{label}: block {blocks}")
        for name in _measured(steps) if workload.kind == "decode" else ():
            if name.startswith("ours:"):
                told[name] |= self._ask(told, name, op="parts", flush=flush) or {}
        self.journal.add(
            {
                "kind": "panel",
                "run": run,
                **self.key(workload),
                "batch": workload.batch,
                "context": workload.context,
                "tokens": workload.tokens,
                "settings": asdict(self.settings),
                "settings_sha256": sha256_json(asdict(self.settings)),
                "blocks": blocks,
                "told": told,
                "machine": describe_machine(),
                "cache_mb": last_level_cache(),
                "activity": busy_between(activity, read_activity()),
                "before": before,
                "after": machine_state(),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )

    def _ask(self, told: dict[str, dict[str, Any]], name: str, **request: Any) -> dict[str, Any] | None:
        """Ask a worker; None where it failed, which `told` then says."""
        try:
            answer = self._open[name].ask(limit=_STEP_LIMIT_S, **request)
        except InfrastructureError as error:
            gone = self._open.pop(name)
            gone.close()
            self._told[name] = {**self._told[name], "error": str(error)}
            answer = {"error": str(error)}
        if "error" in answer:
            told[name]["error"] = answer["error"]
            return None
        return answer

    def _flush_file(self) -> Path:
        path, size = self.work / "flush.bin", self.settings.flush_mb << 20
        if not path.exists() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                for _ in range(self.settings.flush_mb):
                    stream.write(bytes(1 << 20))
        return path


def _measured(steps: dict[str, int]) -> tuple[str, ...]:
    return tuple(name for name in steps if name != READER.name)


def steps_of_turn(step: float, turn: float) -> int:
    """How many steps an engine does at a time."""
    return max(1, min(_MOST_STEPS, round(turn / step)))


def gather_free_memory() -> None:
    """Ask Linux to move what is in use together, so that huge pages can be had; without the right to, nothing changes.

    On a machine that has run for a while an engine may otherwise get a part of its memory in small pages, and be slower
    by as much, in one run and not in the next.
    """
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/compact_memory").write_text("1")


def last_level_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> float | None:
    """Size of the largest cache in MB, or None where the system does not say."""
    sizes = [path.read_text().strip() for path in root.glob("index*/size")]
    known = [int(size[:-1]) * {"K": 1024, "M": 1 << 20}[size[-1]] / 1e6 for size in sizes if size[-1:] in ("K", "M")]
    return max(known, default=None)


def available_gigabytes() -> float | None:
    """Memory that can be had, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable")), None)
