"""Compile what follows a layer's accumulator into a program of the post-processing unit (sv/post_unit.sv).

    layer.post --steps in order, each on the next stage that can--> descriptors, a table entry a channel, thresholds
    regions    --where each kept tensor lies in its memory--------> offsets and strides

A program is a list of host writes. It asks only what the unit's sizes hold: every value that any accumulator of
psum_bits can lead to fits, so that nothing wraps in the unit; only a shortcut may turn out not to fit its bits, and
then the unit raises its fault as `pgsim.arith.post.check_width` raises InputError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgsim.errors import InputError
from pgsim.rtl.post_regions import Lanes, Region, lanes_of
from pgsim.rtl.post_unit import EVERY_PORT, WRITE, Field, Kind, PostUnit, Select
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Layer,
    Logits,
    MaxPool,
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)

Ints = NDArray[np.int64]

KIND_OF: dict[type[PostStep], Kind] = {
    Bias: Kind.FIXED_POINT,
    FixedPoint: Kind.FIXED_POINT,
    AddShortcut: Kind.ADD,
    Clamp: Kind.CLAMP,
    SaveShortcut: Kind.SAVE,
    SumPool: Kind.POOL,
    MaxPool: Kind.POOL,
    Requantise: Kind.REQUANTISE,
    Logits: Kind.LOGITS,
}


@dataclass(frozen=True)
class Program:
    """What the host writes before a layer, and how much of each of the unit's sizes it needs."""

    writes: NDArray[np.void]  # of WRITE
    needs: Mapping[str, int]


def compile_post(
    layer: Layer,
    unit: PostUnit,
    regions: Mapping[str, Region],
    lanes: Lanes | None = None,
    images: int = 1,
) -> Program:
    """Compile the post steps of `layer` for `unit`, its tensors lying in `regions`, by name.

    A step that keeps a tensor without a region is left out: nobody asks for it. `lanes` is that of `lanes_of` where it
    is not given. Raises InputError, one line with layer and step, for what the unit's sizes do not hold, for a
    shortcut without a region and for thresholds that decrease.
    """
    return _Compiler(layer, unit, regions, lanes or lanes_of(layer.geometry, unit.columns), images).program()


@dataclass
class _Compiler:
    layer: Layer
    unit: PostUnit
    regions: Mapping[str, Region]
    lanes: Lanes
    images: int
    where: str = ""
    stage: int = -1  # of the step at hand
    writes: list[NDArray[np.void]] = field(default_factory=list)
    needs: dict[str, int] = field(default_factory=dict)

    def program(self) -> Program:
        """Compile step by step, following shape and range of v: `low` and `high` a channel, as python ints."""
        g, unit = self.layer.geometry, self.unit
        self.where = f"layer {self.layer.name}"
        self.channels = g.out_channels
        self.low, self.high = (
            [sign * 2 ** (unit.psum_bits - 1) + less] * self.channels for sign, less in ((-1, 0), (1, -1))
        )
        self.shape = (g.out_height, g.out_width)
        self.need("images", self.images, "the images of a batch")
        self.need("tiles", int(self.lanes.tile.max()) + 1, "the channels of a port")
        self.need("map_bits", max(1, (max(self.shape) - 1).bit_length()), "the bits of a row or column")
        for stage in range(len(unit.stages)):
            self.write(Select.DESCRIPTOR, Field.KIND, Kind.PASS, stage=stage)
        for position, step in enumerate(self.layer.post):
            self.where = f"layer {self.layer.name}, post[{position}]"
            if isinstance(step, SaveShortcut | Requantise | Logits) and step.name not in self.regions:
                continue
            self.place(step)
            self.compile(step)
            self.need("value_bits", _signed_bits(self.low, self.high), "the bits of what it can give")
        return Program(np.concatenate(self.writes), self.needs)

    def need(self, name: str, amount: int, what: str) -> None:
        """Note that the layer needs so much of a size; refuse it if the unit has less."""
        limit: int = getattr(self.unit, name)
        if amount > limit:
            raise InputError(
                f"{self.where}: {what} must be at most {limit}, {name} of the post-processing unit, not {amount}"
            )
        self.needs[name] = max(amount, self.needs.get(name, 0))

    def place(self, step: PostStep) -> None:
        """Take the next stage that can do the step."""
        kind = KIND_OF[type(step)]
        able = [s for s in range(self.stage + 1, len(self.unit.stages)) if kind in self.unit.stages[s]]
        if not able:
            after = f" after stage {self.stage}, which the step before takes" if self.stage >= 0 else ""
            raise InputError(
                f"{self.where}: the post-processing unit must have a stage for {kind.name.lower()}{after}, not none"
            )
        self.stage = able[0]
        self.set(Field.KIND, kind)

    def write(
        self,
        select: Select,
        address: ArrayLike,
        data: ArrayLike,
        port: ArrayLike = EVERY_PORT,
        stage: int | None = None,
    ) -> None:
        """Append host writes, one for each element that the arguments broadcast to."""
        address, data, port = np.broadcast_arrays(address, np.asarray(data, np.int64), port)
        writes = np.zeros(data.size, WRITE)
        writes["select"], writes["stage"] = select, max(self.stage, 0) if stage is None else stage
        writes["address"], writes["data"], writes["port"] = address.ravel(), data.ravel(), port.ravel()
        self.writes.append(writes)

    def set(self, register: Field, value: int) -> None:
        """Set a register of the stage in every port."""
        self.write(Select.DESCRIPTOR, register, value)

    def table(self, select: Select, values: ArrayLike) -> None:
        """Write a value a channel, [K] or [1], to the table of the channel's port."""
        self.write(
            select, self.lanes.tile, np.broadcast_to(np.asarray(values, np.int64), self.channels), self.lanes.port
        )

    def compile(self, step: PostStep) -> None:
        """Write what the stage needs to do the step, and follow what v becomes."""
        match step:
            case Bias():
                self.fixed_point(np.ones(1, np.int64), step.bias, 0)
            case FixedPoint():
                self.fixed_point(step.multiplier, step.bias, step.shift)
            case AddShortcut():
                self.add(step)
            case Clamp():
                self.bounds(step.low, step.high)
                self.low = [min(max(value, step.low), step.high) for value in self.low]
                self.high = [min(max(value, step.low), step.high) for value in self.high]
            case SaveShortcut():
                self.need("shortcut_bits", step.bits, "the bits of a shortcut")
                self.keep(self.regions[step.name])
                low = -(2 ** (step.bits - 1)) if step.signed else 0
                self.bounds(low, low + 2**step.bits - 1)
            case SumPool():
                count = step.kernel[0] * step.kernel[1]
                self.pool(step.kernel, step.stride, (0, 0, 0, 0), maximum=False)
                self.low, self.high = [min(v, v * count) for v in self.low], [max(v, v * count) for v in self.high]
            case MaxPool():
                self.pool(step.kernel, step.stride, step.padding, maximum=True)
            case Requantise():
                if step.shift is not None:
                    raise InputError(f"{self.where}: codes must be stored where they arise, not shifted")
                self.requantise(step)
            case Logits():
                self.keep(self.regions[step.name])

    def fixed_point(self, multiplier: Ints, bias: Ints, shift: int) -> None:
        factors, biases = (np.broadcast_to(a, self.channels).tolist() for a in (multiplier, bias))
        self.need("factor_bits", _signed_bits(factors), "the bits of a multiplier")
        self.need("bias_bits", _signed_bits(biases), "the bits of a bias")
        self.table(Select.FACTOR, factors)
        self.table(Select.BIAS, biases)
        self.set(Field.SHIFT, shift)
        rounding = 2**shift // 2 if shift else 0
        for c, (factor, add) in enumerate(zip(factors, biases, strict=True)):
            products = (factor * self.low[c], factor * self.high[c])
            self.low[c] = (min(products) + add + rounding) >> shift
            self.high[c] = (max(products) + add + rounding) >> shift

    def add(self, step: AddShortcut) -> None:
        region = self.regions.get(step.source)
        if region is None:
            raise InputError(f"{self.where}: the shortcut {step.source} must have a region, not none")
        self.need("shortcut_bits", region.bits, "the bits of a shortcut")
        channel = np.arange(self.channels) - step.pad_before
        present = (channel >= 0) & (channel < region.shape[0])
        steps = (region.strides[0], region.strides[2] * step.stride, region.strides[3] * step.stride)
        self.addresses(region, np.where(present, region.base + channel * region.strides[1], 0), present, steps)
        self.set(Field.SIGNED, region.signed)
        low = -(2 ** (region.bits - 1)) if region.signed else 0
        for c in np.flatnonzero(present):
            self.low[c] += low
            self.high[c] += low + 2**region.bits - 1

    def bounds(self, low: int, high: int) -> None:
        """Write the bounds; those that v does not reach move to where the unit's values end."""
        end = 2 ** (self.unit.value_bits - 1)
        self.set(Field.LOW, min(max(low, -end), end - 1))
        self.set(Field.HIGH, min(max(high, -end), end - 1))

    def keep(self, region: Region) -> None:
        """Let the stage write v to its place in the region."""
        offset = region.base + np.arange(self.channels) * region.strides[1]
        self.addresses(region, offset, np.ones(self.channels, bool), (region.strides[0], *region.strides[2:]))

    def addresses(self, region: Region, offset: Ints, present: NDArray[np.bool_], steps: tuple[int, int, int]) -> None:
        sizes = {Select.SHORTCUTS: "shortcut_words", Select.HIGH_PLANE: "code_words", Select.LOGITS: "logit_words"}
        self.need(sizes[region.memory], int(region.addresses(self.images).max()) + 1, "the last word")
        self.table(Select.OFFSET, offset + (present.astype(np.int64) << 32))
        for register, step in zip((Field.IMAGE_STRIDE, Field.ROW_STRIDE, Field.COLUMN_STRIDE), steps, strict=True):
            self.set(register, step)

    def pool(
        self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int], *, maximum: bool
    ) -> None:
        self.need("pool_axis", max(self.shape), "the height and width of a map that is pooled")
        overlap, shape = self.unit.pool_overlap, []
        for axis, select in enumerate((Select.AXIS_ROWS, Select.AXIS_COLUMNS)):
            size, before, after = self.shape[axis], padding[2 * axis], padding[2 * axis + 1]
            self.need("pool_overlap", -(-kernel[axis] // stride[axis]), "kernel / stride, rounded up,")
            windows = (size + before + after - kernel[axis]) // stride[axis] + 1
            shape.append(windows)
            entries = np.zeros((overlap, size), np.int64)
            for window in range(windows):
                begin = window * stride[axis] - before
                inside = range(max(begin, 0), min(begin + kernel[axis], size))
                entries[window % overlap, inside.start : inside.stop] = 1 << 32 | len(inside) << 16 | window // overlap
            residue, place = np.indices(entries.shape)
            self.write(select, residue << 16 | place, entries)
        self.need("pool_count", (kernel[0] * kernel[1]).bit_length(), "the bits of a window's count")
        rows, columns = (-(-windows // overlap) for windows in shape)
        tiles = int(self.lanes.tile.max()) + 1
        self.need("pool_words", rows * columns * tiles * min(self.images, 2), "the windows of a bank")
        apart = all(k <= s for k, s in zip(kernel, stride, strict=True))
        queue = 2 if apart else self.queued(shape[0] * shape[1], any(padding))
        self.need("pool_queue", queue, "the windows that can be finished and still queue")
        self.table(Select.OFFSET, self.lanes.tile * (rows * columns))
        self.set(Field.IMAGE_STRIDE, rows * columns * tiles)
        self.set(Field.ROW_STRIDE, columns)
        self.set(Field.MAXIMUM, maximum)
        self.shape = (shape[0], shape[1])
        self.need("map_bits", max(1, (max(shape) - 1).bit_length()), "the bits of a row or column")

    def queued(self, windows: int, padded: bool) -> int:
        """Return how many windows of a port can be finished and still wait, at a result a cycle and a window a cycle.

        While the queue is not empty as many windows leave as results come. New segments without padding finish no more
        than came of them; those that were open, two at most, finish all their windows. With padding a segment that is
        open can be so far ahead, too; one that gives more windows than it takes values falls behind for good.
        """
        all_of_them = windows * (int(self.lanes.tile.max()) + 1) * self.images
        if windows > self.shape[0] * self.shape[1]:
            return all_of_them
        return min(all_of_them, windows * (4 if padded else 2))

    def requantise(self, step: Requantise) -> None:
        region = self.regions[step.name]
        rows, levels = step.threshold.shape
        decreasing = np.flatnonzero((step.threshold[:, 1:] < step.threshold[:, :-1]).any(axis=1))
        if decreasing.size:
            raise InputError(f"{self.where}: thresholds must not decrease along a row, as row {decreasing[0]} does")
        depth = levels.bit_length()
        widest = max(_unsigned_bits(step.base), _unsigned_bits(step.base + levels), region.low_bits)
        self.need("levels", depth, "the levels of the search for a code")
        self.need("code_bits", widest, "the bits of a code, its sign apart,")
        shared = rows == 1
        tree_rows = 1 if shared else int(self.lanes.tile.max()) + 1
        self.need("tree_words", tree_rows << max(depth - 1, 0), "the thresholds of a level of the search")
        end = 2**self.unit.value_bits  # past what direction * v can be; a threshold has a bit more than v
        threshold = np.full((rows, 2**depth - 1), end - 1, np.int64)
        threshold[:, :levels] = np.clip(step.threshold, -end, end - 1)
        row, port = (np.zeros(1, np.int64), np.full(1, EVERY_PORT)) if shared else (self.lanes.tile, self.lanes.port)
        for level in range(depth):
            node = np.arange(2**level)
            place = node * 2 ** (depth - level) + 2 ** (depth - level - 1) - 1
            address = level << 24 | (row[:, None] << level) + node[None, :]
            self.write(Select.TREE, address, threshold[:, place], port[:, None])
        self.keep(region)
        self.table(Select.DIRECTION, step.direction < 0)
        self.set(Field.DEPTH, depth)
        self.set(Field.SHARED, shared)
        self.set(Field.BASE, step.base)
        self.set(Field.SIGN_MAGNITUDE, step.format.encoding.value == "sign_magnitude")
        self.set(Field.LOW_BITS, region.low_bits)


def _signed_bits(*numbers: Iterable[int]) -> int:
    """Bits of two's complement that hold all of them."""
    return max(1 + (n if n >= 0 else ~n).bit_length() for row in numbers for n in row)


def _unsigned_bits(code: int) -> int:
    """Bits of a code beside its sign."""
    return (code if code >= 0 else ~code).bit_length()
