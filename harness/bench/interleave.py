"""One run of a panel inside the host process: every worker warmed up, then one of them measuring at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.bench.clock import Least, block_order, blocks_to_go
from harness.bench.machine import busy_between, machine_state, read_activity
from harness.bench.priority import priority
from harness.bench.spec import DECODE_LEAD_IN, LEAST_BLOCKS, LEAST_SECONDS, PanelSpec
from harness.bench.workers import Role, Worker, WorkerFailed, Workers

# Share of the budget that warming all workers may take.
WARM_UP_SHARE = 0.25
SLOW_STEP_S = 0.5


def steps_of(spec: PanelSpec, slowest: float) -> tuple[int, int]:
    """(lead-in, timed) steps of a measurement; a step of whole prompts that is slow needs no lead-in or repetition.

    The lead-in is in single units of work, however many of them a timed step does.
    """
    if spec.workload == "decode":
        return DECODE_LEAD_IN, spec.new_tokens
    return (1, 2) if slowest < SLOW_STEP_S else (0, 1)


@dataclass
class Run:
    """The processes that take part in one run; in a throughput sweep, one may run out of memory and drop out."""

    spec: PanelSpec
    workers: Workers
    open: dict[str, Worker]
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, message: dict[str, Any]) -> dict[str, Any] | None:
        """Ask a process; None where it ran out of memory and is out of the sweep."""
        try:
            return self.workers.ask(self.open[name], message)
        except WorkerFailed as error:
            if not (error.memory and self.spec.workload == "throughput"):
                raise
        self.dropped[name] = f"out of memory at batch {self.spec.batch}"
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The processes that are left."""
        return tuple(name for name in self.open if name not in self.dropped)


def run_interleaved(
    spec: PanelSpec,
    workers: Workers,
    roles: Mapping[str, Role],
    report: Callable[[float, float, str], None],
    *,
    fresh: bool = False,
) -> dict[str, Any]:
    """Warm every worker up, then measure blocks until the budget is spent.

    Args:
        spec: What to measure, at one batch size.
        workers: The processes.
        roles: Who takes part, in the order of the first block.
        report: Told seconds done, seconds to spend, and what is going on.
        fresh: Start all processes anew, so that the run shares no memory layout with those before.

    Returns:
        `processes` by role; `measures`, each with block, position, process, seconds, cpu, joules; `dropped`, why by
        role; `blocks`, `lead_in`, `seconds`, `priority`, `activity`; and `before` and `after`, the state of the machine
        and its read bandwidth in bytes per second.
    """
    run = Run(spec, workers, workers.open(roles, spec, fresh=fresh))
    before = {**machine_state(), "read_bandwidth": workers.read_bandwidth()}
    activity, start, budget = read_activity(), time.perf_counter(), spec.budget_s
    for name in run.names:
        report(time.perf_counter() - start, budget, f"{spec.panel}: warming {name}")
        forwards = spec.forwards + roles[name].extra
        reply = run.ask(name, {**_prepare(spec, forwards), "warm_up_s": budget * WARM_UP_SHARE / len(roles)})
        if reply is not None:
            run.processes[name] = {"engine": roles[name].engine, **(run.open[name].opened or {}), **reply}
    slowest = max((statistics.median(process["warm_up"][-5:]) for process in run.processes.values()), default=0.0)
    lead_in, steps = steps_of(spec, slowest)
    message = {"op": "measure", "lead_in": lead_in, "steps": steps, "threads": spec.threads}
    measures: list[dict[str, Any]] = []
    spent = dict.fromkeys(run.names, 0.0)
    least = Least(LEAST_BLOCKS, LEAST_SECONDS)
    blocks, begun = 0, time.perf_counter()
    budget_left = budget - (begun - start)
    while run.names and blocks_to_go(
        blocks,
        elapsed=time.perf_counter() - begun,
        budget=budget_left,
        least=least,
        measured=min(spent[name] for name in run.names),
    ):
        for position, name in enumerate(block_order(run.names, blocks)):
            reply = run.ask(name, message)
            if reply is None:
                continue
            run.processes[name].update({key: reply.pop(key) for key in ("peak_rss", "peak_device")})
            measures.append({"block": blocks, "position": position, "process": name, **reply})
            spent[name] += sum(reply["seconds"])
        blocks += 1
        report(time.perf_counter() - start, budget, f"{spec.panel}: block {blocks}")
    return {
        "processes": run.processes,
        "measures": [measure for measure in measures if measure["process"] not in run.dropped],
        "dropped": run.dropped,
        "blocks": blocks,
        "lead_in": lead_in,
        "seconds": time.perf_counter() - start,
        "priority": priority(),
        "activity": busy_between(activity, read_activity()),
        "before": before,
        "after": {**machine_state(), "read_bandwidth": workers.read_bandwidth()},
    }


def _prepare(spec: PanelSpec, forwards: int) -> dict[str, Any]:
    return {
        "op": "prepare",
        "workload": spec.workload,
        "context": spec.context,
        "batch": spec.batch,
        "new_tokens": spec.new_tokens,
        "seed": spec.seed,
        "forwards": forwards,
        "longest": spec.longest(forwards),
        "chunk": spec.new_tokens if spec.workload == "decode" else 1,
        "threads": spec.threads,
    }
