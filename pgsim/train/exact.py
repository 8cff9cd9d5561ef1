"""Run a frozen network exactly: torch convolves (`pgsim.nn.product` keeps its sums exact), numpy does the rest.

Requantisation is the float64 function of `pgsim.train.frozen`; the export replaces it by thresholds. Maps
[N, C, H, W] lie in memory pixel by pixel, their channels side by side, as torch's fastest convolutions want them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgsim.arith.formats import Encoding
from pgsim.nn.codes import split_codes
from pgsim.nn.eight_bit import as_bytes
from pgsim.nn.product import Convolution, exact_dtype, exact_sum
from pgsim.train.blocks import moved
from pgsim.train.frozen import (
    FrozenConv,
    FrozenNet,
    ToCodes,
    ToStream,
    codes_of_pool,
    codes_of_stream,
)
from pgsim.train.kernels import accumulator_codes


@dataclass(frozen=True)
class LayerRun:
    """What one layer read and wrote: codes int16 [N, C, H, W], A int64 [N, K, P, Q], mask bool or None."""

    codes: NDArray[np.int16]
    output: NDArray[np.int64]
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True)
class ExactRun:
    """Logits int64 [N, 10], outputs with mask 1 per gated layer, and each layer's tensors where they were asked for."""

    logits: NDArray[np.int64]
    updated: tuple[int, ...]
    outputs: tuple[int, ...]
    layers: tuple[LayerRun, ...]


def _accumulate(
    conv: FrozenConv, codes: NDArray[np.int16], keep: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    weight = torch.from_numpy(conv.weight).float()
    dtype = exact_dtype(weight, conv.act_levels)
    product = Convolution((conv.stride, conv.stride), (conv.padding, conv.padding))
    x = torch.from_numpy(codes).float().contiguous(memory_format=torch.channels_last)
    if dtype == torch.float32:
        x = as_bytes(x)

    def sums(plane: Tensor) -> NDArray[np.int64]:
        return exact_sum(product, plane, weight, dtype).to(torch.int64).numpy()

    if conv.threshold is None:
        return sums(x), None
    high, low = (sums(plane) for plane in split_codes(x, Encoding.UNSIGNED, conv.update_bits))
    mask = high > conv.threshold[:, None, None]
    high <<= conv.update_bits
    if not keep:
        high *= mask
    low *= mask
    high += low
    return high, mask


def next_codes(acc: NDArray[np.int64], tail: ToCodes) -> NDArray[np.int16]:
    """Return `codes_of_accumulator` of acc [N, K, P, Q]."""
    pixels = np.ascontiguousarray(acc.transpose(0, 2, 3, 1))
    codes = np.empty(pixels.shape, np.int16)
    channels = len(tail.slope)
    accumulator_codes(
        pixels.reshape(-1, channels), tail.slope, tail.offset, tail.alpha, tail.levels, codes.reshape(-1, channels)
    )
    return codes.transpose(0, 3, 1, 2)


def _to_stream(tail: ToStream, acc: NDArray[np.int64], stream: NDArray[np.int64] | None) -> NDArray[np.int64]:
    r = (acc * tail.multiplier[:, None, None] + (tail.bias[:, None, None] + (1 << (tail.shift - 1)))) >> tail.shift
    if tail.add:
        assert stream is not None
        channels = slice(tail.pad, r.shape[1] - tail.pad)
        r[:, channels] += stream[:, :, :: tail.stride, :: tail.stride]
    return np.clip(r, 0, tail.high, out=r)


@torch.no_grad()
def run_exact(net: FrozenNet, image_codes: NDArray[np.int8], keep: bool = False) -> ExactRun:
    """Run image codes int8 [N, 3, 32, 32] through the integer network.

    Args:
        keep: also return every layer's tensors (the classifier last, as [N, 64, 1, 1] and [N, 10, 1, 1]).
    """
    codes = image_codes.astype(np.int16)
    stream: NDArray[np.int64] | None = None
    kept, updated, outputs = [], [], []
    for conv in net.convs:
        acc, mask = _accumulate(conv, codes, net.keep)
        if mask is not None:
            updated.append(int(np.count_nonzero(mask)))
            outputs.append(mask.size)
        if keep:
            kept.append(LayerRun(codes, acc, mask))
        if isinstance(conv.tail, ToCodes):
            codes = next_codes(acc, conv.tail)
            if conv.tail.shift is not None:
                codes = moved(torch.from_numpy(codes).float(), conv.tail.shift.tolist()).numpy().astype(np.int16)
        else:
            stream = _to_stream(conv.tail, acc, stream)
            codes = codes_of_stream(stream.astype(np.float64), conv.tail.high, conv.tail.levels).astype(np.int16)
    assert stream is not None
    features = codes_of_pool(stream.sum((2, 3), dtype=np.int64).astype(np.float64), net).astype(np.int16)
    acc = features.astype(np.int64) @ net.classifier.astype(np.int64).T
    if keep:
        kept.append(LayerRun(features[:, :, None, None], acc[:, :, None, None], None))
    return ExactRun(acc + net.classifier_bias, tuple(updated), tuple(outputs), tuple(kept))
