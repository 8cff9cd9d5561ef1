"""What a layer, a boundary or a tensor of codes may be called."""

from __future__ import annotations

MAX_NAME = 200
NAME_RULE = f"a name of 1 to {MAX_NAME} printable ASCII characters without spaces or quotes"


def is_name(text: str) -> bool:
    """Return whether a text follows NAME_RULE; no backslash either, which a terminal or JSON would show otherwise."""
    return 0 < len(text) <= MAX_NAME and text.isascii() and text.isprintable() and not any(c in " '\"\\" for c in text)
