"""The recorded boundaries of a trace: from plain JSON values and checked arrays to frozen records, and back."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from pgsim.io.strict import Section
from pgsim.io.trace_meta import (
    MAX_CHANNELS,
    MAX_SIDE,
    ReadArray,
    parse_requantise,
    requantise_arrays,
    requantise_record,
)
from pgsim.workload.boundary import Boundary

BOUNDARY_KEYS = ("name", "channels", "height", "width", "bits", "signed", "requantise")
REQUANTISE_KEYS = ("name", "encoding", "bits", "base")


def parse_boundary(where: str, path: str, value: object, prefix: str, read: ReadArray) -> Boundary:
    """Return the boundary that `value` (key path `path`) and the arrays named `prefix`.* describe; raises InputError.

    Its values, the member `prefix` itself, are not read.
    """
    section = Section(where, path, value, required=BOUNDARY_KEYS)
    channels = section.integer("channels", 1, MAX_CHANNELS)
    requantise = None
    if section.raw("requantise") is not None:
        requantise = parse_requantise(section.section("requantise", required=REQUANTISE_KEYS), prefix, channels, read)
    return Boundary(
        name=section.identifier("name"),
        channels=channels,
        height=section.integer("height", 1, MAX_SIDE),
        width=section.integer("width", 1, MAX_SIDE),
        bits=section.integer("bits", 1, 63),
        signed=section.boolean("signed"),
        requantise=requantise,
    )


def boundary_record(boundary: Boundary) -> dict[str, Any]:
    """Return the JSON mapping of `boundary`, keys in the order of docs/trace-format.md."""
    record: dict[str, Any] = {key: getattr(boundary, key) for key in BOUNDARY_KEYS}
    record["requantise"] = requantise_record(boundary.requantise) if boundary.requantise else None
    return record


def boundary_arrays(boundary: Boundary) -> dict[str, NDArray[Any]]:
    """Return the arrays of `boundary` but its values, by the part of the member's name that follows its prefix."""
    return requantise_arrays(boundary.requantise) if boundary.requantise else {}
