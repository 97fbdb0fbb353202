"""Read and write model directories: safetensors and JSON only, every file checked before it is used.

Nothing here unpickles: a checkpoint that only has `pytorch_model.bin` is refused with the way to convert it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsify.corpus import sha256_file
from sparsify.errors import CheckpointError
from sparsify.files import write_json
from sparsify.shards import ShardWriter, TensorRef, read_header, read_tensor

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MASKS = "masks.safetensors"
BASES = "bases.safetensors"
"""Bases of a sliced model (`sparsify.slicegpt.bases`)."""
# What a model needs beside its weights to be opened and prompted, and the licence that it comes with.
_COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)


@dataclass(frozen=True)
class Checkpoint:
    """A model directory whose files were found complete.

    Attributes:
        path: The directory.
        config: Its config.json.
        files: Its weight files, sorted by name.
        tensors: Every stored tensor by name.
    """

    path: Path
    config: dict[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, TensorRef]

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in its stored dtype."""
        return read_tensor(self.tensors[name], name)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over the names and bytes of the weight files."""
        return _digest(self.files)

    @property
    def bytes(self) -> int:
        """Size of the weight files."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def is_quantized(self) -> bool:
        """Whether config.json declares a quantization."""
        return bool(self.config.get("quantization_config"))


def open_checkpoint(model_dir: Path) -> Checkpoint:
    """Check a model directory and list what it stores.

    Raises:
        CheckpointError: A file is missing, truncated or not what it should be; the message names the file and the fix.
    """
    if not model_dir.is_dir():
        raise CheckpointError(
            f"model directory {model_dir} does not exist; give a folder of config.json and safetensors"
        )
    refuse_links(model_dir)
    config = _read_json(model_dir / "config.json", "copy it there from where the weights are")
    files, where = _weight_files(model_dir)
    tensors: dict[str, TensorRef] = {}
    for path in files:
        found = read_header(path)
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise CheckpointError(
                f"{path} stores {twice[0]}, which another shard stores too; download or copy it again"
            )
        tensors |= found
    for name, shard in where.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(
                f"{model_dir / INDEX} says that {shard} stores {name}, but it does not; download or copy it again"
            )
    return Checkpoint(model_dir, config, files, tensors)


def refuse_links(model_dir: Path) -> None:
    """Refuse files of a model directory that are links to somewhere else, as a foreign archive may hold.

    The hub's cache is made of links, from `snapshots/REVISION` to `blobs` beside it; those are accepted.

    Raises:
        CheckpointError: A file that would be read lies outside.
    """
    real = model_dir.resolve()
    homes = [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]
    for path in (
        model_dir / "config.json",
        model_dir / MASKS,
        *model_dir.glob("*.safetensors*"),
        *companions(model_dir),
    ):
        target = path.resolve()
        if path.is_symlink() and not any(target.is_relative_to(home) for home in homes):
            raise CheckpointError(f"{path} is a link that leads out of the model directory; put the file itself there")


def model_fingerprint(model_dir: Path) -> str:
    """SHA-256 over all that stages depend on: weights, config, tokenizer, chat template and masks."""
    checkpoint = open_checkpoint(model_dir)
    others = [model_dir / "config.json", *companions(model_dir)]
    masks = model_dir / MASKS
    return _digest((*checkpoint.files, *sorted(others), *((masks,) if masks.exists() else ())))


def companions(model_dir: Path) -> list[Path]:
    """Files that belong to a model beside config.json and weights: tokenizer, chat template, generation, licence."""
    found = {path for pattern in _COMPANIONS for path in model_dir.glob(pattern) if path.is_file()}
    return sorted(found)


def copy_companions(source: Path, target: Path) -> None:
    """Copy what `companions` lists."""
    for path in companions(source):
        shutil.copyfile(path, target / path.name)


def write_checkpoint(
    source: Checkpoint,
    out_dir: Path,
    rewrite: Callable[[str, Tensor], Mapping[str, Tensor]],
    *,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write a copy of `source` in which `rewrite(name, tensor)` says what is stored in place of each tensor.

    Shards keep their names; one tensor at a time is in memory.

    Args:
        source: What is copied.
        out_dir: An existing directory.
        rewrite: Returns the tensors to store, by name; usually the same name.
        config: Stored as config.json in place of the source's own.
    """
    for path in source.files:
        with ShardWriter(out_dir / path.name, metadata={"format": "pt"}) as shard:
            for name, ref in source.tensors.items():
                if ref.file == path:
                    for stored, tensor in rewrite(name, source.read(name)).items():
                        shard.add(stored, tensor)
    write_index(out_dir, [path.name for path in source.files])
    write_json(out_dir / "config.json", dict(config if config is not None else source.config))
    copy_companions(source.path, out_dir)


def write_index(directory: Path, files: Sequence[str]) -> None:
    """Write the index that says which files of `directory` hold weights.

    One file gets an index too: vLLM otherwise takes every *.safetensors beside it, masks included, for weights.
    """
    locations = {name: ref for file in files for name, ref in read_header(directory / file).items()}
    total = sum(ref.bytes for ref in locations.values())
    weight_map = {name: ref.file.name for name, ref in sorted(locations.items())}
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _weight_files(model_dir: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """The weight files, and where an index says that each tensor is."""
    if (model_dir / INDEX).exists():
        index = _read_json(model_dir / INDEX, "download or copy it again")
        shards = index.get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{model_dir / INDEX} has no weight_map; download or copy it again")
        names = sorted({str(name) for name in shards.values()})
        for name in names:
            # A shard name comes from a file that someone else wrote: it must not lead out of the directory.
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise CheckpointError(f"{model_dir / INDEX} names {name!r}, which is no safetensors file beside it")
            if not (model_dir / name).is_file():
                raise CheckpointError(f"{model_dir / name} is missing but {INDEX} lists it; download or copy it again")
        return tuple(model_dir / name for name in names), {str(name): str(shard) for name, shard in shards.items()}
    if (model_dir / WEIGHTS).is_file():
        return (model_dir / WEIGHTS,), {}
    pickles = sorted(path.name for suffix in ("*.bin", "*.pt", "*.pth") for path in model_dir.glob(suffix))
    if pickles:
        raise CheckpointError(
            f"{model_dir / pickles[0]} is a pickle file, which can run code when opened; convert the model to "
            "safetensors (save_pretrained of a recent transformers does)"
        )
    raise CheckpointError(f"{model_dir} has no {WEIGHTS}; copy the weights there or check the path")


def _read_json(path: Path, fix: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; {fix}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); download or copy it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object; download or copy it again")
    return value


def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()
