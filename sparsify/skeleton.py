"""A model without its weights, and the loading of parts of it when they are needed.

Parameters are on the meta device. Buffers are real: those that are not stored (the frequencies of rotary embeddings,
for example) follow from the configuration and exist nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sparsify.checkpoint import Checkpoint
from sparsify.errors import CheckpointError
from sparsify.experts import is_experts, stored_names


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Inside, modules are built with their parameters on the meta device and their buffers as they are.

    The memory that a constructor asks for is given back before it is touched.
    """
    real = nn.Module.register_parameter

    def register(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        real(module, name, param)
        if param is not None and param.device.type != "meta":
            empty = torch.empty_like(param, device="meta")
            module._parameters[name] = nn.Parameter(empty, requires_grad=param.requires_grad)

    nn.Module.register_parameter = register  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = real  # type: ignore[method-assign]


class StreamedWeights:
    """Fills modules of a skeleton from a checkpoint, in float32 on the CPU, and empties them again."""

    def __init__(self, model: nn.Module, source: Checkpoint) -> None:
        """Check that every parameter is stored with the right shape.

        Raises:
            CheckpointError: One is not.
        """
        self._model, self._source = model, source
        self._empty: dict[str, nn.Parameter] = {}
        self._owners: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._empty[name] = parameter
            self._owners.setdefault(id(parameter), []).append(name)
        moe = any(is_experts(module) for module in model.modules())
        self._stored = {name: self._find(name, moe) for name in self._empty}
        absent = [name for name, parts in self._stored.items() if not parts]
        if absent:
            raise CheckpointError(
                f"{source.path} stores no {absent[0]} ({len(absent)} missing); download or copy it again"
            )
        for name, parts in self._stored.items():
            shape, numel = tuple(self._empty[name].shape), sum(source.tensors[part].numel for part in parts)
            if numel != self._empty[name].numel() or (len(parts) == 1 and source.tensors[parts[0]].shape != shape):
                raise CheckpointError(
                    f"{source.path} stores {parts[0]} of shape {list(source.tensors[parts[0]].shape)} for {name} "
                    f"{list(shape)}; check its config.json against the weights"
                )

    def load(self, prefix: str, *, own_only: bool = False) -> None:
        """Fill the parameters (and stored buffers) of module `prefix`, of its children too unless `own_only`."""
        module = self._model.get_submodule(prefix)
        for local, parameter in list(module.named_parameters(recurse=not own_only)):
            if parameter.device.type == "meta":
                name = f"{prefix}.{local}" if prefix else local
                self._fill(name, nn.Parameter(self._read(name), requires_grad=False))
        for local, buffer in module.named_buffers(recurse=not own_only):
            name = f"{prefix}.{local}" if prefix else local
            if name in self._source.tensors and self._source.tensors[name].shape == tuple(buffer.shape):
                buffer.copy_(self._source.read(name))

    def free(self, prefix: str) -> None:
        """Empty the parameters of module `prefix` and its children."""
        for local, _ in list(self._model.get_submodule(prefix).named_parameters()):
            name = f"{prefix}.{local}"
            self._fill(name, self._empty[name])

    def _fill(self, name: str, parameter: nn.Parameter) -> None:
        # A tied parameter has several names; all are to see the same tensor.
        for owner in self._owners[id(self._empty[name])]:
            path, _, own = owner.rpartition(".")
            self._model.get_submodule(path)._parameters[own] = parameter

    def _read(self, name: str) -> Tensor:
        parts, empty = self._stored[name], self._empty[name]
        filled = torch.empty(empty.shape, dtype=torch.float32)
        rows = filled.view(-1, *self._source.tensors[parts[0]].shape[-1:]) if len(parts) > 1 else filled
        at = 0
        for part in parts:
            tensor = self._source.read(part)
            if len(parts) == 1:
                filled.copy_(tensor)
            else:
                rows[at : at + tensor.shape[0]].copy_(tensor)
                at += tensor.shape[0]
        return filled

    def _find(self, name: str, moe: bool) -> tuple[str, ...]:
        """Names under which a parameter, or one that it is tied to, is stored."""
        for owner in (name, *self._owners[id(self._empty[name])]):
            for parts in ((owner,), *([stored_names(owner, self._empty[owner].shape[0])] if moe else [])):
                if all(part in self._source.tensors for part in parts):
                    return parts
        return ()


class ResidentWeights:
    """The same face for a model whose weights are all in memory."""

    def load(self, prefix: str, *, own_only: bool = False) -> None:
        """Do nothing."""

    def free(self, prefix: str) -> None:
        """Do nothing."""
