"""The picture and table of a pruned variant's linears, from what variant.json holds."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

from harness.report.linears import linears_markdown, linears_svg, read_linears, write_linears

SVG = "{http://www.w3.org/2000/svg}"


def variant(path: Path, blocks: int = 3) -> Path:
    rows = {
        f"model.layers.{block}.{kind}": {
            "sparsity": 0.7,
            "relative_error": 0.01 * (block + 1),
            "damping": 0.01,
            "seconds": 1.5,
            "host_bytes": 2e6,
            "device_bytes": 0.0,
        }
        for block in range(blocks)
        for kind in ("self_attn.q_proj", "mlp.<up>")
    }
    path.mkdir()
    stages = [{"kind": "prune", "linears": rows}, {"kind": "quantize", "linears": {}}]
    (path / "variant.json").write_text(json.dumps({"stages": stages}))
    return path


def test_every_linear_is_a_point_in_both_panels(tmp_path: Path) -> None:
    linears = read_linears(variant(tmp_path / "v"))
    assert len(linears) == 6 and {linear.kind for linear in linears} == {"self_attn.q_proj", "mlp.<up>"}
    root = ET.fromstring(linears_svg(linears, "v & w"))
    assert len(root.findall(f"{SVG}circle")) == 12 and len(root.findall(f"{SVG}polyline")) == 4
    words = [text.text or "" for text in root.findall(f"{SVG}text")]
    assert {"v & w", "mlp.<up>", "share of zeros", "relative output error, logarithmic"} <= set(words)
    # Errors of 0.01, 0.02 and 0.03 rise on the page, that is, their y falls.
    heights = [float(circle.get("cy", "")) for circle in root.findall(f"{SVG}circle")[6:9]]
    assert heights[0] > heights[1] > heights[2]


def test_magnitude_has_no_errors_to_show(tmp_path: Path) -> None:
    directory = tmp_path / "v"
    directory.mkdir()
    row = {"a.0.b": {"sparsity": 0.5}}
    (directory / "variant.json").write_text(json.dumps({"stages": [{"kind": "prune", "linears": row}]}))
    root = ET.fromstring(linears_svg(read_linears(directory), "v"))
    assert len(root.findall(f"{SVG}circle")) == 1
    assert "— |" in linears_markdown({"v": read_linears(directory)})


def test_files_are_written_for_variants_that_have_linears(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_linears({"other": other}, tmp_path)
    assert not (tmp_path / "linears.md").exists()
    write_linears({"s70": variant(tmp_path / "s70"), "other": other}, tmp_path)
    text = (tmp_path / "linears.md").read_text()
    assert "| 2     | mlp.&lt;up&gt;" in text and "other" not in text and "70.00" in text and "0.0300" in text
    assert (tmp_path / "linears" / "s70.svg").is_file()
