"""Text for a terminal or a log, where some characters would act."""

JOINERS = "\u200c\u200d"  # part of words in Persian and in the scripts of India


def printable(text: str, keep: str = "") -> str:
    """The text with escapes (`\\x1b`) in the place of characters that are not printable.

    Args:
        text: of anybody: a file's name, a transcript, a value of a file.
        keep: control characters that are ours and stay: tabs between columns, say.
    """
    return "".join(
        c if c.isprintable() or c in JOINERS or c in keep else c.encode("unicode_escape").decode()
        for c in text
    )
