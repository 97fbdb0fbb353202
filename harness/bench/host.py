"""The host of the speed workers: `python -m harness.bench.host`, started by `PanelRunner`.

It imports torch and transformers once and forks a worker for each variant, because the import costs more than a whole
measurement. It never computes anything itself, so that the fork is safe. One JSON object per line comes in on stdin and
goes out on stdout; the end of stdin ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from harness.bench.interleave import run_interleaved
from harness.bench.priority import raise_priority
from harness.bench.spec import PanelSpec
from harness.bench.workers import ParentGone, Role, WorkerFailed, Workers
from sparsify.errors import SparsifyError
from sparsify.slicegpt import register_for


def preload(folders: list[str]) -> None:
    """Import what the workers will need: torch, transformers and the modelling code of these checkpoints."""
    from transformers import AutoConfig, AutoModelForCausalLM

    # Imported for the workers.
    import harness.bench.workloads  # noqa: F401
    import harness.engines.sparse.engine  # noqa: F401
    import harness.engines.torch  # noqa: F401

    for folder in folders:
        try:
            register_for(Path(folder))
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, SparsifyError):
            continue  # the worker that opens it says clearly what is wrong
        AutoModelForCausalLM._model_mapping.get(type(config), None)


def answer(request: dict[str, Any], workers: Workers, out: BinaryIO) -> None:
    """Do one run of a panel and write its progress and result."""

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message).encode() + b"\n")
        out.flush()

    spec = PanelSpec.from_dict(request["spec"])
    roles = {name: Role(**role) for name, role in request["roles"].items()}
    preload(sorted({role.path for role in roles.values()}))

    def report(done: float, total: float, note: str) -> None:
        say({"progress": [done, total, note]})

    try:
        result = run_interleaved(spec, workers, roles, report, fresh=request["fresh"])
    except WorkerFailed as error:
        # What ended one worker may be about to end the others: the next run starts with new ones.
        workers.reset()
        say({"error": str(error), "exit_code": error.exit_code})
    else:
        import torch
        import transformers

        libraries = {"torch": torch.__version__, "transformers": transformers.__version__}
        say({"result": result, "libraries": libraries})


def main() -> None:
    """Serve panels until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    raise_priority()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the messages
    preload([])
    with tempfile.TemporaryDirectory(prefix="sparsebench-speed-") as folder:
        workers = Workers(Path(folder), sys.stdin.fileno())
        with contextlib.suppress(ParentGone, BrokenPipeError):
            while line := sys.stdin.buffer.readline():
                answer(json.loads(line), workers, out)
        workers.kill()
    os._exit(0)  # nothing is left to save, and taking torch down in good order takes seconds


if __name__ == "__main__":
    main()
