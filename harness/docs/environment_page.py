"""The page of exit codes and environment variables."""

from __future__ import annotations

from harness.docs.markdown import cell, table

VARIABLES: dict[str, str] = {
    "SPARSEBENCH_CACHE": "folder for expanded models and packed weights; default: `sparsebench` in `XDG_CACHE_HOME` or "
    "`~/.cache`",
    "SPARSEBENCH_ENDPOINTS": "which key goes to which endpoint: pairs `https://host=NAME_OF_VARIABLE`, apart by "
    "blanks or commas; read in place of `~/.config/sparsebench/endpoints.yaml`",
    "SPARSEBENCH_SANDBOX": "sandbox for generated code: `bwrap`, `unshare`, `podman`, `docker` or `auto` (default)",
    "SPARSEBENCH_SANDBOX_IMAGE": "image for docker and podman; default `python:3.11-slim`",
    "SPARSEBENCH_ISA": "best instruction set that engine `sparse` may use: `scalar`, `avx2`, `avx512`, `avx512_bf16`, "
    "`amx`",
    "SPARSEBENCH_DOCS": "tests: `all` also runs the commands of the documents that take long; `tox -e docs` sets it",
    "SPARSEBENCH_DATA": "tests: folder of the original data files; tests that need them are skipped without it",
    "SPARSEBENCH_JUDGE_PEERS": "tests: Python of an environment with FastChat and alpaca_eval, which judging is "
    "compared with",
    "SPARSEBENCH_PROPERTIES": "tests: `random` draws new examples for property tests; default `fixed`",
    "SPARSEBENCH_WRITE_GOLDEN": "tests: `1` rewrites the golden reports",
}
"""Every variable of ours that a user or developer may set; a test holds it against the sources."""

OTHERS: dict[str, str] = {
    "HF_TOKEN": "token for gated or private models and data sets of the hub",
    "HF_ENDPOINT": "another hub, such as a mirror",
    "HF_HOME": "where huggingface_hub keeps what it fetched",
    "HF_HUB_OFFLINE": "`1`: no network; `--offline` sets it, with those of datasets and transformers",
    "OMP_NUM_THREADS": "threads of torch outside of worker processes; speed panels set their own (`threads:`)",
    "XDG_CONFIG_HOME, XDG_CACHE_HOME": "the user's folders for configuration and caches",
    "RANK, WORLD_SIZE, LOCAL_RANK": "set by torchrun: `sparsebench sparsify` and `run` shard stages that train",
}

_INTRO = """# Exit codes and environment

## Exit codes

Every verb ends with one of these, and an error is one line on standard error that names the fix.

| code | meaning |
| --- | --- |
| 0 | done; of `gate`: every rule passed; of `doctor`: `sparsebench run` can work; of `data verify`: all is there |
| 1 | a gate rule failed, or was inconclusive and `--on-inconclusive` is `fail` (the default) |
| 2 | your input: an option, a study, a recipe, a file, a model that is not there |
| 3 | the machine or records: disk, memory, sandbox, engine, network, a damaged record; a late client of `bench serve` |
| 130 | interrupted; run the same command again to continue |
"""


def environment_page() -> str:
    """The whole page."""
    ours = table(("variable", "meaning"), [[f"`{name}`", cell(text)] for name, text in VARIABLES.items()])
    others = table(("variable", "meaning"), [[f"`{name}`", cell(text)] for name, text in OTHERS.items()])
    return f"{_INTRO}\n## Variables of sparsebench\n\n{ours}\n\n## Variables of others that it heeds\n\n{others}\n"
