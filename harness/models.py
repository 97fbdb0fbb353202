"""Finds the directory of a model that a user names: bundled, local or on the hub."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from harness.errors import ConfigError, InfrastructureError
from harness.hub import NotFetched, hub_error

_POCKET = Path(__file__).resolve().parent.parent / "suites" / "pocket"
BUNDLED = {"pocket": _POCKET / "model", "pocket-base": _POCKET / "base", "pocket-sparse70": _POCKET / "sparse70"}


def model_directory(name: str, *, revision: str | None = None, offline: bool = False) -> Path:
    """The directory of a model.

    Args:
        name: One of `BUNDLED`, a directory, or a hub id such as `org/model` or `org/model@revision`. A checkpoint in
            bitmask storage (`sparsify.packed`) is expanded once, into the user's cache folder.
        revision: Commit or branch of a hub model.
        offline: Take a hub model from the local cache only.

    Raises:
        ConfigError: There is no such directory, or the hub does not have the model or does not give it to this user.
        InfrastructureError: The hub was not reached, or the download broke off; what came is kept for the next try.
    """
    if name in BUNDLED:
        return _ordinary(BUNDLED[name])
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{path} holds no config.json; name a model directory")
        return _ordinary(path)
    hub_id, _, given = name.partition("@")
    if given and revision not in (None, given):
        raise ConfigError(f"{name} names revision {given}, but {revision} is asked for; name one of them")
    if hub_id.count("/") != 1 or name.startswith((".", "/", "~")) or path.exists():
        raise ConfigError(
            f"model directory {name} does not exist; name a directory, a hub id or one of {', '.join(BUNDLED)}"
        )
    return _from_hub(hub_id, given or revision, offline)


def fetched_directory(name: str, *, revision: str | None = None) -> Path | None:
    """As `model_directory`, but never fetches: None where a hub model is not in the local cache.

    Raises:
        ConfigError: There is no such directory, and the name is no hub id.
    """
    try:
        return model_directory(name, revision=revision, offline=True)
    except NotFetched:
        return None


def named_directories(models: list[str], *, offline: bool) -> dict[str, Path]:
    """Directories by name; `NAME=MODEL` gives the name, else it is the model's own.

    Raises:
        ConfigError: A model is not there, or a name is none or is given twice.
    """
    found: dict[str, Path] = {}
    for each in models:
        given, _, model = each.rpartition("=")
        directory = model_directory(model, offline=offline)
        name = given or public_name(model).replace("/", "--")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(f"{name!r} is no name for a model; write NAME=MODEL with letters, digits, '-', '_', '.'")
        if name in found:
            raise ConfigError(f"two models are called {name!r}; write NAME=MODEL to tell them apart")
        found[name] = directory
    return found


def cache_directory() -> Path:
    """Where expanded checkpoints are kept: `SPARSEBENCH_CACHE`, else `sparsebench` in the user's cache folder."""
    own = os.environ.get("SPARSEBENCH_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsebench"


def _ordinary(directory: Path) -> Path:
    """`directory`, or where it is bitmask storage the ordinary model directory that it expands to."""
    from sparsify.packed import PACKED, expand_checkpoint, is_packed

    if not is_packed(directory):
        return directory
    from sparsify.corpus import sha256_file

    parts = "".join(sha256_file(directory / name) for name in (PACKED, "config.json"))
    expanded = cache_directory() / f"{directory.name}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    if not expanded.is_dir():
        _writable(expanded.parent)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=expanded.parent) as part:
            whole = Path(part) / "model"
            whole.mkdir()
            expand_checkpoint(directory, whole)
            try:
                os.rename(whole, expanded)
            except OSError:
                if not expanded.is_dir():  # else another process was quicker, with the same content
                    raise
    return expanded


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise InfrastructureError(f"cannot write to {folder}; set SPARSEBENCH_CACHE to a folder that can be written")


def public_name(name: str, directory: Path | None = None) -> str:
    """What records call a model: a bundled name as it is, of a directory its last part only, or a hub id.

    A hub id is followed by `@` and the commit that was loaded, if its `directory` is given.
    """
    path = Path(name).expanduser()
    if name in BUNDLED:
        return name
    if path.is_dir():
        return path.resolve().name
    hub_id = name.partition("@")[0]
    return f"{hub_id}@{directory.name}" if directory is not None and directory.parent.name == "snapshots" else hub_id


def _from_hub(name: str, revision: str | None, offline: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(f"model {name} is on the hub; pip install 'sparsebench[run]' to fetch it") from None
    wanted = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "vocab*", "merges*"]
    try:
        found = snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=offline)
    except Exception as error:  # noqa: BLE001 (its HTTP library's errors have no base in common with its own)
        raise hub_error(f"model {name}", name, error, offline=offline) from None
    return Path(found)
