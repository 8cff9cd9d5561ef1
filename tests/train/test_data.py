"""Reading data, image codes and augmentation."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.errors import InputError  # noqa: E402
from pgsim.train import data  # noqa: E402
from pgsim.train.checkpoint import load_tensors  # noqa: E402
from tests.train.synthetic import residual, write_images, write_weights  # noqa: E402


def test_images_come_back_from_their_differences(tmp_path: Path) -> None:
    pixels = write_images(tmp_path / "a.npz", 5, 1)
    images = data.read_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.pixels, pixels, strict=True)
    assert images.labels.dtype == np.int64


def test_image_codes_are_the_rounded_normalised_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    codes = data.image_codes(pixels)
    assert codes.dtype == np.int8
    assert codes.shape == (2, 3, 32, 32)
    for n, y, x, c in [(0, 0, 0, 0), (1, 31, 2, 1), (0, 7, 30, 2)]:
        value = (pixels[n, y, x, c] / 255 - (0.485, 0.456, 0.406)[c]) / (0.229, 0.224, 0.225)[c]
        assert codes[n, c, y, x] == round(value / 2.64 * 127)


def test_no_pixel_value_leaves_the_codes_range() -> None:
    table = data.code_table().astype(int)
    assert table.min() == -102
    assert table.max() == 127


def test_a_view_is_a_shifted_and_flipped_image() -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (3, 32, 32, 3)).astype(np.uint8)
    views = data.Views(np.array([4, 0, 8]), np.array([4, 4, 1]), np.array([False, False, True]))
    out = data.augment(pixels, views, np.array([0, 1, 2]))
    np.testing.assert_array_equal(out[0], pixels[0])
    np.testing.assert_array_equal(out[1, 4:], pixels[1, :-4])
    assert (out[1, :4] == 0).all()
    np.testing.assert_array_equal(out[2, :-4, ::-1][:, 3:], pixels[2, 4:, :-3])
    assert (out[2, -4:] == 0).all()


def test_views_are_taken_by_image_and_not_by_position() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    views = data.draw_views(6, np.random.default_rng(3))
    whole = data.augment(pixels, views, np.arange(6))
    np.testing.assert_array_equal(data.augment(pixels, views, np.array([4, 1])), whole[[4, 1]])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.npz must be an npz file, not missing"):
        data.read_images(tmp_path / "nothing.npz")


def test_a_file_that_expands_too_far_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(5000, np.uint8))
    assert len(data.open_npz(path)["a"]) == 5000
    monkeypatch.setattr(data, "MAX_BYTES", 5000)
    with pytest.raises(InputError, match=r"bomb\.npz must expand to at most 5000 bytes, not 5128$"):
        data.open_npz(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    for read in (data.open_npz, load_tensors):
        with pytest.raises(InputError, match=r"x\.npz must be a regular file, not a device or pipe$"):
            read(tmp_path / "x.npz")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(InputError, match=r"b\.npz must be a readable npz file, not broken"):
        data.read_images(tmp_path / "b.npz")


def one_member(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def npy(header: str) -> bytes:
    """An npy file of 64 zero bytes behind this header."""
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.encode().ljust(117) + b"\n" + bytes(64)


def flagged(at: int, in_directory: int, value: int) -> bytes:
    """An npz of one array with a byte changed both in its own header and in the directory."""
    content = bytearray(one_member("a.npy", npy("{'descr':'<f4','fortran_order':False,'shape':(4,)}")))
    content[at] = content[content.find(b"PK\x01\x02") + in_directory] = value
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("{'descr':'<f4','fortran_order':False,'shape':(4,)}"), r"an npz file, not a single array \(npy\)"),
        (b"hello", r"a readable npz file, not broken \(.*\)"),
        (b"", r"a readable npz file, not broken \(.*\)"),
        (flagged(6, 8, 1), r"a readable npz file, not broken \(File 'a\.npy' is encrypted, .*\)"),
        (flagged(8, 10, 99), r"a readable npz file, not broken \(That compression method is not supported\)"),
        (one_member("a.npy", npy("{'descr':'<f4','shape':(4,),")), r"a readable npz file, not broken \(.*\)"),
        (one_member("a.npy", npy("  }}}((( '''")), r"a readable npz file, not broken \(.*\)"),
        (one_member("a.npy", npy("(" * 100)), r"a readable npz file, not broken \(.*\)"),
        (
            one_member("a.npy", npy(f"{{'descr':'<f4','fortran_order':False,'shape':({10**14},)}}")),
            r"a readable npz file, not broken \(.*\)",
        ),
        (
            one_member("a.npy", npy("{'descr':'<f4','fortran_order':False,'shape':(40L,)}")),  # as Python 2 wrote it
            r"a readable npz file, not broken \(.*\)",
        ),
    ],
)
def test_whatever_numpy_raises_for_a_broken_file_is_one_line_and_no_warning(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "b.npz"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(InputError) as caught:
            data.open_npz(path)
    assert re.fullmatch(rf"{re.escape(str(path))} must be {message}", str(caught.value))
    assert seen == []


@pytest.mark.parametrize(("name", "shown"), [("a.txt", r"a\.txt"), ("meta.npy", "meta")])
def test_a_member_that_is_no_array_is_named(tmp_path: Path, name: str, shown: str) -> None:
    (tmp_path / "t.npz").write_bytes(one_member(name, b"hello"))
    with pytest.raises(InputError, match=rf"t\.npz: {shown} must be an array \(npy\), not other data$"):
        data.open_npz(tmp_path / "t.npz")


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", residual=residual(np.zeros((1, 32, 32, 3), np.uint8)))
    with pytest.raises(InputError, match=r"c\.npz must hold an array 'labels', not only \['residual'\]"):
        data.read_images(tmp_path / "c.npz")


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", residual=np.zeros((2, 3, 8, 8), np.uint8), labels=np.zeros(2, np.uint8))
    with pytest.raises(InputError, match=r"residual must be uint8 \[N,3,32,32\], not uint8 \[2, 3, 8, 8\]"):
        data.read_images(tmp_path / "d.npz")


def test_as_many_labels_as_images_are_wanted(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", residual=np.zeros((2, 3, 32, 32), np.uint8), labels=np.zeros(3, np.uint8))
    with pytest.raises(InputError, match=r"labels must be \[2\], not \[3\]"):
        data.read_images(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1, 12], np.uint8), r"labels must be in 0\.\.9, not 12"),
        (np.array([-1, 2], np.int16), r"labels must be in 0\.\.9, not -1"),
        (np.array([1.0, 3.5]), "labels must be integers, not float64"),
    ],
)
def test_labels_are_numbers_of_classes(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / data.TEST_FILE, residual=np.zeros((2, 3, 32, 32), np.uint8), labels=labels)
    with pytest.raises(InputError, match=rf"cifar10_test\.npz: {message}"):
        data.read_test(tmp_path)


def test_weights_are_finite_and_of_a_resnets_shapes(tmp_path: Path) -> None:
    from pgsim.train.teacher import read_teacher

    path = tmp_path / "w.npz"
    write_weights(path, 1)
    arrays = dict(np.load(path))
    assert read_teacher(path).blocks == 3
    for name, bad, message in (
        ("layer2.1.bn1.bias", np.full(32, np.nan, np.float32), r"layer2\.1\.bn1\.bias must be finite, not hold NaN or"),
        ("layer2.1.bn1.bias", np.zeros(31, np.float32), r"layer2\.1\.bn1\.bias must be \[32\], not \[31\]"),
    ):
        np.savez(path, **{**arrays, name: bad})
        with pytest.raises(InputError, match=rf"w\.npz: {message}"):
            read_teacher(path)
    del arrays["layer3.2.conv2.weight"]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"layer3\.2\.conv2\.weight must be \[64, 64, 3, 3\], not missing"):
        read_teacher(path)


@pytest.mark.skipif("PGSIM_DATA" not in os.environ, reason="PGSIM_DATA does not name the CIFAR-10 folder")
def test_the_float_resnet_20_gets_the_known_logits() -> None:
    from pgsim.train.teacher import read_teacher

    folder = Path(os.environ["PGSIM_DATA"])
    images = data.read_test(folder).take(slice(0, 64))
    normalised = (images.pixels / 255 - np.array(data.MEAN)) / np.array(data.STD)
    x = torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()).float() * (127 / 2.64)
    logits = read_teacher(folder / "resnet20_cifar10.npz")(x).numpy()
    expected = np.load(folder / "cifar10_test_ref_logits.npz")["resnet20"][:64]
    np.testing.assert_allclose(logits, expected, atol=2e-3)
