"""Text for a terminal or a log, where some characters would act."""

import json

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


def printable_json(value: object) -> str:
    """A value as JSON on one line, its letters as they are and what would act as escapes.

    Raises:
        ValueError: NaN or infinities.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c in JOINERS else json.dumps(c).strip('"') for c in text)
