"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

from pgsim.errors import InputError
from pgsim.io.strict import show_path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BufferedRandom]:
    """Hand out a stream (readable and writable) whose bytes become the file `path` when the block ends well.

    The bytes go to a hidden file in the same folder, are flushed to the disk and renamed over `path`; a link is
    followed. Where the block or the disk fails, or Ctrl-C comes, an earlier file stays as it was and nothing is left
    behind. Raises InputError where the file cannot be written.
    """
    shown = show_path(path)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".pgsim-{secrets.token_hex(8)}.tmp")
    try:
        _check_place(shown, target)
        with open(temporary, "x+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        _remove(temporary)
        raise InputError(f"{shown}: the output must be writable, not refused: {error.strerror or error}") from error
    except BaseException:
        _remove(temporary)
        raise
    _flush_folder(target.parent)


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike[str], *, keep: bool = True) -> Iterator[Path]:
    """The same for code that opens its file by name: hand out the hidden file's path, whose file becomes `path`.

    With `keep` False it is removed at the end and `path` stays as it was: a place for what leads to the file. Errors of
    the hidden file are raised as InputError; others pass.
    """
    shown = show_path(path)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".pgsim-{secrets.token_hex(8)}.tmp")
    try:
        _check_place(shown, target)
        open(temporary, "x+b").close()
        yield temporary
        if keep:
            with open(temporary, "r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
            _flush_folder(target.parent)
    except OSError as error:
        if str(error.filename) != str(temporary):
            raise
        raise InputError(f"{shown}: the output must be writable, not refused: {error.strerror or error}") from error
    finally:
        _remove(temporary)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse now, with the InputError of `replacing`, a file that could not be written later. Leaves nothing behind."""
    shown = show_path(path)
    target = Path(os.path.realpath(path))
    probe = target.with_name(f".pgsim-{secrets.token_hex(8)}.tmp")
    try:
        _check_place(shown, target)
        try:
            open(probe, "x+b").close()
        finally:
            _remove(probe)
    except OSError as error:
        raise InputError(f"{shown}: the output must be writable, not refused: {error.strerror or error}") from error


def _check_place(shown: str, target: Path) -> None:
    if target.is_dir():
        raise InputError(f"{shown}: the output must be a file, not a folder")
    if target.exists() and not target.is_file():
        raise InputError(f"{shown}: the output must be a regular file, not a device or pipe")
    if not target.parent.is_dir():
        raise InputError(f"{shown}: the output's folder must be there, not missing")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _flush_folder(folder: Path) -> None:
    # The rename itself is on the disk only when the folder is; some file systems cannot sync one, which costs
    # nothing but the guarantee after a power cut.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
