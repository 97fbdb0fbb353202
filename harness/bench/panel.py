"""Runs speed panels: every variant in a process of its own, measured in turn, compared with a baseline.

The ratio is baseline time over variant time, of medians over blocks, after what each block had in common is taken out.
In each block every process measures once, in the order A B C and then C B A. A second process of the baseline, the
twin, is measured like a variant: its ratio is the noise floor. In the (rotating) order it stands opposite the baseline,
where drift within a block shows most.

A run whose noise floor or read bandwidth says that the machine was too restless decides nothing and is repeated, with
new processes; so is a run that shows a significant slowdown, before anybody hears of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from harness.bench.machine import describe_machine
from harness.bench.record import panel_key, read_record, record_path, weight_bytes, write_record
from harness.bench.rows import TWIN, Entry, lacks_confirmation, panel_rows, process_name, unmeasured_rows
from harness.bench.series import Series
from harness.bench.spec import INT4_REASON, INT8_REASON, PanelOptions, PanelRow, PanelSpec
from harness.engines import why_not
from harness.errors import ConfigError, EngineError
from sparsify.progress import NullProgress, Progress

# torch asks for huge pages only with the first; a baseline without them would flatter whatever is compared with it.
# The others keep libraries from starting threads of their own and from drawing bars.
ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


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
        command = [sys.executable, "-P", "-m", "harness.bench.host"]
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
        options: PanelOptions | None = None,
        out: Path | None = None,
        progress: Progress | None = None,
    ) -> list[PanelRow]:
        """Run one panel, whole.

        Args:
            spec: What to measure.
            variants: Directories by name; the baseline among them.
            options: What is skipped, and what is measured again.
            out: Folder for the raw record `<panel>.jsonl`, written at the end, whole.
            progress: Told seconds done and seconds to spend, of the run that is going on.

        Returns:
            One row per batch size, engine and variant, variants in the order of `variants`.

        Raises:
            ConfigError: The baseline is missing or skipped, or a variant cannot serve the spec.
            EngineError: A worker ended; the message names its variant and the end of its stderr.
        """
        options, listener = options or PanelOptions(), progress or NullProgress()
        entries = panel_entries(spec, variants, options)
        roles = panel_roles(spec, variants, entries, options)
        series = Series(lambda request: self._ask(request, listener), options)
        rows: list[PanelRow] = []
        gone: dict[str, str] = {}
        for at in points_of(spec):
            left = {name: role for name, role in roles.items() if name not in gone}
            if not left:
                rows += unmeasured_rows(at, entries, gone)
                continue
            outcome = series.settle(at, left)
            dropped: Mapping[str, str] = outcome.result["dropped"]
            rows += panel_rows(at, entries, replace(outcome, result={**outcome.result, "dropped": {**gone, **dropped}}))
            gone |= {name: f"not tried: {why}" for name, why in dropped.items()}
        if out is not None:
            head = {
                "key": panel_key(spec, variants, _skipped(entries), options.extra),
                "spec": asdict(spec),
                "skip": _skipped(entries),
                "extra": dict(options.extra),
                "machine": {**describe_machine(), **series.libraries, "environment": ENVIRONMENT},
                "n_rows": len(rows),
            }
            write_record(record_path(Path(out), spec), head, series.runs, rows)
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
    options: PanelOptions | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> list[PanelRow]:
    """Run a single panel with processes of its own; see `PanelRunner.run`."""
    with PanelRunner() as runner:
        return runner.run(spec, variants, options=options, out=out, progress=progress)


def read_panel(
    spec: PanelSpec, variants: Mapping[str, Path], *, options: PanelOptions | None = None, out: Path
) -> list[PanelRow] | None:
    """The rows of a finished panel, or None if it must be run.

    It must where there is no record, or one of another spec, weights or machine, or one in which a variant falls short
    of what is asked of it now without having been measured again.

    Raises:
        CorruptRecordError: The record is damaged.
    """
    path = record_path(Path(out), spec)
    if not path.is_file():
        return None
    options = options or PanelOptions()
    head, rows = read_record(path)
    key = panel_key(spec, variants, _skipped(panel_entries(spec, variants, options)), options.extra)
    if head.get("key") != key or (spec.confirm and lacks_confirmation(rows, options)):
        return None
    return rows


def skip_reasons(variants: Mapping[str, Path]) -> dict[str, str]:
    """The variants that the torch engine can execute but whose speed there would mislead, with the reason."""
    reasons = {}
    for name, path in variants.items():
        try:
            config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the worker that opens it says clearly what is wrong
        if isinstance(config, dict) and config.get("quantization_config"):
            # Packed formats hold 4-bit weights beside activations in float.
            quantization = config["quantization_config"]
            packed = isinstance(quantization, dict) and quantization.get("format") == "pack-quantized"
            reasons[name] = INT4_REASON if packed else INT8_REASON
    return reasons


def panel_entries(spec: PanelSpec, variants: Mapping[str, Path], options: PanelOptions) -> list[Entry]:
    """Every variant on every engine, in the order of the rows.

    Raises:
        ConfigError: The baseline is not measured.
        EngineError: The baseline's engine does not run here; that of other rows is a reason in them.
    """
    emulated = skip_reasons(variants)
    absent = {engine: why_not(engine, device=spec.device) for engine in (spec.engine, *spec.engines)}
    if why := absent[spec.engine]:
        raise EngineError(f"speed panel {spec.panel} takes its baseline on engine {spec.engine}: {why}")
    entries = []
    for engine in (spec.engine, *spec.engines):
        skip = {**(emulated if engine == "torch" else {}), **options.skip}
        if why := absent[engine]:
            skip = dict.fromkeys(variants, why)
        if engine == spec.engine and (spec.baseline not in variants or spec.baseline in skip):
            raise ConfigError(f"speed panel {spec.panel}: baseline {spec.baseline!r} is not measured; name one that is")
        entries += [
            Entry(name, engine, process_name(spec, name, engine), weight_bytes(Path(path)), skip.get(name))
            for name, path in variants.items()
        ]
    return entries


def panel_roles(
    spec: PanelSpec, variants: Mapping[str, Path], entries: Sequence[Entry], options: PanelOptions
) -> dict[str, dict[str, Any]]:
    """The processes in the order of the first block: the baseline first, its twin in the middle."""

    def role(variant: str, engine: str) -> dict[str, Any]:
        extra = options.extra.get(variant, 0)
        return {"variant": variant, "path": str(Path(variants[variant]).resolve()), "engine": engine, "extra": extra}

    measured = [entry for entry in entries if entry.skip is None and entry.process != spec.baseline]
    others = [(entry.process, role(entry.variant, entry.engine)) for entry in measured]
    base, middle = role(spec.baseline, spec.engine), (len(others) + 1) // 2
    return dict([(spec.baseline, base), *others[:middle], (spec.baseline + TWIN, base), *others[middle:]])


def points_of(spec: PanelSpec) -> list[PanelSpec]:
    """The spec at each of its batch sizes; a sweep's points share the budget."""
    if spec.workload != "throughput":
        return [spec]
    share = spec.budget_s / len(spec.points)
    return [replace(spec, batch=batch, batches=(batch,), budget_s=share) for batch in spec.points]


def _skipped(entries: Sequence[Entry]) -> dict[str, str]:
    return {entry.process: entry.skip for entry in entries if entry.skip is not None}
