"""Find the configurations that come with pgsim, in a source checkout and in an installed wheel alike."""

from __future__ import annotations

import os
from pathlib import Path

import pgsim
from pgsim.errors import InputError
from pgsim.io.keys import did_you_mean
from pgsim.io.strict import show_path

SUFFIX = ".yaml"


def shipped_folder() -> Path:
    """Return the folder of the shipped hardware files; its folder `energy` holds the energy tables.

    A wheel carries it inside the package; a checkout has it beside the package.
    """
    package = Path(pgsim.__file__).resolve().parent
    inside = package / "hwconfigs"
    return inside if inside.is_dir() else package.parent / "hwconfigs"


def shipped_names(folder: str = "") -> list[str]:
    """Return the names, without suffix and in order, of the shipped files in `folder` ("" or "energy")."""
    return sorted(path.stem for path in (shipped_folder() / folder).glob(f"*{SUFFIX}"))


def is_hardware(path_or_name: str) -> bool:
    """Tell whether an argument means a hardware file: by its suffix, or as the name of a shipped one and no file."""
    if path_or_name.endswith((SUFFIX, ".yml")):
        return True
    return not os.path.exists(path_or_name) and path_or_name in shipped_names()


def find_config(path_or_name: str | os.PathLike[str], what: str, folder: str = "") -> Path:
    """Return the file that `path_or_name` means: a path first, then a shipped name, with or without `.yaml`.

    `what` names the file in errors, `folder` is "" or "energy". Raises InputError with the closest shipped name where
    there is neither; a folder that is no shipped name is returned, and refused by whoever reads it.
    """
    path = Path(path_or_name)
    if path.exists() and not path.is_dir():
        return path
    name = path.name.removesuffix(SUFFIX)
    names = shipped_names(folder)
    if str(path) in (name, name + SUFFIX) and name in names:
        return shipped_folder() / folder / (name + SUFFIX)
    if path.is_dir():
        return path
    hint = did_you_mean(name, names) or f" (shipped: {', '.join(names)})"
    raise InputError(f"{show_path(path_or_name)}: the {what} must be a file or a shipped name, not missing{hint}")
