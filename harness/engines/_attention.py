"""Attention of many rows over one stored beginning: its keys and values are read once a step, not once a row.

A few-shot prompt is mostly worked examples, the same in every row; with a copy per row, a step on the CPU is spent on
reading the copies. Here the rows' queries go against the one beginning as a single matrix product, and one softmax runs
over its scores and the row's own (Hydragen, arXiv 2402.05099, without the split softmax). Imported only by engines that
use torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.engines._cache import GrowingLayer

_NAME = "sparsebench_shared_prefix"
_MARK = "shared_prefix"
# Options that change what attention computes, and that a single softmax over scores and mask does not know.
_FOREIGN = ("softcap", "s_aux", "position_bias", "sliding_window")


class Unsupported(Exception):
    """The model's attention is more than a softmax over scaled scores."""


class SharedLayer(GrowingLayer):
    """A growing layer that holds the rows' own tokens and knows what comes before all of them.

    To the model it seems as long as the rows' own tokens; positions have to be given.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """Take keys and values of the common beginning, (1, heads, tokens, head_dim)."""
        super().__init__()
        self._prefix = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new tokens; the returned keys carry the beginning to `shared_attention`."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        setattr(keys, _MARK, self._prefix)
        return keys, values


def shared_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """SDPA as transformers calls it, over the common beginning too where the cache has one; shapes as there."""
    prefix = getattr(key, _MARK, None)
    if prefix is None:
        usual: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return usual
    if any(options.get(name) is not None for name in _FOREIGN):
        raise Unsupported
    if query.shape[2] > 1:
        rows = key.shape[0]
        keys, values = (
            torch.cat([part.expand(rows, -1, -1, -1), own], 2) for part, own in zip(prefix, (key, value), strict=True)
        )
        mask = _causal(query) if attention_mask is None else attention_mask
        mask = torch.cat([mask.new_ones(*mask.shape[:3], prefix[0].shape[2]), mask], -1)
        whole: tuple[Tensor, None] = sdpa_attention_forward(module, query, keys, values, mask, **options)
        return whole
    scale = options.get("scaling")
    scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    return _attend_step(scaled, (key, value), prefix, attention_mask).transpose(1, 2), None


def _causal(query: Tensor) -> Tensor:
    length = query.shape[2]
    return torch.ones(query.shape[0], 1, length, length, dtype=torch.bool, device=query.device).tril()


def _attend_step(
    query: Tensor, own: tuple[Tensor, Tensor], prefix: tuple[Tensor, Tensor], mask: Tensor | None
) -> Tensor:
    """One new token a row: (rows, heads, 1, head_dim), with the query already scaled."""
    rows, heads, _, dim = query.shape
    groups, length = own[0].shape[1], prefix[0].shape[2]
    per = heads // groups
    by_row = query.view(rows, groups, per, dim)
    # Groups come first where the beginning is: its scores are the large ones, and must not be moved.
    before = by_row.transpose(0, 1).reshape(groups, rows * per, dim) @ prefix[0][0].mT
    after = by_row @ own[0].mT
    if mask is not None:
        after.masked_fill_(~mask, -torch.inf)
    after = after.transpose(0, 1).reshape(groups, rows * per, -1)
    weights = torch.cat([before, after], -1).softmax(-1)
    shared = weights[..., :length] @ prefix[1][0]
    rest = weights[..., length:].reshape(groups, rows, per, -1).transpose(0, 1) @ own[1]
    seen = shared.view(groups, rows, per, -1).transpose(0, 1) + rest
    return seen.reshape(rows, heads, 1, -1)


def can_share(model: Any) -> bool:
    """Whether a model's attention can be this one: on the CPU in full precision, through transformers' interface.

    On a GPU, or in half precision, the kernels of SDPA over copies are the better choice.
    """
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and model.config._attn_implementation in ("sdpa", _NAME)
        and model.device.type == "cpu"
        and model.dtype in (torch.float32, torch.float64)
    )


def use_shared_attention(model: Any) -> None:
    """Let a model's attention know common beginnings; without one it computes what it did before."""
    AttentionInterface.register(_NAME, shared_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.config._attn_implementation = _NAME
