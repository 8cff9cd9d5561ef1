"""A small random network, traced: every layer kind, encoding, policy and post step in eight layers.

The integers are computed here, by plain numpy loops over taps that share nothing with pgsim, so that the trace is a
golden value for the project's engines and not an echo of them.

    0 stem       conv 3x3, 8-bit two's complement, plain     -> fixed point, clamp, save stream0, requantise
    1 keep       conv 3x3 gated 3/2 unsigned                 -> requantise (two channels reversed) to sign-magnitude
    2 zero       conv 1x1 gated 3/1 sign-magnitude, policy zero -> fixed point, add stream0, clamp, save, requantise
    3 depthwise  conv 3x3 stride 2 gated 4/2 two's complement   -> bias, max pool, requantise
    4 grouped    conv 1x3 dilated, uneven padding, plain     -> fixed point, add stream2 (stride 2, padded), sum pool
    5 classifier linear gated 8/4 over a flattened map       -> bias, logits
    6 rows       matmul gated 4/2, a boundary of its own     -> requantise
    7 head       linear over the flattened rows, plain       -> logits
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Gate,
    Geometry,
    Layer,
    LayerKind,
    Logits,
    MaxPool,
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import InMemory, LayerTensors, Trace

Ints = NDArray[np.int64]


UNSIGNED3 = NumberFormat(Encoding.UNSIGNED, 3)
SIGNED3 = NumberFormat(Encoding.SIGN_MAGNITUDE, 3)
TWOS4 = NumberFormat(Encoding.TWOS_COMPLEMENT, 4)
TWOS8 = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
UNSIGNED4 = NumberFormat(Encoding.UNSIGNED, 4)
UNSIGNED8 = NumberFormat(Encoding.UNSIGNED, 8)
SIGNED_WEIGHT8 = NumberFormat(Encoding.SIGN_MAGNITUDE, 8)


@dataclass
class Builder:
    """Grows a trace layer by layer; every layer is computed as it is added."""

    seed: int
    images: int
    layers: list[Layer] = field(default_factory=list)
    items: list[LayerTensors] = field(default_factory=list)
    codes: dict[str, Ints] = field(default_factory=dict)
    shortcuts: dict[str, Ints] = field(default_factory=dict)
    logits: dict[str, Ints] = field(default_factory=dict)
    boundaries: list[Boundary] = field(default_factory=list)
    boundary_values: list[Ints] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def integers(self, bound: int, count: int) -> Ints:
        """Return random integers in [-bound, bound]."""
        return self.random.integers(-bound, bound, (count,), endpoint=True)

    def boundary(
        self, name: str, shape: tuple[int, int, int], bits: int, *, signed: bool = False, codes: Any = None
    ) -> None:
        """Add a boundary of random values; `codes` is called with them and returns their requantisation."""
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        values = self.random.integers(low, high, (self.images, *shape), endpoint=True)
        self.shortcuts[name] = values
        step = None if codes is None else codes(self, values)
        if step is not None:
            self._after(step, values)
        self.boundaries.append(Boundary(name, *shape, bits, signed, step))
        self.boundary_values.append(values)

    def trace(self, info: dict[str, Any]) -> Trace:
        """Return what was built so far."""
        source = InMemory(tuple(self.items), tuple(self.boundary_values))
        return Trace(tuple(self.layers), self.images, source, info, boundaries=tuple(self.boundaries))

    def add(
        self,
        name: str,
        geometry: Geometry,
        act: NumberFormat,
        *,
        pred_bits: int | None = None,
        policy: GatePolicy = GatePolicy.KEEP,
        weight_format: NumberFormat = TWOS8,
        delta: bool = False,
        input_name: str | None = None,
        post: Any = (),
        thresholds: Any = None,
        recurrent: bool = False,
    ) -> None:
        """Add a layer with random weights; `post` is called with the accumulator and returns the steps.

        `thresholds` is called with A_h [N, K, P, Q] and returns [K]; without it half of each channel is updated.
        """
        shape = (self.images, *geometry.activation_shape)
        if input_name is None:
            activation = self.random.integers(act.min_code, act.max_code, shape, endpoint=True)
        else:
            activation = self.codes[input_name].reshape(shape)
        low = weight_format.min_code + (weight_format.encoding is Encoding.TWOS_COMPLEMENT)
        weight = self.random.integers(low, weight_format.max_code, geometry.weight_shape, endpoint=True)
        act_scale = float(self.random.uniform(0.01, 2.0))
        weight_scale = self.random.uniform(1e-3, 1e-1, geometry.out_channels if delta else 1)
        gate, mask = None, None
        if pred_bits is None:
            output = dense(activation, weight, geometry)
        else:
            low_bits = act.bits - pred_bits
            q_h, q_l = planes(activation, act.encoding, low_bits)
            a_h, a_l = dense(q_h, weight, geometry), dense(q_l, weight, geometry)
            threshold = np.median(a_h, axis=(0, 2, 3)).astype(np.int64) if thresholds is None else thresholds(a_h)
            real = None
            if delta:
                real = threshold * (act_scale * weight_scale) * 2.0**low_bits * 1.01
                threshold = exact_thresholds(real, act_scale, weight_scale, low_bits)
            gate = Gate(pred_bits, threshold, policy, real)
            mask = a_h > threshold[None, :, None, None]
            kept = a_h * 2**low_bits if policy is GatePolicy.KEEP else np.zeros_like(a_h)
            output = np.where(mask, a_h * 2**low_bits + a_l, kept)
        steps: list[PostStep] = []
        value = output
        for make in post:
            step = make(self, value)
            value = self._after(step, value)
            steps.append(step)
        narrow = weight.astype(np.int16)
        numbers = (narrow, act_scale, weight_scale, gate, input_name, tuple(steps), recurrent)
        self.layers.append(Layer(name, geometry, act, weight_format, *numbers))
        self.items.append(LayerTensors(activation.astype(np.int16), output, mask))

    def _after(self, step: PostStep, v: Ints) -> Ints:
        if isinstance(step, Bias):
            return v + step.bias.reshape(1, -1, 1, 1)
        if isinstance(step, FixedPoint):
            half = 2**step.shift // 2 if step.shift else 0
            total = v * step.multiplier.reshape(1, -1, 1, 1) + step.bias.reshape(1, -1, 1, 1) + half
            return np.floor_divide(total, 2**step.shift)
        if isinstance(step, AddShortcut):
            source = self.shortcuts[step.source][:, :, :: step.stride, :: step.stride]
            return v + np.pad(source, ((0, 0), (step.pad_before, step.pad_after), (0, 0), (0, 0)))
        if isinstance(step, Clamp):
            return np.minimum(np.maximum(v, step.low), step.high)
        if isinstance(step, SaveShortcut):
            self.shortcuts[step.name] = v
        elif isinstance(step, SumPool | MaxPool):
            return pooled(v, step)
        elif isinstance(step, Requantise):
            directed = v * step.direction.astype(np.int64).reshape(1, -1, 1, 1)
            reached = directed[..., None] >= step.threshold.reshape(1, len(step.threshold), 1, 1, -1)
            codes = step.base + reached.sum(axis=-1)
            self.codes[step.name] = codes if step.shift is None else moved(codes, step.shift)
        elif isinstance(step, Logits):
            self.logits[step.name] = v
        return v


def planes(codes: Ints, encoding: Encoding, low_bits: int) -> tuple[Ints, Ints]:
    """Split codes into their high and low planes."""
    if encoding is Encoding.SIGN_MAGNITUDE:
        high = np.sign(codes) * (np.abs(codes) // 2**low_bits)
    else:
        high = np.floor_divide(codes, 2**low_bits)
    return high, codes - high * 2**low_bits


def dense(codes: Ints, weight: Ints, g: Geometry) -> Ints:
    """Sum codes * weight over each window: one product of pixels and weights a tap and group."""
    padded = np.pad(codes, ((0, 0), (0, 0), g.padding[:2], g.padding[2:]))
    out = np.zeros((len(codes), *g.output_shape), np.int64)
    each_in, each_out = g.in_channels // g.groups, g.out_channels // g.groups
    for group in range(g.groups):
        outs = slice(group * each_out, (group + 1) * each_out)
        ins = slice(group * each_in, (group + 1) * each_in)
        for r in range(g.kernel[0]):
            for s in range(g.kernel[1]):
                rows = slice(r * g.dilation[0], r * g.dilation[0] + g.out_height * g.stride[0], g.stride[0])
                columns = slice(s * g.dilation[1], s * g.dilation[1] + g.out_width * g.stride[1], g.stride[1])
                pixels = padded[:, ins, rows, columns][:, :, : g.out_height, : g.out_width]
                out[:, outs] += np.einsum("ncpq,kc->nkpq", pixels, weight[outs, :, r, s])
    return out


def pooled(v: Ints, step: SumPool | MaxPool) -> Ints:
    """Pool window by window."""
    if isinstance(step, MaxPool):
        top, bottom, left, right = step.padding
        v = np.pad(v, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-(2**62))
    rows = (v.shape[2] - step.kernel[0]) // step.stride[0] + 1
    columns = (v.shape[3] - step.kernel[1]) // step.stride[1] + 1
    out = np.zeros((*v.shape[:2], rows, columns), np.int64)
    for p in range(rows):
        for q in range(columns):
            y, x = p * step.stride[0], q * step.stride[1]
            window = v[:, :, y : y + step.kernel[0], x : x + step.kernel[1]]
            out[:, :, p, q] = window.max(axis=(2, 3)) if isinstance(step, MaxPool) else window.sum(axis=(2, 3))
    return out


def moved(codes: Ints, shift: NDArray[np.int8]) -> Ints:
    """Move each channel's codes, place by place."""
    out = np.zeros_like(codes)
    _, channels, height, width = codes.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                to_y, to_x = y + int(shift[c, 0]), x + int(shift[c, 1])
                if 0 <= to_y < height and 0 <= to_x < width:
                    out[:, c, to_y, to_x] = codes[:, c, y, x]
    return out


def exact_thresholds(delta: NDArray[np.float64], act_scale: float, weight_scale: Any, low_bits: int) -> Ints:
    """Return floor(delta / (k 2^l)) by rational arithmetic."""
    scales = np.broadcast_to(weight_scale, delta.shape)
    units = [Fraction(act_scale) * Fraction(float(scale)) * 2**low_bits for scale in scales]
    return np.array([floor(Fraction(float(d)) / unit) for d, unit in zip(delta, units, strict=True)], np.int64)


def requantise(
    name: str,
    form: NumberFormat,
    *,
    reversed_channels: int = 0,
    per_channel: bool = True,
    shift: NDArray[np.int8] | None = None,
) -> Any:
    """Thresholds that spread the values of each channel over all codes."""

    def make(builder: Builder, v: Ints) -> Requantise:
        channels = v.shape[1]
        base = form.min_code + (form.encoding is Encoding.TWOS_COMPLEMENT)  # -127 .. 127, as the recipes do
        levels = form.max_code - base
        direction = np.ones(channels, np.int8)
        direction[:reversed_channels] = -1
        spread = max(1, int(np.abs(v).max()))
        rows = channels if per_channel else 1
        threshold = np.sort(builder.random.integers(-spread, spread, (rows, levels), endpoint=True), axis=1)
        return Requantise(name, form, threshold, direction if per_channel else direction[:1], base, shift)

    return make


def _bias(builder: Builder, v: Ints) -> Bias:
    return Bias(builder.integers(100, v.shape[1]))


def _fixed_point(builder: Builder, v: Ints) -> FixedPoint:
    return FixedPoint(builder.integers(2**12, v.shape[1]), builder.integers(2**20, v.shape[1]), 14)


def step(fixed: PostStep) -> Any:
    """A post step that does not depend on the values."""
    return lambda builder, v: fixed


def build_trace(seed: int = 0, images: int = 2) -> Trace:
    """Return the network of the module's docstring over `images` random images."""
    return _built(seed, images)[0]


def build_with_logits(seed: int = 0, images: int = 2) -> tuple[Trace, dict[str, Ints]]:
    """Return the trace of `build_trace` and its logits by name."""
    trace, builder = _built(seed, images)
    return trace, builder.logits


def _built(seed: int, images: int) -> tuple[Trace, Builder]:
    b = Builder(seed, images)
    conv, same = LayerKind.CONV, (1, 1, 1, 1)
    stream = [_fixed_point, step(Clamp(0, 60000))]
    b.add(
        "stem",
        Geometry(conv, 3, 4, 8, 8, (3, 3), padding=same),
        TWOS8,
        post=[*stream, step(SaveShortcut("stream0", 16)), requantise("stem.codes", UNSIGNED3, per_channel=False)],
    )
    b.add(
        "keep",
        Geometry(conv, 4, 4, 8, 8, (3, 3), padding=same),
        UNSIGNED3,
        pred_bits=2,
        delta=True,
        input_name="stem.codes",
        post=[requantise("keep.codes", SIGNED3, reversed_channels=2)],
    )
    b.add(
        "zero",
        Geometry(conv, 4, 4, 8, 8),
        SIGNED3,
        pred_bits=1,
        policy=GatePolicy.ZERO,
        weight_format=SIGNED_WEIGHT8,
        input_name="keep.codes",
        post=[
            _fixed_point,
            step(AddShortcut("stream0")),
            step(Clamp(-30000, 30000)),
            step(SaveShortcut("stream2", 16, signed=True)),
            requantise("zero.codes", TWOS4),
        ],
    )
    b.add(
        "depthwise",
        Geometry(conv, 4, 4, 8, 8, (3, 3), stride=(2, 2), padding=same, groups=4),
        TWOS4,
        pred_bits=2,
        input_name="zero.codes",
        post=[_bias, step(MaxPool((2, 2), (1, 1), (0, 1, 1, 0))), requantise("depthwise.codes", UNSIGNED4)],
    )
    b.add(
        "grouped",
        Geometry(conv, 4, 6, 4, 4, (1, 3), padding=(0, 0, 3, 1), dilation=(1, 2), groups=2),
        UNSIGNED4,
        input_name="depthwise.codes",
        post=[
            _fixed_point,
            step(AddShortcut("stream2", 2, 1, 1)),
            step(SumPool((2, 2), (2, 2))),
            requantise("grouped.codes", UNSIGNED8),
        ],
    )
    b.add(
        "classifier",
        Geometry(LayerKind.LINEAR, 24, 5),
        UNSIGNED8,
        pred_bits=4,
        input_name="grouped.codes",
        post=[_bias, step(Logits("scores", 0.125))],
    )
    b.add(
        "rows",
        Geometry(LayerKind.MATMUL, 5, 4, 3),
        UNSIGNED4,
        pred_bits=2,
        delta=True,
        post=[requantise("rows.codes", UNSIGNED4)],
    )
    b.add(
        "head", Geometry(LayerKind.LINEAR, 12, 3), UNSIGNED4, input_name="rows.codes", post=[step(Logits("out", 1.0))]
    )
    labels = b.logits["out"][:, :, 0, 0].argmax(axis=1).tolist()
    info = {
        "model": "small",
        "dataset": "random",
        "samples": list(range(images)),
        "labels": labels,
        "predictions": labels,
        "seed": seed,
    }
    return Trace(tuple(b.layers), images, InMemory(tuple(b.items)), info), b
