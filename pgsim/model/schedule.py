"""The work of one layer and batch in the machine's order: segments and tiles (timing contract, section 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, DepthwisePort, Organisation
from pgsim.model.lanes import LaneWidths, Passes, passes_of
from pgsim.model.post_unit import parameter_bits
from pgsim.workload.layer import Geometry, Layer


@dataclass(frozen=True)
class Traffic:
    """What the layer's tensors move, as the residency plan decided (pgsim.model.residency). Bits.

    `pixel_bits` and `pixel_lsb_bits` are what one input pixel, all channels, takes in the activation buffer (the MSB
    plane where the planes are apart) and in the LSB plane's. `read_bits` (shortcuts) and `write_bits` (codes,
    shortcuts, results) go over the off-chip channel for each image, in step with the outputs. The `free` figures are
    what resident tensors leave of each buffer; None: all of it.
    """

    input_off_chip: bool
    pixel_bits: int
    pixel_lsb_bits: int
    read_bits: int = 0
    write_bits: int = 0
    activation_free: int | None = None
    activation_lsb_free: int | None = None
    output_free: int | None = None


@dataclass(frozen=True)
class Schedule:
    """Segments and tiles of one layer and batch; arrays are int64, [S] a segment and [T] a tile.

    `steps` is D of the whole reduction, `words` the words of N channels a tap takes, so that step k is tap k // words,
    word k % words. A segment covers steps [first_step, first_step + steps): all of them unless K is split.
    """

    segment_image: NDArray[np.int64]
    segment_first_channel: NDArray[np.int64]
    segment_columns: NDArray[np.int64]
    segment_first_tile: NDArray[np.int64]
    segment_tiles: NDArray[np.int64]
    segment_pixels: NDArray[np.int64]
    segment_first_step: NDArray[np.int64]
    segment_steps: NDArray[np.int64]
    segment_read_bits: NDArray[np.int64]
    segment_write_bits: NDArray[np.int64]
    tile_segment: NDArray[np.int64]
    tile_first_pixel: NDArray[np.int64]
    tile_pixels: NDArray[np.int64]
    tile_window: NDArray[np.int64]  # row of window_reads
    window_reads: NDArray[np.int64]  # [windows, taps] cycles in which a step of each tap reads its words, 1 or more
    steps: int
    words: int
    passes: Passes
    parts: int  # of K; 1 where it is not split
    bands: int
    band_rows: int
    activation_fill_bits: int  # bits written into the activation buffers from off chip, halo re-reads included
    weight_fill_bits: int  # bits of weights, thresholds and post parameters read from off chip
    recurrent: bool  # the images are the steps of a sequence

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self.segment_image)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.tile_segment)

    @property
    def tile_fetch(self) -> NDArray[np.int64]:
        """[T] cycles in which a tile fetches partial sums of the part before: its pixels, or 0 in the first part."""
        return np.where(self.segment_first_step[self.tile_segment] > 0, self.tile_pixels, 0)

    @property
    def tile_waits(self) -> NDArray[np.int64]:
        """[T] cycles in which a tile's steps wait for activation words, over one reading of its window."""
        waits = np.zeros((len(self.window_reads), self.window_reads.shape[1] + 1), dtype=np.int64)
        waits[:, 1:] = (self.window_reads - 1).cumsum(axis=1)
        tap = self.segment_first_step // self.words
        tap_end = tap + self.segment_steps // self.words
        tile = self.tile_segment
        return (waits[self.tile_window, tap_end[tile]] - waits[self.tile_window, tap[tile]]) * self.words

    @property
    def segment_follows(self) -> NDArray[np.bool_]:
        """[S] whether a segment may not be read before the one before it is done: a new step of a sequence."""
        follows = np.zeros(self.segments, dtype=np.bool_)
        if self.recurrent:
            follows[1:] = np.diff(self.segment_image) > 0
        return follows


def input_rows(geometry: Geometry, first: int, rows: int) -> int:
    """Return how many input rows the output rows [first, first + rows) read."""
    low = first * geometry.stride[0] - geometry.padding[0]
    high = (first + rows - 1) * geometry.stride[0] - geometry.padding[0]
    high += geometry.dilation[0] * (geometry.kernel[0] - 1)
    return max(0, min(high, geometry.in_height - 1) - max(low, 0) + 1)


@dataclass(frozen=True)
class WeightPlan:
    """How a layer's weights go through the weight buffer (timing contract, section 1)."""

    resident: bool  # all of the layer's weights stay on chip for the batch
    columns: int  # of a channel tile
    part_taps: tuple[int, ...]  # taps of each part of K


def plan_weights(layer: Layer, accelerator: Accelerator, own_bits: int, shared_bits: int, gated: bool) -> WeightPlan:
    """Fit the layer's weights to the weight buffer; raise InputError where not even one tap of a channel tile fits
    half.

    `own_bits` are a channel's threshold and post parameters, `shared_bits` the parameters of all channels.
    """
    g, size = layer.geometry, accelerator.memory.weight.size_bits - shared_bits
    tap_bits = g.group_in_channels * layer.weight_format.storage_bits
    taps = g.kernel[0] * g.kernel[1]
    columns = max(wide for _, wide in _channel_tiles(layer, accelerator, accelerator.array.columns))
    channel_bits = taps * tap_bits + own_bits
    if g.out_channels * channel_bits <= size:
        return WeightPlan(True, columns, (taps,))
    if 2 * columns * channel_bits <= size:
        return WeightPlan(False, columns, (taps,))
    need = 2 * (channel_bits if gated else columns * (tap_bits + own_bits))
    if need > size:
        what = "one output channel" if gated else "one tap of a channel tile"
        raise InputError(
            f"{accelerator.name}: memory.weight.size must hold {what} of layer {layer.name} twice "
            f"({need + shared_bits} bits), not {size + shared_bits} bits"
        )
    if gated:
        return WeightPlan(False, size // (2 * channel_bits), (taps,))
    parts = -(-taps // ((size // (2 * columns) - own_bits) // tap_bits))
    return WeightPlan(False, columns, tuple(taps * (p + 1) // parts - taps * p // parts for p in range(parts)))


def band_rows(layer: Layer, accelerator: Accelerator, traffic: Traffic, weights: WeightPlan) -> int:
    """Return the output rows of a band (timing contract, section 1).

    All rows where the input is on chip already and no output or shortcut moves; else the most whose input rows fit half
    of each activation buffer, and whose outputs that leave and shortcuts that come fit half of the output buffer.
    Raises InputError where not even one row fits.
    """
    g, memory = layer.geometry, accelerator.memory
    columns = min(weights.columns, g.out_channels)
    lsb = memory.activation_lsb.size_bits if memory.activation_lsb else 0
    room = {
        "activation": memory.activation.size_bits if traffic.activation_free is None else traffic.activation_free,
        "activation_lsb": lsb if traffic.activation_lsb_free is None else traffic.activation_lsb_free,
        "output": memory.output.size_bits if traffic.output_free is None else traffic.output_free,
    }

    def misfit(rows: int) -> tuple[str, int] | None:
        """The first buffer that two bands of `rows` output rows do not fit, and the bits they take."""
        most = max(input_rows(g, first, min(rows, g.out_height - first)) for first in range(0, g.out_height, rows))
        pixels = most * g.in_width if traffic.input_off_chip else 0
        out = columns * rows * g.out_width
        spilled = out * accelerator.array.psum_bits if len(weights.part_taps) > 1 else 0
        needs = {
            "activation": 2 * pixels * traffic.pixel_bits,
            "activation_lsb": 2 * pixels * traffic.pixel_lsb_bits,
            "output": 2 * -(-out * (traffic.write_bits + traffic.read_bits) // g.outputs) + spilled,
        }
        return next(((name, need) for name, need in needs.items() if need > room[name]), None)

    if misfit(g.out_height) is None:
        return g.out_height
    rows = next((r for r in range(g.out_height - 1, 0, -1) if misfit(r) is None), 0)
    if rows:
        return rows
    name, need = misfit(1) or ("", 0)
    raise InputError(
        f"{accelerator.name}: memory.{name}.size must leave room for two bands of one output row of layer {layer.name} "
        f"({need} bits), not {room[name]} bits"
    )


def _channel_tiles(layer: Layer, accelerator: Accelerator, columns: int) -> list[tuple[int, int]]:
    """(first output channel, columns) of every channel tile of at most `columns`, groups in order."""
    g = layer.geometry
    if g.groups > 1 and g.group_in_channels == 1 and g.group_out_channels == 1:
        wide = columns if accelerator.depthwise is DepthwisePort.OWN_PORT else 1
        return [(first, min(wide, g.groups - first)) for first in range(0, g.groups, wide)]
    per_group = g.group_out_channels
    return [
        (group * per_group + first, min(columns, per_group - first))
        for group in range(g.groups)
        for first in range(0, per_group, columns)
    ]


def _share(total: int, before: int, count: int, outputs: int) -> int:
    """The part of `total` that falls on outputs [before, before + count) of `outputs`; the parts sum to `total`."""
    return total * (before + count) // outputs - total * before // outputs


def reads_lsb(accelerator: Accelerator, gated: bool) -> bool:
    """Tell whether the PE array reads the LSB plane too: in a layer without a gate, where the planes are apart."""
    return accelerator.memory.activation_lsb is not None and not gated


def _window_reads(
    geometry: Geometry, accelerator: Accelerator, pixels: NDArray[np.int64], gated: bool
) -> NDArray[np.int64]:
    """Cycles in which each of an image's tiles reads the words of a step, [tiles, taps]: the fullest bank decides.

    `pixels` [tiles] are those of each tile, in order; together all output pixels.
    """
    g, memory = geometry, accelerator.memory
    buffers = [(memory.activation.banks, memory.activation.ports)]
    if reads_lsb(accelerator, gated):
        assert memory.activation_lsb is not None
        buffers.append((memory.activation_lsb.banks, memory.activation_lsb.ports))
    tile = np.repeat(np.arange(len(pixels)), pixels)  # of each output pixel
    reads = np.ones((len(pixels), g.kernel[0] * g.kernel[1]), dtype=np.int64)
    for tap in range(reads.shape[1]):
        pixel = g.input_pixels(*divmod(tap, g.kernel[1]))
        inside = pixel >= 0
        for banks, ports in buffers:
            places, words = np.unique(tile[inside] * banks + pixel[inside] % banks, return_counts=True)
            np.maximum.at(reads[:, tap], places // banks, -(-words // ports))
    return reads


def make_schedule(
    layer: Layer,
    accelerator: Accelerator,
    widths: LaneWidths,
    images: int,
    traffic: Traffic,
    *,
    gated: bool,
) -> Schedule:
    """Lay out the layer's work over `images` images; `gated` says whether it runs with a gate on this accelerator.

    Raises InputError where a buffer is too small for any tile.
    """
    g, array = layer.geometry, accelerator.array
    words = -(-g.group_in_channels // array.multipliers)
    own_bits, shared_bits = parameter_bits(layer, array.psum_bits)
    own_bits += array.psum_bits + 1 if gated else 0  # the threshold
    weights = plan_weights(layer, accelerator, own_bits, shared_bits, gated)
    rows = band_rows(layer, accelerator, traffic, weights)
    bands = [(first, min(rows, g.out_height - first)) for first in range(0, g.out_height, rows)]
    channels = _channel_tiles(layer, accelerator, weights.columns)
    parts = list(zip(np.cumsum((0, *weights.part_taps[:-1])).tolist(), weights.part_taps, strict=True))
    tap_bits = g.group_in_channels * layer.weight_format.storage_bits
    reload = not weights.resident and len(channels) * len(parts) > 1

    segments: list[tuple[int, ...]] = []
    tile_columns: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    fill = weight_fill = tiles = outputs = 0
    for image in range(images):
        for band, (first_row, band_height) in enumerate(bands):
            start, pixels = first_row * g.out_width, band_height * g.out_width
            firsts = np.arange(start, start + pixels, array.rows, dtype=np.int64)
            counts = np.minimum(array.rows, start + pixels - firsts)
            for position, (first_channel, columns) in enumerate(channels):
                for part, (first_tap, taps) in enumerate(parts):
                    read = write = 0
                    if position == part == 0 and traffic.input_off_chip:
                        pixel = traffic.pixel_bits + traffic.pixel_lsb_bits
                        read = input_rows(g, first_row, band_height) * g.in_width * pixel
                        fill += read
                    if reload or (image == 0 and band == 0):
                        bits = columns * (taps * tap_bits + (own_bits if part == len(parts) - 1 else 0))
                        bits += 0 if segments else shared_bits
                        weight_fill += bits
                        read += bits
                    if part == len(parts) - 1:
                        before = outputs % g.outputs
                        outputs += columns * pixels
                        read += _share(traffic.read_bits, before, columns * pixels, g.outputs)
                        write = _share(traffic.write_bits, before, columns * pixels, g.outputs)
                    steps = (first_tap * words, taps * words)
                    segments.append((image, first_channel, columns, tiles, len(firsts), pixels, *steps, read, write))
                    tile_columns.append((np.full(len(firsts), len(segments) - 1, dtype=np.int64), firsts, counts))
                    tiles += len(firsts)
    table = np.array(segments, dtype=np.int64).T.copy()
    tile_segment, tile_first_pixel, tile_pixels = (np.concatenate(c) for c in zip(*tile_columns, strict=True))
    _, first_tiles, windows = np.unique(tile_first_pixel, return_index=True, return_inverse=True)
    return Schedule(
        segment_image=table[0],
        segment_first_channel=table[1],
        segment_columns=table[2],
        segment_first_tile=table[3],
        segment_tiles=table[4],
        segment_pixels=table[5],
        segment_first_step=table[6],
        segment_steps=table[7],
        segment_read_bits=table[8],
        segment_write_bits=table[9],
        tile_segment=tile_segment,
        tile_first_pixel=tile_first_pixel,
        tile_pixels=tile_pixels,
        tile_window=windows.astype(np.int64),
        window_reads=_window_reads(g, accelerator, tile_pixels[first_tiles], gated),
        steps=g.kernel[0] * g.kernel[1] * words,
        words=words,
        passes=passes_of(layer, accelerator, widths, gated),
        parts=len(parts),
        bands=len(bands),
        band_rows=rows,
        activation_fill_bits=fill,
        weight_fill_bits=weight_fill,
        recurrent=layer.recurrent,
    )


def array_phases(schedule: Schedule, organisation: Organisation, gated: bool) -> tuple[int, ...]:
    """Passes of a step in each phase of a tile on the PE array: two phases in two_pass with a gate, else one."""
    both = organisation is Organisation.TWO_PASS and gated
    return (schedule.passes.predict, schedule.passes.update) if both else (schedule.passes.predict,)


def tile_cycles(schedule: Schedule, organisation: Organisation, gated: bool) -> NDArray[np.int64]:
    """Return E of every tile, int64 [T]: the cycles it occupies the PE array (its MSB part in gated_fused), fetches
    and waits for words included."""
    phases, steps = array_phases(schedule, organisation, gated), schedule.segment_steps[schedule.tile_segment]
    return steps * sum(phases) + schedule.tile_waits * len(phases) + schedule.tile_fetch
