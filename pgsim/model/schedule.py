"""The work of one layer and batch in the machine's order: segments and tiles (timing contract, section 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, DepthwisePort, Organisation
from pgsim.model.lanes import LaneWidths, Passes, passes_of
from pgsim.workload.layer import Geometry, Layer


@dataclass(frozen=True)
class Traffic:
    """What the layer's tensors move, as the residency plan decided (pgsim.model.residency). Bits.

    `pixel_bits` and `pixel_lsb_bits` are what one input pixel, all channels, takes in the activation buffer (the MSB plane where
    the planes are apart) and in the LSB plane's. `read_bits` (shortcuts) and `write_bits` (codes, shortcuts, results) go over the off-chip
    channel for each image, in step with the outputs. The `free` figures are what resident tensors leave of each buffer; None: all of it.
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

    `steps` is D, `words` the words of N channels a tap takes, so that step k is tap k // words, word k % words.
    """

    segment_image: NDArray[np.int64]
    segment_first_channel: NDArray[np.int64]
    segment_columns: NDArray[np.int64]
    segment_first_tile: NDArray[np.int64]
    segment_tiles: NDArray[np.int64]
    segment_pixels: NDArray[np.int64]
    segment_read_bits: NDArray[np.int64]
    segment_write_bits: NDArray[np.int64]
    tile_segment: NDArray[np.int64]
    tile_first_pixel: NDArray[np.int64]
    tile_pixels: NDArray[np.int64]
    steps: int
    words: int
    passes: Passes
    bands: int
    band_rows: int
    activation_fill_bits: int  # bits written into the activation buffers from off chip, halo re-reads included
    weight_fill_bits: int  # bits of weights and thresholds read from off chip

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self.segment_image)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.tile_segment)


def input_rows(geometry: Geometry, first: int, rows: int) -> int:
    """Return how many input rows the output rows [first, first + rows) read."""
    low = first * geometry.stride[0] - geometry.padding[0]
    high = (first + rows - 1) * geometry.stride[0] - geometry.padding[0]
    high += geometry.dilation[0] * (geometry.kernel[0] - 1)
    return max(0, min(high, geometry.in_height - 1) - max(low, 0) + 1)


def band_rows(layer: Layer, accelerator: Accelerator, traffic: Traffic) -> int:
    """Return the output rows of a band (timing contract, section 1).

    All rows where the input is on chip already and no output leaves; else the most whose input rows fit half of each
    activation buffer and whose outputs fit half of the output buffer. Raises InputError where not even one row fits.
    """
    g, memory = layer.geometry, accelerator.memory
    columns = min(accelerator.array.columns, g.out_channels)
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
        needs = {
            "activation": pixels * traffic.pixel_bits,
            "activation_lsb": pixels * traffic.pixel_lsb_bits,
            "output": -(-out * traffic.write_bits // g.outputs),
        }
        return next(((name, 2 * need) for name, need in needs.items() if 2 * need > room[name]), None)

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


def _channel_tiles(layer: Layer, accelerator: Accelerator) -> list[tuple[int, int]]:
    """(first output channel, columns) of every channel tile, groups in order."""
    g, columns = layer.geometry, accelerator.array.columns
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


def make_schedule(
    layer: Layer, accelerator: Accelerator, widths: LaneWidths, images: int, traffic: Traffic, threshold_bits: int
) -> Schedule:
    """Lay out the layer's work over `images` images.

    Raises InputError where a buffer is too small for any tile.
    """
    g, array = layer.geometry, accelerator.array
    words = -(-g.group_in_channels // array.multipliers)
    rows = band_rows(layer, accelerator, traffic)
    bands = [(first, min(rows, g.out_height - first)) for first in range(0, g.out_height, rows)]
    channels = _channel_tiles(layer, accelerator)
    weight_bits_each = g.reduction * layer.weight_format.storage_bits + threshold_bits
    tile_weights = max(columns for _, columns in channels) * weight_bits_each
    all_weights = g.out_channels * weight_bits_each
    resident = all_weights <= accelerator.memory.weight.size_bits
    if not resident and 2 * tile_weights > accelerator.memory.weight.size_bits:
        raise InputError(
            f"{accelerator.name}: memory.weight.size must hold the weights of two channel tiles of layer {layer.name} "
            f"({2 * tile_weights} bits), not {accelerator.memory.weight.size_bits} bits"
        )

    segments: list[tuple[int, int, int, int, int, int, int, int]] = []
    tile_segment: list[NDArray[np.int64]] = []
    tile_first: list[NDArray[np.int64]] = []
    tile_pixels: list[NDArray[np.int64]] = []
    fill = weight_fill = 0
    tiles = outputs = 0
    for image in range(images):
        for band, (first_row, band_height) in enumerate(bands):
            start, pixels = first_row * g.out_width, band_height * g.out_width
            firsts = np.arange(start, start + pixels, array.rows, dtype=np.int64)
            counts = np.minimum(array.rows, start + pixels - firsts)
            for position, (first_channel, columns) in enumerate(channels):
                before = outputs % g.outputs
                outputs += columns * pixels
                read = _share(traffic.read_bits, before, columns * pixels, g.outputs)
                if position == 0 and traffic.input_off_chip:
                    pixel = traffic.pixel_bits + traffic.pixel_lsb_bits
                    band_bits = input_rows(g, first_row, band_height) * g.in_width * pixel
                    fill += band_bits
                    read += band_bits
                first_use = image == 0 and band == 0
                if first_use or (not resident and len(channels) > 1):
                    weight_fill += columns * weight_bits_each
                    read += columns * weight_bits_each
                write = _share(traffic.write_bits, before, columns * pixels, g.outputs)
                segments.append((image, first_channel, columns, tiles, len(firsts), pixels, read, write))
                tile_segment.append(np.full(len(firsts), len(segments) - 1, dtype=np.int64))
                tile_first.append(firsts)
                tile_pixels.append(counts)
                tiles += len(firsts)
    table = np.array(segments, dtype=np.int64).T.copy()
    return Schedule(
        *table,
        tile_segment=np.concatenate(tile_segment),
        tile_first_pixel=np.concatenate(tile_first),
        tile_pixels=np.concatenate(tile_pixels),
        steps=g.kernel[0] * g.kernel[1] * words,
        words=words,
        passes=passes_of(layer, accelerator, widths),
        bands=len(bands),
        band_rows=rows,
        activation_fill_bits=fill,
        weight_fill_bits=weight_fill,
    )


def array_cycles(schedule: Schedule, organisation: Organisation, gated: bool) -> int:
    """Return E, the cycles that a tile occupies the PE array (its MSB part in gated_fused)."""
    cycles = schedule.steps * schedule.passes.predict
    if organisation is Organisation.TWO_PASS and gated:
        cycles += schedule.steps * schedule.passes.update
    return cycles
