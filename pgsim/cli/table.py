"""Plain aligned text for standard output."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """Return a table as lines of text, columns two spaces apart; those named in `left` are flush left, others right.

    A heading of several lines ("queue\\nfull") stands on the last of them.
    """
    heads = [name.split("\n") for name in header]
    deep = max(map(len, heads))
    lines = [[*zip(*([""] * (deep - len(head)) + head for head in heads), strict=True)][line] for line in range(deep)]
    lines = [*lines, *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = []
    for line in lines:
        cells = [
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(header, line, widths, strict=True)
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)
