"""The pages' fenced blocks, and what the comment above each says about running it.

    <!-- prepare: first-study, data -->     on a line of its own: what the page's folder holds before its commands run
    <!-- not run: REASON -->                above a block of commands: its options are checked, it is not carried out
    <!-- slow: REASON -->                   carried out by `tox -e docs` only
    <!-- exit: 1 -->                        the exit code of the block; 0 without it
    <!-- numbers vary -->                   above a block of output: any number may stand for another

A ```text block right below commands is quoted output: its lines occur in what the commands print, in this order; a line
`...` stands for any number of lines. A ```yaml or ```python block that begins with `# NAME` is the file NAME.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_DIRECTIVE = re.compile(r"<!--\s*(not run|slow|exit|prepare|numbers vary)\s*(?::\s*(.*?))?\s*-->\s*$")
_FILE = re.compile(r"# ([\w./-]+\.(?:yaml|py))$")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str
    said: dict[str, str] = field(default_factory=dict)
    follows: bool = False
    """Whether nothing but comments stands between it and a block of commands."""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        found = _FILE.match(self.text.partition("\n")[0])
        return found[1] if found and self.language in ("yaml", "python") else None

    @property
    def is_output(self) -> bool:
        return self.follows and self.language == "text"

    def commands(self) -> list[str]:
        """Its commands, continued lines joined; text between `<<'END'` and `END` is no command."""
        found: list[str] = []
        ending: str | None = None
        for line in self.text.replace("\\\n", " ").splitlines():
            if ending is not None:
                ending = None if line == ending else ending
            elif line.strip() and not line.lstrip().startswith("#"):
                found.append(line.strip())
                here = re.search(r"<<'?(\w+)'?", line)
                ending = here[1] if here else None
        return found


def pages() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    said: dict[str, str] = {}
    lines = page.read_text(encoding="utf-8").splitlines()
    after, at = False, 0
    while at < len(lines):
        line = lines[at]
        if directive := _DIRECTIVE.match(line.strip()):
            said[directive[1]] = directive[2] or ""
        elif opened := re.match(r"( *)```(\w+)", line):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            indent = len(opened[1])
            text = "\n".join(each[indent:] for each in lines[at + 1 : end])
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, at + 1, opened[2], text, said, after))
            said, after, at = {}, opened[2] == "sh", end
        elif line.strip():
            said, after = {key: value for key, value in said.items() if key == "prepare" and not found}, False
        at += 1
    return found


def prepared(page: Path) -> tuple[str, ...]:
    """What the page says its folder holds."""
    found = re.findall(r"^<!-- prepare: (.*?) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return tuple(name.strip() for line in found for name in line.split(","))


def words_of(command: str) -> list[list[str]]:
    """The words of each simple command of a line: what stands between `|`, `&&`, `;` and redirections."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if word[0] in "|&;":
            parts.append([])
        elif word[0] in "<>":
            skip = True  # the file that follows
        elif skip:
            skip = False
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def sparsebench_calls(command: str) -> Iterator[list[str]]:
    """The arguments of each call of `sparsebench` in a command, whatever stands in front of it."""
    for words in words_of(command):
        named = [index for index, word in enumerate(words) if word == "sparsebench" or word.endswith("bin/sparsebench")]
        if named and "pip" not in words[:2]:
            yield words[named[0] + 1 :]


def occurs(quoted: str, printed: str, *, numbers_vary: bool) -> str | None:
    """None if the quoted lines occur in order, else the first that does not."""

    def plain(line: str) -> str:
        line = re.sub(r"[─━-]{3,}", "---", line)
        line = re.sub(r"-?\d+(?:[.,]\d+)*", "#", line) if numbers_vary else line
        return " ".join(line.split())

    rest = iter([plain(line) for line in printed.splitlines()])
    for line in quoted.splitlines():
        if line.strip() and line.strip() != "..." and plain(line) not in rest:
            return line
    return None
