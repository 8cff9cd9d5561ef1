"""A small random network that begins after its stem: two recorded boundaries, five layers.

entry  boundary 4 x 6 x 6, 16 bits unsigned -> requantise to entry.codes (3 bits, one channel reversed)
side   boundary 3 x 5 x 5, 20 bits signed

0 first      conv 3x3 gated 3/2 of entry.codes               -> requantise
1 second     conv 3x3 plain      -> fixed point, add entry, clamp, save stream, requantise
2 branch     conv 1x1 gated 3/1 of entry.codes, stride 2     -> fixed point, add entry (stride 2), logits: a map
3 third      conv 3x3 gated 3/2 of second.codes, stride 2    -> fixed point, add side (stride 2, padded), sum pool
4 classifier linear                                          -> logits
"""

from __future__ import annotations

import numpy as np

from pgsim.workload.layer import AddShortcut, Clamp, FixedPoint, Geometry, LayerKind, Logits, SaveShortcut, SumPool
from pgsim.workload.trace import Trace
from tests.build_trace import UNSIGNED3, UNSIGNED8, Builder, Ints, requantise, step

ENTRY_BITS, SIDE_BITS = 16, 20


def _fixed_point(builder: Builder, v: Ints) -> FixedPoint:
    return FixedPoint(builder.integers(2**10, v.shape[1]), builder.integers(2**14, v.shape[1]), 4)


def _build(seed: int, images: int) -> Builder:
    b = Builder(seed, images)
    same = (1, 1, 1, 1)
    b.boundary("entry", (4, 6, 6), ENTRY_BITS, codes=requantise("entry.codes", UNSIGNED3, reversed_channels=1))
    b.boundary("side", (3, 5, 5), SIDE_BITS, signed=True)
    conv = LayerKind.CONV
    b.add(
        "first",
        Geometry(conv, 4, 4, 6, 6, (3, 3), padding=same),
        UNSIGNED3,
        pred_bits=2,
        delta=True,
        input_name="entry.codes",
        post=[requantise("first.codes", UNSIGNED3)],
    )
    stream = [step(AddShortcut("entry")), step(Clamp(0, 65535)), step(SaveShortcut("stream", 16))]
    b.add(
        "second",
        Geometry(conv, 4, 4, 6, 6, (3, 3), padding=same),
        UNSIGNED3,
        input_name="first.codes",
        post=[_fixed_point, *stream, requantise("second.codes", UNSIGNED3, per_channel=False)],
    )
    b.add(
        "branch",
        Geometry(conv, 4, 4, 6, 6, stride=(2, 2)),
        UNSIGNED3,
        pred_bits=1,
        input_name="entry.codes",
        post=[_fixed_point, step(AddShortcut("entry", 2)), step(Logits("map", 1.0))],
    )
    pooled = [step(AddShortcut("side", 2, 1, 2)), step(SumPool((3, 3), (3, 3))), requantise("features", UNSIGNED8)]
    b.add(
        "third",
        Geometry(conv, 4, 6, 6, 6, (3, 3), (2, 2), same),
        UNSIGNED3,
        pred_bits=2,
        input_name="second.codes",
        post=[_fixed_point, *pooled],
    )
    b.add(
        "classifier",
        Geometry(LayerKind.LINEAR, 6, 5),
        UNSIGNED8,
        input_name="features",
        post=[step(Logits("scores", 0.5))],
    )
    return b


def build_boundary_trace(seed: int = 0, images: int = 2) -> Trace:
    """Return the network of the module's docstring over `images` random images."""
    return build_with_logits(seed, images)[0]


def build_with_logits(seed: int = 0, images: int = 2) -> tuple[Trace, dict[str, Ints]]:
    """Return the trace of `build_boundary_trace` and its logits by name, computed by numpy alone."""
    builder = _build(seed, images)
    labels = builder.logits["scores"][:, :, 0, 0].argmax(axis=1)
    info = {"model": "no stem", "dataset": "random", "labels": labels.tolist(), "predictions": labels.tolist()}
    return builder.trace(info), builder.logits


def changed_value(trace: Trace, index: int, where: tuple[int, ...]) -> int:
    """Return a value of boundary `index` that is as far as can be from the one at `where`."""
    boundary, value = trace.boundaries[index], int(trace.boundary(index)[where])
    low, high = (
        (-(2 ** (boundary.bits - 1)), 2 ** (boundary.bits - 1) - 1) if boundary.signed else (0, 2**boundary.bits - 1)
    )
    return low if value > np.mean((low, high)) else high
