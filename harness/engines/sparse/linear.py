"""A linear layer over a packed weight, as a torch module and as an operator that `torch.compile` understands.

The operator `sparsebench::packed_linear` names its weight by a number: an operator takes tensors and numbers only, and
a compiled graph keeps the number while the module keeps the weight.
"""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from harness.engines.sparse._kernels import Matrix

_NAME = "sparsebench::packed_linear"
_numbers = itertools.count(1)


class _Weight:
    """A packed weight and its number. Copies of a module share it, as nothing ever writes to it."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.number = next(_numbers)
        _weights[self.number] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Weight:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("packed weights are not pickled; save the variant and open it with engine sparse again")


_weights: weakref.WeakValueDictionary[int, _Weight] = weakref.WeakValueDictionary()


class SparseLinear(nn.Module):
    """`y = x W' + b` over a packed weight, for inference on the CPU.

    Runs on `torch.get_num_threads()` threads. Activations of any float dtype are computed on in float32 and the result
    has their dtype.
    """

    def __init__(self, matrix: Matrix, bias: Tensor | None = None) -> None:
        """Wrap a packed weight (outputs x inputs).

        Args:
            matrix: The weight.
            bias: Float [outputs], or None.
        """
        super().__init__()
        if bias is not None and tuple(bias.shape) != (matrix.outputs,):
            raise ValueError(f"a bias of shape {list(bias.shape)} does not fit {matrix.outputs} outputs")
        self._weight = _Weight(matrix)
        self._number = self._weight.number
        self.in_features, self.out_features = int(matrix.inputs), int(matrix.outputs)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    @property
    def matrix(self) -> Matrix:
        """The packed weight."""
        return self._weight.matrix

    def forward(self, input: Tensor) -> Tensor:
        """Float [..., inputs] to [..., outputs]."""
        result: Tensor = torch.ops.sparsebench.packed_linear(input, self.bias, self._number, self.out_features)
        return result

    def extra_repr(self) -> str:
        """How the module prints."""
        form = "sparse" if self.matrix.sparse else "dense"
        return f"in_features={self.in_features}, out_features={self.out_features}, {form} {self.matrix.kind}"


def _compute(input: Tensor, bias: Tensor | None, number: int, outputs: int) -> Tensor:
    weight = _weights.get(number)
    if weight is None:
        raise RuntimeError(f"{_NAME}: its weight is gone; keep the module as long as what was compiled from it")
    matrix = weight.matrix
    if input.ndim < 1 or input.shape[-1] != matrix.inputs:
        raise RuntimeError(f"{_NAME}: an input of shape {list(input.shape)} does not fit {matrix.inputs} inputs")
    if not input.is_floating_point():
        raise RuntimeError(f"{_NAME}: an input of dtype {input.dtype} is not floating-point")
    rows = input.reshape(-1, matrix.inputs).to(torch.float32).contiguous()
    out = torch.empty(rows.shape[0], matrix.outputs)
    if rows.shape[0]:
        added = None if bias is None else bias.numpy()
        matrix.multiply(rows.numpy(), bias=added, out=out.numpy(), threads=torch.get_num_threads())
    return out.reshape(*input.shape[:-1], matrix.outputs).to(input.dtype)


def _shape(input: Tensor, bias: Tensor | None, number: int, outputs: int) -> Tensor:
    return input.new_empty((*input.shape[:-1], outputs))


def _no_gradient(context: Any, gradient: Tensor) -> Any:
    raise RuntimeError(f"{_NAME} is for inference: train with engine torch and pack the result")


_library = torch.library.Library("sparsebench", "DEF")
_library.define("packed_linear(Tensor input, Tensor? bias, int number, int outputs) -> Tensor")
_library.impl("packed_linear", _compute, "CPU")
torch.library.register_fake(_NAME, _shape, lib=_library)
torch.library.register_autograd(_NAME, _no_gradient, lib=_library)
