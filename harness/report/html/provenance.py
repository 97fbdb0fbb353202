"""Where the numbers come from: study, environment, fingerprints, events, methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.gate.command import study_as_written
from harness.layout import read_json
from harness.report.html.source import Source
from harness.report.html.words import listed, name_of, note, ordered, paragraph, section
from harness.report.methods import METHODS, explain
from harness.report.page import Cell, Column, Html, element, joined, number_cell, sortable_table


def provenance(source: Source) -> Html:
    """The last section."""
    summary = source.summary
    facts = {
        "study": summary.study.name,
        "study hash (sha256 of the resolved study)": summary.study.hash,
        "seed": str(summary.study.seed),
        "skills": ", ".join(summary.study.suites),
        **{
            key.replace("_", " "): str(value)
            for key, value in summary.environment.model_dump().items()
            if value is not None
        },
    }
    rows = [
        element("tr", element("th", key, attributes={"scope": "row"}), element("td", value))
        for key, value in facts.items()
    ]
    table = element(
        "table",
        element("caption", "Study and environment"),
        element("tbody", *rows),
        attributes={"class": "facts"},
    )
    return section(
        "provenance",
        "Provenance",
        element("div", table, attributes={"class": "table"}),
        _command(source),
        _fingerprints(source),
        _events(source),
        _methods(source),
    )


def _command(source: Source) -> Html:
    again = paragraph("This page again, from the records alone: ", element("code", "sparsebench report DIR"), ".")
    if source.study is None:
        return joined([again, note("Not here: the resolved study (study.json is not beside these records).")])
    body = json.dumps(study_as_written(source.study), indent=2, ensure_ascii=False)
    return joined(
        [
            again,
            paragraph(
                "The study again: save the text below as study.yaml, then ",
                element("code", "sparsebench run study.yaml --out DIR"),
                ".",
            ),
            element(
                "details", element("summary", "The resolved study"), element("pre", body, attributes={"class": "text"})
            ),
        ]
    )


def _fingerprints(source: Source) -> Html:
    columns = [
        Column("variant"),
        Column("made from"),
        Column("recipe"),
        Column("weights sha256"),
        Column("recipe hash"),
        Column("dtype"),
        Column("parameters", kind="number"),
        Column("opened by"),
        Column("masks"),
        Column("tokenizer sha256"),
        Column("chat template sha256"),
    ]
    rows: list[list[Cell | str]] = []
    for variant in ordered(source.summary):
        key = _cell_key(source, variant.name)
        masks = variant.masks
        held = "" if masks is None else f"{masks.pruned:,} pruned weights, {masks.revived:,} no longer zero"
        rows.append(
            [
                Cell(name_of(variant.name)),
                variant.base,
                variant.recipe or "made elsewhere",
                Cell(_hash(variant.weights_sha256)),
                Cell(_hash(variant.recipe_hash)),
                variant.dtype or "—",
                number_cell("—" if variant.parameters is None else f"{variant.parameters:,}", variant.parameters),
                ", ".join(variant.loaders) or "—",
                held or "—",
                Cell(_hash(key.get("tokenizer_sha256"))),
                Cell(_hash(key.get("chat_template_sha256"))),
            ]
        )
    return sortable_table("fingerprints", "Fingerprints of the variants (hover for the whole hash)", columns, rows)


def _cell_key(source: Source, variant: str) -> Mapping[str, Any]:
    """What the rows of a variant's first cell depend on; empty where the run keeps no cells."""
    layout = source.records.layout
    for suite in source.summary.study.suites if layout is not None and "/" not in variant else ():
        path = layout.cell(variant, suite) if layout is not None else None
        if path is not None and path.is_file():
            key = read_json(path).get("key")
            return key if isinstance(key, dict) else {}
    return {}


def _hash(value: Any) -> Html:
    if not isinstance(value, str):
        return joined(["—"])
    return element("code", value[:16], attributes={"title": value})


def _events(source: Source) -> Html:
    found: dict[tuple[str, str, str], list[str]] = {}
    for variant in ordered(source.summary):
        for event in variant.events:
            found.setdefault((event.kind, event.where, event.detail), []).append(variant.name)
    heading = element("h3", "Events")
    if not found:
        return joined([heading, paragraph("No fall-back and no oddity was recorded.")])
    columns = [Column("kind", filter=True), Column("where"), Column("detail"), Column("variants")]
    rows: list[list[Cell | str]] = [[*event, Cell(_whom(source, names))] for event, names in found.items()]
    return joined([heading, sortable_table("events", "Fall-backs and oddities", columns, rows, shown=40)])


def _whom(source: Source, names: list[str]) -> Html | str:
    return "all" if len(set(names)) == len(source.summary.variants) > 1 else listed(list(dict.fromkeys(names)))


def _methods(source: Source) -> Html:
    variants = source.summary.variants
    used = {r.method for v in variants for r in [*v.suites.values(), *v.recovery.values(), *v.difference.values()]}
    known = {method for method in used if method.removesuffix("-clustered") in METHODS}
    lines = [element("li", *_with_code(line)) for line in explain(known)]
    lines += [element("li", f"{method}: not explained by this version") for method in sorted(used - known)]
    return joined([element("h3", "How intervals were made"), element("ul", *lines)])


def _with_code(line: str) -> list[str | Html]:
    """A line of Markdown whose only marks are those of code."""
    return [element("code", part) if i % 2 else part for i, part in enumerate(line.split("`"))]
