"""Build the workload records of a frozen network: layers with integer thresholds, and a trace of some images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.arith.overflow import reachable
from pgsim.arith.thresholds import bisect_thresholds
from pgsim.train.blocks import FEATURE_CODE_MAX
from pgsim.train.exact import run_exact
from pgsim.train.frozen import (
    SHORTCUT_BITS,
    FrozenConv,
    FrozenNet,
    ToCodes,
    codes_of_accumulator,
    codes_of_pool,
    codes_of_stream,
)
from pgsim.workload.arithmetic import Exported, Line
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
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import InMemory, LayerTensors, Trace

IMAGE_SIZE = 32
INT8 = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)


def code_thresholds(conv: FrozenConv, tail: ToCodes) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return thresholds int64 [K, levels] on direction * A, and direction int8 [K] (-1 where gamma < 0)."""
    direction = np.where(tail.slope < 0, -1, 1).astype(np.int8)
    # Bounds a gated layer, too: its high plane alone stands for smaller codes.
    least, largest = reachable(conv.weight, 0, conv.act_levels)
    turned = direction < 0
    low, high = np.where(turned, -largest, least), np.where(turned, -least, largest)
    sign = direction.astype(np.float64)[:, None]
    slope, offset = tail.slope[:, None], tail.offset[:, None]
    return (
        bisect_thresholds(lambda v: codes_of_accumulator(sign * v, slope, offset, tail), low, high, tail.levels),
        direction,
    )


def integer_layers(net: FrozenNet) -> tuple[Layer, ...]:
    """Return the network as workload layers, stem to classifier; `run_exact` computes the same integers."""
    act = NumberFormat(Encoding.UNSIGNED, net.act_bits)
    policy = GatePolicy.KEEP if net.keep else GatePolicy.ZERO
    layers: list[Layer] = []
    size, codes_name, stream_name = IMAGE_SIZE, None, ""
    for index, conv in enumerate(net.convs):
        k, c = conv.weight.shape[:2]
        kernel, stride, pad = conv.weight.shape[2], conv.stride, conv.padding
        geometry = Geometry(
            LayerKind.CONV, c, k, size, size, (kernel, kernel), (stride, stride), (pad, pad, pad, pad)
        )  # fmt: skip
        size = geometry.out_height
        post = _conv_post(conv, act, stream_name)
        if index == len(net.convs) - 1:
            post = (*post[:-2], *_pool_post(net, conv, size))
        layers.append(
            Layer(
                name=conv.name,
                geometry=geometry,
                act=INT8 if index == 0 else act,
                weight_format=INT8,
                weight=conv.weight.astype(np.int16),
                act_scale=conv.act_scale,
                weight_scale=np.array([conv.weight_scale]),
                gate=None if conv.threshold is None else Gate(net.pred_bits, conv.threshold, policy, conv.delta),
                input_name=codes_name,
                post=post,
            )
        )
        codes_name = f"{conv.name}.codes"
        if not isinstance(conv.tail, ToCodes):
            stream_name = f"{conv.name}.stream"
    classes, features = net.classifier.shape
    layers.append(
        Layer(
            name="classifier",
            geometry=Geometry(LayerKind.LINEAR, features, classes),
            act=NumberFormat(Encoding.UNSIGNED, 8),
            weight_format=INT8,
            weight=net.classifier.astype(np.int16)[:, :, None, None],
            act_scale=net.feature_alpha / FEATURE_CODE_MAX,
            weight_scale=np.array([net.classifier_scale]),
            input_name="features",
            post=(Bias(net.classifier_bias), Logits("logits", net.logit_scale)),
        )
    )
    return tuple(layers)


def exported(net: FrozenNet) -> Exported:
    """Return the network's layers, and the line of float64 constants behind each of its requantisations."""
    lines = {}
    for conv in net.convs[:-1]:  # the pool follows the last
        tail = conv.tail
        if isinstance(tail, ToCodes):
            scale = tail.levels / tail.alpha
            lines[f"{conv.name}.codes"] = Line(tail.slope * scale, tail.offset * scale)
        else:
            lines[f"{conv.name}.codes"] = Line(np.array([tail.levels / tail.high]), np.zeros(1))
    per_unit = net.stream_unit / net.pool_area * FEATURE_CODE_MAX / net.feature_alpha
    return Exported(integer_layers(net), {**lines, "features": Line(np.array([per_unit]), np.zeros(1))})


def _conv_post(conv: FrozenConv, act: NumberFormat, stream_name: str) -> tuple[PostStep, ...]:
    tail = conv.tail
    if isinstance(tail, ToCodes):
        threshold, direction = code_thresholds(conv, tail)
        return (Requantise(f"{conv.name}.codes", act, threshold, direction, shift=tail.shift),)
    steps: list[PostStep] = [FixedPoint(tail.multiplier, tail.bias, tail.shift)]
    if tail.add:
        steps.append(AddShortcut(stream_name, tail.stride, tail.pad, tail.pad))
    threshold = bisect_thresholds(
        lambda v: codes_of_stream(v, tail.high, tail.levels), np.array([0]), np.array([tail.high]), tail.levels
    )
    steps.append(Clamp(0, tail.high))
    steps.append(SaveShortcut(f"{conv.name}.stream", SHORTCUT_BITS))
    steps.append(Requantise(f"{conv.name}.codes", act, threshold, np.ones(1, np.int8)))
    return tuple(steps)


def _pool_post(net: FrozenNet, conv: FrozenConv, size: int) -> tuple[PostStep, ...]:
    assert not isinstance(conv.tail, ToCodes)
    assert size * size == net.pool_area
    threshold = bisect_thresholds(
        lambda v: codes_of_pool(v, net), np.array([0]), np.array([conv.tail.high * net.pool_area]), FEATURE_CODE_MAX
    )
    unsigned8 = NumberFormat(Encoding.UNSIGNED, 8)
    return (
        SumPool((size, size), (size, size)),
        Requantise("features", unsigned8, threshold, np.ones(1, np.int8)),
    )


def build_trace(net: FrozenNet, image_codes: NDArray[np.int8], info: Mapping[str, Any]) -> Trace:
    """Return the trace of image codes int8 [N, 3, 32, 32] through the network.

    `predictions`, the class of each image's largest logit (the lowest of equals), is added to `info`.
    """
    run = run_exact(net, image_codes, keep=True)
    tensors = tuple(LayerTensors(r.codes, r.output, r.mask) for r in run.layers)
    predictions = run.logits.argmax(axis=1).tolist()
    return Trace(integer_layers(net), len(image_codes), InMemory(tensors), {**info, "predictions": predictions})
