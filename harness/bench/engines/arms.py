"""What is compared: shapes, engines with their number formats, and who is measured with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from harness.errors import ConfigError

SPARSITIES = (0, 50, 60, 70, 80)
HEADED = ("f32", "bf16", "i8")
SPARSE_HEAD = "sparse-head"
CONTEXT = 128
PROMPT = 512
_GIGA = 1e9
_RING_GB = 1.1


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama; the weights are random."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    eps: float = 1e-5
    says: str = ""

    @property
    def parameters(self) -> tuple[int, int]:
        """Weights of all layers' linears, and of the head; the embedding has as many as the head."""
        narrow = self.hidden // self.heads * self.kv_heads
        layer = 2 * self.hidden * (self.hidden + narrow) + 3 * self.hidden * self.intermediate
        return layer * self.layers, self.vocab * self.hidden

    def as_json(self) -> dict[str, Any]:
        """As the workers take it."""
        return {name: value for name, value in asdict(self).items() if name != "says"}


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("1.1b", 2048, 5632, 22, 32, 4, 32000, says="TinyLlama-1.1B"),
        Shape("7b-4layers", 4096, 11008, 4, 32, 32, 32000, says="4 layers and the head of Llama-2-7B"),
        Shape("tiny", 256, 512, 2, 4, 2, 1000, says="for trying the benchmark out: everything fits in a cache"),
    )
}
DEFAULT_SHAPES = ("1.1b",)


@dataclass(frozen=True)
class Workload:
    """What a step is: one token for each of `batch` rows after `context` tokens, or one prompt of `context` tokens."""

    kind: str
    batch: int
    context: int

    @property
    def name(self) -> str:
        """As `--workloads` calls it."""
        return f"{self.kind}-b{self.batch}" if self.kind == "decode" else f"{self.kind}-{self.context}"

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.batch if self.kind == "decode" else self.batch * self.context


WORKLOADS = {
    workload.name: workload
    for workload in (
        *(Workload("decode", batch, CONTEXT) for batch in (1, 4, 16)),
        Workload("prefill", 1, PROMPT),
    )
}


@dataclass(frozen=True)
class Variant:
    """One engine with one set of weights.

    Attributes:
        engine: `ours` (the native decoder), `kernels` (our linears and nothing else), `torch`, or a peer.
        kind: Number format, in the engine's own words.
        sparsity: Share of zeros in the linears, in percent; None where the engine knows only dense weights.
        option: Further setting.
    """

    engine: str
    kind: str
    sparsity: int | None = None
    option: str = ""

    @property
    def name(self) -> str:
        """As tables and `--engines` call it, such as `ours:i8@70` or `openvino:int8@70+sparse`."""
        zeros = "" if self.sparsity is None else f"@{self.sparsity}"
        return f"{self.engine}:{self.kind}{zeros}{self.option and '+' + self.option}"

    def as_json(self) -> dict[str, Any]:
        """As the workers take it."""
        return {"kind": self.kind, "sparsity": (self.sparsity or 0) / 100, "option": self.option}

    def gigabytes(self, shape: Shape) -> float:
        """About how much memory it takes."""
        linears, head = shape.parameters
        density = 1 - (self.sparsity or 0) / 100
        width = _width(self.kind)
        if self.engine == "reader":
            return _RING_GB
        if self.engine == "kernels":
            return _RING_GB + 0.4
        if self.engine == "ours":
            packed = width * (density if density == 1 else density + 0.125 / width)
            return (linears * packed + head * (width + 2)) / _GIGA + 0.5
        return ((linears + head) * width * 1.05 + 4 * head) / _GIGA + 0.6

    def opening_gigabytes(self, shape: Shape) -> float:
        """About how much more while it opens: engines that read ONNX hold the file and what they make of it."""
        read_twice = self.engine in ("openvino", "onnxruntime", "deepsparse")
        return sum(shape.parameters) * _width(self.kind) / _GIGA if read_twice else 0.5


def _width(kind: str) -> float:
    if "f32" in kind or "fp32" in kind:
        return 4.0
    if "bf16" in kind:
        return 2.0
    return 0.5625 if kind in ("i4", "q4_0") else 1.07


@dataclass(frozen=True)
class Group:
    """Variants that are open at the same time and measured in turn; ratios are made only inside one."""

    name: str
    variants: tuple[Variant, ...]

    @property
    def whole(self) -> bool:
        """Whether its steps are whole forwards; those of kernels have no attention, and no prompt."""
        return not self.name.startswith("kernels")


def groups(sparsities: Sequence[int]) -> tuple[Group, ...]:
    """All groups with these sparsities; the order is that of measuring.

    `ours:i8@70` (or the sparsity nearest to 70) is in every group of whole forwards, so that groups can be held against
    each other.
    """
    levels = sorted(set(sparsities))
    anchor = Variant("ours", "i8", min(levels, key=lambda level: abs(level - 70)))

    def ours(*kinds: str) -> tuple[Variant, ...]:
        return tuple(Variant("ours", kind, level) for kind in kinds for level in levels)

    def kernels(*kinds: str) -> tuple[Variant, ...]:
        return tuple(Variant("kernels", kind, level) for kind in kinds for level in levels)

    sparse = max(levels, key=lambda level: (level == anchor.sparsity, level))
    ends = sorted({0, sparse})
    found = (
        Group("float32", (Variant("torch", "fp32"), *ours("f32"), anchor)),
        Group(
            "integer",
            (
                Variant("torch", "int8-weight-only"),
                Variant("torch", "int8-dynamic"),
                Variant("llama.cpp", "q8_0"),
                Variant("llama.cpp", "q4_0"),
                *ours("i8", "i4"),
            ),
        ),
        Group("bfloat16", (Variant("torch", "bf16"), *ours("bf16"), anchor)),
        # With the head pruned like the linears, where a recipe names it: the limit that has no dense part left.
        Group(
            "sparse-head",
            (
                *(Variant("ours", kind, 0) for kind in HEADED),
                *(Variant("ours", kind, sparse, SPARSE_HEAD) for kind in HEADED),
                anchor,
            ),
        ),
        Group("kernels-float", kernels("f32", "bf16")),
        Group("kernels-integer", kernels("i8", "i4")),
        Group(
            "graph-int8",
            (
                Variant("onnxruntime", "int8", 0),
                *(Variant("openvino", "int8", level) for level in ends),
                Variant("openvino", "int8", sparse, "sparse"),
                *(Variant("deepsparse", "int8", level) for level in ends),
                *(Variant("ours", "i8", level) for level in ends),
            ),
        ),
        Group("deepsparse", (Variant("deepsparse", "fp32", sparse), Variant("ours", "f32", sparse), anchor)),
        # Compiling takes minutes: apart from what is measured again and again.
        Group(
            "compile",
            (
                *(Variant("torch", kind) for kind in ("compile-bf16", "compile-fp32", "bf16")),
                Variant("ours", "bf16", sparse),
                anchor,
            ),
        ),
    )
    return tuple(Group(group.name, tuple(dict.fromkeys(group.variants))) for group in found)


def chosen_groups(engines: str | None, names: str | None, sparsities: Sequence[int]) -> tuple[Group, ...]:
    """The groups that `--groups` names, each with the variants that `--engines` names.

    Raises:
        ConfigError: A name fits nothing.
    """
    known = groups(sparsities)
    picked = [group for group in known if _fits(group.name, names)]
    _complain("--groups", names, [group.name for group in known])
    _complain("--engines", engines, [variant.name for group in known for variant in group.variants])
    kept = [Group(group.name, tuple(each for each in group.variants if _fits(each.name, engines))) for group in picked]
    kept = [group for group in kept if group.variants]
    if not kept:
        raise ConfigError("--engines names nothing that is in the groups of --groups; see --list")
    return tuple(kept)


def chosen(option: str, names: str, known: dict[str, Any]) -> tuple[Any, ...]:
    """The things that an option names.

    Raises:
        ConfigError: A name fits nothing.
    """
    _complain(option, names, list(known))
    return tuple(thing for name, thing in known.items() if _fits(name, names))


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _fits(name: str, wanted: str | None) -> bool:
    return not wanted or any(fnmatchcase(name, pattern) for pattern in _split(wanted))


def _complain(option: str, wanted: str | None, known: Sequence[str]) -> None:
    for pattern in _split(wanted or ""):
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(f"{option}: nothing is called {pattern!r}; known: {', '.join(dict.fromkeys(known))}")
