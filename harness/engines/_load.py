"""Opens a model directory with transformers, or says clearly why not. Imported only by the torch engine."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from harness.errors import ConfigError, EngineError
from sparsify.errors import CheckpointError
from sparsify.slicegpt import register_for

DTYPES = ("float32", "bfloat16", "float16", "auto")


def pick_device(device: str) -> torch.device:
    """Resolve `cpu`, `cuda`, `cuda:N` or `auto` (CUDA where there is one)."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}; choose cpu, cuda or auto")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError("device cuda was asked for, but torch sees no CUDA device; use device cpu")
    return torch.device(device)


def read_config(variant_dir: Path) -> dict[str, Any]:
    """The directory's config.json.

    Raises:
        ConfigError: There is no such directory.
        CheckpointError: It has no readable config.json.
    """
    if not variant_dir.is_dir():
        raise ConfigError(f"model directory {variant_dir} does not exist; give one with config.json and safetensors")
    try:
        config = json.loads((variant_dir / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{variant_dir} has no config.json; it is not a model directory") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{variant_dir / 'config.json'} is not JSON ({error}); restore it") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{variant_dir / 'config.json'} is not a JSON object; restore it")
    return config


def check_files(variant_dir: Path) -> None:
    """Open the header of every safetensors file; a cut or damaged one fails here with its name."""
    files = sorted(variant_dir.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{variant_dir} has no *.safetensors file; save the weights as safetensors")
    for path in files:
        try:
            with safe_open(path, framework="pt") as shard:
                shard.keys()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged or cut short ({error}); make or copy it again") from None


def load_model(variant_dir: Path, *, device: torch.device, dtype: str) -> Any:
    """The causal LM of a directory, on `device` in `dtype`, in eval mode; nothing is fetched and no foreign code runs.

    Raises:
        ConfigError: Unknown dtype or missing directory.
        CheckpointError: Files are missing, damaged, of an unknown architecture, or lack tensors.
        EngineError: The checkpoint is quantised and the package that reads it is not installed.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; choose one of: {', '.join(DTYPES)}")
    config = read_config(variant_dir)
    quantised = config.get("quantization_config", {}).get("quant_method") == "compressed-tensors"
    if quantised and importlib.util.find_spec("compressed_tensors") is None:
        raise EngineError(f"{variant_dir} is a compressed-tensors checkpoint: pip install sparsebench[int8]")
    check_files(variant_dir)
    with _quiet(), contextlib.redirect_stderr(io.StringIO()) if quantised else contextlib.nullcontext():
        try:
            register_for(variant_dir)
            opened: Any = AutoModelForCausalLM.from_pretrained(
                variant_dir,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{variant_dir} does not open: {_one_line(error)}") from None
        model, info = opened
        missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
        if missing:
            # transformers would fill these with random numbers and go on.
            raise CheckpointError(f"{variant_dir} lacks {len(missing)} tensors of its config, such as {missing[0]}")
        model = model.to(device).eval()
        if quantised:
            # The library decompresses the weights at the first forward and reports on stderr.
            with torch.inference_mode():
                model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=device))
    return model


def load_tokenizer(variant_dir: Path) -> Any:
    """The directory's tokenizer.

    Raises:
        CheckpointError: It is missing or unreadable.
    """
    try:
        register_for(variant_dir)
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(variant_dir, local_files_only=True, trust_remote_code=False)
        # Prompts that do not fit are counted and told; the library would warn of errors that cannot come.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return tokenizer
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(f"{variant_dir} has no tokenizer that opens: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Switch transformers' progress bars and load reports off for a while."""
    bars, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hf_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
