"""The benchmark's results for people: Markdown, the claims first, a table per panel, bad news included."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bench.engines.arms import SHAPES, Shape
from harness.bench.engines.numbers import READER, RESTLESS, STOLEN, Panel, Row
from harness.bench.sparsify.claims import Claim
from harness.bench.sparsify.render import table

_PARTS = ("matrices", "attention", "other", "waiting")
_NONE = "—"
_VERDICT = {True: "yes", False: "**no**", None: "not measured"}


def markdown(panels: Sequence[Panel], claims: Sequence[Claim], command: str) -> str:
    """The whole document."""
    parts = [
        "# Engines on the same random weights",
        "Speed alone: the weights are random, so **no skill** stands behind any number here. Every engine has the same "
        "shape; those of a panel are open at the same time, each in a process of its own, and measured in turn.",
        f"Command: `{command}`",
        *_machine(panels),
        "## Claims",
        table(("claim", "holds", "numbers"), [(claim.text, _VERDICT[claim.holds], claim.numbers) for claim in claims]),
        *(f"![roofline]({name})" for name in plots(panels)),
        *(part for shape in _shapes(panels) for part in _shape(shape, panels)),
        _reading(panels),
    ]
    return "\n\n".join(parts) + "\n"


def plots(panels: Sequence[Panel]) -> dict[str, tuple[str, list[Panel]]]:
    """File -> title and panels of each roofline: decoding one row, by shape and threads."""
    found: dict[str, tuple[str, list[Panel]]] = {}
    for panel in panels:
        line = panel.line
        if line["workload"] != "decode-b1" or line["group"].startswith("kernels"):
            continue
        shape, threads = line["shape"], line["threads"]
        name = "roofline.svg" if (shape, threads) == ("1.1b", 1) else f"roofline-{shape}-{threads}.svg"
        title = f"{SHAPES[shape].says}: decoding one row after {line['context']} tokens, {_threads(threads)}"
        found.setdefault(name, (title, []))[1].append(panel)
    return found


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _machine(panels: Sequence[Panel]) -> list[str]:
    if not panels:
        return []
    machine = panels[-1].line["machine"]
    found: dict[str, str] = {}
    for panel in panels:
        for told in panel.line["told"].values():
            found |= told.get("versions", {})
    isa = {told["isa"] for panel in panels for told in panel.line["told"].values() if "isa" in told}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    shown = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    return [f"Machine: {shown}. Our instruction set: {', '.join(sorted(isa)) or 'unknown'}. {versions}."]


def _shapes(panels: Sequence[Panel]) -> list[Shape]:
    return [SHAPES[name] for name in dict.fromkeys(panel.line["shape"] for panel in panels)]


def _shape(shape: Shape, panels: Sequence[Panel]) -> list[str]:
    linears, head = shape.parameters
    facts = (
        f"{shape.says}: hidden {shape.hidden}, intermediate {shape.intermediate}, {shape.layers} layers, {shape.heads} "
        f"heads, {shape.kv_heads} of keys; {linears / 1e6:.1f} M weights in linears, {head / 1e6:.1f} M in the head."
    )
    mine = [panel for panel in panels if panel.line["shape"] == shape.name]
    mine.sort(key=lambda panel: (panel.line["threads"], panel.line["workload"] != "decode-b1", panel.line["workload"]))
    return [f"## {shape.name} (no skill)", facts, *(_panel(panel) for panel in mine)]


def _panel(panel: Panel) -> str:
    line = panel.line
    reads = line["workload"].startswith("decode")
    what = f"decode, batch {line['batch']}, after {line['context']} tokens"
    if not reads:
        what = f"prompt of {line['context']} tokens"
    head = f"### {line['group']}: {what}, {_threads(line['threads'])}"
    activity = line["activity"]
    facts = [f"{line['blocks']} blocks, finished {line['finished']}"]
    if activity["busy"] is not None:
        facts.append(f"cores {activity['busy']:.0%} busy, {activity['steal']:.1%} stolen")
    if panel.bandwidth is not None:
        best = "our reader" if panel.best == READER else panel.best
        facts.append(f"read bandwidth {panel.bandwidth:.2f} GB/s ({best})")
    if panel.reader is not None:
        facts.append(f"reader {panel.reader[0]:.2f} GB/s, its best pass {panel.reader[1]:.2f}")
    facts += [f"**restless**: {why}" for why in panel.unrest]
    columns = ["engine", "ms", "range of blocks"]
    columns += ["tokens/s"] if not line["group"].startswith("kernels") else []
    columns += ["MB", "GB/s", "of bandwidth"] if reads else []
    rows = sorted(panel.rows, key=lambda row: (row.seconds is None, row.seconds or 0.0))
    shown = [_row(row, columns) for row in rows if row.seconds is not None]
    failed = [f"- {row.variant}: {row.error}" for row in rows if row.seconds is None]
    parts = [head, "; ".join(facts) + ".", table((*columns, "huge pages", "notes"), shown)]
    split = [_split(row) for row in rows if row.seconds is not None and row.parts]
    if split:
        parts.append(table(("where a step's time goes, ms", *_PARTS, "head alone"), split))
    if failed:
        parts.append("Not measured:\n\n" + "\n".join(failed))
    return "\n\n".join(parts)


def _split(row: Row) -> list[str]:
    parts = row.parts
    whole = sum(parts[name] for name in _PARTS)
    cells = (f"{parts[name] * 1e3:.2f} ({parts[name] / whole:.0%})" for name in _PARTS)
    return [row.variant, *cells, f"{parts['head'] * 1e3:.2f}"]


def _row(row: Row, columns: Sequence[str]) -> list[str]:
    assert row.seconds is not None and row.spread is not None
    cells = {
        "engine": row.variant,
        "ms": f"{row.seconds * 1e3:.2f}",
        "range of blocks": f"{row.spread[0] * 1e3:.2f} to {row.spread[1] * 1e3:.2f}",
        "tokens/s": _NONE if row.tokens_per_s is None else f"{row.tokens_per_s:.2f}",
        "MB": _NONE if row.megabytes is None else f"{row.megabytes:.0f}",
        "GB/s": _NONE if row.rate is None else f"{row.rate:.2f}",
        "of bandwidth": _NONE if row.share is None else f"{row.share:.0%}",
    }
    huge = _NONE if row.huge is None else f"{row.huge:.0%}"
    return [*(cells[column] for column in columns), huge, "; ".join(row.notes)]


def _reading(panels: Sequence[Panel]) -> str:
    sizes = sorted({panel.line["cache_mb"] for panel in panels if panel.line["cache_mb"] is not None})
    cache = " / ".join(f"{size:.0f} MB" for size in sizes) or "size unknown"
    flush = {panel.line["settings"]["flush_mb"] for panel in panels} or {0}
    return (
        "## How to read this\n\n"
        "- ms: median over blocks of the median step. A step is one token for every row, with the likeliest next token "
        "chosen, or one prompt up to its first token. A block measures every engine once; the next block turns the "
        "order round. Ratios are of medians in one panel, with a 95 % bootstrap interval over its blocks.\n"
        "- MB: weights that a step reads (linears and head; the embedding is not read), in the engine's own format. "
        "GB/s: these over the median; keys, values and activations are not counted.\n"
        "- read bandwidth: the best of our reader's median and every engine's own rate in that panel.\n"
        f"- restless: the reader's block medians lie more than {RESTLESS:.0%} apart, or other guests of the hypervisor "
        f"took more than {STOLEN:.0%} of the cores' time. They disturb those most that compute most for a byte, which "
        "sparse weights do.\n"
        f"- Before every step a file of {'/'.join(map(str, sorted(flush)))} MB is read (last-level cache: {cache}), so "
        "that no engine finds weights in a cache: int4 and sparse int8 weights at the 1.1B shape are below a gigabyte, "
        "and a whole model has no second copy to alternate with.\n"
        "- huge pages: share of the process's memory in them. torch has THP_MEM_ALLOC_ENABLE=1, every process "
        "glibc.malloc.hugetlb=1 (malloc asks for huge pages); ours also asks for its own memory.\n"
        "- int4 is grouped by 32 with int4 head; int8 has an int8 head, bf16 a bf16 one: dense, always. llama.cpp's "
        "files are quantized by itself with every matrix in the format of the name (its default for Q4_0 keeps the "
        "head in Q6_K, which reads more).\n"
        "- onnxruntime, openvino and deepsparse run the whole forward as an ONNX graph that the benchmark writes "
        "(fixed shapes; past keys and values as inputs, the new ones as outputs, so that none copies a cache). Their "
        "int8 has static activation scales and one scale per output, as QuantizeLinear and DequantizeLinear around "
        "MatMul; for deepsparse as QuantizeLinear, MatMulInteger, Cast, Mul, which SparseML made of it; it counts only "
        "if its own analysis of a layer names sparse kernels for every linear. How it stores sparse weights is not "
        "known, so that its rows have no GB/s.\n"
        "- where a step's time goes: by the decoder's own clock in a few further steps; `other` is norms, rotary "
        "embedding, gates and the choice of the token, `waiting` is for the other threads. The head is one of the "
        "matrices, and was also run by itself.\n"
        "- kernels: linears alone, no head, from a ring of more than a gigabyte of them."
    )
