"""Runs speed panels: every variant in a process of its own, measured in turn, compared with a baseline.

The ratio is baseline time over variant time, of medians over blocks; in each block every process measures once, in the
order A B C and then C B A. A second process of the baseline, the twin, is measured like a variant: its ratio is the
noise floor. In the (rotating) order it stands opposite the baseline, where drift within a block shows most.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from harness.bench.clock import Ratio, Timing, block_medians, speed_ratio
from harness.bench.machine import describe_machine
from harness.bench.record import panel_key, read_record, record_path, write_record
from harness.bench.spec import BASELINE_REASON, INT8_REASON, PanelRow, PanelSpec
from harness.errors import ConfigError, EngineError
from sparsify.progress import NullProgress, Progress

TWIN = "#twin"
# torch asks for huge pages only with the first; a baseline without them would flatter whatever is compared with it.
# The others keep libraries from starting threads of their own and from drawing bars.
ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def skip_reasons(variants: Mapping[str, Path]) -> dict[str, str]:
    """The variants that the torch engine can execute but whose speed there would mislead, with the reason."""
    reasons = {}
    for name, path in variants.items():
        try:
            config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the worker that opens it says clearly what is wrong
        if isinstance(config, dict) and config.get("quantization_config"):
            reasons[name] = INT8_REASON
    return reasons


class PanelRunner:
    """Opens the worker processes once and runs panels on them.

    Use it as a context manager. Its processes end with it, and also when this process is killed.
    """

    def __init__(self) -> None:
        """Nothing is started before `with`."""
        self._host: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __enter__(self) -> PanelRunner:
        """Start the host process; it imports torch while the caller goes on."""
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
        self._stderr = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "harness.bench.host"]
        self._host = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the host and with it the workers."""
        if self._host is not None:
            for stream in (self._host.stdin, self._host.stdout):
                if stream is not None:
                    stream.close()
            try:
                self._host.wait(5)
            except subprocess.TimeoutExpired:
                self._host.kill()
                self._host.wait()
        if self._stderr is not None:
            self._stderr.close()
        self._host = self._stderr = None

    def run(
        self,
        spec: PanelSpec,
        variants: Mapping[str, Path],
        *,
        skip: Mapping[str, str] | None = None,
        out: Path | None = None,
        progress: Progress | None = None,
    ) -> list[PanelRow]:
        """Run one panel, whole.

        Args:
            spec: What to measure.
            variants: Directories by name; the baseline among them.
            skip: Variants that get a row without numbers, with the reason; INT8 ones are added.
            out: Folder for the raw record `<panel>.jsonl`, written at the end, whole.
            progress: Told seconds done and seconds to spend.

        Returns:
            One row per variant, in the order of `variants`.

        Raises:
            ConfigError: The baseline is missing or skipped, or a variant cannot serve the spec.
            EngineError: A worker ended; the message names its variant and the end of its stderr.
        """
        left_out = {**skip_reasons(variants), **(skip or {})}
        if spec.baseline not in variants or spec.baseline in left_out:
            raise ConfigError(f"speed panel {spec.panel}: baseline {spec.baseline!r} is not measured; name one that is")
        measured = [name for name in variants if name != spec.baseline and name not in left_out]
        paths = {name: str(Path(path).resolve()) for name, path in variants.items()}
        middle = (len(measured) + 1) // 2
        order = [spec.baseline, *measured[:middle], spec.baseline + TWIN, *measured[middle:]]
        roles = {role: (role.removesuffix(TWIN), paths[role.removesuffix(TWIN)]) for role in order}
        reply = self._ask({"spec": asdict(spec), "roles": roles}, progress or NullProgress())
        result = reply["result"]
        rows = panel_rows(spec, list(variants), left_out, timings_of(result))
        if out is not None:
            head = {
                "key": panel_key(spec, variants, left_out),
                "spec": asdict(spec),
                "skip": left_out,
                "machine": {**describe_machine(), **reply["libraries"], "environment": ENVIRONMENT},
                "n_rows": len(rows),
                **{name: result[name] for name in ("blocks", "lead_in", "seconds", "activity")},
            }
            write_record(record_path(Path(out), spec), head, result, rows)
        return rows

    def _ask(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        if self._host is None or self._host.stdin is None or self._host.stdout is None:
            raise EngineError("the speed processes are not running; use PanelRunner as a context manager")
        try:
            self._host.stdin.write(json.dumps(request).encode() + b"\n")
            self._host.stdin.flush()
        except BrokenPipeError:
            raise self._host_ended() from None
        while line := self._host.stdout.readline():
            reply = cast(dict[str, Any], json.loads(line))
            if "progress" in reply:
                progress.update(*reply["progress"])
            elif "error" in reply:
                raise (ConfigError if reply["exit_code"] == 2 else EngineError)(reply["error"])
            else:
                return reply
        raise self._host_ended()

    def _host_ended(self) -> EngineError:
        assert self._host is not None and self._stderr is not None
        code = self._host.wait()
        self._stderr.seek(0)
        tail = " ".join(self._stderr.read().decode(errors="replace").split())[-600:]
        return EngineError(f"the host of the speed workers ended ({code}): {tail or 'no output'}")


def run_panel(
    spec: PanelSpec,
    variants: Mapping[str, Path],
    *,
    skip: Mapping[str, str] | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> list[PanelRow]:
    """Run a single panel with processes of its own; see `PanelRunner.run`."""
    with PanelRunner() as runner:
        return runner.run(spec, variants, skip=skip, out=out, progress=progress)


def read_panel(
    spec: PanelSpec, variants: Mapping[str, Path], *, skip: Mapping[str, str] | None = None, out: Path
) -> list[PanelRow] | None:
    """The rows of a finished panel, or None if it must be run: no record, or of another spec, weights or machine.

    Raises:
        CorruptRecordError: The record is damaged.
    """
    path = record_path(Path(out), spec)
    if not path.is_file():
        return None
    head, rows = read_record(path)
    return rows if head.get("key") == panel_key(spec, variants, {**skip_reasons(variants), **(skip or {})}) else None


def timings_of(result: Mapping[str, Any]) -> dict[str, list[Timing]]:
    """Measurements by process, in block order."""
    timings: dict[str, list[Timing]] = {}
    for measure in result["measures"]:
        timings.setdefault(measure["process"], []).append(Timing(tuple(measure["seconds"]), measure["cpu"]))
    return timings


def panel_rows(
    spec: PanelSpec, variants: Sequence[str], skip: Mapping[str, str], timings: Mapping[str, Sequence[Timing]]
) -> list[PanelRow]:
    """Rows from timings; pure."""
    medians = {process: block_medians(values) for process, values in timings.items()}
    baseline = medians[spec.baseline]
    floor = speed_ratio(baseline, medians[spec.baseline + TWIN], seed=spec.seed)
    rows = []
    for name in variants:
        if name in skip:
            rows.append(_row(spec, name, None, None, None, skip[name]))
        elif name == spec.baseline:
            rows.append(_row(spec, name, baseline, Ratio(1.0, None), floor, BASELINE_REASON))
        else:
            ratio = speed_ratio(baseline, medians[name], seed=spec.seed)
            rows.append(_row(spec, name, medians[name], ratio, floor, None))
    return rows


def _row(
    spec: PanelSpec,
    variant: str,
    medians: list[float] | None,
    ratio: Ratio | None,
    floor: Ratio | None,
    reason: str | None,
) -> PanelRow:
    return PanelRow(
        panel=spec.panel,
        workload=spec.workload,
        engine=spec.engine,
        variant=variant,
        dtype=spec.dtype,
        threads=spec.threads,
        batch=spec.batch,
        context=spec.context,
        tokens_per_s=spec.tokens_per_step / statistics.median(medians) if medians else None,
        baseline={"variant": spec.baseline, "engine": spec.engine, "dtype": spec.dtype},
        ratio=ratio.value if ratio else None,
        ci95=ratio.ci95 if ratio else None,
        noise_floor={"ratio": floor.value, "ci95": list(floor.ci95 or ())} if floor else None,
        n_blocks=len(medians) if medians else 0,
        reason=reason,
    )
