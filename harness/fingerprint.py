"""What a record's numbers depend on: hashes of weights, tokenizer and chat template, and the environment."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.errors import ConfigError

_TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_PACKAGES = ("sparsebench", "torch", "transformers", "lm_eval", "compressed-tensors")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); fetch the model again") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a JSON object; fetch the model again")
    return content


def weights_sha256(model_dir: Path) -> str:
    """SHA-256 over the names and bytes of a model's weight files, as in its `variant.json`.

    Raises:
        CheckpointError: A file is missing, cut off or not what it should be.
    """
    from sparsify.checkpoint import open_checkpoint

    return open_checkpoint(model_dir).weights_sha256


def tokenizer_sha256(model_dir: Path) -> str:
    """SHA-256 over the names and bytes of the tokenizer files of a model directory.

    Raises:
        ConfigError: There is no tokenizer.
    """
    files = [model_dir / name for name in _TOKENIZER_FILES if (model_dir / name).is_file()]
    if not files:
        raise ConfigError(f"{model_dir} holds no tokenizer files; copy those of its base model there")
    digest = hashlib.sha256()
    for file in files:
        data = file.read_bytes()
        digest.update(f"{file.name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def chat_template_sha256(model_dir: Path) -> str | None:
    """SHA-256 of the chat template's text; None if the model has none."""
    file = model_dir / "chat_template.jinja"
    if file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    config = model_dir / "tokenizer_config.json"
    template = _read_json(config).get("chat_template") if config.is_file() else None
    if template is None:
        return None
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def model_fingerprint(model_dir: Path) -> dict[str, str | None]:
    """The three hashes of a model directory: `weights_sha256`, `tokenizer_sha256`, `chat_template_sha256`."""
    return {
        "weights_sha256": weights_sha256(model_dir),
        "tokenizer_sha256": tokenizer_sha256(model_dir),
        "chat_template_sha256": chat_template_sha256(model_dir),
    }


def plan_sha256(item_hashes: Sequence[tuple[str, str]]) -> str:
    """SHA-256 of the planned (item id, item hash) pairs, in order: batches, and so results, follow from all of them."""
    return hashlib.sha256(json.dumps(list(item_hashes), separators=(",", ":")).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Versions and hardware that results may depend on; no host names, users or paths.

    Versions come from installed metadata, so that nothing heavy is imported; an absent package is None.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {package.replace("-", "_"): _version(package) for package in _PACKAGES}
    return {
        "python": platform.python_version(),
        **versions,
        "cpu": _cpu_model(),
        "cores": cores,
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
    }
