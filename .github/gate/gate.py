"""The action's gate: options from the environment, records from disk; leaves summary and outputs where GitHub looks.

Ends with 0 whatever the verdict is: the action's last step turns the output `exit-code` into the job's. Run it with
`python -I`, so that no file of the working folder is imported. Names in the records are not trusted: what they print is
kept from GitHub's workflow commands, its output file and its Markdown.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import traceback
from pathlib import Path

from harness.errors import ConfigError, SparsebenchError
from harness.gate.command import GateOptions, gate, write_report
from harness.report.markdown import escape_untrusted
from harness.report.printable import printable


def main() -> None:
    """Judge, print, write the summary and the outputs."""
    folder = Path(_env("RUNNER_TEMP") or ".") / "sparsebench-gate"
    folder.mkdir(parents=True, exist_ok=True)
    summary = folder / "summary.md"
    summary.unlink(missing_ok=True)
    try:
        verdict, code, line, text = judge(summary)
    except SparsebenchError as error:
        verdict, code, line = "error", error.exit_code, f"gate: ERROR, {error}"
        text = line
    except Exception:
        verdict, code, line, text = "error", 3, "gate: ERROR, the gate itself broke", traceback.format_exc()
    if not summary.is_file():
        summary.write_text(f"## Gate\n\n**{escape_untrusted(line)}**\n", encoding="utf-8")
    say_untrusted(text)
    if _env("GITHUB_STEP_SUMMARY"):
        with Path(_env("GITHUB_STEP_SUMMARY")).open("a", encoding="utf-8") as target, summary.open("r") as source:
            shutil.copyfileobj(source, target)
    put_outputs({"verdict": verdict, "exit-code": str(code), "line": line, "summary": str(summary.resolve())})


def judge(summary: Path) -> tuple[str, int, str, str]:
    """Verdict, exit code, its line, and the text for the log; writes the files that were asked for."""
    run = _env("GATE_RUN")
    if not run:
        raise ConfigError("the input `run` is empty: name the folder of the run's records")
    different = _env("GATE_ALLOW_DIFFERENT_DATA") or "false"
    if different not in ("true", "false"):
        raise ConfigError("the input `allow-different-data` is true or false")
    options = GateOptions(
        against=_path("GATE_AGAINST"),
        study=_env("GATE_STUDY") or None,
        on_inconclusive=_env("GATE_ON_INCONCLUSIVE") or "fail",
        allow_different_data=different == "true",
        junit=_path("GATE_JUNIT"),
        markdown=summary,
    )
    report = gate(Path(run), options)
    text = write_report(report, options, title=run)
    return report.verdict, report.exit_code, report.line, text


def say_untrusted(text: str) -> None:
    """Print text that may hold anything, with GitHub's workflow commands switched off around it."""
    token = secrets.token_hex(16)
    shown = "\n".join(printable(line).replace("##[", "## [") for line in text.split("\n"))
    print(f"::stop-commands::{token}\n{shown}\n::{token}::", flush=True)


def put_outputs(values: dict[str, str]) -> None:
    """Append to `$GITHUB_OUTPUT`, one line each, behind a mark that no value can know."""
    if not _env("GITHUB_OUTPUT"):
        return
    mark = secrets.token_hex(16)
    with Path(_env("GITHUB_OUTPUT")).open("a", encoding="utf-8") as stream:
        for name, value in values.items():
            stream.write(f"{name}<<{mark}\n{printable(value)}\n{mark}\n")


def _env(name: str) -> str:
    return os.environ.get(name, "")


def _path(name: str) -> Path | None:
    return Path(_env(name)) if _env(name) else None


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    main()
