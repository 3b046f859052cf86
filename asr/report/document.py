"""A whole HTML document with style, script and data inside, and a policy that lets in no more."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from asr.report.json_file import dump_json
from asr.report.markup import Markup, element, raw_element

# In this order: what narrow screens and paper change comes last.
_STYLES = ("base", "chart", "table", "utterance", "clip", "compare", "media")


def render_document(
    title: str, content: Sequence[Markup], scripts: Sequence[str], data: object
) -> str:
    """A page that needs nothing beside it.

    Args:
        title: Of the window.
        content: What the body holds.
        scripts: Names of this package's scripts, in the order in which they run.
        data: What the scripts read, as `json.dumps` takes it.

    Returns:
        A whole document, to be written as UTF-8.
    """
    style = "\n".join(_packaged(f"style/{name}.css") for name in _STYLES)
    script = "\n".join(_packaged(f"script/{name}.js") for name in ("theme", *scripts))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        raw_element("style", style),
    )
    body = element(
        "body",
        *content,
        raw_element("script", embed_json(data), type="application/json", id="data"),
        raw_element("script", script),
    )
    page = element("html", head, body, lang="en")
    # A lone surrogate in data has been made visible by now, so that UTF-8 holds everything.
    return f"<!doctype html>\n{page.source}\n"


def embed_json(value: object) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or a line."""
    text = dump_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def theme_switch() -> Markup:
    """The choice between the system's colours, light and dark; there only where scripts run."""
    return element(
        "button", "Dark", type="button", id="theme", hidden="hidden", aria_pressed="false"
    )


def _packaged(name: str) -> str:
    return (files("asr.report") / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The page's own style and script, known by their hashes, and what is inside the page."""
    return (
        f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    )


def _sha256(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
