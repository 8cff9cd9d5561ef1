"""Every way in which the metadata's text can be wrong has its own line, word for word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.io.read_all import message_of
from tests.io.tamper import take_apart


def edited(old: str, new: str) -> Callable[[str], bytes]:
    def edit(text: str) -> bytes:
        assert old in text
        return text.replace(old, new, 1).encode()

    return edit


TEXTS: dict[str, tuple[Callable[[str], bytes], str]] = {
    "not JSON": (
        lambda text: b"{'format': 1}",
        "meta must be JSON, not what it is (Expecting property name enclosed in double quotes at 1)",
    ),
    "cut JSON": (
        lambda text: text.encode()[:-1],
        "meta must be JSON, not what it is (Expecting ',' delimiter at LENGTH)",
    ),
    "empty": (lambda text: b"", "meta must be JSON, not what it is (Expecting value at 0)"),
    "not UTF-8": (lambda text: b'{"format": "\xff"}', "meta must be UTF-8, not byte 0xff at 12"),
    "duplicate key": (
        edited('"images": 2', '"images": 2, "images": 2'),
        "meta must have each key once in a mapping, not 'images' twice",
    ),
    "duplicate key inside": (
        edited('"kind": "conv"', '"kind": "conv", "kind": "conv"'),
        "meta must have each key once in a mapping, not 'kind' twice",
    ),
    "NaN": (edited('"images": 2', '"images": NaN'), "meta must hold finite numbers, not NaN"),
    "Infinity": (edited('"images": 2', '"images": -Infinity'), "meta must hold finite numbers, not -Infinity"),
    "infinite by size": (
        edited('"images": 2', '"images": 1e999'),
        "images must be an integer from 1 to 1048576, not inf",
    ),
    "a number of 5000 digits": (
        edited('"images": 2', '"images": ' + "9" * 5000),
        "meta must be JSON of modest depth and numbers, not deeper or longer",
    ),
    "brackets without end": (
        lambda text: b"[" * 200000,
        "meta must be JSON of modest depth and numbers, not deeper or longer",
    ),
    "a list": (lambda text: b"[1, 2]", "the document must be a mapping, not [1, 2]"),
    "null": (lambda text: b"null", "the document must be a mapping, not null"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_wrong_metadata_text_is_refused(case: str, good_file: Path, tmp_path: Path) -> None:
    change, expected = TEXTS[case]
    parts = take_apart(good_file)
    parts.meta.pop("sealed")
    text = json.dumps(parts.meta)
    parts.write(tmp_path / "bad.npz", text=change(text), refresh=False)
    assert message_of(tmp_path / "bad.npz") == f"FILE: {expected}".replace("LENGTH", str(len(text) - 1))
