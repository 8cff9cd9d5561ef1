"""The metadata of a trace as one JSON document: bytes, digest, version, and the parts that are no layer's."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from pgsim.errors import InputError
from pgsim.io.npz import Npz
from pgsim.io.strict import Section, key_twice, refuse, show

FORMAT = "pgsim-trace"
VERSION = 1
MAX_META_BYTES = 64 << 20


class DigestError(InputError):
    """An array, or the metadata, whose SHA-256 is not the one recorded."""


def read_document(npz: Npz, digests: bool) -> tuple[bytes, Section]:
    """Return the bytes of `meta` and the document in it, its own digest, format and version checked."""
    where = npz.shown
    member = npz.expect("meta", ("uint8",), None)
    if member.size > MAX_META_BYTES:
        refuse(where, "meta", f"have at most {MAX_META_BYTES} bytes", f"{member.size}")
    meta = npz.read(member).tobytes()
    recorded = npz.read(npz.expect("meta_sha256", ("uint8",), [(32,)])).tobytes().hex()
    digest = hashlib.sha256(meta).hexdigest()
    if digests and digest != recorded:
        raise DigestError(f"{where}: meta_sha256 must be {digest}, the SHA-256 of meta, not {recorded}")
    value = _parse_json(where, meta)
    if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
        refuse(where, "format", f"be {FORMAT}", show(value["format"]))
    if isinstance(value, dict) and "version" in value:
        version = value["version"]
        if version != VERSION or isinstance(version, bool) or not isinstance(version, int):
            refuse(where, "version", f"be {VERSION}", show(version))
    required = ("format", "version", "images", "info", "layers", "sha256")
    return meta, Section(where, "", value, required=required, optional=("sealed", "boundaries"))


def _parse_json(where: str, text: bytes) -> object:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = key_twice(pairs)
        if twice is not None:
            refuse(where, "meta", "have each key once in a mapping", f"{show(twice)} twice")
        return dict(pairs)

    def no_constants(name: str) -> object:
        refuse(where, "meta", "hold finite numbers", name)

    try:
        return json.loads(text.decode(), object_pairs_hook=no_duplicates, parse_constant=no_constants)
    except UnicodeDecodeError as error:
        refuse(where, "meta", "be UTF-8", f"byte {text[error.start]:#04x} at {error.start}")
    except json.JSONDecodeError as error:
        refuse(where, "meta", "be JSON", f"what it is ({error.msg} at {error.pos})")
    except (RecursionError, ValueError):  # brackets without end; an integer of more than 4300 digits
        refuse(where, "meta", "be JSON of modest depth and numbers", "deeper or longer")


def digest_table(section: Section) -> dict[str, str]:
    table = section.raw("sha256")
    if not isinstance(table, dict):
        section.refuse("sha256", "be a mapping")
    for name, digest in table.items():
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            refuse(section.where, f"sha256.{show(name)[1:-1]}", "be 64 hex digits", show(digest))
    return table


def read_info(section: Section, images: int) -> dict[str, Any]:
    """Return the free part; the keys that pgsim reads are held to their types."""
    info = section.raw("info")
    if not isinstance(info, dict):
        section.refuse("info", "be a mapping")
    where = section.where
    number = (int, "class numbers", "be a class number, an integer")
    lists = {"labels": number, "predictions": number, "samples": (int | str, "ids", "be an id, an integer or text")}
    for key, (kinds, what, must) in lists.items():
        if key in info:
            values = info[key]
            if not isinstance(values, list) or len(values) != images:
                refuse(where, f"info.{key}", f"be a list of {images} {what}", show(values))
            for position, value in enumerate(values):
                if isinstance(value, bool) or not isinstance(value, kinds):
                    refuse(where, f"info.{key}[{position}]", must, show(value))
    if "top1" in info:
        top1 = info["top1"]
        if isinstance(top1, bool) or not isinstance(top1, int | float) or not 0 <= top1 <= 100 or math.isnan(top1):
            refuse(where, "info.top1", "be a percentage from 0 to 100", show(top1))
    return info
