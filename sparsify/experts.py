"""Mixtral's experts as virtual linears: the model holds them in two 3-D parameters, files hold three matrices each.

Of a module `P.mlp.experts`, `gate_up_proj` [experts, 2·I, H] is w1 above w3, and `down_proj` [experts, H, I] is w2;
files call them `P.block_sparse_moe.experts.E.w1` and so on. Virtual linears go by their names in files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_MODEL, _FILE = ".mlp.", ".block_sparse_moe."
_VIRTUAL = re.compile(r"(.*)\.block_sparse_moe\.experts\.(\d+)\.(w[123])")


def is_experts(module: nn.Module) -> bool:
    """Whether a module is Mixtral's experts in the form that is supported."""
    return type(module).__name__ == "MixtralExperts" and isinstance(getattr(module, "gate_up_proj", None), nn.Parameter)


def virtual_linears(name: str, module: nn.Module) -> tuple[str, ...]:
    """Names of the virtual linears of the experts module called `name`, in the model or within a block."""
    prefix = f".{name}.".replace(_MODEL, _FILE)[1:]
    return tuple(f"{prefix}{expert}.{part}" for expert in range(_count(module)) for part in ("w1", "w2", "w3"))


def virtual_weight(model: nn.Module, name: str) -> Tensor:
    """The weight [out, in] of the virtual linear `name`, as a view into the model's parameter."""
    found = _VIRTUAL.fullmatch(name)
    assert found is not None
    experts = model.get_submodule(f"{found[1]}.mlp.experts")
    return _view(experts, int(found[2]), found[3])


def stored_names(name: str, count: int) -> tuple[str, ...]:
    """What files call a parameter of a Mixtral model with `count` experts, in the order of its rows."""
    base, _, own = name.rpartition(".")
    base = (base + ".").replace(_MODEL, _FILE)
    if not base.endswith(".experts."):
        return (base + own,)
    parts = ("w1", "w3") if own == "gate_up_proj" else ("w2",)
    return tuple(f"{base}{expert}.{part}.weight" for expert in range(count) for part in parts)


@torch.no_grad()
def expert_inputs(module: nn.Module, hidden: Tensor, chosen: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """What each expert is given.

    Args:
        module: The experts.
        hidden: Float [tokens, H].
        chosen: Int [tokens, k], the experts of each token.

    Yields:
        Expert, the indices of its tokens, its inputs [n, H] (of w1 and w3) and the inputs [n, I] of w2.
    """
    for expert in range(_count(module)):
        tokens = (chosen == expert).any(dim=1).nonzero().reshape(-1)
        inputs = hidden[tokens]
        gate, up = nn.functional.linear(inputs, module.gate_up_proj[expert]).chunk(2, dim=-1)  # type: ignore[index]
        yield expert, tokens, inputs, module.act_fn(gate) * up  # type: ignore[operator]


def _count(module: nn.Module) -> int:
    return int(module.gate_up_proj.shape[0])  # type: ignore[union-attr,index]


def _view(experts: nn.Module, expert: int, part: str) -> Tensor:
    if part == "w2":
        return experts.down_proj.data[expert]  # type: ignore[union-attr,index,return-value]
    half = experts.gate_up_proj.shape[1] // 2  # type: ignore[union-attr,index,operator]
    rows = slice(0, half) if part == "w1" else slice(half, 2 * half)
    return experts.gate_up_proj.data[expert, rows]  # type: ignore[union-attr,index,return-value]
