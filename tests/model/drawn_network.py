"""Small random residual networks with the lines behind their requantisations, as a trainer exports them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
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

FAR = 2**40  # a threshold out of reach
INT8 = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
CODES = NumberFormat(Encoding.UNSIGNED, 3)
LEVELS = 7


def requantise(name: str, form: NumberFormat, line: Line, levels: int) -> Requantise:
    """Return the step of integer thresholds that computes a line, a tie between two codes upwards."""
    rows, directions = [], []
    for slope, offset in zip(line.slope, line.offset, strict=True):
        s, o = Fraction(float(slope)), Fraction(float(offset))
        directions.append(-1 if s < 0 else 1)
        if s == 0:
            rows.append([-FAR if o >= j - Fraction(1, 2) else FAR for j in range(1, levels + 1)])
        else:
            rows.append([ceil((j - Fraction(1, 2) - o) / abs(s)) for j in range(1, levels + 1)])
    return Requantise(name, form, np.array(rows, np.int64), np.array(directions, np.int8))


def draw_network(seed: int) -> tuple[Exported, NDArray[np.int16]]:
    """Return a network of a stem, two gated blocks (the second strided and widened), a pool and a classifier, and the
    codes of two images, int16 [2, 2, 4, 4]."""
    g = np.random.default_rng(seed)
    lines: dict[str, Line] = {}
    layers: list[Layer] = []
    highs: list[int] = []

    def add(name: str, c: int, k: int, size: int, stride: int, codes: str | None, post: list[PostStep]) -> None:
        first = not layers
        act = INT8 if first else CODES
        gate = None
        if "conv1" in name:
            policy = GatePolicy.KEEP if g.random() < 0.8 else GatePolicy.ZERO
            gate = Gate(2, g.integers(-300, 300, k).astype(np.int64), policy)
        geometry = Geometry(LayerKind.CONV, c, k, size, size, (3, 3), (stride, stride), (1, 1, 1, 1))
        weight = g.integers(-127, 128, (k, c, 3, 3)).astype(np.int16)
        layers.append(Layer(name, geometry, act, INT8, weight, 1.0, np.ones(1), gate, codes, tuple(post)))

    def block_codes(name: str, k: int) -> list[PostStep]:
        line = Line(g.normal(0.006, 0.006, k), g.normal(3.0, 1.0, k))
        line.slope[0] = -abs(line.slope[0]) if g.random() < 0.7 else 0.0
        lines[name] = line
        moves = g.integers(-1, 2, (k, 2)).astype(np.int8)  # as a shift network's
        return [replace(requantise(name, CODES, line, LEVELS), shift=moves)]

    def to_stream(name: str, k: int, source: AddShortcut | None) -> list[PostStep]:
        high = int(g.integers(20000, 65536))
        highs.append(high)
        lines[f"{name}.codes"] = Line(np.array([LEVELS / high]), np.zeros(1))
        scale = 2 ** int(g.integers(16, 21))
        post: list[PostStep] = [
            FixedPoint(g.integers(-scale, scale, k).astype(np.int64), g.integers(0, 2**31, k).astype(np.int64), 16)
        ]
        if source is not None:
            post.append(source)
        keep = SaveShortcut(f"{name}.stream", 16)
        return [*post, Clamp(0, high), keep, requantise(f"{name}.codes", CODES, lines[f"{name}.codes"], LEVELS)]

    add("stem", 2, 3, 4, 1, None, to_stream("stem", 3, None))
    add("0.conv1", 3, 3, 4, 1, "stem.codes", block_codes("0.conv1.codes", 3))
    add("0.conv2", 3, 3, 4, 1, "0.conv1.codes", to_stream("0.conv2", 3, AddShortcut("stem.stream")))
    add("1.conv1", 3, 5, 4, 2, "0.conv2.codes", block_codes("1.conv1.codes", 5))
    last = to_stream("1.conv2", 5, AddShortcut("0.conv2.stream", 2, 1, 1))[:3]
    lines["features"] = Line(np.array([255 / (4 * highs[-1])]), np.zeros(1))
    features = requantise("features", NumberFormat(Encoding.UNSIGNED, 8), lines["features"], 255)
    add("1.conv2", 5, 5, 2, 1, "1.conv1.codes", [*last, SumPool((2, 2), (2, 2)), features])
    layers.append(
        Layer(
            "classifier",
            Geometry(LayerKind.LINEAR, 5, 4),
            NumberFormat(Encoding.UNSIGNED, 8),
            INT8,
            g.integers(-127, 128, (4, 5, 1, 1)).astype(np.int16),
            1.0,
            np.ones(1),
            None,
            "features",
            (Bias(g.integers(-999, 999, 4).astype(np.int64)), Logits("logits", 1.0)),
        )
    )
    return Exported(tuple(layers), lines), g.integers(-127, 128, (2, 2, 4, 4)).astype(np.int16)
