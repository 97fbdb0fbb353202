"""How often a speed panel is wrong on this machine: `python -m harness.bench.error_rates --out results/speed`.

Short panels of a small random model against itself (a slowdown reported is a false alarm), and against itself doing a
fifth more forwards in every timed step (a real slowdown of 1.2x that must be reported). Every panel starts processes of
its own and goes the whole way: noise floor, bandwidth, repeats, confirmation, and the gate's rule `speedup`.

Each panel is a line of `panels.jsonl`; started again, the collection goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from harness.bench.panel import PanelRunner
from harness.bench.spec import PanelOptions, PanelSpec
from harness.errors import ConfigError, CorruptRecordError

Kind = Literal["same", "slower"]
FORWARDS = 5
EXTRA = 1
PATIENCE = 3
WANTED = {"same": 160, "slower": 64}
"""Decided panels of each kind: 0 alarms in 149 bound the rate by 2 % (95 %, one-sided), 60 are asked of the other."""
SHAPE = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
SHAPE |= {"intermediate_size": 128, "vocab_size": 256, "max_position_embeddings": 256}


def panel_spec(number: int, budget_s: float) -> PanelSpec:
    """The panel of that number; the seed of prompt and bootstrap is its own."""
    return PanelSpec(
        panel="error-rate",
        workload="decode",
        context=16,
        batch=1,
        new_tokens=1,
        threads=1,
        dtype="float32",
        baseline="a",
        budget_s=budget_s,
        seed=number,
        forwards=FORWARDS,
    )


def kind_of(number: int) -> Kind:
    """Which kind the panel of that number is: two of seven are slower, spread evenly, so that both meet all hours."""
    return "slower" if number % 7 in (2, 5) else "same"


def save_model(directory: Path) -> Path:
    """A one-layer Llama with seeded random weights, and a tokenizer, which loading asks for."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(directory)
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(SHAPE["vocab_size"])}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w1").save_pretrained(directory)
    return directory


def measure_panel(runner: PanelRunner, model: Path, number: int, *, budget_s: float, folder: Path) -> dict[str, Any]:
    """Run one panel and return its line."""
    from harness.gate.speed import speedup
    from harness.gate_rules import SpeedupRule
    from harness.speed import speed_row

    kind, spec = kind_of(number), panel_spec(number, budget_s)
    options = PanelOptions(at_least={"b": 1.0}, extra={"b": EXTRA if kind == "slower" else 0}, fresh=True)
    begun = time.perf_counter()
    rows = runner.run(spec, {"a": model, "b": model}, options=options, out=folder)
    row = next(row for row in rows if row.variant == "b")
    record = [json.loads(line) for line in (folder / f"{spec.panel}.jsonl").read_text().splitlines()]
    rule = SpeedupRule(rule="speedup", workload="decode", variants=("b",), at_least=1.0)
    return {
        "panel": number,
        "kind": kind,
        "verdict": row.verdict,
        "gate": speedup(rule, speed_row(row)).verdict,
        "ratio": row.ratio,
        "ci95": row.ci95,
        "floor": row.noise_floor,
        "p_value": row.p_value,
        "confirmation": row.confirmation,
        "blocks": row.n_blocks,
        "seconds": round(time.perf_counter() - begun, 2),
        "runs": [_run_line(line) for line in record if line["kind"] == "run"],
    }


def _run_line(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "purpose": run["purpose"],
        "restless": run["restless"],
        "busy": run["activity"]["busy"],
        "steal": run["activity"]["steal"],
        "load": run["after"]["load_average"][0] if run["after"]["load_average"] else None,
        "read_bandwidth": [round(run[when]["read_bandwidth"]) for when in ("before", "after")],
    }


def read_lines(path: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The panels collected so far; a line that a kill cut short at the end of the file is dropped.

    Raises:
        ConfigError: They were collected with other settings or on another machine.
        CorruptRecordError: A line in the middle is damaged.
    """
    if not path.is_file():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if whole != raw:
        path.write_bytes(whole)
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise CorruptRecordError(f"{path} is damaged; delete it and collect again") from None
    if lines and lines[0] != json.loads(json.dumps(head)):
        raise ConfigError(f"{path} was collected with other settings or elsewhere; give another --out")
    return lines[1:]


def missing(lines: Sequence[Mapping[str, Any]], wanted: Mapping[str, int]) -> dict[str, int]:
    """How many decided panels of each kind are still to be collected."""
    done = {kind: sum(line["kind"] == kind and decided(line) for line in lines) for kind in wanted}
    return {kind: max(0, number - done[kind]) for kind, number in wanted.items()}


def decided(line: Mapping[str, Any]) -> bool:
    """Whether the machine was quiet enough for the panel to say something."""
    return line["verdict"] != "not decided"


def numbers_to_run(lines: Sequence[Mapping[str, Any]], wanted: Mapping[str, int]) -> Iterator[int]:
    """The next panel's number, again and again, while its kind is still wanted; `lines` may grow meanwhile."""
    number = max((line["panel"] for line in lines), default=-1) + 1
    while any((left := missing(lines, wanted)).values()):
        if left[kind_of(number)]:
            yield number
        number += 1


def collect(out: Path, *, wanted: Mapping[str, int], seconds: float, budget_s: float) -> list[dict[str, Any]]:
    """Collect panels for so many seconds, or until all are there; returns all lines.

    It also stops after three panels in a row that could not decide: the machine has other work, later is better.
    """
    import tempfile

    from harness.bench.decide import ALPHA, BANDWIDTH_LIMIT, FLOOR_LIMIT
    from harness.bench.machine import describe_machine

    head = {
        "spec": asdict(panel_spec(0, budget_s)),
        "extra": EXTRA,
        "model": SHAPE,
        "rule": {"alpha": ALPHA, "floor_limit": FLOOR_LIMIT, "bandwidth_limit": BANDWIDTH_LIMIT},
        "machine": describe_machine(),
    }
    path = out / "panels.jsonl"
    lines = read_lines(path, head)
    out.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        path.write_text(json.dumps(head) + "\n", encoding="utf-8")
    if not any(missing(lines, wanted).values()):
        return lines
    begun = time.monotonic()
    with PanelRunner() as runner, tempfile.TemporaryDirectory(prefix="sparsebench-rates-") as folder:
        model = save_model(Path(folder) / "model")
        for number in numbers_to_run(lines, wanted):
            line = measure_panel(runner, model, number, budget_s=budget_s, folder=Path(folder))
            lines.append(line)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")
            hopeless = len(lines) >= PATIENCE and not any(decided(each) for each in lines[-PATIENCE:])
            if hopeless or time.monotonic() - begun > seconds:
                break
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, then write the rates; 0 if all panels are there, 75 (try again) if not."""
    from harness.bench.machine import describe_machine
    from harness.bench.rates import rates_markdown, rates_of
    from harness.records import write_json_atomic, write_text_atomic

    parser = argparse.ArgumentParser(prog="python -m harness.bench.error_rates", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of panels.jsonl and error_rates.{json,md}")
    parser.add_argument("--seconds", type=float, default=170.0, help="stop after so many; start again to go on")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of one run of a panel")
    parser.add_argument("--same", type=int, default=WANTED["same"], help="decided panels of A against A")
    parser.add_argument("--slower", type=int, default=WANTED["slower"], help="decided panels of A against 1.2x slower")
    given = parser.parse_args(arguments)
    wanted = {"same": given.same, "slower": given.slower}
    lines = collect(given.out, wanted=wanted, seconds=given.seconds, budget_s=given.budget)
    rates = rates_of(lines, describe_machine())
    write_json_atomic(given.out / "error_rates.json", rates)
    write_text_atomic(given.out / "error_rates.md", rates_markdown(rates))
    left = missing(lines, wanted)
    print(f"{len(lines)} panels; still to collect: {left['same']} same, {left['slower']} slower")
    return 75 if any(left.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
