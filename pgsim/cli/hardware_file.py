"""Refusals that name the hardware file as the user gave it: the model, which knows no file, names the accelerator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgsim.errors import InputError

if TYPE_CHECKING:
    from pgsim.hw.accelerator import Accelerator


@contextlib.contextmanager
def naming_file(given: str, accelerator: Accelerator) -> Iterator[None]:
    """Let an InputError of the block that begins with the accelerator's name begin with `given` instead.

    `given` is the path or shipped name that `accelerator` was loaded from; a shipped name stays as it is.
    """
    from pgsim.io.strict import show_path

    try:
        yield
    except InputError as error:
        named = f"{accelerator.name}: "
        if not str(error).startswith(named):
            raise
        raise InputError(f"{show_path(given)}: {str(error).removeprefix(named)}") from error
