"""The sandbox benchmark's results for people, in Markdown; bad news included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.bench.sandbox.speed import BARE
from harness.bench.sparsify.render import table

TARGET = 25.0


def markdown(results: Mapping[str, Any]) -> str:
    """The whole document."""
    machine = results["machine"]
    parts = [
        "# The sandbox, measured",
        f"Command: `{results['command']}`",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}. What the programs try: "
        "[docs/sandbox.md](../../docs/sandbox.md).",
        "## Hostile programs",
        _hostile(results["sandboxes"]),
        *_holes(results["sandboxes"]),
        *(f"`{name}` does not work here and was not tried: {reason}" for name, reason in results["absent"].items()),
        "## Honest programs",
        f"Reference solutions with their tests, {results['workers']} at a time. *Suspicious* counts honest programs "
        "that were taken for cheats.",
        _honest(results["sandboxes"]),
        *_failures(results["sandboxes"]),
    ]
    if results["speed"]:
        parts += ["## Speed", _speed(results["speed"])]
    return "\n\n".join(parts) + "\n"


def _of(pair: list[int]) -> str:
    text = f"{pair[0]} of {pair[1]}"
    return text if pair[0] == pair[1] else f"**{text}**"


def _hostile(sandboxes: Mapping[str, Any]) -> str:
    head = ("sandbox", "contained (machine)", "not fooled (verdict)", "ended and marked as documented")
    rows = [
        (f"{name} ({each['detail']})", _of(each["contained"]), _of(each["not_fooled"]), _of(each["as_told"]))
        for name, each in sandboxes.items()
    ]
    return table(head, rows)


def _holes(sandboxes: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, each in sandboxes.items():
        for trial in each["trials"]:
            if not trial["held"] or not trial["as_told"]:
                word = "ended otherwise than documented" if trial["held"] else "**got through**"
                lines.append(f"- {name}: `{trial['name']}` {word}: {trial['status']}, its tests: {trial['outcome']}")
    return ["\n".join(lines)] if lines else []


def _honest(sandboxes: Mapping[str, Any]) -> str:
    rows = []
    for name, each in sandboxes.items():
        passed = sum(status == "passed" for status in each["legal"].values())
        marked = sum(status == "suspicious" for status in each["legal"].values())
        rows.append((name, "odd but honest programs of ours", _of([passed, len(each["legal"])]), str(marked), "", ""))
        for title, it in each["references"].items():
            limits = it["limits"]
            rows.append(
                (
                    name,
                    title,
                    _of([it["passed"], it["n"]]),
                    str(it["kinds"].get("suspicious", 0)),
                    f"{it['slowest_seconds']:.1f}",
                    f"{limits['wall_seconds']:g} s, {limits['memory_bytes'] >> 20} MiB",
                )
            )
    return table(("sandbox", "set", "passed", "suspicious", "slowest, s", "limits"), rows)


def _failures(sandboxes: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {name}, {title}: {it['task']}: {it['status']}"
        for name, each in sandboxes.items()
        for title, reference in each["references"].items()
        for it in reference["failed"]
    ]
    return ["Not passed:\n\n" + "\n".join(lines)] if lines else []


def _speed(speed: Mapping[str, Any]) -> str:
    rows = []
    for name, each in speed["arms"].items():
        spread = f"{min(each['rates']):.1f} to {max(each['rates']):.1f}"
        enough = "" if name == BARE else ("yes" if each["median"] >= TARGET else "**no**")
        rows.append((name, f"{each['median']:.1f}", spread, f"{each['wall']:.1f}", f"{each['ratio']:.2f}", enough))
    rounds = len(speed["arms"][BARE]["rates"])
    unit = "of processor time" if speed["unit"] == "cpu" else "by the clock"
    head = (
        "",
        f"programs a second {unit}, one core",
        f"{rounds} rounds",
        "by the clock",
        "times bare python",
        f"at least {TARGET:.0f}",
    )
    return (
        "The solutions of HumanEval with all their tests, four at a time on one core, all arms in turns. Processor "
        "time is that of harness, judge, candidate and sandbox together; the clock also counts what else is running. "
        "Bare Python is one interpreter a program without any sandbox.\n\n" + table(head, rows)
    )
