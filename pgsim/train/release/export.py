"""Export the release's network as a trace: its scales frozen to those of one batch, its codes those of the float run.

                          boundary "stem" [N, 16, 32, 32] of the float stem
                             | requantise                        |
    layer1.0.conv1 gated <---'                                   |
      A -- requantise --> layer1.0.conv2, dense                  |
                            A -- fixed point -- add <------------'  clamp -- save, requantise --> layer1.1.conv1 ...

Every layer's recorded activation holds the codes of the float run. Between layers integers compute them; an activation
whose codes float32 rounding decided otherwise than exact arithmetic, and no threshold can mend, is recorded on its own:
the layer that reads it has no input name. Stem, pooling and classifier stay outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import post
from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.arith.gating import integer_thresholds
from pgsim.arith.thresholds import bisect_thresholds
from pgsim.errors import InputError
from pgsim.model.inference import LayerValues, fast_engine
from pgsim.train.frozen import SHORTCUT_BITS
from pgsim.train.release.forward import NORM_EPSILON, SCALE_OFFSET, ConvRun, FloatRun, Widths
from pgsim.train.release.state import Block, Norm, ReleaseNet
from pgsim.train.release.thresholds import fit_thresholds
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import (
    AddShortcut,
    Clamp,
    FixedPoint,
    Gate,
    Geometry,
    Layer,
    LayerKind,
    Logits,
    PostStep,
    Requantise,
    SaveShortcut,
)
from pgsim.workload.trace import InMemory, LayerTensors, Trace

SHORTCUT_CHOICES = (SHORTCUT_BITS, 20, 24, 32)
MAX_SHIFT = 24
ROUNDING = 1e-5  # what float32 sums may be off by, relative to max(1, |value|)
FORWARD = np.ones(1, np.int8)
FLOAT32_MAX = float(np.finfo(np.float32).max)
STEM = "stem"

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Integers beside the float run, over all layers.

    Attributes:
        masks: mask bits; `masks_differing` of them are not the float gate's, `masks_unexplained` although
            |k 2^l A_h - Delta| is above 1e-5 max(1, |O|).
        output_error: the largest |k A - O| where the masks agree.
        unlinked: layers whose codes are recorded on their own.
    """

    masks: int
    masks_differing: int
    masks_unexplained: int
    output_error: float
    unlinked: tuple[str, ...]

    def as_info(self) -> dict[str, Any]:
        """Return plain values for a trace's metadata."""
        return {
            "mask_bits": self.masks,
            "mask_bits_differing": self.masks_differing,
            "mask_bits_differing_beyond_rounding": self.masks_unexplained,
            "largest_output_error": self.output_error,
            "layers_with_codes_of_their_own": list(self.unlinked),
        }


def build_release_trace(
    net: ReleaseNet, widths: Widths, run: FloatRun, info: Mapping[str, Any], shortcut_bits: int | None = None
) -> tuple[Trace, Comparison]:
    """Return the trace of the batch that `run` is of, and how its integers compare with the floats.

    The boundary and the shortcuts have `shortcut_bits` bits and one unit, that of the largest clip; without clips that
    of the batch's largest activation. Two floats within one unit may have had two codes, so that None takes the first
    of SHORTCUT_CHOICES that leaves the fewest layers with codes of their own.
    The comparison and the classes of the float logits (`predictions`) are added to `info`. Raises InputError where the
    float run or a batch norm leaves the numbers that a trace can have.
    """
    _check_finite(net, run)
    first, *wider = SHORTCUT_CHOICES if shortcut_bits is None else (shortcut_bits,)
    export = _Export(net, widths, run, first)
    for bits in wider:
        if not export.unlinked:
            break
        export = min(export, _Export(net, widths, run, bits), key=lambda one: len(one.unlinked))  # of equals the first
    compared = export.comparison()
    extra = {"float32": compared.as_info(), "predictions": run.logits.argmax(dim=1).tolist()}
    source = InMemory(tuple(export.tensors), (export.first,))
    return Trace(tuple(export.layers), len(run.logits), source, {**info, **extra}, "", (export.boundary,)), compared


def _check_finite(net: ReleaseNet, run: FloatRun) -> None:
    """Refuse a float run with NaN or infinity, by the first place that has one."""
    found = [("the stem", run.streams[0])]
    for number, block in enumerate(net.blocks):
        first, second = (conv.output for conv in run.convs[2 * number : 2 * number + 2])
        stream = run.streams[number + 1]
        found += [(f"{block.name}.conv1", first), (f"{block.name}.conv2", second), (block.name, stream)]
    for name, values in [*found, ("the classifier", run.logits)]:
        if not bool(values.isfinite().all()):
            raise InputError(f"{name}: outputs of the float network must be finite on these images, not overflow")


@dataclass
class _Export:
    """The layers so far, what the next one reads, and the comparison's counts."""

    net: ReleaseNet
    widths: Widths
    run: FloatRun
    shortcut_bits: int
    layers: list[Layer] = field(default_factory=list)
    tensors: list[LayerTensors] = field(default_factory=list)
    masks: int = 0
    differing: int = 0
    unexplained: int = 0
    error: float = 0.0
    boundary: Boundary = field(init=False)

    def __post_init__(self) -> None:
        clips = [self.net.stem_clip, *(block.clip for block in self.net.blocks)]
        seen = max(float(stream.max()) for stream in self.run.streams) + SCALE_OFFSET
        self.largest = 2**self.shortcut_bits - 1
        self.unit = max(seen if clip is None else clip for clip in clips) / self.largest
        self.act = NumberFormat(Encoding.UNSIGNED, self.widths.act_bits)
        self.stream_name = STEM
        self.first = self.stream = self._stem()
        self.input_name: str | None = None
        self._build()

    @property
    def unlinked(self) -> tuple[str, ...]:
        """Layers whose codes are recorded on their own."""
        return tuple(layer.name for layer in self.layers if layer.input_name is None)

    def _build(self) -> None:
        """Add the stem's output, whose codes feed the first layer, and all blocks."""
        step = self._requantise_stream(f"{STEM}.codes", 0)
        channels, height, width = self.first.shape[1:]
        self.boundary = Boundary(STEM, channels, height, width, self.shortcut_bits, requantise=step)
        for number, block in enumerate(self.net.blocks):
            self._add_block(number, block)

    def _stem(self) -> Int64s:
        """Return the stem's output in units: rounded, or to the other side where only that has the float run's code."""
        reader = self.run.convs[0]
        real = self.run.streams[0].double().numpy() / self.unit
        rounded = np.rint(real)
        nearest, other = (
            np.clip(v, 0, self.largest).astype(np.int64) for v in (rounded, rounded + np.where(real > rounded, 1, -1))
        )
        nominal = np.repeat(self._nominal(reader), real.shape[1], axis=0)
        codes = reader.x.codes.numpy().astype(np.int64)
        missed = post.requantise(nearest, nominal, FORWARD) != codes
        met = post.requantise(other, nominal, FORWARD) == codes
        return np.where(missed & met, other, nearest)

    def _add_block(self, number: int, block: Block) -> None:
        """Add both layers of a block."""
        first, second = self.run.convs[2 * number : 2 * number + 2]
        values = self._add_layer(f"{block.name}.conv1", first, block.stride, block)
        self._set_post((self._requantise_sums(f"{block.name}.conv1.codes", block, first, second, values.output),))
        values = self._add_layer(f"{block.name}.conv2", second, 1, None)
        to_stream = _fixed_point(block.norm2, self.layers[-1], self.unit)
        pad = (len(block.weight1) - self.stream.shape[1]) // 2
        clamp = Clamp(0, self.largest if block.clip is None else round(block.clip / self.unit))
        v = post.fixed_point(values.output, to_stream.multiplier, to_stream.bias, to_stream.shift)
        v = post.add_shortcut(v, self.stream, block.stride, pad, pad)
        self.stream = post.clamp(v, clamp.low, clamp.high)
        steps: tuple[PostStep, ...] = (to_stream, AddShortcut(self.stream_name, block.stride, pad, pad), clamp)
        if number + 1 == len(self.net.blocks):
            self._set_post((*steps, Logits("features", self.unit)))
            return
        self.stream_name = f"{block.name}.stream"
        save = SaveShortcut(self.stream_name, self.shortcut_bits)
        self._set_post((*steps, save, self._requantise_stream(f"{block.name}.codes", number + 1)))

    def comparison(self) -> Comparison:
        """Return what was counted."""
        return Comparison(self.masks, self.differing, self.unexplained, self.error, self.unlinked)

    def _add_layer(self, name: str, conv: ConvRun, stride: int, gated: Block | None) -> LayerValues:
        """Add a layer over the codes of the float run, gated by a block's thresholds, and compare it."""
        weight = conv.weight.codes.numpy().astype(np.int16)
        codes = conv.x.codes.numpy().astype(np.int16)
        channels, size = codes.shape[1:3]
        weight_format = NumberFormat(Encoding.SIGN_MAGNITUDE, self.widths.weight_bits)
        act_scale = conv.x.scale / self.act.max_code
        weight_scale = np.array([conv.weight.scale / weight_format.max_code])
        gate = None
        if gated is not None:
            delta = gated.delta.double().numpy()
            update_bits = self.widths.act_bits - self.widths.pred_bits
            threshold = integer_thresholds(delta, act_scale, weight_scale, update_bits)
            gate = Gate(self.widths.pred_bits, threshold, delta=delta)
        shape = Geometry(LayerKind.CONV, channels, len(weight), size, size, (3, 3), (stride, stride), (1, 1, 1, 1))
        layer = Layer(name, shape, self.act, weight_format, weight, act_scale, weight_scale, gate, self.input_name)
        values = fast_engine(layer, codes)
        self.layers.append(layer)
        self.tensors.append(LayerTensors(codes, values.output, values.mask))
        self._compare(layer, conv, values)
        return values

    def _set_post(self, steps: tuple[PostStep, ...]) -> None:
        self.layers[-1] = replace(self.layers[-1], post=steps)

    def _compare(self, layer: Layer, conv: ConvRun, values: LayerValues) -> None:
        output = conv.output.double().numpy()
        error = np.abs(values.output * _k(layer) - output)
        if layer.gate is not None and conv.mask is not None:
            assert layer.gate.delta is not None
            assert values.mask is not None
            differs = values.mask != conv.mask.numpy()
            self.masks += differs.size
            self.differing += int(differs.sum())
            if differs.any():
                high = fast_engine(replace(layer, gate=None), self.tensors[-1].activation >> layer.update_bits).output
                distance = np.abs(_k(layer) * 2**layer.update_bits * high - layer.gate.delta[:, None, None])
                self.unexplained += int((differs & (distance > ROUNDING * np.maximum(1, np.abs(output)))).sum())
            error = error[~differs]
        self.error = max(self.error, float(error.max(initial=0.0)))

    def _requantise_sums(self, name: str, block: Block, conv: ConvRun, reader: ConvRun, sums: Int64s) -> Requantise:
        """Return thresholds on the accumulator of a block's conv1 for the codes that its conv2 reads."""
        k = _k(self.layers[-1])
        slope, offset = _affine(block.norm1)
        direction = np.where(slope < 0, -1, 1).astype(np.int8)
        signed_slope = (np.abs(slope) * k)[:, None]
        clip = np.inf if block.clip is None else block.clip

        def codes_of(v: Float64s) -> Float64s:
            return self._codes_of_real(np.clip(v * signed_slope + offset[:, None], 0, clip), reader.x.scale)

        most = _reachable(self.layers[-1])
        nominal = bisect_thresholds(codes_of, -most, most, self.act.max_code)
        largest = np.abs(conv.output.double().numpy()).max(axis=(0, 2, 3))
        reach = np.ceil(ROUNDING * np.maximum(1, largest) / k).astype(np.int64)
        turned = sums * direction[:, None, None].astype(np.int64)
        return self._fitted(name, nominal, turned, reader, reach, direction)

    def _requantise_stream(self, name: str, number: int) -> Requantise:
        """Return thresholds on stream `number` for the codes that the next block's conv1 reads."""
        reader = self.run.convs[2 * number]
        nominal = self._nominal(reader)
        channels = self.stream.shape[1]
        largest = float(self.run.streams[number].max())
        rounded = (number + 1) // 2 + 1  # a unit in the boundary, half a one in each block before
        reach = np.full(channels, int(np.ceil(ROUNDING * max(1.0, largest) / self.unit)) + rounded)
        return self._fitted(name, np.repeat(nominal, channels, axis=0), self.stream, reader, reach, FORWARD)

    def _nominal(self, reader: ConvRun) -> Int64s:
        """Return the thresholds on a stream for the codes of its reader in exact arithmetic, int64 [1, levels]."""

        def codes_of(v: Float64s) -> Float64s:
            return self._codes_of_real(v * self.unit, reader.x.scale)

        return bisect_thresholds(codes_of, np.array([0]), np.array([self.largest]), self.act.max_code)

    def _codes_of_real(self, x: Float64s, scale: float) -> Float64s:
        """Quantise x >= 0 at a frozen scale, in the release's float32 order."""
        quotient = np.minimum(np.minimum(x, FLOAT32_MAX).astype(np.float32) / np.float32(scale), np.float32(1))
        return np.rint(quotient * np.float32(self.act.max_code)).astype(np.float64)

    def _fitted(
        self, name: str, nominal: Int64s, values: Int64s, reader: ConvRun, reach: Int64s, direction: NDArray[np.int8]
    ) -> Requantise:
        """Fit thresholds to the codes of the float run; the next layer reads them by `name` where all are met."""
        codes = reader.x.codes.numpy().astype(np.int64)
        fitted = fit_thresholds(nominal, _rows(values), _rows(codes), reach)
        met = np.array_equal(post.requantise(values, fitted, FORWARD), codes)
        self.input_name = name if met else None
        return Requantise(name, self.act, fitted, direction)


def _rows(array: Int64s) -> Int64s:
    """[N, K, P, Q] to [K, N * P * Q]."""
    return array.transpose(1, 0, 2, 3).reshape(array.shape[1], -1)


def _k(layer: Layer) -> float:
    """Return the real value of one accumulator unit."""
    return layer.act_scale * float(layer.weight_scale[0])


def _affine(norm: Norm) -> tuple[Float64s, Float64s]:
    """Return slope and offset of batch norm, float64 [K]."""
    gamma, beta, mean, variance = (v.double().numpy() for v in (norm.gamma, norm.beta, norm.mean, norm.variance))
    slope = gamma / np.sqrt(variance + NORM_EPSILON)
    return slope, beta - slope * mean


def _fixed_point(norm: Norm, layer: Layer, unit: float) -> FixedPoint:
    """Return batch norm of k A as fixed point in `unit`, by the largest shift that keeps any A in 62 bits.

    Raises InputError for a batch norm that reaches farther without any shift.
    """
    slope, offset = _affine(norm)
    factor, bias = slope * _k(layer) / unit, offset / unit
    most = float((np.abs(factor) * np.maximum(_reachable(layer), 1) + np.abs(bias)).max())
    if not most < 2.0**61:
        raise InputError(f"{layer.name}: batch norm must stay below 2^61 units of the shortcut, not reach {most:.3g}")
    shift = min(MAX_SHIFT, max(0, 61 - int(np.ceil(np.log2(max(most, 1.0))))))
    return FixedPoint(np.rint(factor * 2.0**shift).astype(np.int64), np.rint(bias * 2.0**shift).astype(np.int64), shift)


def _reachable(layer: Layer) -> Int64s:
    """Return the largest magnitude that each channel's accumulator can have, int64 [K]."""
    sums: Int64s = np.abs(layer.weight.astype(np.int64)).sum(axis=(1, 2, 3)) * layer.act.max_code
    return sums
