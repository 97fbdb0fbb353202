"""What a method must know about a model, found from its structure and not from its name."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.errors import CheckpointError, SparsifyError
from sparsify.experts import is_experts, virtual_linears, virtual_weight
from sparsify.skeleton import parameters_on_meta
from sparsify.slicegpt import is_shortcut, register_for


@dataclass(frozen=True)
class Structure:
    """Where the parts of a decoder are, as module names.

    Attributes:
        embedding: The token embedding.
        blocks: The blocks in order.
        linears: Per block the names of its linears, in the order in which the model lists them.
        norm: The norm after the last block, or None.
        head: The output projection, or None.
        tied: Whether head and embedding share their weight.
        other_linears: Linears outside the blocks, the head among them; no method touches them.
    """

    embedding: str
    blocks: tuple[str, ...]
    linears: tuple[tuple[str, ...], ...]
    norm: str | None
    head: str | None
    tied: bool
    other_linears: tuple[str, ...]

    @property
    def all_linears(self) -> tuple[str, ...]:
        """The linears of all blocks."""
        return tuple(name for block in self.linears for name in block)

    @property
    def prunable(self) -> tuple[str, ...]:
        """`all_linears` without the shortcuts of a sliced model, through which all of the residual stream goes."""
        return tuple(name for name in self.all_linears if not is_shortcut(name))


def find_structure(model: nn.Module, *, strict: bool = True) -> Structure:
    """Find embedding, blocks, linears, final norm and head of a decoder such as Llama.

    Args:
        model: The model; a skeleton is enough.
        strict: Refuse blocks that hold matrices which are neither linears nor supported experts.

    Raises:
        SparsifyError: The model is not a stack of blocks with linears inside, or a block has a module with matrices of
            its own that is neither; the message names it.
    """
    names = {module: name for name, module in model.named_modules()}
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    stack = max(
        (module for module in stacks if _linears_of_each(module)),
        key=lambda module: (sum(p.numel() for p in module.parameters()), -len(names[module])),
        default=None,
    )
    # What has its weights elsewhere than in nn.Linear may make up most of a block, or all of it.
    for block in stack if stack is not None else [block for found in stacks for block in found]:
        if strict or stack is None:
            _refuse_unsupported(block, names[block])
    if stack is None:
        raise SparsifyError(
            f"{type(model).__name__} is no stack of blocks of nn.Linear layers; use a decoder such as Llama"
        )
    inside = [_linears_of(block, names[block]) for block in stack]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    within = {name for block in inside for name in block}
    return Structure(
        embedding=names[embedding],
        blocks=tuple(names[block] for block in stack),
        linears=tuple(inside),
        norm=_norm_after(model, names[stack]),
        head=names[head] if head is not None else None,
        tied=head is not None and head.weight is embedding.weight,
        other_linears=tuple(n for m, n in names.items() if isinstance(m, nn.Linear) and n not in within),
    )


def linear_weight(model: nn.Module, name: str) -> Tensor:
    """The weight [out, in] of a linear of `Structure.linears`, virtual or not: a view that can be written to."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return virtual_weight(model, name)
    assert isinstance(module, nn.Linear)
    return module.weight.data


def load_skeleton(model_dir: Path) -> nn.Module:
    """The model without weights: parameters on the meta device, buffers real (`sparsify.skeleton`).

    Enough to find its structure, to count its parameters and to fill it part by part.
    """
    from transformers import AutoConfig

    register_for(model_dir)
    try:
        return skeleton_of(AutoConfig.from_pretrained(str(model_dir), local_files_only=True, trust_remote_code=False))
    except (ValueError, KeyError, OSError) as error:
        raise _complaint(model_dir, error, "config.json") from None


def skeleton_of(config: Any) -> nn.Module:
    """The model of a transformers configuration without weights.

    Raises:
        ValueError, KeyError: transformers cannot build it.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    # The structure of a quantized checkpoint is that of the plain model.
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    with parameters_on_meta():
        model: nn.Module = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return model.eval().requires_grad_(False)


def load_model(model_dir: Path) -> nn.Module:
    """The model with its weights, in float32 on the CPU, in evaluation mode."""
    from transformers import AutoModelForCausalLM

    register_for(model_dir)
    auto: Any = AutoModelForCausalLM
    try:
        model, info = auto.from_pretrained(
            str(model_dir),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise _complaint(model_dir, error, "config.json against the weights") from None
    # transformers fills what is missing with random numbers and goes on.
    absent = sorted(info["missing_keys"])
    if absent:
        raise CheckpointError(f"{model_dir} stores no {absent[0]} ({len(absent)} missing); download or copy it again")
    loaded: nn.Module = model.eval().requires_grad_(False)
    return loaded


def load_tokenizer(model_dir: Path) -> Any:
    """The tokenizer that is stored with a model.

    Raises:
        CheckpointError: There is none, or transformers cannot open it.
    """
    from transformers import AutoTokenizer

    register_for(model_dir)
    if not any(model_dir.glob("tokenizer*")):
        raise CheckpointError(
            f"{model_dir} has no tokenizer (tokenizer.json); copy it there from where the weights are"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), local_files_only=True, trust_remote_code=False)
        # Texts are cut into windows: the library would warn of errors that cannot come.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return tokenizer
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise _complaint(model_dir, error, "tokenizer files") from None


def chosen_linears(names: Sequence[str], skip: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split `names` by `skip` (a name, its dotted ending or a glob) into (chosen, skipped).

    Raises:
        SparsifyError: An entry of `skip` fits no name, other than `lm_head`, which is never among them.
    """
    skipped: set[str] = set()
    for entry in skip:
        found = {n for n in names if n == entry or n.endswith("." + entry) or fnmatch.fnmatchcase(n, entry)}
        if not found and entry != "lm_head":
            raise SparsifyError(f"skip: {entry!r} fits no linear; there are {', '.join(_endings(names))}")
        skipped |= found
    return tuple(n for n in names if n not in skipped), tuple(n for n in names if n in skipped)


def _endings(names: Sequence[str]) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name in names})


def _linears_of(block: nn.Module, name: str) -> tuple[str, ...]:
    found: list[str] = []
    for own, module in block.named_modules():
        if isinstance(module, nn.Linear):
            found.append(f"{name}.{own}")
        elif is_experts(module):
            found += virtual_linears(f"{name}.{own}", module)
    return tuple(found)


def _refuse_unsupported(block: nn.Module, name: str) -> None:
    for own, module in block.named_modules():
        where = f"{name}.{own} ({type(module).__name__})"
        sizes = [p.ndim for p in module.parameters(recurse=False)]
        if type(module).__name__ == "Conv1D":
            raise SparsifyError(f"{where} is no nn.Linear: its weight lies the other way round; unsupported")
        if max(sizes, default=0) > 2 and not is_experts(module) and not isinstance(module, nn.modules.conv._ConvNd):
            raise SparsifyError(
                f"{where} holds the weights of many experts in one tensor; of these only Mixtral's work"
            )


def _linears_of_each(stack: nn.ModuleList) -> bool:
    return len(stack) > 0 and all(any(isinstance(m, nn.Linear) for m in block.modules()) for block in stack)


def _norm_after(model: nn.Module, stack: str) -> str | None:
    parent_name, _, own = stack.rpartition(".")
    passed = False
    for name, module in model.get_submodule(parent_name).named_children():
        if passed and "norm" in type(module).__name__.lower():
            return f"{parent_name}.{name}" if parent_name else name
        passed = passed or name == own
    return None


def _complaint(model_dir: Path, error: Exception, what: str) -> Exception:
    # transformers raises OSError without a number for what is wrong with a model; one with a number is the system's.
    if isinstance(error, OSError) and error.errno is not None:
        return error
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(f"transformers cannot open {model_dir} ({reason}); check its {what}")
