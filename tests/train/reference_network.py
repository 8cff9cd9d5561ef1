"""A plain integer inference of exported layers, written against docs/trace-format.md alone: python loops, no torch.

It imports none of the project's arithmetic, so that the exact run and the export are held to a second opinion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsim.workload import layer as w
from tests.build_trace import moved

Integers = NDArray[np.int64]


def convolve(codes: Integers, weight: Integers, stride: int, padding: int) -> Integers:
    """Sum code * weight over each window, tap by tap: codes [N, C, H, W], weight [K, C, R, S] -> [N, K, P, Q]."""
    x = np.pad(codes, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = (x.shape[2] - weight.shape[2]) // stride + 1
    columns = (x.shape[3] - weight.shape[3]) // stride + 1
    total = np.zeros((len(x), len(weight), rows * columns))  # float64 holds these integers exactly, through BLAS
    assert np.abs(weight).reshape(len(weight), -1).sum(1).max() * np.abs(x).max() < 2**53
    for r in range(weight.shape[2]):
        for s in range(weight.shape[3]):
            tap = x[:, :, r : r + stride * rows : stride, s : s + stride * columns : stride]
            total += weight[:, :, r, s].astype(float) @ tap.reshape(*tap.shape[:2], -1).astype(float)
    return total.astype(np.int64).reshape(len(x), len(weight), rows, columns)


def run_layer(layer: w.Layer, codes: Integers) -> tuple[Integers, Integers | None]:
    """Return A and the mask (or None) of one layer."""
    stride, padding = layer.geometry.stride[0], layer.geometry.padding[0]
    weight = layer.weight.astype(np.int64)
    if layer.gate is None:
        return convolve(codes, weight, stride, padding), None
    low_bits = layer.act.bits - layer.gate.pred_bits
    high = convolve(codes // 2**low_bits, weight, stride, padding)
    low = convolve(codes % 2**low_bits, weight, stride, padding)
    mask = (high > layer.gate.threshold[None, :, None, None]).astype(np.int64)
    kept = mask if layer.gate.policy.value == "zero" else 1
    return kept * high * 2**low_bits + mask * low, mask


def run_network(layers: tuple[w.Layer, ...], image_codes: Integers) -> tuple[Integers, list[Integers], list[Integers]]:
    """Return logits [N, classes], every layer's A and every gated layer's mask."""
    kept: dict[str, Integers] = {}
    logits, outputs, masks = None, [], []
    for layer in layers:
        codes = image_codes if layer.input_name is None else kept[layer.input_name]
        v, mask = run_layer(layer, codes)
        outputs.append(v)
        if mask is not None:
            masks.append(mask)
        for step in layer.post:
            if isinstance(step, w.Bias):
                v = v + step.bias[None, :, None, None]
            elif isinstance(step, w.FixedPoint):
                product = v * step.multiplier[None, :, None, None] + step.bias[None, :, None, None]
                v = (product + 2 ** (step.shift - 1)) // 2**step.shift
            elif isinstance(step, w.AddShortcut):
                short = kept[step.source][:, :, :: step.stride, :: step.stride]
                pads = ((0, 0), (step.pad_before, step.pad_after), (0, 0), (0, 0))
                v = v + np.pad(short, pads)
            elif isinstance(step, w.Clamp):
                v = np.minimum(np.maximum(v, step.low), step.high)
            elif isinstance(step, w.SaveShortcut):
                assert 0 <= v.min() <= v.max() < 2**step.bits
                kept[step.name] = v
            elif isinstance(step, w.SumPool):
                assert v.shape[2:] == step.kernel
                v = v.sum((2, 3), keepdims=True)
            elif isinstance(step, w.Requantise):
                signed = v * step.direction.astype(np.int64)[None, :, None, None]
                code = np.full(v.shape, step.base, np.int64)
                for j in range(step.threshold.shape[1]):
                    code += signed >= step.threshold[:, j][None, :, None, None]
                kept[step.name] = code if step.shift is None else moved(code, step.shift)
            elif isinstance(step, w.Logits):
                logits = v[:, :, 0, 0]
            else:
                raise TypeError(step)
    assert logits is not None
    return logits, outputs, masks
