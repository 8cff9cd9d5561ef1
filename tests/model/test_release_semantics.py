"""A float network in the style of the authors' release and its trace, which begins at a recorded boundary, are one.

float:  stem - BN - PACT = x --+-- conv1 gated 3/2 - BN - PACT - conv2 3 bits - BN -(+)- PACT = x --> block 2, stride 2
                               +------------------- option A shortcut ---------------^
trace:  recorded boundary r ---+-- codes - A, mask - thresholds - codes - A - fixed point -(+)- clamp = r --> features

The float side is written here in float32, after the release: weights in sign and magnitude (codes to 255, 9 bits in
two's complement), scales max + 1e-7 of the batch, the gate sigmoid(5 (O_hb - Delta)) > 0.5, one PACT clip a block. The
codes in the trace are those of the float network, so that verification holds the integer path to it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.io.trace import load_trace, write_trace
from pgsim.model.inference import ENGINES, Chain, fast_engine, infer
from pgsim.model.simulated import simulator_engine
from pgsim.model.verify import verify_trace
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
    Requantise,
    SaveShortcut,
)
from pgsim.workload.trace import InMemory, LayerTensors, Trace
from tests.build_trace import UNSIGNED3, dense, exact_thresholds
from tests.model.random_machines import make_accelerator

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WEIGHT = NumberFormat(Encoding.SIGN_MAGNITUDE, 8)
ACT_BITS, PRED_BITS, GATE_SLOPE, EPSILON = 3, 2, 5, 1e-5
LOW_BITS = ACT_BITS - PRED_BITS
SEEDS = range(5)


# The float network.


class Float32(Protocol):
    """The float32 operations of the release."""

    def conv(self, x: Floats, weight: Floats, stride: int) -> Floats: ...  # 3 x 3, padding 1, no bias
    def norm(self, x: Floats, norm: Norm) -> Floats: ...
    def gate(self, predicted: Floats, delta: Floats) -> NDArray[np.bool_]: ...
    def quantised(self, x: Floats, bits: int, kept: int) -> Floats: ...  # the first `kept` of `bits` bits


@dataclass(frozen=True)
class Norm:
    """Batch norm in evaluation, a value a channel."""

    gamma: Floats
    beta: Floats
    mean: Floats
    variance: Floats


class WithNumpy:
    """In numpy alone."""

    def conv(self, x: Floats, weight: Floats, stride: int) -> Floats:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
        return np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)

    def norm(self, x: Floats, norm: Norm) -> Floats:
        scale = norm.gamma / np.sqrt(norm.variance + np.float32(EPSILON))
        return (x - _spread(norm.mean)) * _spread(scale) + _spread(norm.beta)

    def gate(self, predicted: Floats, delta: Floats) -> NDArray[np.bool_]:
        one = np.float32(1)
        return one / (one + np.exp(np.float32(-GATE_SLOPE) * (predicted - _spread(delta)))) > np.float32(0.5)

    def quantised(self, x: Floats, bits: int, kept: int) -> Floats:
        levels, step = np.float32(2**bits - 1), np.float32(2 ** (bits - kept))
        scale = np.abs(x).max() + np.float32(1e-7)
        code = np.round(np.clip(np.abs(x) / scale, 0, 1) * levels)
        return np.floor(code / step) * step / levels * scale * np.sign(x)


class WithTorch:
    """In torch, by torch.nn.functional."""

    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch", reason="torch is not installed")
        self.functional = pytest.importorskip("torch.nn.functional", reason="torch is not installed")

    def conv(self, x: Floats, weight: Floats, stride: int) -> Floats:
        return self._numpy(self.functional.conv2d(*self._tensors(x, weight), stride=stride, padding=1))

    def norm(self, x: Floats, norm: Norm) -> Floats:
        x, mean, variance, gamma, beta = self._tensors(x, norm.mean, norm.variance, norm.gamma, norm.beta)
        return self._numpy(self.functional.batch_norm(x, mean, variance, gamma, beta, eps=EPSILON))

    def gate(self, predicted: Floats, delta: Floats) -> NDArray[np.bool_]:
        o_hb, threshold = self._tensors(predicted, delta)
        mask: NDArray[np.bool_] = (
            self.torch.sigmoid(GATE_SLOPE * (o_hb - threshold.reshape(1, -1, 1, 1))).gt(0.5).numpy()
        )
        return mask

    def quantised(self, x: Floats, bits: int, kept: int) -> Floats:
        (tensor,) = self._tensors(x)
        levels, step = 2.0**bits - 1.0, 2.0 ** (bits - kept)
        scale = tensor.abs().max() + 1e-7
        code = self.torch.round(self.torch.clamp(tensor.abs() / scale, 0.0, 1.0) * levels)
        return self._numpy(self.torch.floor(code / step) * step / levels * scale * self.torch.sign(tensor))

    def _tensors(self, *arrays: Floats) -> Any:
        return [self.torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]

    def _numpy(self, tensor: Any) -> Floats:
        assert tensor.dtype == self.torch.float32
        array: Floats = tensor.numpy()
        return array


@dataclass(frozen=True)
class Block:
    """conv1 (gated), norm1, conv2, norm2 and the clip that both activations of the block share."""

    weight1: Floats
    norm1: Norm
    delta: Floats
    weight2: Floats
    norm2: Norm
    clip: np.float32
    stride: int


@dataclass(frozen=True)
class Network:
    """A float stem and two blocks; what follows the pooling is left out."""

    stem: Floats
    stem_norm: Norm
    stem_clip: np.float32
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class ConvRun:
    """What one convolution of the float network read and gave: `predicted` and `mask` where it is gated."""

    x: Floats
    output: Floats
    predicted: Floats | None = None
    mask: NDArray[np.bool_] | None = None


def make_network(seed: int) -> Network:
    """Return a random network: 3 -> 4, a block of 4, a block of 4 -> 8 with stride 2."""
    random = np.random.default_rng(seed)

    def weight(out: int, channels: int) -> Floats:
        return (random.standard_normal((out, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)

    def norm(channels: int, *, turned: bool = False) -> Norm:
        gamma = random.uniform(0.5, 1.5, channels)
        if turned:  # batch norm may turn a channel round, or flatten it
            gamma[0], gamma[1] = -gamma[0], 0
        beta, mean, variance = random.normal(0.3, 0.3, channels), random.normal(0, 0.3, channels), np.ones(channels)
        variance *= random.uniform(0.2, 1.5, channels)
        return Norm(*(values.astype(np.float32) for values in (gamma, beta, mean, variance)))

    def block(channels: int, out: int, stride: int) -> Block:
        delta = random.uniform(-0.5, 1.0, out).astype(np.float32)
        clip = np.float32(random.uniform(1.5, 2.5))
        return Block(weight(out, channels), norm(out, turned=True), delta, weight(out, out), norm(out), clip, stride)

    return Network(weight(4, 3), norm(4), np.float32(2.0), (block(4, 4, 1), block(4, 8, 2)))


def run_float(network: Network, images: Floats, ops: Float32) -> tuple[list[ConvRun], Floats]:
    """Return what each quantised convolution read and gave, and the network's last feature map, in float32."""
    x = np.clip(ops.norm(ops.conv(images, network.stem, 1), network.stem_norm), 0, network.stem_clip)
    runs = []
    for block in network.blocks:
        weight1, weight2 = (ops.quantised(w, WEIGHT.bits, WEIGHT.bits) for w in (block.weight1, block.weight2))
        truncated, whole = (ops.quantised(x, ACT_BITS, kept) for kept in (PRED_BITS, ACT_BITS))
        predicted = ops.conv(truncated, weight1, block.stride)
        mask = ops.gate(predicted, block.delta)
        output = predicted + mask.astype(np.float32) * ops.conv(whole - truncated, weight1, block.stride)
        runs.append(ConvRun(x, output, predicted, mask))
        inner = np.clip(ops.norm(output, block.norm1), 0, block.clip)
        output = ops.conv(ops.quantised(inner, ACT_BITS, ACT_BITS), weight2, 1)
        runs.append(ConvRun(inner, output))
        shortcut = x[:, :, :: block.stride, :: block.stride]
        pad = (output.shape[1] - shortcut.shape[1]) // 2
        total = ops.norm(output, block.norm2) + np.pad(shortcut, ((0, 0), (pad, pad), (0, 0), (0, 0)))
        x = np.clip(total, 0, block.clip)
        assert x.dtype == np.float32
    return runs, x


# Its import as a trace.


@dataclass(frozen=True)
class Imported:
    """The trace, the float runs that it was taken from, the float features, and the real value of a shortcut's unit."""

    trace: Trace
    runs: list[ConvRun]
    features: Floats
    unit: float


def import_network(network: Network, images: Floats, ops: Float32, stream_bits: int) -> Imported:
    """Return the trace of a float network, its scales frozen to those of `images`.

    Shortcuts have `stream_bits` bits and one unit, that of the largest clip. The codes recorded are those of the
    float network.
    """
    runs, features = run_float(network, images, ops)
    clips = (network.stem_clip, *(block.clip for block in network.blocks))
    unit = float(max(clips)) / (2**stream_bits - 1)
    scales = [np.abs(run.x).max() + np.float32(1e-7) for run in runs]  # in float32, as the release
    layers: list[Layer] = []
    items: list[LayerTensors] = []

    def stream_codes(name: str, clip: np.float32, scale: np.float32) -> Requantise:
        values = range(round(float(clip) / unit) + 1)
        rows = [thresholds(lambda r: code_of(np.float32(r * unit), scale), values)]
        return Requantise(name, UNSIGNED3, np.array(rows), np.ones(1, np.int8))

    channels, size = runs[0].x.shape[1:3]
    stem_codes = stream_codes("codes0", clips[0], scales[0])
    stem = Boundary("stem", channels, size, size, stream_bits, requantise=stem_codes)
    shortcut = stem.name
    for number, block in enumerate(network.blocks):
        parts = ((block.weight1, block.norm1, block.stride), (block.weight2, block.norm2, 1))
        for position, (real, norm, stride) in enumerate(parts):
            index = 2 * number + position
            channels, size = runs[index].x.shape[1:3]
            geometry = Geometry(LayerKind.CONV, channels, len(real), size, size, (3, 3), (stride, stride), (1, 1, 1, 1))
            weight_scale = float(np.abs(real).max() + np.float32(1e-7)) / WEIGHT.max_code
            weight = codes_of(real, WEIGHT.max_code).astype(np.int64)
            act_scale = float(scales[index]) / UNSIGNED3.max_code
            slope, offset = affine(norm)
            post: list[Any]
            gate = None
            if position == 0:
                delta = block.delta.astype(np.float64)
                gate = Gate(PRED_BITS, exact_thresholds(delta, act_scale, weight_scale, LOW_BITS), delta=delta)
                post = [
                    codes_of_sums(
                        f"codes{index + 1}", norm, block.clip, scales[index + 1], weight, act_scale * weight_scale
                    )
                ]
            else:
                shift = 24
                factor = np.round(slope * act_scale * weight_scale / unit * 2**shift).astype(np.int64)
                bias = np.round(offset / unit * 2**shift).astype(np.int64)
                pad = (len(real) - runs[index - 1].x.shape[1]) // 2  # of what the block reads
                post = [
                    FixedPoint(factor, bias, shift),
                    AddShortcut(shortcut, block.stride, pad, pad),
                    Clamp(0, round(float(block.clip) / unit)),
                ]
                if number + 1 < len(network.blocks):
                    shortcut = f"block{number + 1}"
                    post.append(SaveShortcut(shortcut, stream_bits))
                    post.append(stream_codes(f"codes{index + 1}", block.clip, scales[index + 1]))
                else:
                    post.append(Logits("features", unit))
            name = f"block{number + 1}.conv{position + 1}"
            layers.append(
                Layer(
                    name,
                    geometry,
                    UNSIGNED3,
                    WEIGHT,
                    weight.astype(np.int16),
                    act_scale,
                    np.array([weight_scale]),
                    gate,
                    f"codes{index}",
                    tuple(post),
                )
            )
            items.append(integers(layers[-1], codes_of(runs[index].x, UNSIGNED3.max_code).astype(np.int64)))
    boundary = np.round(runs[0].x.astype(np.float64) / unit).astype(np.int64)
    trace = Trace(tuple(layers), len(images), InMemory(tuple(items), (boundary,)), {"model": "release"}, "", (stem,))
    return Imported(trace, runs, features, unit)


def codes_of(x: Floats, levels: int) -> Floats:
    """Return sign times rounded magnitude, in the release's float32 order."""
    scale = np.abs(x).max() + np.float32(1e-7)
    return np.round(np.clip(np.abs(x) / scale, 0, 1) * np.float32(levels)) * np.sign(x)


def code_of(x: np.float32, scale: np.float32) -> int:
    """Return the 3-bit code of one activation >= 0 at a fixed scale."""
    return int(np.round(np.minimum(x / scale, np.float32(1)) * np.float32(UNSIGNED3.max_code)))


def affine(norm: Norm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and offset of batch norm in float64."""
    gamma, beta, mean, variance = (v.astype(np.float64) for v in (norm.gamma, norm.beta, norm.mean, norm.variance))
    slope = gamma / np.sqrt(variance + EPSILON)
    return slope, beta - slope * mean


def thresholds(code: Callable[[int], int], values: range) -> list[int]:
    """Return, for each code from 1, the first of `values` that reaches it; `code` must not fall."""
    return [values.start + bisect_left(values, level, key=code) for level in range(1, UNSIGNED3.max_code + 1)]


def codes_of_sums(name: str, norm: Norm, clip: np.float32, scale: np.float32, weight: Ints, k: float) -> Requantise:
    """Return the requantisation of the accumulator A: batch norm of k A, PACT, 3 bits; reversed where gamma < 0."""
    direction = np.where(norm.gamma < 0, -1, 1).astype(np.int8)
    reach = int(np.abs(weight).sum(axis=(1, 2, 3)).max()) * UNSIGNED3.max_code
    rows = []
    for channel, sign in enumerate(direction.tolist()):
        one = Norm(*(values[channel : channel + 1] for values in (norm.gamma, norm.beta, norm.mean, norm.variance)))

        def code(v: int, one: Norm = one, sign: int = sign) -> int:
            real = WithNumpy().norm(np.full((1, 1, 1, 1), sign * v * k, np.float32), one)
            return code_of(np.clip(real, 0, clip)[0, 0, 0, 0], scale)

        rows.append(thresholds(code, range(-reach, reach + 1)))
    return Requantise(name, UNSIGNED3, np.array(rows), direction)


def integers(layer: Layer, codes: Ints) -> LayerTensors:
    """Return the integers of a layer over its codes, by the sums of the trace builder."""
    weight = layer.weight.astype(np.int64)
    if layer.gate is None:
        return LayerTensors(codes.astype(np.int16), dense(codes, weight, layer.geometry), None)
    a_h = dense(codes >> LOW_BITS, weight, layer.geometry)
    mask = a_h > _spread(layer.gate.threshold)
    a_l = dense(codes & (2**LOW_BITS - 1), weight, layer.geometry)
    return LayerTensors(codes.astype(np.int16), (a_h << LOW_BITS) + np.where(mask, a_l, 0), mask)


def _spread(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(1, -1, 1, 1)


# What must hold.

BACKENDS = [pytest.param(WithNumpy, id="numpy"), pytest.param(WithTorch, id="torch")]


def imported(seed: int, backend: Callable[[], Float32], stream_bits: int = 16) -> Imported:
    images = np.random.default_rng([seed, 1]).standard_normal((3, 3, 8, 8)).astype(np.float32)
    return import_network(make_network(seed), images, backend(), stream_bits)


def accumulation_error(layer: Layer, codes: NDArray[np.int16]) -> NDArray[np.float64]:
    """Bound what float32 may lose in a convolution: a rounding for each product, sum and operand."""
    size = dense(codes.astype(np.int64), np.abs(layer.weight.astype(np.int64)), layer.geometry)
    k = layer.act_scale * float(layer.weight_scale[0])
    return size.astype(np.float64) * (k * (2 * layer.geometry.reduction + 16) * 2.0**-24)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_trace_of_a_float_network_verifies_from_its_boundary_on(
    seed: int, backend: Callable[[], Float32], tmp_path: Path
) -> None:
    trace = imported(seed, backend).trace
    write_trace(tmp_path / "t.npz", trace)
    loaded = load_trace(tmp_path / "t.npz")
    verification = verify_trace(loaded, engines={**ENGINES, "simulator": simulator_engine(make_accelerator())})
    assert verification.first is None
    assert [check.codes for check in verification.layers] == [trace.tensors(i).activation.size for i in range(4)]
    assert [check.thresholds for check in verification.layers] == [4, 0, 8, 0]
    assert infer(loaded).equal


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_masks_are_those_of_the_float_gate_but_within_rounding_of_delta(
    seed: int, backend: Callable[[], Float32]
) -> None:
    made = imported(seed, backend)
    for index in (0, 2):
        layer, tensors, run = made.trace.layers[index], made.trace.tensors(index), made.runs[index]
        assert run.mask is not None
        assert 0.1 < run.mask.mean() < 0.9
        assert not unexplained(layer, tensors, run).any()


def unexplained(layer: Layer, tensors: LayerTensors, run: ConvRun) -> NDArray[np.bool_]:
    """Tell which mask bits differ where |k 2^l A_h - Delta| > 1e-5 max(1, |O|)."""
    assert layer.gate is not None
    assert layer.gate.delta is not None
    k = layer.act_scale * float(layer.weight_scale[0])
    a_h = dense(tensors.activation.astype(np.int64) >> LOW_BITS, layer.weight.astype(np.int64), layer.geometry)
    distance = np.abs(k * 2**LOW_BITS * a_h - _spread(layer.gate.delta))
    return (tensors.mask != run.mask) & (distance > 1e-5 * np.maximum(1, np.abs(run.output)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_outputs_are_the_float_outputs_within_float32_accumulation(seed: int, backend: Callable[[], Float32]) -> None:
    made = imported(seed, backend)
    for index, (layer, run) in enumerate(zip(made.trace.layers, made.runs, strict=True)):
        tensors = made.trace.tensors(index)
        k = layer.act_scale * float(layer.weight_scale[0])
        error = np.abs(k * tensors.output - run.output)
        same_mask = True if run.mask is None else tensors.mask == run.mask
        assert (error <= accumulation_error(layer, tensors.activation))[same_mask].all()
        assert np.abs(layer.weight).max() == 255  # one bit more than int8 has


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stream_bits", [16, 24])
def test_the_features_at_the_trace_s_end_are_the_float_features(
    stream_bits: int, seed: int, backend: Callable[[], Float32]
) -> None:
    made = imported(seed, backend, stream_bits)
    features = infer(made.trace).logits["features"] * made.unit
    # Both blocks and the boundary round to a unit; at 24 bits float32 has no more than that to say.
    assert np.abs(features - made.features).max() < max(2 * made.unit, 2e-6)


def test_short_shortcuts_change_a_code_only_where_it_is_within_their_rounding() -> None:
    """At 16 bits no code of these networks differs; at 10 some do, where x lies within 2 units of a code's edge."""
    differing = 0
    for seed in SEEDS:
        made = imported(seed, WithNumpy, stream_bits=10)
        chain = Chain(made.trace)
        for index, layer in enumerate(made.trace.layers):
            recorded, codes = made.trace.tensors(index).activation, chain.codes_for(index)
            assert codes is not None
            x = made.runs[index].x
            in_codes = x / (np.abs(x).max() + np.float32(1e-7)) * UNSIGNED3.max_code
            from_edge = np.abs(in_codes - np.floor(in_codes) - 0.5) * layer.act_scale
            assert (from_edge[codes != recorded] <= 2 * made.unit).all()
            differing += int((codes != recorded).sum())
            chain.follow(index, fast_engine(layer, recorded).output)
    assert differing > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_an_exact_tie_the_float_gate_may_differ_and_nowhere_else(backend: Callable[[], Float32]) -> None:
    """Delta is put on values that A_h takes: the integer rule says not updated, float sums fall to either side."""
    network = make_network(0)
    images = np.random.default_rng([0, 1]).standard_normal((3, 3, 8, 8)).astype(np.float32)
    first = import_network(network, images, backend(), 24)
    layer, tensors = first.trace.layers[0], first.trace.tensors(0)
    a_h = dense(tensors.activation.astype(np.int64) >> LOW_BITS, layer.weight.astype(np.int64), layer.geometry)
    unit = layer.act_scale * float(layer.weight_scale[0]) * 2**LOW_BITS
    middle = np.sort(a_h.transpose(1, 0, 2, 3).reshape(4, -1), axis=1)[:, a_h[:, 0].size // 2]
    delta = (middle * unit).astype(np.float32)
    block = Block(**{**vars(network.blocks[0]), "delta": delta})
    tied = import_network(Network(**{**vars(network), "blocks": (block, network.blocks[1])}), images, backend(), 24)
    run, tensors = tied.runs[0], tied.trace.tensors(0)
    assert (a_h == _spread(middle)).sum() >= 4
    assert not unexplained(tied.trace.layers[0], tensors, run).any()
    assert tensors.mask is not None
    differing = tensors.mask != run.mask
    assert (a_h == _spread(middle))[differing].all()
