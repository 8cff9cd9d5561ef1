"""The operands of one layer as the machine's ports see them: words of planes and weights, slices of a pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import GatePolicy
from pgsim.arith.split import split
from pgsim.hw.accelerator import Accelerator, Organisation, OverflowMode
from pgsim.model.lanes import LaneWidths
from pgsim.model.schedule import Schedule
from pgsim.workload.layer import Gate, Layer

Ints = NDArray[np.int64]


def operand_slice(value: Ints, index: int, passes: int, lane_bits: int) -> Ints:
    """Return slice `index` of `passes`, least significant first; the last one keeps the sign.

    The slices times 2^(index * lane_bits) sum to `value` for every integer.
    """
    shifted = value >> (index * lane_bits)
    return shifted if index == passes - 1 else shifted & ((1 << lane_bits) - 1)


@dataclass
class Operands:
    """Activations, weights and thresholds of one layer, read word by word.

    `activation` int16 [N, C, H, W]. `threshold` int64 [K] and `policy` are the gate that the machine applies, which is
    the accelerator's choice (zero-prediction has its own); None where the layer runs without a gate.
    """

    layer: Layer
    schedule: Schedule
    accelerator: Accelerator
    widths: LaneWidths
    activation: NDArray[np.int16]
    threshold: Ints | None
    policy: GatePolicy
    _mask: dict[int, NDArray[np.bool_]] = field(default_factory=dict)  # tile -> mask, for the two phases of one array
    _spilled: dict[tuple[int, int, int], int] = field(default_factory=dict)  # partial sums where K is split

    @classmethod
    def under(
        cls,
        gate: Gate | None,
        layer: Layer,
        schedule: Schedule,
        accelerator: Accelerator,
        widths: LaneWidths,
        activation: NDArray[np.int16],
    ) -> Operands:
        """Return the operands of a layer to which the machine applies `gate`, or none."""
        threshold, policy = (gate.threshold, gate.policy) if gate else (None, GatePolicy.KEEP)
        return cls(layer, schedule, accelerator, widths, activation, threshold, policy)

    def __post_init__(self) -> None:
        layer, org = self.layer, self.accelerator.organisation
        self.weight = layer.weight.astype(np.int64)
        self.is_gated = self.threshold is not None
        self.has_queue = self.is_gated and org is Organisation.DECOUPLED
        codes = self.activation.astype(np.int64)
        if self.is_gated:
            high, low = split(codes, layer.act.encoding, layer.act.bits, layer.pred_bits)
            self.high, self.low = high.astype(np.int64), low.astype(np.int64)
        else:
            self.high, self.low = codes, np.zeros_like(codes)
        self.updated = np.zeros(
            (len(self.activation), *self.layer.geometry.output_shape), np.bool_
        )  # sent to the queue
        self.lane_bits = self.widths.msb
        if not self.is_gated and org is Organisation.GATED_FUSED:
            self.lane_bits += self.widths.lsb
        self.update_lane_bits = self.widths.lsb or self.widths.msb

    # Where a word lies

    def _taps(self, step: int) -> tuple[int, int, int, int]:
        """Kernel row and column, first and one-past-last channel (within the group) of a reduction step."""
        tap, word = divmod(step, self.schedule.words)
        row, column = divmod(tap, self.layer.geometry.kernel[1])
        lanes = self.accelerator.array.multipliers
        return row, column, word * lanes, min((word + 1) * lanes, self.layer.geometry.group_in_channels)

    def _input_pixel(self, pixel: int, row: int, column: int) -> tuple[int, int] | None:
        """Input (y, x) under a kernel tap of an output pixel; None on padding."""
        g = self.layer.geometry
        out_y, out_x = divmod(pixel, g.out_width)
        y = out_y * g.stride[0] - g.padding[0] + row * g.dilation[0]
        x = out_x * g.stride[1] - g.padding[2] + column * g.dilation[1]
        return (y, x) if 0 <= y < g.in_height and 0 <= x < g.in_width else None

    def word_address(self, segment: int, column: int, pixel: int, step: int) -> tuple[int, int, int] | None:
        """(image, input pixel, first input channel) of the word that a pixel reads in a step; None on padding."""
        row, tap_column, first, _ = self._taps(step)
        where = self._input_pixel(pixel, row, tap_column)
        if where is None:
            return None
        group = self._channel(segment, column) // self.layer.geometry.group_out_channels
        channel = group * self.layer.geometry.group_in_channels + first
        image = int(self.schedule.segment_image[segment])
        return image, where[0] * self.layer.geometry.in_width + where[1], channel

    def _channel(self, segment: int, column: int) -> int:
        return int(self.schedule.segment_first_channel[segment]) + column

    # What the lanes compute

    def _product(
        self, plane: Ints, segment: int, column: int, pixel: int, step: int, pass_index: int, act_passes: int, bits: int
    ) -> int:
        """One lane group's sum of products in one cycle, shifted to its place."""
        row, tap_column, first, last = self._taps(step)
        where = self._input_pixel(pixel, row, tap_column)
        if where is None:
            return 0
        channel = self._channel(segment, column)
        base = channel // self.layer.geometry.group_out_channels * self.layer.geometry.group_in_channels
        image = int(self.schedule.segment_image[segment])
        codes = plane[image, base + first : base + last, where[0], where[1]]
        weights = self.weight[channel, first:last, row, tap_column]
        weight_pass, act_pass = divmod(pass_index, act_passes)
        array = self.accelerator.array
        act = operand_slice(codes, act_pass, act_passes, bits)
        weight = operand_slice(weights, weight_pass, self.schedule.passes.weight, array.weight_bits)
        return int(act @ weight) << (act_pass * bits + weight_pass * array.weight_bits)

    def first_psums(self, segment: int, tile: int) -> Ints:
        """Accumulators of a tile before its first step, int64 [columns, pixels]: 0, or what the part before spilled."""
        psums = np.zeros((self.schedule.segment_columns[segment], self.schedule.tile_pixels[tile]), dtype=np.int64)
        if self.schedule.segment_first_step[segment]:
            for column, pixel in np.ndindex(psums.shape):
                output = int(self.schedule.tile_first_pixel[tile]) + pixel
                psums[column, pixel] = self._spilled.pop(self._place(segment, column, output))
        return psums

    def array_passes(self, segment: int) -> int:
        """Passes that a tile of the segment takes on the PE array; both phases in two_pass."""
        passes = self.schedule.passes
        both = self.is_gated and self.accelerator.organisation is Organisation.TWO_PASS
        each_step = passes.predict + passes.update if both else passes.predict
        return int(self.schedule.segment_steps[segment]) * each_step

    def array_step(self, segment: int, worked: int) -> tuple[int, int]:
        """(step, pass of it) of a tile that did `worked` passes on the PE array."""
        passes, steps = self.schedule.passes, int(self.schedule.segment_steps[segment])
        if worked < steps * passes.predict:
            step, index = divmod(worked, passes.predict)
        else:
            step, index = divmod(worked - steps * passes.predict, passes.update)
        return step + int(self.schedule.segment_first_step[segment]), index

    def predict_cycle(self, psum: Ints, tile: int, spent: int) -> Ints:
        """A pass of a tile on the PE array: every PE adds its products. two_pass goes on into its update phase."""
        passes, segment = self.schedule.passes, self.schedule.tile_segment[tile]
        phase_cycles = int(self.schedule.segment_steps[segment]) * passes.predict
        if spent < phase_cycles:
            step, index = divmod(spent, passes.predict)
            step += int(self.schedule.segment_first_step[segment])
            return self._add(psum, self.high, tile, step, index, passes.act_predict, self.lane_bits)
        if spent == phase_cycles:
            psum = self._compare(psum, tile)
        step, index = divmod(spent - phase_cycles, passes.update)
        return self._add_low(psum, tile, step, index)

    def second_cycle(self, psum: Ints, tile: int, spent: int) -> Ints:
        """A pass of a tile in the LSB parts of gated_fused."""
        if spent == 0:
            psum = self._compare(psum, tile)
        step, index = divmod(spent, self.schedule.passes.update)
        return self._add_low(psum, tile, step, index)

    def _add(self, psum: Ints, plane: Ints, tile: int, step: int, index: int, act_passes: int, bits: int) -> Ints:
        """Every PE of the tile adds its sum of products in one cycle: the window words times the columns' weight
        words."""
        row, tap_column, first, last = self._taps(step)
        segment, pixel = int(self.schedule.tile_segment[tile]), int(self.schedule.tile_first_pixel[tile])
        image = int(self.schedule.segment_image[segment])
        channels = self._channel(segment, 0) + np.arange(psum.shape[0])
        bases = channels // self.layer.geometry.group_out_channels * self.layer.geometry.group_in_channels
        weight_pass, act_pass = divmod(index, act_passes)
        weight_bits = self.accelerator.array.weight_bits
        words = self.weight[channels, first:last, row, tap_column]  # [columns, N]
        words = operand_slice(words, weight_pass, self.schedule.passes.weight, weight_bits)
        added = psum.copy()
        for offset in range(psum.shape[1]):
            where = self._input_pixel(pixel + offset, row, tap_column)
            if where is None:
                continue
            codes = plane[image, :, where[0], where[1]]
            windows = codes[bases[:, None] + np.arange(first, last)]  # [columns, N]; one window unless depthwise
            windows = operand_slice(windows, act_pass, act_passes, bits)
            added[:, offset] += (windows * words).sum(axis=1) << (act_pass * bits + weight_pass * weight_bits)
        return self._fit(added) if index == act_passes * self.schedule.passes.weight - 1 else added

    def _fit(self, psum: Any) -> Any:
        """What an accumulator holds after a step, when the slices of all passes have been added."""
        array = self.accelerator.array
        low, high = -(1 << (array.psum_bits - 1)), (1 << (array.psum_bits - 1)) - 1
        if array.overflow is OverflowMode.SATURATE:
            return np.clip(psum, low, high)
        if array.overflow is OverflowMode.WRAP:
            return (psum - low) % (1 << array.psum_bits) + low
        return psum  # overflow is an error, which arith has looked for

    def _compare(self, psum: Ints, tile: int) -> Ints:
        """The comparators of all PEs at once: set the tile's mask, align the partial sums."""
        assert self.threshold is not None
        first = int(self.schedule.segment_first_channel[self.schedule.tile_segment[tile]])
        self._mask[tile] = psum > self.threshold[first : first + psum.shape[0], None]
        aligned = self._fit(psum << self.layer.update_bits)
        return aligned if self.policy is GatePolicy.KEEP else np.where(self._mask[tile], aligned, 0)

    def _add_low(self, psum: Ints, tile: int, step: int, index: int) -> Ints:
        passes = self.schedule.passes
        added = self._add(psum, self.low, tile, step, index, passes.act_update, self.update_lane_bits)
        return np.where(self._mask[tile], added, psum)

    def enqueue(self, segment: int, column: int, pixel: int) -> None:
        """Note that an output went into the update queue."""
        image, channel, pixel = self._place(segment, column, pixel)
        self.updated.reshape(*self.updated.shape[:2], -1)[image, channel, pixel] = True

    def update_step(self, psum: int, segment: int, column: int, pixel: int, step: int, pass_index: int) -> int:
        """One pass of one step of one lane of the LSB array: of the LSB plane, or of whole codes of a shared tile."""
        plane = self.low if self.is_gated else self.high
        passes = self.schedule.passes
        psum += self._product(plane, segment, column, pixel, step, pass_index, passes.act_update, self.update_lane_bits)
        return int(self._fit(np.int64(psum))) if pass_index == passes.update - 1 else psum

    # The gate and the ports

    def is_updated(self, segment: int, column: int, psum: int) -> bool:
        """The comparator of a column: whether the output goes to the update queue."""
        if not self.has_queue:
            return False
        assert self.threshold is not None
        return psum > int(self.threshold[self._channel(segment, column)])

    def aligned(self, psum: int) -> int:
        """A_h << l, from which an update starts."""
        return int(self._fit(np.int64(psum << self.layer.update_bits)))

    def kept(self, psum: int) -> int:
        """What an output that takes its port straight from the drain is."""
        if not self.has_queue:
            return psum
        return self.aligned(psum) if self.policy is GatePolicy.KEEP else 0

    def empty_outputs(self) -> Ints:
        """Outputs not yet written, int64 [N, K, P, Q], all at a value that no accumulator holds."""
        return np.full((len(self.activation), *self.layer.geometry.output_shape), np.iinfo(np.int64).min)

    def store(self, outputs: Ints, segment: int, column: int, pixel: int, value: int) -> None:
        """Write one result that took its port, or spill a partial sum; each output is written once."""
        image, channel, pixel = where = self._place(segment, column, pixel)
        schedule = self.schedule
        if schedule.segment_first_step[segment] + schedule.segment_steps[segment] < schedule.steps:
            self._spilled[where] = value
            return
        flat = outputs.reshape(*outputs.shape[:2], -1)
        assert flat[image, channel, pixel] == np.iinfo(np.int64).min, "an output was written twice"
        flat[image, channel, pixel] = value

    def _place(self, segment: int, column: int, pixel: int) -> tuple[int, int, int]:
        return int(self.schedule.segment_image[segment]), self._channel(segment, column), pixel
