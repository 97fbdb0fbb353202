"""The leaderboard's own measurements: seconds and bytes on the made-up set, and error rates of its ranks."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bench.leaderboard.errors import World, as_line, simulate
from harness.bench.leaderboard.synthetic import Shape, write_set
from harness.bench.machine import describe_machine
from harness.leaderboard.assemble import assemble
from harness.leaderboard.output import write_all
from harness.progress import Phase
from harness.records import write_json_atomic, write_text_atomic
from harness.report.markdown import table

SCHEMA_VERSION = 1
WORLDS: Mapping[str, World] = {
    "10 equal, 300 right/wrong items alone": World(10, 300, 300, True),
    "10 equal, 300 right/wrong items in 30 clusters": World(10, 300, 30, True),
    "10 equal, 300 items of 0 to 1 in 30 clusters": World(10, 300, 30, False),
    "10 equal, not interchangeable, 300 right/wrong items in 30 clusters": World(10, 300, 30, True, skewed=True),
    "10 equal, not interchangeable, 300 items of 0 to 1 in 30 clusters": World(10, 300, 30, False, skewed=True),
    "10 equal, not interchangeable, 300 items of 0 to 1 in 50 clusters": World(10, 300, 50, False, skewed=True),
    "10 equal, not interchangeable, 300 items of 0 to 1 in 100 clusters": World(10, 300, 100, False, skewed=True),
    "10 equal, not interchangeable, 1,000 items of 0 to 1 in 200 clusters": World(10, 1000, 200, False, skewed=True),
    "10 equal, 300 right/wrong items alone, unpaired": World(10, 300, 300, True, paired=False),
    "5 equal and 5 worse by 0.1, 300 right/wrong items alone": World(10, 300, 300, True, worse=5, loss=0.1),
    "5 equal and 5 worse by 0.1, 1,000 right/wrong items in 50 clusters": World(10, 1000, 50, True, worse=5, loss=0.1),
    "5 equal and 5 worse by 0.1, 300 right/wrong items alone, unpaired": World(
        10, 300, 300, True, worse=5, loss=0.1, paired=False
    ),
    "50 equal, 300 right/wrong items alone": World(50, 300, 300, True),
}
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        out: folder of `results.json` and `results.md`.
        shape: the made-up set.
        repeats: timed rounds; the median counts.
        runs: simulated boards of each world; a fifth of it with 50 entries.
        command: how this was started.
    """

    out: Path
    shape: Shape
    repeats: int
    runs: int
    command: str


def run_benchmark(plan: Plan, *, quiet: bool = False) -> None:
    """Measure, simulate and write `results.json` and `results.md`."""
    machine = {**describe_machine(), "load_average": [round(x, 1) for x in os.getloadavg()]}
    with Phase("leaderboard", plan.repeats + len(WORLDS), quiet=quiet) as phase:
        timed = _timed(plan, phase)
        errors = []
        for number, (name, world) in enumerate(WORLDS.items()):
            phase.update(plan.repeats + number, plan.repeats + len(WORLDS), name)
            runs = plan.runs if world.variants < 50 else max(1, plan.runs // 5)
            errors.append({"world": name, **as_line(world, simulate(world, runs=runs, seed=number))})
    results = {
        "schema_version": SCHEMA_VERSION,
        "command": plan.command,
        "machine": machine,
        "set": asdict(plan.shape),
        "timing": timed,
        "errors": errors,
    }
    write_json_atomic(plan.out / "results.json", results)
    write_text_atomic(plan.out / "results.md", results_markdown(results))


def _timed(plan: Plan, phase: Phase) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_set(root / "set", plan.shape)
        read, write, cpu = [], [], []
        for number in range(plan.repeats):
            phase.update(number, plan.repeats + len(WORLDS), "timing")
            start, used = time.perf_counter(), time.process_time()
            found, files = assemble(paths)
            middle = time.perf_counter()
            written = write_all(found, files, root / "board")
            read.append(middle - start)
            write.append(time.perf_counter() - middle)
            cpu.append(time.process_time() - used)
        given = sum(path.stat().st_size for path in (root / "set").rglob("*") if path.is_file())
        return {
            "entries": found.rows,
            "boards": len(found.boards),
            "records": len(found.sources),
            "bytes_read": given,
            "pairs_tested": sum(
                ranked.n_pairs for board in found.boards for ranked in (board.overall, *board.ranked.values())
            ),
            "seconds_read_and_rank": _spread(read),
            "seconds_write": _spread(write),
            "cpu_seconds": _spread(cpu),
            "bytes": {path.name: path.stat().st_size for path in written if path.parent == root / "board"},
        }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 3),
        "least": round(min(seconds), 3),
        "most": round(max(seconds), 3),
    }


def results_markdown(results: Mapping[str, Any]) -> str:
    """Return `results.md`."""
    timed, machine = results["timing"], results["machine"]
    shape, cpu = results["set"], timed["cpu_seconds"]
    read, write = timed["seconds_read_and_rank"], timed["seconds_write"]
    sizes = "; ".join(f"{name} {size:,}" for name, size in sorted(timed["bytes"].items()))
    lines = [
        "# The leaderboard, measured",
        "",
        f"`{results['command']}`",
        "",
        f"On {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, load average "
        f"{machine['load_average'][0]} when it began.",
        "",
        f"{timed['entries']} entries from {timed['records']} records on {timed['boards']} boards, {shape['items']} "
        f"items of each of three suites (made up, seed {shape['seed']}; {timed['bytes_read']:,} bytes read, "
        f"{timed['pairs_tested']:,} pairs tested):",
        "",
        f"- read, check and rank: {read['median']} s (median; {read['least']} to {read['most']})",
        f"- write Markdown, CSV, Parquet and HTML: {write['median']} s ({write['least']} to {write['most']})",
        f"- both, seconds of one core: {cpu['median']} s ({cpu['least']} to {cpu['most']})",
        f"- bytes: {sizes}",
        "",
        "## Error rate of the ranks",
        "",
        "Boards drawn from a known truth. A split: any two equal entries are told apart; at most 5 % of the boards "
        "promised. Not interchangeable: every other entry loses 0.36 in a tenth of the clusters and gains 0.04 in the "
        "rest; with few clusters a sample often holds hardly any of the losses, and no test can know of them. Found: "
        "share of pairs of a better and a worse entry that are told apart, the right way round.",
        "",
    ]
    header = ["entries and items", "boards", "splits", "share of boards, 95 % interval", "found", "wrong way"]
    rows = []
    for line in results["errors"]:
        low, high = line["ci95"]
        found = "" if line["found"] is None else f"{100 * line['found']:.1f} %"
        share = f"{100 * line['share']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        wrong = str(line["wrong_way"]) if line["worse"] else ""
        rows.append([line["world"], str(line["runs"]), str(line["false_splits"]), share, found, wrong])
    lines += table(header, rows)
    above = [line["world"] for line in results["errors"] if line["ci95"][0] > ALPHA]
    verdict = "Above 5 % beyond chance: " + "; ".join(above) if above else "No world is above 5 % beyond chance"
    return "\n".join([*lines, "", f"{verdict}.", ""])
