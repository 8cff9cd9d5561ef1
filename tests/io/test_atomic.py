"""A file is written whole or not at all, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.io import npz
from pgsim.io.atomic import replacing
from pgsim.io.trace import load_trace, write_trace
from pgsim.workload.trace import LayerTensors, Trace
from tests.build_trace import build_trace

REPOSITORY = Path(__file__).parents[2]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        write_trace(path, build_trace())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_output_must_not_be_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: the output must be a file, not a folder"


def test_the_output_must_not_be_a_device() -> None:
    assert refusal(Path("/dev/null")) == "/dev/null: the output must be a regular file, not a device or pipe"
    assert Path("/dev/null").is_char_device()


def test_the_output_folder_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "none" / "t.npz"
    assert refusal(path) == f"{path}: the output's folder must be there, not missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_the_output_folder_must_be_writable(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    path = folder / "t.npz"
    assert refusal(path) == f"{path}: the output must be writable, not refused: Permission denied"


def test_a_file_name_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    assert refusal(path) == f"{path}: the output must be writable, not refused: File name too long"
    assert list(tmp_path.iterdir()) == []


class Stream:
    """A stream whose `write` fails after so many calls."""

    def __init__(self, stream: Any, calls: int, error: BaseException):
        self.stream, self.calls, self.error = stream, calls, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stream.close()

    def write(self, data: bytes) -> int:
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return int(self.stream.write(data))


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("calls", [0, 1, 7, 100, 200, 208])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    calls: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(b"the old one")
    counted = []

    def opened(name: Any, mode: str) -> Stream:
        counted.append(Stream(open(name, mode), calls, error))  # noqa: SIM115 - Stream closes it
        return counted[-1]

    monkeypatch.setattr("pgsim.io.atomic.open", opened, raising=False)
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        write_trace(path, build_trace())
    if isinstance(error, OSError):
        expected = f"{path}: the output must be writable, not refused: No space left on device"
        assert str(caught.value) == expected
    else:
        assert caught.type is KeyboardInterrupt
    assert counted[0].calls < 0
    assert path.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["t.npz"]


def test_an_interrupt_between_layers_leaves_nothing(tmp_path: Path) -> None:
    trace = build_trace()

    class Interrupted:
        def tensors(self, index: int) -> LayerTensors:
            if index == 3:
                raise KeyboardInterrupt
            return trace.tensors(index)

        def boundary(self, index: int) -> NDArray[np.int64]:
            raise AssertionError("the trace has no boundary")

    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t.npz", Trace(trace.layers, trace.images, Interrupted()))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_before_the_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "t.npz", build_trace())
    assert list(tmp_path.iterdir()) == []


def test_a_real_limit_on_the_file_size_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from pgsim.errors import InputError
from pgsim.io.trace import write_trace
from tests.build_trace import build_trace
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    write_trace(Path({str(tmp_path / "t.npz")!r}), build_trace())
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    expected = f"{tmp_path / 't.npz'}: the output must be writable, not refused: File too large\n"
    assert done.stdout == expected
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.npz").write_bytes(b"old")
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    write_trace(tmp_path / "link.npz", build_trace())
    assert (tmp_path / "link.npz").is_symlink()
    assert load_trace(tmp_path / "real.npz").images == 2


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_trace(tmp_path / "t.npz", build_trace())
    assert (tmp_path / "t.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_of_the_block_is_passed_on_and_nothing_is_left(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "x") as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_container_is_written_from_a_generator_one_array_at_a_time(tmp_path: Path) -> None:
    alive = []

    def arrays() -> Any:
        for number in range(3):
            alive.append(number)
            yield f"{number:03d}.weight", np.full(4, number, np.int8)

    npz.write_npz(tmp_path / "t.npz", arrays(), check=lambda path: None)
    with np.load(tmp_path / "t.npz") as archive:
        assert [int(archive[f"{number:03d}.weight"].sum()) for number in alive] == [0, 4, 8]
