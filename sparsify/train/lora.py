"""Low-rank adapters through peft, and merging them into pruned weights without filling a zero.

A plain adapter adds `s B A` to a weight W, a full matrix. Added to a pruned W it would revive every zero, so what falls
on pruned places has to go. Two ways are offered:

- `masked`: the forward pass computes with `W + s (B A) * M` from the start (SparsePEFT of Munoz et al. 2024,
  arXiv 2410.03750). What is merged is what was trained; a step computes more (twice the products with dropout).
- `project`: the forward pass is peft's own; at the end the product is projected onto the mask. Cheaper to train, but
  the merged model is not the trained one, by a relative error that `MergeReport` states.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from sparsify.blocks import find_structure, load_skeleton
from sparsify.errors import SparsifyError
from sparsify.masks import pack, unpack
from sparsify.slicegpt import is_shortcut
from sparsify.train.lora_settings import LoraSettings

_ADAPTER = "default"


@dataclass(frozen=True)
class MergeReport:
    """What merging the adapters of a model cost.

    Norms are Frobenius norms over all adapted linears together; `s B A` is the update that the adapters stand for.

    Attributes:
        linears: How many were adapted.
        projected: Norm of the part of the update on pruned places, over the norm of the update; 0 where the adapters
            were masked while they were trained.
        worst_linear: The linear with the largest such share, or "".
        worst_projected: Its share.
        rounded: Norm of what storing the merged weights in the checkpoint's dtype changes, over the norm of the update.
    """

    linears: int
    projected: float
    worst_linear: str
    worst_projected: float
    rounded: float


@dataclass(frozen=True)
class Merge:
    """One merged weight and the squared norms that `MergeReport` adds up.

    Attributes:
        weight: [out, in], float32; exactly 0 on pruned places.
        update: Squared norm of the update.
        projected: Squared norm of its part on pruned places.
        rounded: Squared norm of what the stored dtype changes.
    """

    weight: Tensor
    update: float
    projected: float
    rounded: float


class LoraAdapter:
    """The adapters of one training run; an `Adapter` of the trainer."""

    def __init__(self, model_dir: Path, masks: Mapping[str, Tensor], settings: LoraSettings, seed: int) -> None:
        """Choose the linears of the model in `model_dir`.

        Raises:
            SparsifyError: `targets` fits no linear, `merge: refuse` meets a pruned one, a mask belongs to another
                model, or peft is not installed.
        """
        skeleton = load_skeleton(model_dir)
        linears = find_structure(skeleton, strict=False).all_linears
        self._names = target_linears(linears, settings.targets)
        self._masks, self._settings, self._seed = masks, settings, seed
        check_lora(self._names, list(masks), settings)
        strange = sorted(set(masks) - {f"{name}.weight" for name in linears} - dict(skeleton.named_parameters()).keys())
        if strange:
            raise _misfit(strange[0])

    def attach(self, module: nn.Module, name: str) -> None:
        """Give the model's chosen linears (or those of its block `name`) their adapters, and freeze all else."""
        for own, param in module.named_parameters():
            if ".lora_" not in own:
                param.requires_grad_(False)
        done = {inner for inner, _ in adapted(module)}
        prefix = f"{name}." if name else ""
        inside = [n for n in self._names if n.startswith(prefix) and n not in done]
        attach(module, inside, self._masks, self._settings, seed=self._seed, prefix=prefix)

    def merge(self, model: nn.Module, masks: Mapping[str, Tensor], stored: torch.dtype) -> dict[str, Any]:
        """Fold the adapters into the weights; see `MergeReport`."""
        return asdict(merge(model, masks, stored=stored))


def target_linears(linears: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """The linears that `targets` name (a name, its dotted ending or a glob), in the model's order.

    Where `targets` is empty, all but the shortcuts of a sliced model.

    Args:
        linears: `Structure.all_linears` of the model.
        targets: See `LoraSettings.targets`.

    Raises:
        SparsifyError: An entry fits no linear inside the blocks.
    """
    chosen: set[str] = set() if targets else {name for name in linears if not is_shortcut(name)}
    for entry in targets:
        found = {n for n in linears if n == entry or n.endswith("." + entry) or fnmatch.fnmatchcase(n, entry)}
        if not found:
            endings = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears}))
            raise SparsifyError(f"lora.targets: {entry!r} fits no linear inside the blocks; there are {endings}")
        chosen |= found
    return tuple(name for name in linears if name in chosen)


def check_lora(names: Sequence[str], masked: Sequence[str], settings: LoraSettings) -> None:
    """Find out before anything is loaded whether adapters can be trained.

    Args:
        names: The linears that get an adapter.
        masked: Names of the weights that have a mask.
        settings: Of the adapters.

    Raises:
        SparsifyError: peft is not installed, or `merge: refuse` meets a pruned weight.
    """
    _peft()
    pruned = [name for name in names if f"{name}.weight" in masked]
    if settings.merge == "refuse" and pruned:
        raise SparsifyError(
            f"lora.merge is refuse, but {pruned[0]} ({len(pruned)} of {len(names)} targets) is pruned; use merge: "
            "masked or merge: project, or targets that are not pruned"
        )


def attach(
    module: nn.Module,
    names: Sequence[str],
    masks: Mapping[str, Tensor],
    settings: LoraSettings,
    *,
    seed: int,
    prefix: str = "",
) -> None:
    """Give linears of `module` an adapter each, in place; nothing but the adapters is trainable afterwards.

    The up projections start at zero, so that the model computes what it did. The down projections depend on `seed` and
    on the name of their linear alone: adapters that are attached block by block or in other processes are the same.

    Args:
        module: A model, or an adapted part of one, with its weights.
        names: The linears, by their name in the model.
        masks: By weight name (`NAME.weight`); True where the weight is kept.
        settings: Of the adapters.
        seed: Of the down projections.
        prefix: What names in the model have before names in `module`, such as `model.layers.0.`.

    Raises:
        SparsifyError: peft is not installed, a name is no `nn.Linear` of its own, or a mask belongs to another model.
    """
    peft = _peft()
    own = {name: name.removeprefix(prefix) for name in names}
    for name in names:
        if not _is_linear(module, own[name]):
            raise SparsifyError(
                f"lora: {name} is one of many experts that share a tensor, which peft cannot adapt alone; "
                "set targets to other linears, such as [q_proj, k_proj, v_proj, o_proj]"
            )
    if not names:
        return
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # A pattern, because peft takes a list for endings: `0.up_proj` would fit block 10 as well.
        target_modules="|".join(name.replace(".", r"\.") for name in own.values()),
        bias="none",
    )
    peft.inject_adapter_in_model(config, module)
    for name in names:
        layer: Any = module.get_submodule(own[name])
        # peft's new layers are in training mode, whatever the module is in.
        layer.train(module.training)
        _start(layer.lora_A[_ADAPTER].weight, f"{seed}/{name}")
        mask = masks.get(f"{name}.weight")
        if mask is not None and mask.shape != layer.base_layer.weight.shape:
            raise _misfit(f"{name}.weight")
        if mask is not None and settings.merge == "masked":
            layer.register_buffer("kept", pack(mask), persistent=False)
            layer.forward = MethodType(_masked_forward, layer)


def adapted(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The linears of `module` that have an adapter: name and peft's layer."""
    for name, layer in module.named_modules():
        if isinstance(getattr(layer, "lora_A", None), nn.ModuleDict) and hasattr(layer, "base_layer"):
            yield name, layer


def merge_weight(
    weight: Tensor, update: Tensor, mask: Tensor | None, *, masked: bool, stored: torch.dtype = torch.float32
) -> Merge:
    """Add an update to a weight without filling a pruned place; computed in float64.

    Args:
        weight: [out, in], float.
        update: [out, in], float64: `s B A`.
        mask: Bool [out, in], True where kept; None where the weight is dense.
        masked: Whether the update was trained under the mask, so that its part on pruned places never counted.
        stored: Dtype in which the weight will be stored.
    """
    kept = torch.ones_like(update, dtype=torch.bool) if mask is None else mask.to(update.device)
    held = torch.where(kept, update, 0.0)
    merged = torch.where(kept, weight.double() + held, 0.0)
    # What was trained: under the mask the update is `held`, else all of it.
    full = held if masked else update
    return Merge(
        weight=merged.float(),
        update=float(full.square().sum()),
        projected=float((full - held).square().sum()),
        rounded=float((merged.to(stored).double() - merged).square().sum()),
    )


@torch.no_grad()
def merge(model: nn.Module, masks: Mapping[str, Tensor], *, stored: torch.dtype) -> MergeReport:
    """Merge the adapters of `model` into its weights and remove them, in place.

    Args:
        model: A model to which `attach` gave adapters.
        masks: By weight name, as given to `attach`; pruned places are exactly 0 afterwards.
        stored: Dtype in which the weights will be stored; the weights of `model` stay float32.
    """
    total = {"update": 0.0, "projected": 0.0, "rounded": 0.0}
    worst = ("", 0.0)
    count = 0
    for name, layer in list(adapted(model)):
        base = layer.base_layer
        down, up = layer.lora_A[_ADAPTER].weight.double(), layer.lora_B[_ADAPTER].weight.double()
        merged = merge_weight(
            base.weight,
            layer.scaling[_ADAPTER] * (up @ down),
            masks.get(f"{name}.weight"),
            masked=hasattr(layer, "kept"),
            stored=stored,
        )
        base.weight.copy_(merged.weight)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, base)
        for key in total:
            total[key] += getattr(merged, key)
        share = _relative(merged.projected, merged.update)
        if share > worst[1]:
            worst = (name, share)
        count += 1
    return MergeReport(
        linears=count,
        projected=_relative(total["projected"], total["update"]),
        worst_linear=worst[0],
        worst_projected=worst[1],
        rounded=_relative(total["rounded"], total["update"]),
    )


def _masked_forward(layer: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """`x W' + dropout(x) (s B A * M)'`, in place of peft's `x W' + s dropout(x) A' B'`."""
    base, dropout = layer.base_layer, layer.lora_dropout[_ADAPTER]
    down, up = layer.lora_A[_ADAPTER].weight, layer.scaling[_ADAPTER] * layer.lora_B[_ADAPTER].weight
    if layer.training and isinstance(dropout, nn.Dropout):
        result: Tensor = base(x) + _again(_masked_linear, dropout(x), up, down, layer.kept)
        return result
    # Without dropout both see the same input: one product of the weight's size does.
    return _again(_masked_linear, x, up, down, layer.kept, base.weight, base.bias)


def _masked_linear(
    x: Tensor, up: Tensor, down: Tensor, kept: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    held = (up @ down).masked_fill(~unpack(kept, down.shape[1]), 0.0)
    return nn.functional.linear(x, held if weight is None else weight + held, bias)


def _again(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call it, and compute it again backwards.

    Kept from the forward pass, the products of all linears would take a second model's worth of memory.
    """
    from torch.utils.checkpoint import checkpoint

    found: Tensor = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
    return found


@torch.no_grad()
def _start(down: Tensor, seed: str) -> None:
    """Fill a down projection as peft does (uniform within 1 / sqrt(in)), from a generator of its own."""
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big"))
    values = torch.empty(down.shape, dtype=torch.float32)
    nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
    down.copy_(values)


def _relative(part: float, whole: float) -> float:
    return math.sqrt(part / whole) if whole else 0.0


def _is_linear(module: nn.Module, name: str) -> bool:
    try:
        return isinstance(module.get_submodule(name), nn.Linear)
    except AttributeError:
        return False


def _misfit(name: str) -> SparsifyError:
    return SparsifyError(f"mask for {name} fits no weight of this model; make the masks again from this very model")


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise SparsifyError("lora needs the package peft; pip install 'sparsebench[lora]'") from None
    return peft
