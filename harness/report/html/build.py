"""The report: its sections in order, on the page's shell."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from harness.report.html.further import further
from harness.report.html.headline import headline
from harness.report.html.layers import curves, layers
from harness.report.html.provenance import provenance
from harness.report.html.samples import samples
from harness.report.html.skills import skills
from harness.report.html.source import Source
from harness.report.html.speed import speed
from harness.report.html.tradeoff import tradeoff
from harness.report.html.verdicts import judge_variant
from harness.report.page import Html, document, element, joined

_SECTIONS = {
    "verdict": "Verdict",
    "skills": "Recovery per skill",
    "tradeoff": "Accuracy against speed and size",
    "samples": "What flipped",
    "speed": "Speed",
    "further": "Other metrics and distance",
    "layers": "Layers",
    "curves": "Loss curves",
    "provenance": "Provenance",
}


@cache
def _asset(name: str) -> str:
    return files("harness.report.html").joinpath("assets", name).read_text(encoding="utf-8")


def recovery_html(source: Source) -> str:
    """Return `recovery.html`: one file that needs nothing else, the same for the same records.

    Raises:
        CorruptRecordError: Rows are damaged, or are not those that the summary was made from.
    """
    verdicts = [judge_variant(source, variant) for variant in source.summary.variants]
    name = source.summary.study.name
    links = [element("li", element("a", title, attributes={"href": f"#{key}"})) for key, title in _SECTIONS.items()]
    sections: list[Html] = [
        element("h1", "Accuracy recovery: ", element("bdi", name)),
        element("nav", element("ul", *links), attributes={"aria-label": "Sections"}),
        headline(source, verdicts),
        skills(source, verdicts),
        tradeoff(source),
        samples(source),
        speed(source),
        further(source),
        layers(source),
        curves(source),
        provenance(source),
    ]
    return document(
        f"Accuracy recovery: {name}",
        joined(sections, "\n"),
        style=_asset("report.css"),
        script="\n".join(_asset(script) for script in ("lazy.js", "samples.js")),
    )
