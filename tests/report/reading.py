"""Pages read by a parser that did not write them, and texts that try to be more than text."""

from html.parser import HTMLParser

VOID = {"br", "input", "meta"}


class Reader(HTMLParser):
    """Tags with the names of their attributes, the texts between, and whether tags match."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.structure, self.open, self.texts, self.raw, self.attributes = [], [], [], {}, []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.structure.append((tag, tuple(name for name, _ in attrs)))
        self.attributes.extend((tag, *pair) for pair in attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            self.raw[tag, dict(attrs).get("type")] = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.structure.append((f"/{tag}", ()))

    def handle_comment(self, data):
        raise AssertionError(f"comment {data!r}")

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.raw[list(self.raw)[-1]] += data
        else:
            self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)


PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><!--<script>",
    "' onload='x",
    "a\u2028b\u2029c",
    "\x1b[31mred\x1b]0;title\x07\x00\u202e",
    "&lt;b&gt;&#60;i&#62;",
    "]]>--><svg/onload=x>",
    "\ud800",
    "</title></style><style>*{display:none}</style>",
    "javascript:alert(1)//",
    "=HYPERLINK(1)|'cmd'!A1",
    "`${alert(1)}`{{7*7}}",
    "__proto__",
    "[bold red]x[/] [link=file:x]y[/link]",
)
