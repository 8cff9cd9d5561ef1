"""Take a trace file apart, change it, and put it together again, digests and all. Shares no code with pgsim."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Parts:
    """The arrays of a trace by name, without the metadata's two, and the metadata as plain values."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def layer(self, index: int) -> dict[str, Any]:
        """Return the metadata of layer `index`."""
        layer: dict[str, Any] = self.meta["layers"][index]
        return layer

    def write(self, path: Path, *, text: bytes | None = None, refresh: bool = True) -> None:
        """Write the parts with numpy's own savez, unsealed; `text` stands in for the metadata's JSON."""
        self.meta.pop("sealed", None)
        if refresh:
            self.meta["sha256"] = {name: digest(array) for name, array in self.arrays.items()}
        text = json.dumps(self.meta).encode() if text is None else text
        everything = {
            **self.arrays,
            "meta": np.frombuffer(text, np.uint8),
            "meta_sha256": np.frombuffer(hashlib.sha256(text).digest(), np.uint8),
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in everything.items():
                archive.writestr(f"{name}.npy", npy(array))


def take_apart(path: Path) -> Parts:
    """Read a trace with numpy."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    text = arrays.pop("meta").tobytes()
    arrays.pop("meta_sha256")
    return Parts(arrays, json.loads(text))


def npy(array: NDArray[Any]) -> bytes:
    """Return the .npy bytes of an array, pickled where it holds objects."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def digest(array: NDArray[Any]) -> str:
    """Return the digest of docs/trace-format.md, straight from its text."""
    shape = "[" + ",".join(str(size) for size in array.shape) + "]"
    return hashlib.sha256(array.dtype.str.encode() + b":" + shape.encode() + b":" + array.tobytes("C")).hexdigest()


def repack(data: bytes, name: str, content: bytes, **changes: Any) -> bytes:
    """Return the archive `data` with member `name` replaced by `content`; `changes` set its ZipInfo's fields."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            if info.filename == name:
                for key, value in changes.items():
                    setattr(info, key, value)
            target.writestr(info, content if info.filename == name else source.read(info.filename))
    return stream.getvalue()


def patch_entry(data: bytes, name: str, offset: int, value: bytes, *, local: int | None = None) -> bytes:
    """Overwrite bytes of a member's central directory entry at `offset`, and of its local header at `local`."""
    changed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        at = archive.start_dir
        begin = archive.getinfo(name).header_offset
    while changed[at + 46 : at + 46 + len(name)] != name.encode():
        at += 46 + sum(int.from_bytes(changed[at + k : at + k + 2], "little") for k in (28, 30, 32))
    changed[at + offset : at + offset + len(value)] = value
    if local is not None:
        changed[begin + local : begin + local + len(value)] = value
    return bytes(changed)
