"""Layers that hypothesis draws: every encoding and split, every geometry, thresholds on and beside ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.arith.gating import INT64_MAX, INT64_MIN
from pgsim.workload.layer import Geometry, LayerKind

SPLITS = [(encoding, bits, pred) for encoding in Encoding for bits in range(2, 9) for pred in range(1, bits)]


def examples(count: int) -> settings:
    """So many examples, without a deadline: the first call of a kernel compiles it."""
    return settings(max_examples=count, deadline=None)


@dataclass(frozen=True)
class DrawnLayer:
    """The arguments of gated_layer, in its order."""

    activation: NDArray[np.int16]
    weight: NDArray[np.int16]
    window: Geometry
    encoding: Encoding
    bits: int
    pred_bits: int
    threshold: NDArray[np.int64]
    policy: GatePolicy

    @property
    def arguments(self) -> tuple[Any, ...]:
        """All of them, to be splatted."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def gated_by(self, threshold: int) -> DrawnLayer:
        """The same layer under one threshold for every channel."""
        return self.with_(threshold=np.full(self.weight.shape[0], threshold, np.int64))

    def with_(self, **changes: Any) -> DrawnLayer:
        """The same layer with other fields."""
        return DrawnLayer(**{name: getattr(self, name) for name in self.__dataclass_fields__} | changes)


@st.composite
def geometries(draw: st.DrawFn, groups: st.SearchStrategy[int] | None = None) -> Geometry:
    """Small ones: depthwise, grouped and plain; 1x1 to 3x3 and non-square; strided, dilated, unevenly padded."""
    few = st.integers(1, 3)
    group_count = draw(few if groups is None else groups)
    kernel, stride, dilation = ((draw(few), draw(few)) for _ in range(3))
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    sizes = []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1) + 1 - padding[2 * axis] - padding[2 * axis + 1]
        sizes.append(max(1, reach) + draw(st.integers(0, 3)))
    return Geometry(
        LayerKind.CONV,
        in_channels=group_count * draw(few),
        out_channels=group_count * draw(st.integers(1, 2)),
        in_height=sizes[0],
        in_width=sizes[1],
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=group_count,
    )


def codes(number_format: NumberFormat, shape: tuple[int, ...]) -> st.SearchStrategy[NDArray[np.int16]]:
    """Arrays of the format's codes, its extremes well represented."""
    low, high = number_format.min_code, number_format.max_code
    return hnp.arrays(np.int16, shape, elements=st.integers(low, high) | st.sampled_from([low, high]))


@st.composite
def layers(draw: st.DrawFn, groups: st.SearchStrategy[int] | None = None) -> DrawnLayer:
    """A gated layer of one or two images, its weights 9-bit sign-magnitude codes (-255 .. 255)."""
    window = draw(geometries(groups))
    encoding, bits, pred_bits = draw(st.sampled_from(SPLITS))
    activation = draw(codes(NumberFormat(encoding, bits), (draw(st.integers(1, 2)), *window.activation_shape)))
    weight = draw(codes(NumberFormat(Encoding.SIGN_MAGNITUDE, 8), window.weight_shape))
    near_zero = st.integers(-40, 40)
    anywhere = st.integers(-(2**20), 2**20) | st.sampled_from([INT64_MIN, INT64_MAX])
    threshold = draw(hnp.arrays(np.int64, window.out_channels, elements=near_zero | anywhere))
    return DrawnLayer(
        activation, weight, window, encoding, bits, pred_bits, threshold, draw(st.sampled_from(GatePolicy))
    )
