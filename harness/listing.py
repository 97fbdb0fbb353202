"""The verb `suites`: what can be measured, by which protocols, and what data each needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from suites.registry import Suite

SCHEMA_VERSION = 1


def suites(
    names: Annotated[list[str] | None, typer.Argument(metavar="[SUITE]...", help="Suites; default: all.")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List suites and presets: protocol, source, and the data that each needs."""
    import json

    from suites.registry import ALL_SUITES, load_suite

    chosen = [load_suite(name) for name in names or ALL_SUITES]
    if json_out:
        print(
            json.dumps({"schema_version": SCHEMA_VERSION, "suites": [described(suite) for suite in chosen]}, indent=2)
        )
        return
    print("\n".join(line for suite in chosen for line in told(described(suite))))


def described(suite: Suite) -> dict[str, Any]:
    """A suite and its presets as plain values, for JSON."""
    return {
        "suite": suite.name,
        "version": suite.version,
        "primary_metric": suite.primary_metric,
        "presets": [_preset(suite, name) for name in suite.presets],
    }


def _preset(suite: Suite, name: str) -> dict[str, Any]:
    from suites.registry import suite_hash

    preset = suite.preset(name)
    full = suite.data_of(name) if preset.data == "full" else None
    shown = full.fewshot if full and preset.num_fewshot and preset.fewshot != "task" else None
    files = [part.local.path for part in (full, shown) if part and part.local]
    return {
        "preset": name,
        "protocol": preset.protocol,
        "source": preset.source,
        "prompt": suite.asks_by(preset) if suite.kind == "generate" else "likelihood",
        "num_fewshot": preset.num_fewshot,
        "samples": preset.samples,
        "temperature": preset.temperature,
        "top_p": preset.top_p,
        "max_new_tokens": preset.max_new_tokens,
        "stop": list(preset.stop),
        "data": {"kind": preset.data, "hub": full.hub if full else None, "split": full.split if full else None},
        "files": list(dict.fromkeys(files)),
        "suite_hash": suite_hash(suite, name),
    }


def told(suite: dict[str, Any]) -> list[str]:
    """A described suite as lines for a terminal."""
    import textwrap

    lines = [f"{suite['suite']} (version {suite['version']}, {suite['primary_metric']})"]
    for preset in suite["presets"]:
        lines.append(f"  {preset['preset']}")
        data = preset["data"]
        where = "bundled" if data["kind"] == "pocket" else f"{data['hub']} ({data['split']})"
        below = f", or --data-dir with {', '.join(preset['files'])}" if preset["files"] else ""
        for word, text in (("", preset["protocol"]), ("Source: ", preset["source"]), ("Data: ", where + below)):
            lines += textwrap.wrap(f"{word}{text}", 108, initial_indent="      ", subsequent_indent="      ")
    return [*lines, ""]
