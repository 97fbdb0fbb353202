"""The page of verbs, made from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.docs.markdown import anchor, cell, table

_INTRO = """# Command line

Every verb, argument and option. `sparsebench VERB --help` prints the same; `-h, --help` exists everywhere and is left
out of the tables. What exit codes mean is in [environment.md](environment.md#exit-codes).
"""


def cli_page() -> str:
    """The whole page."""
    found = list(_commands())
    index = table(
        ("verb", "what for"),
        [[f"[`{name}`](#{anchor(name)})", cell(_first(command.help))] for name, command in found],
    )
    return "\n\n".join([_INTRO.rstrip(), index, *(_command(name, command) for name, command in found)]) + "\n"


def _commands() -> Iterator[tuple[str, Any]]:
    """Every verb that does something, with its full name, in the order of `--help`."""
    import typer

    from harness.cli import app

    def below(name: str, group: Any) -> Iterator[tuple[str, Any]]:
        for word, command in group.commands.items():
            if command.hidden:
                continue
            full = f"{name} {word}"
            yield from below(full, command) if hasattr(command, "commands") else [(full, command)]

    return below("sparsebench", typer.main.get_command(app))


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([name, *map(_placeholder, arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"## {name}", " ".join((command.help or "").split()), f"```text\n{usage}\n```"]
    if arguments:
        parts.append(table(("argument", "default", "meaning"), [_row(_placeholder(p), p) for p in arguments]))
    if options:
        parts.append(table(("option", "default", "meaning"), [_row(_flags(p), p) for p in options]))
    if command.epilog:
        said = command.epilog.removeprefix("Examples:").removeprefix("Example:")
        lines = [line.strip() for line in said.split("  |  ")]
        parts.append("Examples:\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts)


def _row(name: str, parameter: Any) -> list[str]:
    repeatable = " May be given more than once." if parameter.param_type_name == "option" and parameter.multiple else ""
    return [f"`{name}`", _default(parameter), cell((parameter.help or "") + repeatable)]


def _placeholder(argument: Any) -> str:
    name = argument.metavar or argument.name.upper().replace("_", "-") + ("..." if argument.nargs < 0 else "")
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _flags(option: Any) -> str:
    return ", ".join(option.opts) + ("" if option.is_flag else " VALUE")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value == () or callable(value):
        return ""
    if isinstance(value, (list, tuple)):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def _first(text: str | None) -> str:
    """The first clause of a help text."""
    return " ".join((text or "").split()).split(";")[0].split(": ")[0].rstrip(".")
