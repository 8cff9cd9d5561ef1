"""How a kernel slides over a feature map: the geometry that every layer sum needs, as plain numbers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Window(Protocol):
    """Stride, padding, dilation and groups; anything with these four attributes will do (workload.Geometry has them).

    stride (rows, columns) >= 1; padding (top, bottom, left, right) >= 0, pixels of code 0; dilation (rows,
    columns) >= 1; groups >= 1 divides the input and the output channels.
    """

    @property
    def stride(self) -> tuple[int, int]:
        """Rows and columns between neighbouring windows."""
        ...

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Top, bottom, left, right."""
        ...

    @property
    def dilation(self) -> tuple[int, int]:
        """Rows and columns between neighbouring taps."""
        ...

    @property
    def groups(self) -> int:
        """G: output channel k reads the input channels of group k // (K / G) only."""
        ...


def output_shape(activation: NDArray[Any], weight: NDArray[Any], window: Window) -> tuple[int, int, int, int]:
    """Return (N, K, P, Q) of the layer of activation [N, C, H, W] and weight [K, C/G, R, S].

    Raises ValueError where the arrays and the window do not make a layer, TypeError where they are not of integers.
    """
    for name, array in (("activation", activation), ("weight", weight)):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be an integer array, not {array.dtype}")
        if array.ndim != 4:
            raise ValueError(f"{name} must have 4 axes, not {array.ndim}")
    images, channels, height, width = activation.shape
    out_channels, group_channels, *kernel = weight.shape
    if channels != group_channels * window.groups or out_channels % window.groups:
        raise ValueError(
            f"weight {weight.shape} with {window.groups} groups must read {group_channels * window.groups} input "
            f"channels and split {out_channels} output channels evenly, not read {channels}"
        )
    if min(window.padding) < 0 or min(window.stride) < 1 or min(window.dilation) < 1:
        raise ValueError(f"padding must be >= 0, stride and dilation >= 1, not {window}")
    top, bottom, left, right = window.padding
    rows = (height + top + bottom - window.dilation[0] * (kernel[0] - 1) - 1) // window.stride[0] + 1
    columns = (width + left + right - window.dilation[1] * (kernel[1] - 1) - 1) // window.stride[1] + 1
    if rows < 1 or columns < 1:
        raise ValueError(f"the kernel must fit the padded input, not reach past it: output {rows} x {columns}")
    return images, out_channels, rows, columns


def padded(codes: NDArray[Any], window: Window, dtype: type[np.generic]) -> NDArray[Any]:
    """Return codes [N, C, H, W] with their border of zeros, [N, C, H + top + bottom, W + left + right], as `dtype`."""
    images, channels, height, width = codes.shape
    top, bottom, left, right = window.padding
    result = np.zeros((images, channels, height + top + bottom, width + left + right), dtype)
    result[:, :, top : top + height, left : left + width] = codes
    return result
