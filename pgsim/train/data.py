"""Read CIFAR-10 and float weights from a folder of npz files, and turn images into signed 8-bit codes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor

from pgsim.errors import InputError
from pgsim.io.strict import check_regular
from pgsim.train.blocks import IMAGE_CLIP, IMAGE_CODE_MAX

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CROP_PADDING = 4
TRAIN_FILES = tuple(f"cifar10_train_{k}.npz" for k in range(1, 6))
TEST_FILE = "cifar10_test.npz"
CLASSES = 10
MAX_BYTES = 1 << 30
"""What an npz file of data or weights may expand to; CIFAR-10's training files have 31 MB each."""


@dataclass(frozen=True)
class Images:
    """Images uint8 [N, H, W, 3] (RGB, CIFAR-10: 32 x 32) with labels int64 [N]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64] | slice) -> Images:
        """Return the images at `index`, in that order."""
        return Images(self.pixels[index], self.labels[index])


def open_npz(path: Path, *, finite: bool = True) -> dict[str, NDArray[np.generic]]:
    """Read every array of an npz file.

    A missing or broken file, one that expands past `MAX_BYTES`, or with `finite` one with NaN or infinity in it, is an
    InputError that names it.
    """
    check_regular(path)
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that another Python wrote
            archive = np.load(stream, allow_pickle=False)
            arrays = None
            if isinstance(archive, NpzFile) and archive.zip is not None:
                # Of a member no more is read than the directory says.
                expanded = sum(member.file_size for member in archive.zip.infolist())
                if expanded > MAX_BYTES:
                    raise InputError(f"{path} must expand to at most {MAX_BYTES} bytes, not {expanded}")
                arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path} must be an npz file, not missing") from None
    except InputError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds for a broken file, and document none
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} must be a readable npz file, not broken ({why})") from None
    if arrays is None:
        raise InputError(f"{path} must be an npz file, not a single array (npy)")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: {name} must be an array (npy), not other data")
        if finite and np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise InputError(f"{path}: {name} must be finite, not hold NaN or infinity")
    return arrays


def read_images(path: Path, size: int = 32) -> Images:
    """Read one file of images: `residual` uint8 [N, 3, size, size] (differences modulo 256) and `labels` [N]."""
    arrays = open_npz(path)
    for name in ("residual", "labels"):
        if name not in arrays:
            raise InputError(f"{path} must hold an array '{name}', not only {sorted(arrays)}")
    residual, labels = arrays["residual"], arrays["labels"]
    if residual.dtype != np.uint8 or residual.ndim != 4 or residual.shape[1:] != (3, size, size):
        raise InputError(
            f"{path}: residual must be uint8 [N,3,{size},{size}], not {residual.dtype} {list(residual.shape)}"
        )
    if labels.shape != residual.shape[:1]:
        raise InputError(f"{path}: labels must be [{len(residual)}], not {list(labels.shape)}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: labels must be integers, not {labels.dtype}")
    x = residual.cumsum(3, dtype=np.uint8).cumsum(2, dtype=np.uint8)
    x[:, [0, 2]] += x[:, 1:2]
    return Images(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), labels.astype(np.int64))


def read_train(folder: Path) -> Images:
    """Read the 50,000 training images in their official order."""
    parts = [_of_ten_classes(folder / name) for name in TRAIN_FILES]
    return Images(np.concatenate([p.pixels for p in parts]), np.concatenate([p.labels for p in parts]))


def read_test(folder: Path) -> Images:
    """Read the 10,000 test images in their official order."""
    return _of_ten_classes(folder / TEST_FILE)


def _of_ten_classes(path: Path) -> Images:
    images = read_images(path)
    odd = images.labels[(images.labels < 0) | (images.labels >= CLASSES)]
    if odd.size:
        raise InputError(f"{path}: labels must be in 0..{CLASSES - 1}, not {odd[0]}")
    return images


def code_table() -> NDArray[np.int8]:
    """Return the code of every pixel value: int8 [256, 3], rne((v/255 - mean)/std / 2.64 * 127), |code| <= 127."""
    value = np.arange(256, dtype=np.float64)[:, None] / 255.0
    normalised = (value - np.array(MEAN)) / np.array(STD)
    codes = np.rint(normalised / IMAGE_CLIP * IMAGE_CODE_MAX)
    return np.clip(codes, -IMAGE_CODE_MAX, IMAGE_CODE_MAX).astype(np.int8)


def image_codes(pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Quantise images: uint8 [N, 32, 32, 3] to int8 codes [N, 3, 32, 32] in [-127, 127]."""
    table = code_table()
    planes = [table[pixels[..., c], c] for c in range(3)]
    return np.stack(planes, axis=1)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """Return images uint8 [N, 32, 32, 3] as (v/255 - mean)/std, float32 [N, 3, 32, 32], channels last."""
    x = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def as_tensor(codes: NDArray[np.int8]) -> Tensor:
    """Return int8 codes [N, C, H, W] as a channels-last float32 tensor of the same integers."""
    return torch.from_numpy(np.ascontiguousarray(codes)).to(torch.float32, memory_format=torch.channels_last)


@dataclass(frozen=True)
class Views:
    """One random view of every image: crop offsets in 0..8 and a flip, each [N]."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]


def draw_views(count: int, generator: np.random.Generator) -> Views:
    """Draw a view for each of `count` images."""
    top, left = generator.integers(0, 2 * CROP_PADDING + 1, size=(2, count))
    return Views(top, left, generator.random(count) < 0.5)


def augment(pixels: NDArray[np.uint8], views: Views, index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the views of images `index`: padded by 4 black pixels, cropped to 32x32, flipped where drawn so."""
    n, height, width = len(index), pixels.shape[1], pixels.shape[2]
    padded = np.pad(pixels[index], ((0, 0), (CROP_PADDING,) * 2, (CROP_PADDING,) * 2, (0, 0)))
    columns = np.arange(width)
    columns = np.where(views.flip[index, None], columns[::-1], columns) + views.left[index, None]
    rows = np.arange(height) + views.top[index, None]
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def read_float_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read a float ResNet: PyTorch names, float32 arrays."""
    arrays = open_npz(path)
    if "conv1.weight" not in arrays or "linear.weight" not in arrays:
        raise InputError(
            f"{path} must hold ResNet weights (conv1.weight, linear.weight, ...), not {sorted(arrays)[:4]}"
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path}: {name} must be numbers, not {array.dtype}")
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        if max(-low, high) > float(np.finfo(np.float32).max):
            raise InputError(f"{path}: {name} must be in float32's range, not up to {max(-low, high):g}")
        if name.endswith("running_var") and low < 0:
            raise InputError(f"{path}: {name} must be 0 or more, not {low:g}")
    return {name: array.astype(np.float32) for name, array in arrays.items()}
