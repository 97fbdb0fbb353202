"""All reference pages by file name; a test holds the committed ones against them."""

from __future__ import annotations

NOTE = "<!-- Made by `python -m harness.docs docs`; do not edit. -->\n"


def reference_pages() -> dict[str, str]:
    """File name to content."""
    from harness.docs.cli_page import cli_page
    from harness.docs.environment_page import environment_page
    from harness.docs.schema_pages import recipe_page, records_page, study_page
    from harness.docs.suites_page import suites_page

    pages = {
        "cli.md": cli_page(),
        "study.md": study_page(),
        "recipes.md": recipe_page(),
        "suites.md": suites_page(),
        "records.md": records_page(),
        "environment.md": environment_page(),
    }
    return {name: f"{NOTE}\n{text}" for name, text in pages.items()}
