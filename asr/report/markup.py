"""HTML out of elements: text is escaped because only an element can be markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

from asr.report.visible import visible

_WITHOUT_END_TAG = frozenset({"br", "input", "meta"})


@dataclass(frozen=True, slots=True)
class Markup:
    """A piece of finished HTML; everything else is text."""

    source: str


Content = Markup | str


def element(name: str, /, *content: Content, **attributes: str | None) -> Markup:
    """An HTML or SVG element.

    Args:
        name: Tag name.
        content: Elements and texts, in order; texts are made visible and escaped.
        attributes: An underscore at the end of a name is dropped (`class_`), the others become
            hyphens (`aria_label`). None leaves an attribute out.
    """
    start = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _WITHOUT_END_TAG:
        assert not content, name
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{join(content).source}</{name}>")


def join(content: Iterable[Content]) -> Markup:
    """Elements and texts one after another."""
    return Markup(
        "".join(each.source if isinstance(each, Markup) else _escape(each) for each in content)
    )


def raw_element(name: str, source: str, **attributes: str | None) -> Markup:
    """A script or style element, whose content HTML does not escape.

    Args:
        name: `script` or `style`.
        source: Its content, which must not be able to end the element.
        attributes: As for `element`.
    """
    if "</" in source or "<!--" in source:
        raise ValueError(f"{name}: holds '</' or '<!--', expected neither")
    start = element(name, **attributes).source.removesuffix(f"</{name}>")
    return Markup(f"{start}{source}</{name}>")


def _escape(text: str) -> str:
    return html.escape(visible(text), quote=True)
