"""One complete HTML document, which loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from harness.report.page.element import Html, element, joined, text


@cache
def asset(name: str) -> str:
    """A style sheet or script of this package."""
    return files("harness.report.page").joinpath("assets", name).read_text(encoding="utf-8")


def document(title: str, body: Html, *, style: str = "", script: str = "") -> str:
    """Return the HTML of a page.

    The page's own style and script come with it: light and dark mode, print, sortable tables (`sortable_table`), plots
    (`figure`), and for scripts `readJson`, `readPacked`. Its Content-Security-Policy allows exactly these two styles
    and scripts by their hash, no request, no frame, no form, no event handler, and no HTML made from strings.

    Args:
        title: Of the document; escaped.
        body: What `main` holds.
        style: Further CSS.
        script: Further JavaScript, run after the page's own.

    Raises:
        ValueError: Style or script holds what would end its element.
    """
    styles = [part for part in (asset("page.css"), style) if part]
    scripts = [part for part in (asset("page.js"), script) if part]
    for part in (*styles, *scripts):
        if any(mark in part.lower() for mark in ("</script", "</style", "<!--", "<script")):
            raise ValueError("style and script of a page must not hold the marks of an element or comment")
    policy = {"http-equiv": "Content-Security-Policy", "content": _policy(styles, scripts)}
    head = joined(
        [
            element("meta", attributes={"charset": "utf-8"}),
            element("meta", attributes=policy),
            element("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
            element("meta", attributes={"name": "color-scheme", "content": "light dark"}),
            element("meta", attributes={"name": "referrer", "content": "no-referrer"}),
            element("title", title),
            *(Html(f"<style>{part}</style>") for part in styles),
        ],
        "\n",
    )
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en">\n<head>\n{head}\n</head>\n<body>',
        '<a class="skip" href="#main">Skip to the content</a>',
        f'<main id="main">\n{text(body) if not isinstance(body, Html) else body}\n</main>',
        *(f"<script>{part}</script>" for part in scripts),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _policy(styles: list[str], scripts: list[str]) -> str:
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {' '.join(map(_hashed, styles))}",
            f"script-src {' '.join(map(_hashed, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _hashed(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
