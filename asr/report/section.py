"""What every part of a page is made of: headed sections, notes and tables."""

from __future__ import annotations

from collections.abc import Sequence

from asr.report.markup import Content, Markup, element, join


def section(id: str, title: str, *content: Content) -> Markup:
    """A part of the page with its heading, to be linked to by its id."""
    heading = element("h2", title, id=f"{id}-title")
    return element("section", heading, *content, id=id, aria_labelledby=f"{id}-title")


def note(*content: Content) -> Markup:
    """A paragraph that explains."""
    return element("p", *content, class_="note")


def table(
    caption: str, head: Sequence[str], rows: Sequence[Markup], foot: Markup | None = None
) -> Markup:
    """A table whose first column names the row; it scrolls by itself where it is too wide."""
    titles = element("tr", *(element("th", title, scope="col") for title in head))
    made = element(
        "table",
        element("caption", caption, class_="aside"),
        element("thead", titles),
        element("tbody", *rows),
        element("tfoot", foot) if foot else "",
    )
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def row(name: Content, *cells: Content) -> Markup:
    """A table's row."""
    return element(
        "tr", element("th", name, scope="row"), join(element("td", cell) for cell in cells)
    )


def paged_table(caption: str, columns: Sequence[tuple[str, str]]) -> Markup:
    """A table that a script fills a page at a time, and the buttons that turn its pages.

    Args:
        caption: For those who do not see the heading above.
        columns: Each one's key, by which the script sorts, and its title.
    """
    heads = (
        element(
            "th",
            element("button", title, type="button", data_key=key),
            class_=key,
            scope="col",
            role="columnheader",
        )
        for key, title in columns
    )
    # Narrow screens lay the rows out otherwise, and with that a table's own roles would be lost.
    made = element(
        "table",
        element("caption", caption, class_="aside"),
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        element("tbody", role="rowgroup"),
        class_="list",
        role="table",
    )
    pager = element(
        "div",
        element("button", "Previous", type="button", id="previous"),
        element("span", id="range", role="status"),
        element("button", "Next", type="button", id="next"),
        class_="pager",
    )
    return join((made, pager))
