"""The release's network in float32, as it runs in evaluation: the oracle of what is exported.

image - stem - BN - ReLU = x --+-- conv1 gated - BN - ReLU - conv2 at B bits - BN -(+)- ReLU = x --> next block
                               +------------------- option A shortcut -----------^      9 blocks - pool - classifier

Every scale is dynamic: the largest magnitude of the tensor over the whole batch, plus 1e-7, in float32. So an image's
codes depend on the images beside it, unless all clips are reached. Weights and activations are quantised by sign and
magnitude; the gate is sigmoid(5 (O_hb - Delta)) > 0.5, which in float32 is 0.5 up to some 1e-8 above Delta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pgsim.train.data import MEAN, STD
from pgsim.train.release.state import Norm, ReleaseNet

GATE_SLOPE = 5
SCALE_OFFSET = 1e-7
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Widths:
    """What the state dict does not tell: act_bits B, pred_bits h < B, weight_bits (-a, -pb and -w of the release)."""

    act_bits: int
    pred_bits: int
    weight_bits: int


@dataclass(frozen=True)
class Quantised:
    """A tensor's codes (integers in float32), its scale max + 1e-7, and the real values that the release computes."""

    codes: Tensor
    scale: float
    real: Tensor


@dataclass(frozen=True)
class ConvRun:
    """What one quantised convolution read and gave on the batch.

    `x` and `weight` as quantised; `output` float32 [N, K, P, Q], before batch norm; `predicted` (O_hb) and `mask` of a
    gated one, None else.
    """

    x: Quantised
    weight: Quantised
    output: Tensor
    predicted: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class FloatRun:
    """A batch through the network.

    `convs`: conv1 and conv2 of each block in turn. `streams`: what each block reads, and what the last one gives,
    float32 [N, C, H, W]. `logits` float32 [N, 10].
    """

    convs: tuple[ConvRun, ...]
    streams: tuple[Tensor, ...]
    logits: Tensor


def release_images(pixels: NDArray[np.uint8]) -> Tensor:
    """Normalise images as the release does: uint8 [N, 32, 32, 3] to float32 [N, 3, 32, 32]."""
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(torch.float32) / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def quantise(x: Tensor, bits: int, update_bits: int = 0) -> Quantised:
    """Quantise to `bits` magnitude bits by the tensor's own scale; the real values without the last `update_bits`.

    The codes are of all bits. The order of the float32 operations is the release's.
    """
    magnitude = x.abs()
    scale = magnitude.max() + SCALE_OFFSET
    levels = 2.0**bits - 1.0
    codes = torch.round(torch.clamp(magnitude / scale, 0.0, 1.0) * levels)
    kept = torch.floor(codes / 2.0**update_bits) * 2.0**update_bits
    sign = torch.sign(x)
    return Quantised(codes * sign, float(scale), kept / levels * scale * sign)


def normalise(x: Tensor, norm: Norm) -> Tensor:
    """Return batch norm of x [N, K, P, Q] by the running statistics."""
    return F.batch_norm(x, norm.mean, norm.variance, norm.gamma, norm.beta, eps=NORM_EPSILON)


def activate(x: Tensor, clip: float | None) -> Tensor:
    """Return ReLU of x, clipped where there is a clip (PACT)."""
    return torch.clamp(x, 0.0, clip)


def gated_conv(x: Tensor, weight: Tensor, delta: Tensor, stride: int, widths: Widths) -> ConvRun:
    """Return conv1 of a block over x [N, C, H, W]: predicted by the high bits, updated where the gate opens."""
    w = quantise(weight, widths.weight_bits)
    whole = quantise(x, widths.act_bits)
    high = quantise(x, widths.act_bits, widths.act_bits - widths.pred_bits)
    predicted = F.conv2d(high.real, w.real, None, stride, 1)
    mask = torch.sigmoid(GATE_SLOPE * (predicted - delta.view(1, -1, 1, 1))) > 0.5
    output = predicted + mask * F.conv2d(whole.real - high.real, w.real, None, stride, 1)
    return ConvRun(whole, w, output, predicted, mask)


def dense_conv(x: Tensor, weight: Tensor, widths: Widths) -> ConvRun:
    """Return conv2 of a block over x [N, K, P, Q], at all B bits."""
    w, whole = quantise(weight, widths.weight_bits), quantise(x, widths.act_bits)
    return ConvRun(whole, w, F.conv2d(whole.real, w.real, None, 1, 1))


@torch.no_grad()
def run_float(net: ReleaseNet, images: Tensor, widths: Widths) -> FloatRun:
    """Run one batch, float32 [N, 3, 32, 32], with scales of its own."""
    x = activate(normalise(F.conv2d(images, net.stem, None, 1, 1), net.stem_norm), net.stem_clip)
    convs: list[ConvRun] = []
    streams = [x]
    for block in net.blocks:
        first = gated_conv(x, block.weight1, block.delta, block.stride, widths)
        inner = activate(normalise(first.output, block.norm1), block.clip)
        second = dense_conv(inner, block.weight2, widths)
        pad = (len(block.weight1) - x.shape[1]) // 2
        shortcut = F.pad(x[:, :, :: block.stride, :: block.stride], (0, 0, 0, 0, pad, pad))
        x = activate(normalise(second.output, block.norm2) + shortcut, block.clip)
        convs += [first, second]
        streams.append(x)
    features = F.avg_pool2d(x, x.shape[3]).flatten(1)
    return FloatRun(tuple(convs), tuple(streams), F.linear(features, net.classifier, net.classifier_bias))
