"""One layer of a network as integers see it: geometry, number formats, gate and what follows the accumulator.

Array names used throughout the project (N images, C input channels, K output channels, H x W input pixels,
P x Q output pixels, R x S kernel taps, G groups):

    activation [N, C, H, W] --(*) weight [K, C/G, R, S]--> output [N, K, P, Q] --post--> codes, shortcut
                                  threshold [K] ----------> mask   [N, K, P, Q]

A linear layer is a convolution with a 1 x 1 kernel over a 1 x 1 input; a matmul of M rows is one over M x 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding as Encoding
from pgsim.arith.formats import GatePolicy, NumberFormat


class LayerKind(Enum):
    """What the user calls the layer; all three are the same sum."""

    CONV = "conv"  # activation [N, C, H, W], weight [K, C/G, R, S]
    LINEAR = "linear"  # activation [N, C], weight [K, C]; one pixel an image
    MATMUL = "matmul"  # activation [N, M, C], weight [K, C]; M pixels an image


@dataclass(frozen=True)
class Geometry:
    """Shape of a layer's sum. `padding` is (top, bottom, left, right) in pixels; padded codes are 0."""

    kind: LayerKind
    in_channels: int
    out_channels: int
    in_height: int = 1
    in_width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out_height(self) -> int:
        """P, the rows of the output."""
        top, bottom = self.padding[:2]
        span = self.dilation[0] * (self.kernel[0] - 1) + 1
        return (self.in_height + top + bottom - span) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Q, the columns of the output."""
        left, right = self.padding[2:]
        span = self.dilation[1] * (self.kernel[1] - 1) + 1
        return (self.in_width + left + right - span) // self.stride[1] + 1

    @property
    def out_pixels(self) -> int:
        """P * Q."""
        return self.out_height * self.out_width

    @property
    def group_in_channels(self) -> int:
        """C / G, the input channels that one output channel reads."""
        return self.in_channels // self.groups

    @property
    def group_out_channels(self) -> int:
        """K / G, the output channels of one group."""
        return self.out_channels // self.groups

    @property
    def reduction(self) -> int:
        """MACs of one output, padding taps included: R * S * C / G."""
        return self.kernel[0] * self.kernel[1] * self.group_in_channels

    @property
    def outputs(self) -> int:
        """Outputs of one image: K * P * Q."""
        return self.out_channels * self.out_pixels

    @property
    def macs(self) -> int:
        """MACs of one image, padding taps included."""
        return self.outputs * self.reduction

    @property
    def activation_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image in canonical layout."""
        return (self.in_channels, self.in_height, self.in_width)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(K, P, Q) of one image in canonical layout."""
        return (self.out_channels, self.out_height, self.out_width)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(K, C/G, R, S) in canonical layout."""
        return (self.out_channels, self.group_in_channels, *self.kernel)

    def inside_taps(self) -> NDArray[np.int64]:
        """[P, Q, R, S] of 0 and 1: whether a kernel tap of an output pixel falls on the input and not on padding."""
        rows = _inside(
            self.out_height, self.stride[0], self.padding[0], self.kernel[0], self.dilation[0], self.in_height
        )
        cols = _inside(self.out_width, self.stride[1], self.padding[2], self.kernel[1], self.dilation[1], self.in_width)
        return rows[:, None, :, None] * cols[None, :, None, :]

    def input_pixels(self, row: int, column: int) -> NDArray[np.int64]:
        """[P*Q]: the input pixel, row-major, under kernel tap (row, column) of each output pixel; -1 on padding."""
        out_y, out_x = np.divmod(np.arange(self.out_pixels, dtype=np.int64), self.out_width)
        y = out_y * self.stride[0] - self.padding[0] + row * self.dilation[0]
        x = out_x * self.stride[1] - self.padding[2] + column * self.dilation[1]
        inside = (y >= 0) & (y < self.in_height) & (x >= 0) & (x < self.in_width)
        return np.where(inside, y * self.in_width + x, -1)

    def taps_inside(self) -> NDArray[np.int64]:
        """[P, Q]: kernel taps of each output pixel that fall on the input and not on padding."""
        return self.inside_taps().sum(axis=(2, 3))

    @property
    def useful_macs(self) -> int:
        """MACs of one image whose tap is not padding."""
        return int(self.inside_taps().sum()) * self.out_channels * self.group_in_channels


def _inside(out: int, stride: int, pad: int, taps: int, dilation: int, size: int) -> NDArray[np.int64]:
    position = np.arange(out)[:, None] * stride - pad + np.arange(taps)[None, :] * dilation
    return ((position >= 0) & (position < size)).astype(np.int64)


@dataclass(frozen=True)
class Gate:
    """Precision gate of a layer: `pred_bits` (h) of the B activation bits predict; T_c decides who is updated."""

    pred_bits: int
    threshold: NDArray[np.int64]  # [K]; mask = A_h > T_c, strict and signed
    policy: GatePolicy = GatePolicy.KEEP
    delta: NDArray[np.float64] | None = None  # [K] real thresholds, where the trace has them; T_c is normative


@dataclass(frozen=True)
class Layer:
    """One layer: everything but its activations and recorded outputs, which a Trace hands out on demand.

    `input_name` names the code tensor that feeds it, the `name` of an earlier layer's requantise step or of a
    boundary's, or is None where the recorded activation itself is the boundary: the network's input, a concat.
    In a `recurrent` layer the images are the steps of one sequence, and each waits for the outputs of the one before.
    `act_scale` is the real value of activation code 1 (S_a / Q_a), `weight_scale` [1] or [K] that of weight
    code 1 (S_w / Q_w); their product k is the real value of one accumulator unit (arithmetic.md).
    """

    name: str
    geometry: Geometry
    act: NumberFormat
    weight_format: NumberFormat
    weight: NDArray[np.int16]  # [K, C/G, R, S] canonical
    act_scale: float
    weight_scale: NDArray[np.float64]
    gate: Gate | None = None
    input_name: str | None = None
    post: tuple[PostStep, ...] = ()
    recurrent: bool = False

    @property
    def kind_words(self) -> str:
        """The layer's kind in the words of tables: conv, depthwise conv, grouped conv, linear or matmul."""
        g = self.geometry
        if g.groups == 1:
            return g.kind.value
        return f"{'depthwise' if g.group_in_channels == 1 else 'grouped'} {g.kind.value}"

    @property
    def pred_bits(self) -> int:
        """h of a gated layer; all B bits of one that is not gated."""
        return self.gate.pred_bits if self.gate else self.act.bits

    @property
    def update_bits(self) -> int:
        """l = B - h; 0 for a layer that is not gated."""
        return self.act.bits - self.pred_bits


@dataclass(frozen=True)
class Bias:
    """v <- v + bias[c]; `bias` int64 [K] or [1]."""

    bias: NDArray[np.int64]


@dataclass(frozen=True)
class FixedPoint:
    """v <- (multiplier[c] * v + bias[c] + 2^(shift-1)) >> shift, arithmetic; at shift 0 the rounding term is 0."""

    multiplier: NDArray[np.int64]  # [K] or [1]
    bias: NDArray[np.int64]  # [K] or [1]
    shift: int


@dataclass(frozen=True)
class AddShortcut:
    """v <- v + shortcut, a tensor saved by an earlier `SaveShortcut` or a recorded `Boundary`.

    The shortcut is subsampled by `stride` ([:, :, ::s, ::s]) and padded with `pad_before` and `pad_after`
    zero channels (the option-A shortcut of CIFAR ResNets).
    """

    source: str
    stride: int = 1
    pad_before: int = 0
    pad_after: int = 0


@dataclass(frozen=True)
class Clamp:
    """v <- min(max(v, low), high)."""

    low: int
    high: int


@dataclass(frozen=True)
class SaveShortcut:
    """Keep v under `name` in `bits` bits (unsigned where the clamp before it has low >= 0, else signed)."""

    name: str
    bits: int
    signed: bool = False


@dataclass(frozen=True)
class SumPool:
    """v <- the sum of each `kernel` window at `stride`, no padding; no division."""

    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True)
class MaxPool:
    """v <- the maximum of each `kernel` window at `stride`; padded positions never win."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class Requantise:
    """code <- base + #{j : direction[c] * v >= threshold[c, j]}; saved under `name`.

    `threshold` int64 [K or 1, L], each row non-decreasing, L = codes - 1; `direction` int8 [K or 1], +1 or -1
    (-1 where batch norm's gamma is negative). `base` is the code below all thresholds: 0 for unsigned codes.
    A constant channel has its thresholds out of the accumulator's reach. `shift` int8 [K, 2] moves each channel's codes
    by rows and columns as they are stored (shift networks): that of (y, x) lies at (y + shift[c, 0], x + shift[c, 1]).
    What leaves the map is dropped; a place to which none moves holds code 0.
    """

    name: str
    format: NumberFormat
    threshold: NDArray[np.int64]
    direction: NDArray[np.int8]
    base: int = 0
    shift: NDArray[np.int8] | None = None


@dataclass(frozen=True)
class Logits:
    """v is the network's result; `scale` is the real value of one unit."""

    name: str
    scale: float


PostStep = Bias | FixedPoint | AddShortcut | Clamp | SaveShortcut | SumPool | MaxPool | Requantise | Logits
