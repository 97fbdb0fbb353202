"""The shell of a report as one HTML file: document, escaping, tables and plots; no network, no unescaped text."""

from harness.report.page.blocks import json_block, packed_block
from harness.report.page.document import document
from harness.report.page.element import Html, element, joined
from harness.report.page.forest import Estimate, Forest, Line, forest
from harness.report.page.plot import Axis, Guide, Plot, Point, Series, figure
from harness.report.page.table import Cell, Column, number_cell, sortable_table
from harness.report.page.visible import visible

__all__ = [
    "Axis",
    "Cell",
    "Column",
    "Estimate",
    "Forest",
    "Guide",
    "Html",
    "Line",
    "Plot",
    "Point",
    "Series",
    "document",
    "element",
    "figure",
    "forest",
    "joined",
    "json_block",
    "number_cell",
    "packed_block",
    "sortable_table",
    "visible",
]
