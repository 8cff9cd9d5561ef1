"""Every way in which a trace's archive can be wrong has its own line, word for word."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pgsim.errors import InputError
from pgsim.io.trace import load_trace
from tests.io.read_all import message_of
from tests.io.tamper import npy, patch_entry, repack, take_apart


def bomb(data: bytes) -> bytes:
    """Replace a member by 64 MiB of zeros, told truly."""
    return repack(data, "000.output.npy", npy(np.zeros(2**26, np.int8)))


def renamed(data: bytes, old: str, new: str) -> bytes:
    assert len(old) == len(new)
    return data.replace(old.encode(), new.encode())


def twice(data: bytes) -> bytes:
    return renamed(data, "001.output.npy", "000.output.npy")


def entry_of(data: bytes, name: str) -> zipfile.ZipInfo:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.getinfo(name)


def overlapping(data: bytes) -> bytes:
    """Let one member begin inside the one before it, with a header of its own there."""
    inner, outer = entry_of(data, "000.weight.npy"), entry_of(data, "000.output.npy")
    start = outer.header_offset + 30 + len("000.output.npy") + 40
    header = data[inner.header_offset : inner.header_offset + 30 + len("000.weight.npy")]
    changed = data[:start] + header + data[start + len(header) :]
    return patch_entry(changed, "000.weight.npy", 42, start.to_bytes(4, "little"))


def wrong_crc(data: bytes) -> bytes:
    return patch_entry(data, "000.output.npy", 16, b"\1\2\3\4", local=14)


def zip64_lie(data: bytes) -> bytes:
    """Declare 1 TiB for a member in a zip64 field of the directory."""
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.getinfo("000.output.npy").file_size = 2**40
        archive.comment = b"so that the directory is written anew"
    return stream.getvalue()


def size_lie(size: int) -> Callable[[bytes], bytes]:
    return lambda data: patch_entry(data, "000.output.npy", 24, size.to_bytes(4, "little"), local=22)


def stream_of_other_length(difference: int) -> Callable[[bytes], bytes]:
    """Keep every declared size, but let the deflate stream hold so many bytes more or fewer."""

    def change(data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            content = archive.read("000.output.npy")
        other = content[:difference] if difference < 0 else content + bytes(difference)
        return size_lie(len(content))(repack(data, "000.output.npy", other))

    return change


ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty file": (lambda d: b"", "the trace must be an .npz archive, not an empty file"),
    "text file": (
        lambda d: b"layers: 3\n" * 20,
        "the trace must be a whole .npz archive, not what it is (File is not a zip file)",
    ),
    "a single .npy": (
        lambda d: npy(np.zeros(3)),
        "the trace must be a whole .npz archive, not what it is (File is not a zip file)",
    ),
    "truncated": (
        lambda d: d[: len(d) // 2],
        "the trace must be a whole .npz archive, not what it is (File is not a zip file)",
    ),
    "truncated in the comment": (
        lambda d: d[:-110],
        "the trace must be a whole .npz archive, not what it is (File is not a zip file)",
    ),
    "bytes before it": (
        lambda d: b"#!/bin/sh\n" + d,
        "the archive must begin with its first member, not with 10 other bytes",
    ),
    "member twice": (twice, "000.output must be there once, not twice"),
    "member in a folder": (
        lambda d: renamed(d, "001.output.npy", "00/.output.npy"),
        "the archive must hold members such as 000.weight.npy only, not '00/.output.npy'",
    ),
    "member outside": (
        lambda d: renamed(d, "001.output.npy", "../.output.npy"),
        "the archive must hold members such as 000.weight.npy only, not '../.output.npy'",
    ),
    "a folder": (
        lambda d: renamed(d, "001.output.npy", "001.output.np/"),
        "the archive must hold members such as 000.weight.npy only, not '001.output.np/'",
    ),
    "name with a NUL": (
        lambda d: renamed(d, "001.threshold.npy", "001.thresho.npy\0x"),
        "the archive must hold members such as 000.weight.npy only, not '001.thresho.npy\\x00x'",
    ),
    "a link": (
        lambda d: patch_entry(d, "000.output.npy", 38, (0o120777 << 16).to_bytes(4, "little")),
        "000.output must be a regular file, not a link or a device",
    ),
    "encrypted": (
        lambda d: patch_entry(d, "000.output.npy", 8, b"\1\0", local=6),
        "000.output must be readable by all, not encrypted",
    ),
    "patched data": (
        lambda d: patch_entry(d, "000.output.npy", 8, b"\x20\0", local=6),
        "000.output must be stored or deflated, not method 8 with flags 0x20",
    ),
    "bzip2": (
        lambda d: patch_entry(d, "000.output.npy", 10, b"\x0c\0", local=8),
        "000.output must be stored or deflated, not method 12 with flags 0x0",
    ),
    "zip version 9.9": (
        lambda d: patch_entry(d, "000.output.npy", 6, b"\x63\0"),
        "the trace must be a whole .npz archive, not what it is (zip file version 9.9)",
    ),
    "header of another member": (
        lambda d: patch_entry(d, "000.output.npy", 42, bytes(4)),
        "000.activation must end before the next member begins, not overlap it",
    ),
    "header that is none": (
        lambda d: patch_entry(
            d, "001.output.npy", 42, (entry_of(d, "001.output.npy").header_offset + 1).to_bytes(4, "little")
        ),
        "001.output must have a zip header where the directory says, not other bytes",
    ),
    "two headers that differ": (
        lambda d: patch_entry(d, "000.output.npy", 24, (800).to_bytes(4, "little")),
        "000.output must have the zip header that the directory gives, not another one",
    ),
    "overlapping members": (overlapping, "000.output must end before the next member begins, not overlap it"),
    "wrong CRC": (wrong_crc, "000.output must have CRC-32 04030201, not ITS-CRC"),
    "header lies: smaller": (size_lie(1000), "000.output must have the 2176 bytes of its npy header, not 1000"),
    "header lies: larger": (size_lie(3000), "000.output must have the 2176 bytes of its npy header, not 3000"),
    "header lies: impossible": (
        size_lie(2**31),
        "000.output must expand from PACKED bytes as deflate can, not to 2147483648",
    ),
    "stream ends early": (
        stream_of_other_length(-1),
        "000.output must expand to the 2176 bytes that it declares, not 2175",
    ),
    "stream goes on": (
        stream_of_other_length(1),
        "000.output must expand to the 2176 bytes that it declares, not more than 2176",
    ),
    "zip64 lie": (zip64_lie, "000.output must expand from PACKED bytes as deflate can, not to 1099511627776"),
    "zip64 size without its field": (
        lambda d: patch_entry(d, "000.output.npy", 24, b"\xff\xff\xff\xff", local=22),
        "000.output must expand from PACKED bytes as deflate can, not to 4294967295",
    ),
    "bomb": (bomb, "the trace must expand to at most 1000000 bytes (--max-bytes), not more"),
    "not npy": (
        lambda d: repack(d, "000.output.npy", b"hello" * 9),
        "000.output must be a .npy array, not other bytes",
    ),
    "npy version 2": (
        lambda d: repack(d, "000.output.npy", b"\x93NUMPY\x02\x00\x76\x00\x00\x00" + b" " * 200),
        "000.output must have a .npy header of version 1.0, not 2.0",
    ),
    "npy header too long": (
        lambda d: repack(d, "000.output.npy", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 70000),
        "000.output must have a .npy header within 1024 bytes, not 65545",
    ),
    "npy header with code": (
        lambda d: repack(d, "000.output.npy", b"\x93NUMPY\x01\x00\x0e\x00__import__(1)\n" + b"\0" * 2048),
        "000.output must have a .npy header as numpy writes it, not '__import__(1)'",
    ),
    "bools of 2": (
        lambda d: repack(d, "001.mask.npy", npy(np.zeros((2, 4, 8, 8), np.bool_))[:-1] + b"\2"),
        "001.mask must hold bools of 0 or 1, not a byte of 2",
    ),
    "array changed, digest kept": (
        lambda d: repack(d, "001.output.npy", npy(np.zeros((2, 4, 8, 8), np.int8))),
        "001.output must have the SHA-256 of the metadata, OLD, not NEW",
    ),
    "meta changed, digest kept": (
        lambda d: repack(d, "meta.npy", npy(np.frombuffer(b'{"format":"pgsim-trace"}', np.uint8))),
        "meta_sha256 must be NEW, the SHA-256 of meta, not OLD",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_wrong_archives_are_refused_before_anything_is_made_of_them(case: str, good_file: Path, tmp_path: Path) -> None:
    change, expected = ARCHIVES[case]
    data = good_file.read_bytes()
    (tmp_path / "bad.npz").write_bytes(change(data))
    message = message_of(tmp_path / "bad.npz", max_bytes=10**6 if case == "bomb" else 2**32)
    packed, crc = entry_of(data, "000.output.npy").compress_size, entry_of(data, "000.output.npy").CRC
    pattern = re.escape(f"FILE: {expected}".replace("PACKED", str(packed)).replace("ITS-CRC", f"{crc:08x}"))
    assert re.fullmatch(pattern.replace("OLD", "[0-9a-f]{64}").replace("NEW", "[0-9a-f]{64}"), message)


def test_a_sha256_table_that_lacks_a_member_is_refused(good_file: Path, tmp_path: Path) -> None:
    parts = take_apart(good_file)
    del parts.meta["sha256"]["000.output"]
    parts.write(tmp_path / "bad.npz", refresh=False)
    assert message_of(tmp_path / "bad.npz") == "FILE: sha256.000.output must be there, not missing"


def test_a_sha256_table_with_a_member_too_many_is_refused(good_file: Path, tmp_path: Path) -> None:
    parts = take_apart(good_file)
    parts.meta["sha256"]["000.mask"] = "0" * 64
    parts.write(tmp_path / "bad.npz", refresh=False)
    expected = "FILE: sha256.000.mask must not be there: the archive has no such member"
    assert message_of(tmp_path / "bad.npz") == expected


def test_a_digest_that_is_none_is_refused(good_file: Path, tmp_path: Path) -> None:
    parts = take_apart(good_file)
    parts.meta["sha256"]["000.output"] = "A" * 64
    parts.write(tmp_path / "bad.npz", refresh=False)
    assert message_of(tmp_path / "bad.npz") == f"FILE: sha256.000.output must be 64 hex digits, not '{'A' * 59}..."


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    assert message_of(tmp_path) == "FILE: the trace must be a file, not a folder"


def test_a_device_is_no_trace() -> None:
    assert message_of(Path("/dev/null")) == "FILE: the trace must be a regular file, not a device or pipe"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert message_of(tmp_path / "none.npz") == "FILE: the trace must be there, not missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(good_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.npz"
    path.write_bytes(good_file.read_bytes())
    path.chmod(0)
    assert message_of(path) == "FILE: the file must be readable, not refused: Permission denied"


def test_a_path_with_a_line_break_is_shown_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_trace(tmp_path / "a\nb.npz")
    assert "\n" not in str(caught.value)
    assert "a\\nb.npz': the trace must be there" in str(caught.value)


def test_a_file_that_changes_while_it_is_read_is_refused(good_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(good_file.read_bytes())
    trace = load_trace(path)
    path.write_bytes(good_file.read_bytes() + b" ")
    with pytest.raises(InputError, match="the file must stay as it is while it is read, not change"):
        trace.tensors(0)
