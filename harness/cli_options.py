"""Options that several verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SUITES_HELP = (
    "chat, instruct, code, gsm8k, summarization; piqa, winogrande, hellaswag, arc_easy, arc_challenge, mmlu; "
    "repeatable; `sparsebench suites` tells more."
)
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for everything the run leaves.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the original data files; implies --data full.")
]
DataFolder = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the original data files.")]
DataKind = Annotated[str, typer.Option("--data", help="pocket (bundled, offline) or full (the real benchmarks).")]
Count = Annotated[int | None, typer.Option("-n", "--n", min=1, help="First n items of every suite.")]
Jobs = Annotated[int, typer.Option(min=0, help="Worker processes; 0 = one per core, at most 4.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
EngineOption = Annotated[str, typer.Option(help="torch, vllm, or sparse: our CPU kernels on packed weights.")]
BaseUrl = Annotated[str | None, typer.Option(help="Of the endpoint of openai:NAME, such as http://127.0.0.1:8000/v1.")]
Api = Annotated[str, typer.Option(help="openai: chat, completions, or auto (what the suite's prompts are).")]
Concurrency = Annotated[int, typer.Option(min=1, help="openai: requests under way at a time.")]
Pace = Annotated[float | None, typer.Option(min=0.01, help="openai: at most so many, further tries included.")]
RayOption = Annotated[
    str | None,
    typer.Option(help="Run skill cells on Ray: local, auto or HOST:PORT of a cluster whose nodes share --out."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
