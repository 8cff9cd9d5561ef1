"""The options that every command with a trace file has, and checks of numbers that several commands share."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pgsim.errors import InputError

MAX_THREADS = 1024  # torch takes any number, and dies of some
DEFAULT_MAX_BYTES = 4 << 30  # pgsim.io.npz.DEFAULT_MAX_BYTES, not imported for the sake of `pgsim --help`


def add_trace_options(
    parser: argparse.ArgumentParser, what: str = "the trace (.npz)", *, several: bool = False
) -> None:
    """Add FILE (with `several` a list of one or more) and --max-bytes to `parser`."""
    parser.add_argument("file", metavar="FILE", help=what, nargs="+" if several else None)
    parser.add_argument(
        "--max-bytes",
        metavar="N",
        type=positive_integer,
        default=DEFAULT_MAX_BYTES,
        help="refuse a trace that expands past N bytes (default: 4 GiB)",
    )


def up_to(option: str, given: int | None, most: int) -> int:
    """Return an option's number, `most` where it was left out; raise InputError for one outside 1 .. most."""
    if given is None:
        return most
    if not 1 <= given <= most:
        raise InputError(f"{option} must be in 1..{most}, not {given}")
    return given


def keep_apart(outputs: Iterable[str | None], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise InputError for an output that is one of the files that are read, or another output, by whatever name."""
    from pgsim.io.strict import show_path

    read = {os.path.realpath(path) for path in inputs}
    taken: set[str] = set()
    for path in filter(None, outputs):
        place = os.path.realpath(path)
        if place in read:
            raise InputError(f"{show_path(path)}: an output must not be an input")
        if place in taken:
            raise InputError(f"{show_path(path)}: an output must be named once")
        taken.add(place)


@contextmanager
def refusals_of(path: str) -> Iterator[None]:
    """Make an InputError of the ValueError of pgsim.nn, of numbers that it refuses in a network read from a file."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def digests_of(checkpoint: Path, data: Path) -> dict[str, str]:
    """Return the SHA-256 of the weights and of the test set that a result is of, by the metadata's keys."""
    files = {"checkpoint_sha256": checkpoint, "data_sha256": data}
    return {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items()}


def positive_integer(text: str) -> int:
    """Return a decimal integer above 0; what argparse calls for an option's text."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0 of at most 18 digits, not {text!r}")
    return int(text)


def natural_number(text: str) -> int:
    """Return a decimal integer from 0 on."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on of at most 18 digits, not {text!r}")
    return int(text)
