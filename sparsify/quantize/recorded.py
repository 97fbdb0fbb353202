"""Takes down how a module is called, so that it can be called in the same way again."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn


class RecordedCall:
    """The first call of a module inside a `with` block."""

    def __init__(self, module: nn.Module) -> None:
        """Take down the next call of `module`."""
        self._module = module
        self._call: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __enter__(self) -> RecordedCall:
        """Begin to listen."""
        self._hook = self._module.register_forward_pre_hook(self._record, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; what was taken down stays."""
        self._hook.remove()

    @torch.no_grad()
    def replay(self) -> Tensor:
        """Call the module again with the same arguments; its first output."""
        assert self._call is not None, "the module was not called"
        args, kwargs = self._call
        output = self._module(*args, **kwargs)
        tensor: Tensor = output[0] if isinstance(output, tuple) else output
        return tensor

    def _record(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is None:
            self._call = args, dict(kwargs)
