"""Where the tensors that layers keep lie in the post-processing unit's memories, and which port gives which channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.rtl.post_unit import WRITE, PostUnit, Select
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import AddShortcut, Geometry, Layer, Logits, MaxPool, Requantise, SaveShortcut, SumPool

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Region:
    """Where a tensor [N, K, P, Q] lies: element [n, k, p, q] at base + n, k, p and q times their strides.

    `memory` is SHORTCUTS, HIGH_PLANE (codes: the low plane has the same addresses) or LOGITS. `bits` and `signed` are
    those of a shortcut, `low_bits` those that the low plane takes of a code.
    """

    memory: Select
    base: int
    shape: tuple[int, int, int]
    strides: tuple[int, int, int, int]
    bits: int = 0
    signed: bool = False
    low_bits: int = 0

    def addresses(self, images: int) -> Ints:
        """Return the address of each element, int64 [N, K, P, Q]."""
        sizes = (images, *self.shape)
        axes = [np.arange(size, dtype=np.int64) * step for size, step in zip(sizes, self.strides, strict=True)]
        return self.base + sum(np.ix_(*axes), np.zeros(sizes, np.int64))

    def load(self, values: Ints) -> NDArray[np.void]:
        """Return the host writes that put a shortcut there, int64 [N, K, P, Q]."""
        writes = np.zeros(values.size, WRITE)
        writes["select"] = self.memory
        writes["address"] = self.addresses(len(values)).ravel()
        writes["data"] = values.ravel()
        return writes


@dataclass(frozen=True)
class Lanes:
    """Which port gives a channel, and as which of the port's tiles: two int64 [K], each pair once."""

    port: Ints
    tile: Ints


def lanes_of_tiles(tiles: Sequence[tuple[int, int]]) -> Lanes:
    """Return the lanes of channel tiles, each (first channel, columns): column j of a tile gives its j-th channel."""
    channels = sum(columns for _, columns in tiles)
    port, tile = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for number, (first, columns) in enumerate(tiles):
        port[first : first + columns] = np.arange(columns)
        tile[first : first + columns] = number
    return Lanes(port, tile)


def lanes_of_segments(first_channel: Ints, columns: Ints) -> Lanes:
    """Return the lanes of a layer's segments, two int64 [S]: every channel tile once, in the order of its channels."""
    first, one = np.unique(first_channel, return_index=True)
    return lanes_of_tiles(list(zip(first.tolist(), columns[one].tolist(), strict=True)))


def segment_writes(
    unit: PostUnit, lanes: Lanes, image: Ints, first_channel: Ints, complete: NDArray[np.bool_]
) -> NDArray[np.void]:
    """Return the host writes that tell the unit of a layer's segments: three arrays [S].

    `complete` is false for the segments of all parts of K but the last, whose results are partial sums. Raises
    InputError where the unit holds fewer segments.
    """
    if len(image) > unit.segments:
        raise InputError(
            f"the segments of a layer must be at most {unit.segments}, segments of the post-processing unit, "
            f"not {len(image)}"
        )
    writes = np.zeros(len(image), WRITE)
    writes["select"], writes["address"] = Select.SEGMENTS, np.arange(len(image))
    writes["data"] = complete.astype(np.int64) << 48 | image << 16 | lanes.tile[first_channel]
    return writes


def lanes_of(geometry: Geometry, columns: int) -> Lanes:
    """Return the lanes of full channel tiles, groups in order; those of a depthwise layer lie side by side."""
    depthwise = geometry.group_out_channels == geometry.group_in_channels == 1
    each = geometry.out_channels if depthwise else geometry.group_out_channels
    return lanes_of_tiles(
        [
            (group + first, min(columns, each - first))
            for group in range(0, geometry.out_channels, each)
            for first in range(0, each, columns)
        ]
    )


def plan_regions(
    layers: Sequence[Layer], images: int, boundaries: Sequence[Boundary] = ()
) -> tuple[dict[str, Region], dict[Select, int]]:
    """Lay out every tensor that a layer keeps, and each boundary that is a shortcut; return words a memory, too.

    A tensor lies densely in C, H, W order, image after image, as early in its memory as is free from the layer that
    keeps it to the last one that reads it. Codes are split as the gated layers that read them ask. Where two ask for
    different splits the high plane takes whole codes: they go off chip, and are split anew for each as they arrive.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    made: dict[str, Region] = {b.name: _dense(Select.SHORTCUTS, b.shape, b.bits, b.signed) for b in boundaries}
    splits: dict[str, set[int]] = {}
    for index, layer in enumerate(layers):
        shape = layer.geometry.output_shape
        read = [step.source for step in layer.post if isinstance(step, AddShortcut)]
        if layer.input_name is not None:
            read.append(layer.input_name)
            if layer.gate:
                splits.setdefault(layer.input_name, set()).add(layer.update_bits)
        for step in layer.post:
            match step:
                case SumPool() | MaxPool():
                    shape = (shape[0], *_pooled(shape[1:], step))
                case SaveShortcut():
                    made[step.name] = _dense(Select.SHORTCUTS, shape, step.bits, step.signed)
                case Requantise():
                    made[step.name] = _dense(Select.HIGH_PLANE, shape)
                case Logits():
                    made[step.name] = _dense(Select.LOGITS, shape)
            if isinstance(step, SaveShortcut | Requantise | Logits):
                first[step.name] = last[step.name] = index
        for name in read:
            first.setdefault(name, index)
            last[name] = index
    placed: dict[str, Region] = {}
    words = dict.fromkeys((Select.SHORTCUTS, Select.HIGH_PLANE, Select.LOGITS), 0)
    for name in sorted((name for name in made if name in first), key=lambda name: first[name]):
        region, split = made[name], splits.get(name, set())
        beside = [o for o in placed if placed[o].memory is region.memory and last[o] >= first[name]]
        taken = sorted((placed[o].base, placed[o].base + images * placed[o].strides[0]) for o in beside)
        base = 0
        for begin, end in taken:
            if base + images * region.strides[0] <= begin:
                break
            base = max(base, end)
        placed[name] = replace(region, base=base, low_bits=next(iter(split)) if len(split) == 1 else 0)
        words[region.memory] = max(words[region.memory], base + images * region.strides[0])
    return placed, words


def _dense(memory: Select, shape: tuple[int, int, int], bits: int = 0, signed: bool = False) -> Region:
    channels, height, width = shape
    return Region(memory, 0, shape, (channels * height * width, height * width, width, 1), bits, signed)


def _pooled(shape: tuple[int, int], step: SumPool | MaxPool) -> tuple[int, int]:
    top, bottom, left, right = step.padding if isinstance(step, MaxPool) else (0, 0, 0, 0)
    framed = (shape[0] + top + bottom, shape[1] + left + right)
    rows, columns = ((framed[axis] - step.kernel[axis]) // step.stride[axis] + 1 for axis in (0, 1))
    return rows, columns
