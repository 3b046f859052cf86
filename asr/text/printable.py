"""Text for a terminal or a log, where some characters would act."""


def printable(text: str) -> str:
    """The text with escapes (`\\x1b`) in the place of characters that are not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
