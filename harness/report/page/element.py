"""HTML by construction: every text that is not already HTML is escaped on its way in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape

from harness.report.page.visible import visible

Html = Markup
"""Escaped HTML. Only this package makes it from literals; a plain `str` is text and gets escaped."""

Child = str | Html | None
Attributes = Mapping[str, str | int | float | bool | None]

_VOID = {"br", "hr", "img", "input", "link", "meta"}
_REFUSED = ("on", "style", "href", "src", "srcdoc", "formaction", "action", "xlink")


def text(value: str) -> Html:
    """Escape a text; characters that cannot be seen are written out (see `visible`)."""
    return escape(visible(value))


def joined(children: Iterable[Child], separator: str = "") -> Html:
    """Join children into one piece; plain strings are escaped, None is left out."""
    parts = [child if isinstance(child, Markup) else text(child) for child in children if child is not None]
    return Markup(separator).join(parts)


def element(name: str, *children: Child, attributes: Attributes | None = None) -> Html:
    """One element with escaped children and attributes; True is an attribute without value, None and False are none.

    Raises:
        ValueError: An attribute that the page's Content-Security-Policy forbids (event handlers, `style`), or a link
            to anything but a place in the page.
    """
    parts = [f"<{name}"]
    for key, value in (attributes or {}).items():
        if key.startswith(_REFUSED) and not (key == "href" and str(value).startswith("#")):
            raise ValueError(f"attribute {key!r} is not allowed in a report")
        if value is True:
            parts.append(f" {key}")
        elif value is not None and value is not False:
            parts.append(f' {key}="{text(str(value))}"')
    parts.append(">")
    if name not in _VOID:
        parts += [str(joined(children)), f"</{name}>"]
    return Markup("".join(parts))
