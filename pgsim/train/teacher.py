"""The float ResNet: starting point of the fine-tune and, where a recipe asks for it, teacher of the distillation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.errors import InputError
from pgsim.io.atomic import replacing
from pgsim.train.blocks import IMAGE_CLIP, IMAGE_CODE_MAX, STAGES, Block
from pgsim.train.data import CLASSES, open_npz, read_float_weights
from pgsim.train.network import PGResNet

BN_EPS = 1e-5


class FloatResNet:
    """A frozen float32 CIFAR ResNet with batch norm folded into its convolutions; inference only."""

    def __init__(self, arrays: dict[str, NDArray[np.float32]], device: str = "cpu") -> None:
        self.arrays = {name: torch.from_numpy(a).to(device) for name, a in arrays.items()}
        self.blocks = _blocks_per_stage(arrays)
        self.folded = {"conv1": self._fold("conv1", "bn1")}
        for stage in (1, 2, 3):
            for index in range(self.blocks):
                for k in ("1", "2"):
                    name = f"layer{stage}.{index}."
                    self.folded[f"{name}conv{k}"] = self._fold(f"{name}conv{k}", f"{name}bn{k}")

    @property
    def digest(self) -> str:
        """SHA-256 of names and weights, in the order of the names."""
        found = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            found.update(name.encode() + array.cpu().numpy().tobytes())
        return found.hexdigest()

    def _fold(self, conv: str, bn: str) -> tuple[Tensor, Tensor]:
        a = self.arrays
        scale = a[f"{bn}.weight"] / torch.sqrt(a[f"{bn}.running_var"] + BN_EPS)
        weight = (a[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
        return weight, a[f"{bn}.bias"] - a[f"{bn}.running_mean"] * scale

    def __call__(self, image_codes: Tensor) -> Tensor:
        """Return logits [N, 10] of image codes (float32, [N, 3, 32, 32])."""
        return self.logits(image_codes * (IMAGE_CLIP / IMAGE_CODE_MAX))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return logits [N, 10] of normalised images (float32, [N, 3, 32, 32])."""
        x = F.relu_(F.conv2d(images, *self.folded["conv1"], padding=1))
        for stage in (1, 2, 3):
            for index in range(self.blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"layer{stage}.{index}.conv"
                y = F.relu_(F.conv2d(x, *self.folded[f"{name}1"], stride=stride, padding=1))
                y = F.conv2d(y, *self.folded[f"{name}2"], padding=1)
                if stride == 2:
                    pad = x.shape[1] // 2
                    x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
                x = y.add_(x).relu_()
        return F.linear(x.mean((2, 3)), self.arrays["linear.weight"], self.arrays["linear.bias"])


def is_float_resnet(path: Path) -> bool:
    """Tell whether a file is an npz with a float CIFAR ResNet's names; raise InputError for a broken one."""
    return path.suffix == ".npz" and {"layer1.0.conv1.weight", "linear.weight"} <= open_npz(path).keys()


def read_teacher(path: Path, device: str = "cpu") -> FloatResNet:
    """Read a float ResNet of any depth 6n + 2 from an npz file; InputError for missing arrays and wrong shapes."""
    arrays = read_float_weights(path)
    for name, shape in _float_shapes(arrays).items():
        if name not in arrays or arrays[name].shape != shape:
            found = list(arrays[name].shape) if name in arrays else "missing"
            raise InputError(f"{path}: {name} must be {list(shape)}, not {found}")
    return FloatResNet(arrays, device)


def _blocks_per_stage(arrays: Mapping[str, NDArray[np.float32]]) -> int:
    return sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in arrays)


def _float_shapes(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a ResNet with as many blocks a stage as these have in their first."""
    blocks = max(1, _blocks_per_stage(arrays))
    convs = [("conv1", "bn1", 3, STAGES[0])]
    c_in = STAGES[0]
    for stage, c_out in enumerate(STAGES, start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            convs += [(f"{name}.conv1", f"{name}.bn1", c_in, c_out), (f"{name}.conv2", f"{name}.bn2", c_out, c_out)]
            c_in = c_out
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (CLASSES, c_in), "linear.bias": (CLASSES,)}
    for conv, norm, c_in, c_out in convs:
        shapes[f"{conv}.weight"] = (c_out, c_in, 3, 3)
        shapes |= {f"{norm}.{part}": (c_out,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


class TaughtViews:
    """The teacher's logits for every view of every training image, computed on first use and kept in a file.

    The file tells the teacher and the images by their digests; one of others is begun anew.

    Args:
        teacher: the float network.
        path: npz the logits are read from, if it is there, and saved to.
        views: fixed views an image has; with 0 nothing is kept.
        images: number of training images.
        data: digest of the training data.
    """

    def __init__(self, teacher: FloatResNet, path: Path, views: int, images: int, data: str) -> None:
        self.teacher, self.path, self.views, self.data = teacher, path, views, data
        self.logits = np.full((views, images, 10), np.nan, np.float32)
        if views and path.is_file():
            stored = open_npz(path, finite=False)
            logits = stored.get("logits", np.empty(0))
            digests = str(stored.get("teacher")), str(stored.get("data"))
            if digests == (teacher.digest, data) and logits.shape == self.logits.shape:
                self.logits = logits.astype(np.float32)

    def __call__(self, codes: Tensor, view: int, index: NDArray[np.int64]) -> Tensor:
        """Return logits [N, 10] for the images `index` seen through `view`, whose codes are `codes`."""
        if not self.views:
            return self.teacher(codes)
        known = self.logits[view, index]
        if np.isnan(known).any():
            known = self.teacher(codes).cpu().numpy()
            self.logits[view, index] = known
        return torch.from_numpy(known).to(codes.device)

    def save(self) -> None:
        """Write the logits known so far, atomically."""
        if not self.views:
            return
        with replacing(self.path) as stream:
            np.savez(stream, logits=self.logits, teacher=np.array(self.teacher.digest), data=np.array(self.data))


def start_from_float(net: PGResNet, path: Path) -> None:
    """Copy a float ResNet's convolutions, batch norms and classifier into `net`; raise InputError for another depth."""
    arrays = read_float_weights(path)
    blocks = _blocks_per_stage(arrays)
    if blocks != net.blocks_per_stage:
        depths = f"ResNet-{6 * net.blocks_per_stage + 2}, not ResNet-{6 * blocks + 2}"
        raise InputError(f"{path} must hold the float weights of the recipe's network, {depths}")
    pairs: list[tuple[nn.Module, str]] = [(net.stem, "conv1"), (net.bn, "bn1"), (net.classifier, "linear")]
    for position, module in enumerate(net.blocks):
        block = cast(Block, module)
        name = net.block_name(position)
        pairs += [(block.conv1, f"{name}.conv1"), (block.bn1, f"{name}.bn1")]
        pairs += [(block.conv2, f"{name}.conv2"), (block.bn2, f"{name}.bn2")]
    for module, name in pairs:
        for key in ("weight", "bias", "running_mean", "running_var"):
            target = getattr(module, key, None)
            if target is None:
                continue
            source = arrays.get(f"{name}.{key}")
            if source is None or source.shape != tuple(target.shape):
                shape = None if source is None else list(source.shape)
                raise InputError(f"{path}: {name}.{key} must have shape {list(target.shape)}, not {shape}")
            with torch.no_grad():
                target.copy_(torch.from_numpy(source))
