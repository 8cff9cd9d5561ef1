"""The container of a trace: a zip of .npy members, read without trusting any of its numbers.

Nothing is unpickled and nothing is allocated before the sizes that the archive declares have been held against each
other, against what deflate can do and against a limit. `numpy.load` is never called.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.io.atomic import replacing
from pgsim.io.strict import refuse, show, show_path

DEFAULT_MAX_BYTES = 4 << 30
SEAL = b"pgsim-sha256:"
SEAL_BYTES = len(SEAL) + 64
MAX_DEFLATE_RATIO = 1032  # 258 bytes from 2 bits; no deflate stream expands further
MAX_HEADER_BYTES = 1024
ENCRYPTED = 0x1
DESCRIPTOR = 0x8
KNOWN_FLAGS = 0x6 | DESCRIPTOR | 0x800  # deflate level, sizes after the data, UTF-8 names
END_OF_ARCHIVE = b"PK\x05\x06"
UNSET = 0xFFFFFFFF

_NAME = re.compile(r"[a-z0-9_.]{1,100}\.npy")
_HEADER = re.compile(
    r"\{ *'descr': *'([^'\\]{1,16})', *'fortran_order': *(True|False), *'shape': *\(([0-9, ]{0,100})\) *,? *\} *\n?"
)
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Member:
    """One .npy member: where its bytes are, and what its npy header says. `name` has no `.npy`."""

    name: str
    offset: int  # of the packed bytes in the file
    packed: int  # bytes in the file
    size: int  # bytes expanded, npy header included
    deflated: bool
    crc: int
    descr: str  # numpy's dtype.str
    fortran: bool
    shape: tuple[int, ...]
    start: int  # of the data in the expanded bytes


@dataclass(frozen=True)
class Npz:
    """An archive whose directory and npy headers have been checked; the arrays are read one at a time, when asked."""

    path: str
    shown: str
    identity: tuple[int, int, int]
    members: Mapping[str, Member]

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.identity[1]

    @property
    def expanded_bytes(self) -> int:
        """Size of all members expanded."""
        return sum(member.size for member in self.members.values())

    def expect(self, name: str, dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]] | None) -> Member:
        """Return member `name`, refused where it is missing or its header differs from what the metadata calls for.

        `shapes` lists the shapes allowed; None allows any one-dimensional array. Reads no data.
        """
        member = self.members.get(name)
        if member is None:
            raise InputError(f"{self.shown}: {name} must be there, not missing")
        if member.descr not in [np.dtype(dtype).str for dtype in dtypes]:
            got = "a pickled object array" if member.descr == "|O" else _dtype_name(member.descr)
            refuse(self.shown, name, f"be {' or '.join(dtypes)}", got)
        if member.fortran:
            refuse(self.shown, name, "be in C order", "in Fortran order")
        if (len(member.shape) != 1) if shapes is None else (member.shape not in shapes):
            must = "have one dimension" if shapes is None else f"have shape {' or '.join(str(list(s)) for s in shapes)}"
            refuse(self.shown, name, must, str(list(member.shape)))
        size = member.start + math.prod(member.shape) * np.dtype(member.descr).itemsize
        if size != member.size:
            refuse(self.shown, name, f"have the {size} bytes of its npy header", f"{member.size}")
        return member

    def read(self, member: Member) -> NDArray[Any]:
        """Return the array of a member that `expect` has passed (read-only); its length and CRC-32 are checked."""
        try:
            with open(self.path, "rb") as stream:
                if _identity(stream) != self.identity:
                    raise InputError(f"{self.shown}: the file must stay as it is while it is read, not change")
                stream.seek(member.offset)
                packed = stream.read(member.packed)
        except OSError as error:
            raise InputError(f"{self.shown}: the file must be readable, not refused: {error.strerror}") from error
        raw = _expand(packed, member, self.shown)
        if zlib.crc32(raw) != member.crc:
            refuse(self.shown, member.name, f"have CRC-32 {member.crc:08x}", f"{zlib.crc32(raw):08x}")
        array = np.frombuffer(raw, dtype=member.descr, offset=member.start).reshape(member.shape)
        if member.descr == "|b1" and array.size and int(array.view(np.uint8).max()) > 1:
            refuse(self.shown, member.name, "hold bools of 0 or 1", f"a byte of {int(array.view(np.uint8).max())}")
        return array


def array_sha256(array: NDArray[Any]) -> str:
    """Return the hex SHA-256 of an array's dtype, shape and C-order little-endian bytes (docs/trace-format.md)."""
    array = np.ascontiguousarray(array)
    shape = json.dumps(list(array.shape), separators=(",", ":"))
    digest = hashlib.sha256(f"{array.dtype.str}:{shape}:".encode())
    digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def open_npz(path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Npz:
    """Return the archive at `path` with its directory and every npy header checked, and no array read.

    `max_bytes` bounds the expanded bytes of all members together. Raises InputError.
    """
    shown = show_path(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            refuse(shown, "the trace", "be a file", "a folder")
        if not stat.S_ISREG(mode):
            refuse(shown, "the trace", "be a regular file", "a device or pipe")
        with open(path, "rb") as stream:
            identity = _identity(stream)
            if identity[1] == 0:
                refuse(shown, "the trace", "be an .npz archive", "an empty file")
            infos, end = _directory(stream, shown)
            members = _members(stream, infos, end, shown, max_bytes)
    except FileNotFoundError:
        refuse(shown, "the trace", "be there", "missing")
    except OSError as error:
        raise InputError(f"{shown}: the file must be readable, not refused: {error.strerror or error}") from error
    return Npz(os.path.abspath(path), shown, identity, members)


def check_npz_seal(path: str, shown: str) -> None:
    """Raise InputError where the file `path`, named `shown`, does not end with the SHA-256 of its own bytes."""
    try:
        with open(path, "rb") as stream:
            content = os.fstat(stream.fileno()).st_size - SEAL_BYTES - 2
            stream.seek(max(content - 20, 0))
            tail = stream.read()
            comment = tail[22:]
            if tail[:4] != END_OF_ARCHIVE or tail[20:22] != struct.pack("<H", SEAL_BYTES) or comment[:13] != SEAL:
                refuse(shown, "the archive's comment", f"be {SEAL.decode()} and 64 digits", "something else")
            stream.seek(0)
            digest = _stream_sha256(stream, content)
    except OSError as error:
        raise InputError(f"{shown}: the file must be readable, not refused: {error.strerror or error}") from error
    if comment[13:] != digest.encode():
        refuse(shown, "the seal", f"be {digest}, the file's SHA-256", show(comment[13:].decode("latin-1")))


def write_npz(
    path: str | os.PathLike[str], arrays: Iterable[tuple[str, NDArray[Any]]], *, check: Callable[[str], None]
) -> None:
    """Write `arrays` (name without .npy, C-ordered little-endian array) as a sealed archive, whole or not at all.

    The same arrays give the same bytes. `arrays` may be a generator: one array at a time is held. `check` is called
    with the name of the finished file before it takes its place; what it raises stops the writing.
    Raises InputError where `path` cannot be written.
    """
    with replacing(path) as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.comment = SEAL + b"0" * 64
            for name, array in arrays:
                info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system = 3  # else it is the writing machine's
                info.external_attr = 0o644 << 16
                archive.writestr(info, _npy_bytes(array))
        content = stream.seek(0, os.SEEK_END) - SEAL_BYTES - 2
        stream.seek(0)
        digest = _stream_sha256(stream, content)
        stream.seek(-64, os.SEEK_END)
        stream.write(digest.encode())
        stream.flush()
        check(stream.name)


def _npy_bytes(array: NDArray[Any]) -> bytes:
    assert array.dtype.byteorder != ">"
    assert not array.dtype.hasobject
    header = io.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue() + array.tobytes()


def _identity(stream: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(stream.fileno())
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _stream_sha256(stream: BinaryIO, count: int) -> str:
    digest = hashlib.sha256()
    while count > 0 and (piece := stream.read(min(count, 1 << 20))):
        digest.update(piece)
        count -= len(piece)
    return digest.hexdigest()


def _directory(stream: BinaryIO, shown: str) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the archive's entries and the offset of its central directory."""
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        # ValueError covers names that are not UTF-8 and offsets that are no offsets.
        refuse(shown, "the trace", "be a whole .npz archive", f"what it is ({show(str(error))[1:-1]})")


def _members(stream: BinaryIO, infos: list[zipfile.ZipInfo], end: int, shown: str, max_bytes: int) -> dict[str, Member]:
    infos = sorted(infos, key=lambda info: info.header_offset)
    if infos and infos[0].header_offset != 0:
        refuse(shown, "the archive", "begin with its first member", f"with {infos[0].header_offset} other bytes")
    members: dict[str, Member] = {}
    expanded = 0
    for info, following in zip(infos, [*(i.header_offset for i in infos[1:]), end], strict=True):
        name = _checked_name(info, shown)
        if name in members:
            raise InputError(f"{shown}: {name} must be there once, not twice")
        if info.flag_bits & ENCRYPTED:
            refuse(shown, name, "be readable by all", "encrypted")
        if info.flag_bits & ~KNOWN_FLAGS or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            got = f"method {info.compress_type} with flags {info.flag_bits:#x}"
            refuse(shown, name, "be stored or deflated", got)
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        if info.file_size > info.compress_size * (MAX_DEFLATE_RATIO if deflated else 1):
            refuse(shown, name, f"expand from {info.compress_size} bytes as deflate can", f"to {info.file_size}")
        expanded += info.file_size
        if expanded > max_bytes:
            refuse(shown, "the trace", f"expand to at most {max_bytes} bytes (--max-bytes)", "more")
        members[name] = _member(stream, info, name, following, shown)
    return members


def _checked_name(info: zipfile.ZipInfo, shown: str) -> str:
    if not _NAME.fullmatch(info.orig_filename):
        refuse(shown, "the archive", "hold members such as 000.weight.npy only", show(info.orig_filename))
    name = info.filename.removesuffix(".npy")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        refuse(shown, name, "be a regular file", "a link or a device")
    return name


def _member(stream: BinaryIO, info: zipfile.ZipInfo, name: str, following: int, shown: str) -> Member:
    """Check the local header of a member and its npy header, and that it ends before the next one begins."""
    stream.seek(info.header_offset)
    head = stream.read(4096)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        refuse(shown, name, "have a zip header where the directory says", "other bytes")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(head)
    begin = _LOCAL.size + name_length
    sizes_agree = crc == info.CRC and packed in (info.compress_size, UNSET) and size in (info.file_size, UNSET)
    same = head[_LOCAL.size : begin] == info.orig_filename.encode() and method == info.compress_type
    if not same or flags != info.flag_bits or not (sizes_agree or flags & DESCRIPTOR):
        refuse(shown, name, "have the zip header that the directory gives", "another one")
    begin += extra_length
    if info.header_offset + begin + info.compress_size > following:
        refuse(shown, name, "end before the next member begins", "overlap it")
    deflated = method == zipfile.ZIP_DEFLATED
    packed_head = head[begin : begin + info.compress_size]
    try:
        raw = zlib.decompressobj(-15).decompress(packed_head, MAX_HEADER_BYTES) if deflated else packed_head
    except zlib.error as error:
        refuse(shown, name, "be a whole deflate stream", f"what it is ({error})")
    descr, fortran, shape, start = _npy_header(raw[:MAX_HEADER_BYTES], name, shown)
    return Member(
        name=name,
        offset=info.header_offset + begin,
        packed=info.compress_size,
        size=info.file_size,
        deflated=deflated,
        crc=info.CRC,
        descr=descr,
        fortran=fortran,
        shape=shape,
        start=start,
    )


def _npy_header(raw: bytes, name: str, shown: str) -> tuple[str, bool, tuple[int, ...], int]:
    if raw[:6] != b"\x93NUMPY":
        refuse(shown, name, "be a .npy array", "other bytes")
    if raw[6:8] != b"\x01\x00":
        refuse(shown, name, "have a .npy header of version 1.0", f"{raw[6]}.{raw[7]}" if len(raw) > 7 else "none")
    start = 10 + int.from_bytes(raw[8:10], "little")
    if start > len(raw):
        refuse(shown, name, f"have a .npy header within {len(raw)} bytes", f"{start}")
    text = raw[10:start].decode("latin-1")
    match = _HEADER.fullmatch(text)
    if not match or not re.fullmatch(r"(\d+ *,( *\d+)?( *, *\d+)* *)?", match[3]):
        refuse(shown, name, "have a .npy header as numpy writes it", show(text.strip()))
    shape = tuple(int(part) for part in match[3].split(",") if part.strip())
    return match[1], match[2] == "True", shape, start


def _expand(packed: bytes, member: Member, shown: str) -> bytes:
    if len(packed) != member.packed:
        refuse(shown, member.name, f"have {member.packed} bytes in the file", f"{len(packed)}")
    if not member.deflated:
        if member.size != member.packed:
            refuse(shown, member.name, f"hold the {member.size} bytes that it declares", f"{member.packed}")
        return packed
    stream = zlib.decompressobj(-15)
    try:
        raw = stream.decompress(packed, member.size + 1)
    except zlib.error as error:
        refuse(shown, member.name, "be a whole deflate stream", f"what it is ({error})")
    if len(raw) != member.size or not stream.eof or stream.unused_data:
        got = f"more than {member.size}" if len(raw) > member.size else f"{len(raw)}"
        refuse(shown, member.name, f"expand to the {member.size} bytes that it declares", got)
    return raw


def _dtype_name(descr: str) -> str:
    if not re.fullmatch(r"[<>][iuf][248]|\|[iub]1", descr):
        return show(descr)
    return ("big-endian " if descr.startswith(">") else "") + np.dtype(descr).name
