from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["f32", "bf16", "i8", "i4"]

class Matrix:
    @staticmethod
    def pack(
        weight: NDArray[Any],
        kind: str,
        *,
        sparse: bool,
        scales: NDArray[np.float32] | None = None,
        group: int = 0,
        input_scale: float = 0.0,
        mask: NDArray[Any] | None = None,
        threads: int = 1,
    ) -> Matrix: ...
    @staticmethod
    def view(
        kind: str,
        sparse: bool,
        outputs: int,
        inputs: int,
        group: int,
        wide_scales: bool,
        data: NDArray[np.uint8],
        offsets: NDArray[Any],
        scales: NDArray[np.float32] | None = None,
        input_scale: float = 0.0,
    ) -> Matrix: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def sparse(self) -> bool: ...
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def group(self) -> int: ...
    @property
    def wide_scales(self) -> bool: ...
    @property
    def input_scale(self) -> float: ...
    @property
    def density(self) -> float: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def data(self) -> NDArray[np.uint8]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def scales(self) -> NDArray[np.float32] | None: ...
    def unpack(self, *, threads: int = 1) -> NDArray[np.float32]: ...
    def multiply(
        self,
        x: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
        out: NDArray[np.float32] | None = None,
        threads: int = 1,
        isa: str = "",
    ) -> NDArray[np.float32]: ...

def isas() -> list[str]: ...
def best_isa() -> str: ...
def read_bandwidth(buffer: NDArray[np.uint8], threads: int = 1) -> float: ...

class NotFinite(ArithmeticError): ...

class Decoder:
    def __init__(
        self,
        *,
        hidden: int,
        inner: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        vocabulary: int,
        eps: float,
        layer_norm: bool = False,
        gated: bool = True,
        activation: str,
        attention_scale: float,
        attention_cap: float = 0.0,
        logit_cap: float = 0.0,
        embedding_scale: float = 1.0,
        embedding: NDArray[Any],
        positions: NDArray[np.float32] | None = None,
        slopes: NDArray[np.float32] | None = None,
        final_norm: tuple[Any, ...],
        head: tuple[Any, ...],
        rotaries: list[tuple[NDArray[np.float32], float]],
        layers: list[dict[str, Any]],
    ) -> None: ...
    def state(self, *, rows: int, capacity: int, bf16: bool = False) -> State: ...

class State:
    timed: bool
    @property
    def seconds(self) -> dict[str, float]: ...
    @property
    def lengths(self) -> list[int]: ...
    @property
    def rows(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def forward(
        self,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        *,
        keep: int = 1,
        threads: int = 1,
        isa: str = "",
    ) -> NDArray[np.float32]: ...
    def greedy(
        self, rows: Sequence[int], tokens: Sequence[int], *, steps: int, threads: int = 1, isa: str = ""
    ) -> NDArray[np.int64]: ...
    def truncate(self, row: int, length: int) -> None: ...
    def drop(self, row: int) -> None: ...
    def copy(self, source: int, target: int) -> None: ...
