"""Freeze a trained network into the constants of its exact integer function.

Every convolution gives an integer A. With batch norm's running statistics it becomes, in float64,

    y = slope[c] * A + offset[c]

Inside a block the next code is rne(clip(y, 0, alpha) * levels / alpha), a function of A alone. Towards the residual
stream y becomes fixed point, r = (multiplier[c] * A + bias[c] + 2^(shift-1)) >> shift, in one unit for the whole
network; shortcut and branch add, the sum is clamped to [0, high] and its codes are rne(r * levels / high).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.arith.gating import clamped_int64
from pgsim.errors import InputError
from pgsim.nn.codes import weight_codes
from pgsim.nn.functional import integer_threshold
from pgsim.train.blocks import FEATURE_CODE_MAX, IMAGE_CLIP, IMAGE_CODE_MAX, WEIGHTS, Block, Conv, Pact

if TYPE_CHECKING:
    from pgsim.train.network import PGResNet

SHORTCUT_BITS = 16
SHIFT = 16
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ToCodes:
    """The next layer's codes from A alone: slope, offset float64 [K], the clip alpha and its levels.

    `shift` int8 [K, 2]: rows and columns by which each channel's codes move as they are kept.
    """

    slope: FloatArray
    offset: FloatArray
    alpha: float
    levels: int
    shift: NDArray[np.int8] | None = None


@dataclass(frozen=True)
class ToStream:
    """The residual stream from A: int64 [K] multiplier and bias, the shift, the clip in stream units, code levels.

    `add` adds the stream before the block, subsampled by `stride` and padded with `pad` zero channels on both sides.
    """

    multiplier: IntArray
    bias: IntArray
    shift: int
    add: bool
    stride: int
    pad: int
    high: int
    levels: int


@dataclass(frozen=True)
class FrozenConv:
    """One convolution as integers.

    Attributes:
        weight: int8 codes [K, C, R, R] in [-127, 127]; the map is padded by R // 2 pixels on each side.
        act_levels: largest activation code (127 for the signed image codes).
        act_scale, weight_scale: real value of one code; their product is the accumulator's unit.
        update_bits: 0 where the layer is not gated.
        delta, threshold: float64 and int64 [K], of a gated layer.
    """

    name: str
    weight: NDArray[np.int8]
    stride: int
    act_levels: int
    act_scale: float
    weight_scale: float
    update_bits: int
    delta: FloatArray | None
    threshold: IntArray | None
    tail: ToCodes | ToStream

    @property
    def padding(self) -> int:
        """Pixels of code 0 on each side of the map."""
        return self.weight.shape[2] // 2


@dataclass(frozen=True)
class FrozenNet:
    """The whole network as integers, stem to logits.

    Attributes:
        act_bits, pred_bits: B and B_hb; equal where nothing is gated.
        keep: an output that is not updated keeps its prediction; otherwise it is 0.
        stream_unit: real value of one unit of the residual stream.
        feature_alpha: clip of the pooled features; codes are rne(min(mean, alpha) * 255 / alpha).
        pool_area: pixels summed by the pool.
        classifier: int8 codes [10, 64]; `classifier_bias` int64 [10]; `logit_scale` the real value of a logit's unit.
    """

    act_bits: int
    pred_bits: int
    keep: bool
    convs: tuple[FrozenConv, ...]
    stream_unit: float
    feature_alpha: float
    pool_area: int
    classifier: NDArray[np.int8]
    classifier_scale: float
    classifier_bias: IntArray
    logit_scale: float


def codes_of_accumulator(acc: FloatArray, slope: FloatArray, offset: FloatArray, tail: ToCodes) -> FloatArray:
    """Return the codes (float64 integers) of accumulators: rne(clip(slope*A + offset, 0, alpha) * levels / alpha).

    `slope` and `offset` are the tail's, shaped to broadcast against `acc`. Monotone in A, as every step is.
    """
    y = np.clip(acc * slope + offset, 0.0, tail.alpha)
    return np.minimum(np.rint(y * (tail.levels / tail.alpha)), tail.levels)


def codes_of_stream(stream: FloatArray, high: int, levels: int) -> FloatArray:
    """Return the codes (float64 integers) of clamped stream values in [0, high]: rne(r * levels / high)."""
    return np.rint(stream * levels / high)


def codes_of_pool(total: FloatArray, net: FrozenNet) -> FloatArray:
    """Return the 8-bit feature codes (float64 integers) of pooled sums of the stream."""
    mean = np.minimum(total * (net.stream_unit / net.pool_area), net.feature_alpha)
    return np.minimum(np.rint(mean * (FEATURE_CODE_MAX / net.feature_alpha)), FEATURE_CODE_MAX)


def freeze(net: PGResNet) -> FrozenNet:
    """Return the integer constants of a trained network; the network is not changed."""
    stream_pacts = [net.pact] + [cast(Block, b).pact2 for b in net.blocks]
    unit = max(_alpha(p) for p in stream_pacts) / (2**SHORTCUT_BITS - 1)
    levels = 2**net.act_bits - 1
    convs = [_freeze_conv("stem", net.stem, IMAGE_CODE_MAX, IMAGE_CLIP / IMAGE_CODE_MAX, net.bn, net.pact, unit, None)]
    for position, module in enumerate(net.blocks):
        block = cast(Block, module)
        name = net.block_name(position)
        step = cast(ToStream, convs[-1].tail).high * unit / levels
        inner = _freeze_conv(f"{name}.conv1", block.conv1, levels, step, block.bn1, block.pact1, 0.0, None)
        if block.offsets is not None:
            shift = np.array(block.offsets, np.int8)
            inner = replace(inner, tail=replace(cast(ToCodes, inner.tail), shift=shift))
        convs.append(inner)
        step = _alpha(block.pact1) / levels
        convs.append(_freeze_conv(f"{name}.conv2", block.conv2, levels, step, block.bn2, block.pact2, unit, block))
    codes, scale = weight_codes(net.classifier.weight, WEIGHTS)
    logit_scale = _alpha(net.pool) / FEATURE_CODE_MAX * float(scale)
    return FrozenNet(
        act_bits=net.act_bits,
        pred_bits=net.pred_bits,
        keep=net.keep,
        convs=tuple(convs),
        stream_unit=unit,
        feature_alpha=_alpha(net.pool),
        pool_area=64,
        classifier=codes.cpu().numpy().astype(np.int8),
        classifier_scale=float(scale),
        classifier_bias=_whole(_doubles(net.classifier.bias) / logit_scale, "classifier: bias"),
        logit_scale=logit_scale,
    )


def _alpha(pact: Pact) -> float:
    return float(pact.alpha.detach())


def _whole(values: FloatArray, what: str) -> IntArray:
    """Round to int64; raises InputError for what is beyond it, which weights of odd scales give."""
    if not (np.abs(values) < 2.0**63).all():
        raise InputError(f"{what} must stay within int64, not reach {np.abs(values).max():.3g}")
    return np.rint(values).astype(np.int64)


def _doubles(values: Tensor) -> FloatArray:
    return cast(FloatArray, values.detach().cpu().double().numpy())


def _freeze_conv(
    name: str,
    conv: Conv,
    act_levels: int,
    act_scale: float,
    norm: nn.BatchNorm2d,
    pact: Pact,
    unit: float,
    block: Block | None,
) -> FrozenConv:
    codes, step = weight_codes(conv.weight, WEIGHTS)
    weight_scale = float(step)
    k = act_scale * weight_scale
    mean, variance = (_doubles(cast(Tensor, t)) for t in (norm.running_mean, norm.running_var))
    gain = _doubles(norm.weight) / np.sqrt(variance + norm.eps)
    slope, offset = gain * k, _doubles(norm.bias) - gain * mean
    tail: ToCodes | ToStream
    if unit == 0.0:
        tail = ToCodes(slope, offset, _alpha(pact), pact.levels)
    else:
        tail = ToStream(
            multiplier=_whole(slope / unit * 2.0**SHIFT, f"{name}: multiplier"),
            bias=_whole(offset / unit * 2.0**SHIFT, f"{name}: bias"),
            shift=SHIFT,
            add=block is not None,
            stride=block.stride if block else 1,
            pad=block.widen // 2 if block else 0,
            high=max(1, round(_alpha(pact) / unit)),
            levels=pact.levels,
        )
    threshold = None if conv.delta is None else integer_threshold(conv.delta, k, conv.update_bits)
    return FrozenConv(
        name=name,
        weight=codes.to(torch.int8).contiguous().cpu().numpy(),
        stride=conv.stride,
        act_levels=act_levels,
        act_scale=act_scale,
        weight_scale=weight_scale,
        update_bits=conv.update_bits,
        delta=None if conv.delta is None else _doubles(conv.delta),
        threshold=None if threshold is None else clamped_int64(threshold.cpu().numpy()),
        tail=tail,
    )
