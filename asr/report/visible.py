"""Text from data made fit to be shown: characters that act are replaced by characters that show."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, soft line and paragraph breaks, bidirectional marks, embeddings,
# overrides and isolates, byte-order mark, interlinear and tag characters, lone surrogates.
# Zero-width (non-)joiners stay: Persian, Indic scripts and emoji need them.
_ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Replaces control, direction and surrogate characters by something harmless to see.

    Args:
        text: Any string, as from a manifest or a file name.

    Returns:
        The text with ASCII controls as their pictures (U+2400 to U+2421) and the others as
        `<U+202E>`; it neither steers a terminal nor reorders what is around it.
    """
    return _ACTING.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"
