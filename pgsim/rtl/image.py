"""A layer and batch as the machine's registers and memories hold it.

    layer, schedule --> layer register, segment table        codes --split--> MSB plane, LSB plane (banked words)
    weights --> rows of every column                         thresholds --> threshold table

Only the mapper's decisions go in (which segments, in which order, what each moves over the off-chip channel); what
happens in which cycle is the RTL's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import GatePolicy
from pgsim.arith.split import split
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, Buffer
from pgsim.model.job import Job
from pgsim.rtl.generate import Capacity, source
from pgsim.workload.layer import Gate, Layer

Ints = NDArray[np.int64]
Memory = tuple[NDArray[np.int32], NDArray[np.uint32]]  # place [n, 2] (bank or column, address); words [n, 32-bit words]


@dataclass(frozen=True)
class Image:
    """What is loaded, and the capacity that it needs.

    `layer` and `segments` are packed records [n, words]. `codes` are the other memories, in two's complement: places
    [n, 2] and codes [n, m], the first of a word lowest.
    """

    layer: NDArray[np.uint32]
    segments: NDArray[np.uint32]
    codes: dict[str, tuple[NDArray[np.int32], Ints]]
    capacity: Capacity

    def packed(self, capacity: Capacity, psum_bits: int) -> dict[str, Memory]:
        """Return what every memory of a machine of that capacity is loaded with, in the order of the test bench."""
        widths = {
            "high": capacity.operand_bits,
            "low": capacity.operand_bits,
            "weights": capacity.stored_bits,
            "thresholds": psum_bits + 1,
            "cycles": 32,
        }
        packed = {"layer": (_places(1), self.layer), "segments": (_places(len(self.segments)), self.segments)}
        for name, bits in widths.items():
            place, codes = self.codes[name]
            packed[name] = (place, pack_codes(codes, bits))
        return packed


@cache
def number_widths() -> dict[str, int]:
    """Return the bits of each type of number of pgsim_pkg.sv."""
    types = re.findall(r"typedef logic \[(\d+):0\] (\w+);", source("pgsim_pkg.sv"))
    return {"logic": 1} | {kind: int(high) + 1 for high, kind in types}


@cache
def record_fields(name: str) -> tuple[tuple[str, int], ...]:
    """Return (field, bits) of a packed record of pgsim_pkg.sv, most significant first."""
    text, widths = source("pgsim_pkg.sv"), number_widths()
    found = re.search(rf"typedef struct packed \{{([^}}]*)\}} {name};", text)
    assert found, f"pgsim_pkg.sv has no record {name}"
    return tuple((field, widths[kind]) for kind, field in re.findall(r"^\s*(\w+) (\w+);", found.group(1), re.M))


def pack_record(name: str, values: dict[str, Ints | int]) -> NDArray[np.uint32]:
    """Return records as 32-bit words, least significant first, [n, words]; a value is an array [n] or one number.

    Raises InputError for a value that the record has no room for: the layer is too large.
    """
    fields = record_fields(name)
    assert {field for field, _ in fields} == set(values), f"{name} must have its fields, and no others"
    count = max((len(v) for v in values.values() if isinstance(v, np.ndarray)), default=1)
    parts = [(np.broadcast_to(np.asarray(values[field], np.int64), (count,))[:, None], bits) for field, bits in fields]
    for (field, _), (part, bits) in zip(fields, parts, strict=True):
        assert part.min() >= 0, f"{field} of {name} must not be negative"
        if int(part.max()) >> bits:
            raise InputError(f"the RTL's {name} must hold {field} in {bits} bits, not {int(part.max())}")
    return _words(np.concatenate([_bits(part, bits) for part, bits in reversed(parts)], axis=1))


def pack_codes(codes: Ints, bits: int) -> NDArray[np.uint32]:
    """Return rows of two's complement codes [n, m], the first one lowest, as 32-bit words [n, words]."""
    return _words(_bits(codes, bits))


def _bits(values: Ints, width: int) -> NDArray[np.uint8]:
    """[n, m] -> [n, m * width], bits of each value least significant first."""
    shifted = values[:, :, None] >> np.arange(width)
    return (shifted & 1).astype(np.uint8).reshape(len(values), values.shape[1] * width)


def _words(bits: NDArray[np.uint8]) -> NDArray[np.uint32]:
    padded = np.zeros((len(bits), -(-bits.shape[1] // 32) * 32), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


def make_image(
    layer: Layer, gate: Gate | None, job: Job, accelerator: Accelerator, activation: NDArray[np.int16]
) -> Image:
    """Return the image of one layer and batch. `gate` is the one that the machine applies, None where it runs without;
    `activation` int16 [N, C, H, W]."""
    g, schedule, array = layer.geometry, job.schedule, accelerator.array
    lanes = array.multipliers
    pixels, group_words = g.in_height * g.in_width, schedule.words
    pixel_words = g.groups * group_words
    own_port = g.groups > 1 and g.group_in_channels == 1 and g.group_out_channels == 1
    own_port = own_port and int(schedule.segment_columns.max()) > 1
    codes = activation.astype(np.int64)
    low_bits = layer.act.bits - gate.pred_bits if gate else layer.act.bits // 2
    if gate:
        high, low = split(codes, layer.act.encoding, layer.act.bits, gate.pred_bits)
    else:
        high, low = codes >> low_bits, codes & ((1 << low_bits) - 1)  # any two parts that join to the code
    memory = accelerator.memory
    low_buffer = memory.activation_lsb or memory.activation
    high_memory = _plane(high, g.groups, lanes, memory.activation.banks)
    low_memory = _plane(low, g.groups, lanes, low_buffer.banks)
    tiles = np.unique(schedule.segment_first_channel)
    rows = -(-schedule.steps // job.row_steps)
    segments = {
        "high_base": schedule.segment_image * (-(-pixels // memory.activation.banks) * pixel_words),
        "low_base": schedule.segment_image * (-(-pixels // low_buffer.banks) * pixel_words),
        "word_base": schedule.segment_first_channel // g.group_out_channels * group_words,
        "row_base": np.searchsorted(tiles, schedule.segment_first_channel) * rows,
        "first_channel": schedule.segment_first_channel,
        "columns": schedule.segment_columns,
        "first_row": schedule.tile_first_pixel[schedule.segment_first_tile] // g.out_width,
        "pixels": schedule.segment_pixels,
        "outputs": schedule.segment_pixels * schedule.segment_columns,
        "first_step": schedule.segment_first_step,
        "steps": schedule.segment_steps,
        "first_tap_y": schedule.segment_first_step // group_words // g.kernel[1],
        "first_tap_x": schedule.segment_first_step // group_words % g.kernel[1],
        "follows": schedule.segment_follows.astype(np.int64),
        "read_bits": schedule.segment_read_bits,
        "write_bits": schedule.segment_write_bits,
    }
    registers = {
        "gated": int(gate is not None),
        "keeps": int(gate is not None and gate.policy is GatePolicy.KEEP),
        "cooperative": int(job.cooperative),
        "own_port": int(own_port),
        "segments": schedule.segments,
        "tiles": schedule.tiles,
        "in_height": g.in_height,
        "in_width": g.in_width,
        "out_width": g.out_width,
        "stride_y": g.stride[0],
        "stride_x": g.stride[1],
        "pad_top": g.padding[0],
        "pad_left": g.padding[2],
        "dilation_y": g.dilation[0],
        "dilation_x": g.dilation[1],
        "kernel_width": g.kernel[1],
        "words": group_words,
        "words_per_pixel": pixel_words,
        "low_bits": low_bits,
        "act_predict": schedule.passes.act_predict,
        "act_update": schedule.passes.act_update,
        "weight_passes": schedule.passes.weight,
    }
    parts = _weight_rows(layer, schedule.words, tiles, lanes, job.row_steps, job.columns)
    thresholds = gate.threshold if gate else np.zeros(0, np.int64)
    limit = 1 << (array.psum_bits - 1)
    column, row = np.divmod(np.arange(job.columns * parts.shape[1]), parts.shape[1])
    cycles = job.tile_cycles if job.cooperative else np.zeros(0, np.int64)
    try:
        records = pack_record("layer_t", dict(registers)), pack_record("segment_t", dict(segments))
    except InputError as error:
        raise InputError(f"layer {layer.name}: {error}") from error
    return Image(
        *records,
        {
            "high": high_memory,
            "low": low_memory,
            "weights": (np.stack([column, row], 1).astype(np.int32), parts.reshape(len(column), -1)),
            "thresholds": (_places(len(thresholds)), np.clip(thresholds, -limit - 1, limit - 1)[:, None]),
            "cycles": (_places(len(cycles)), cycles[:, None]),
        },
        needed_capacity(layer, job, accelerator, len(activation)),
    )


def needed_capacity(layer: Layer, job: Job, accelerator: Accelerator, images: int) -> Capacity:
    """Return the least capacity of a machine that takes the layer, whatever its codes are.

    Raises InputError where an address of the RTL has fewer bits.
    """
    g, schedule, memory = layer.geometry, job.schedule, accelerator.memory
    pixels, pixel_words = g.in_height * g.in_width, g.groups * schedule.words
    beyond = job.columns  # a port of its own reads on past the last word for columns without work

    def depth(buffer: Buffer) -> int:
        return images * -(-pixels // buffer.banks) * pixel_words + beyond

    capacity = Capacity(
        operand_bits=layer.act.bits + 1,
        stored_bits=layer.weight_format.bits + 1,
        high_depth=depth(memory.activation),
        low_depth=depth(memory.activation_lsb or memory.activation),
        weight_depth=len(np.unique(schedule.segment_first_channel)) * -(-schedule.steps // job.row_steps),
        segment_depth=schedule.segments + 2,
        channel_depth=g.out_channels + beyond,
        pixel_depth=int(schedule.segment_pixels.max()) if schedule.parts > 1 else 1,
        tile_depth=schedule.tiles + 1 if job.cooperative else 1,
    )
    words = max(capacity.high_depth, capacity.low_depth, capacity.weight_depth)
    widest = number_widths()
    for what, amount, bits in (
        ("pixels of its input", pixels, widest["pixel_t"]),
        ("output channels", g.out_channels, widest["pos_t"]),
        ("words of a bank that it takes", words, widest["address_t"]),
    ):
        if amount > 1 << bits:
            raise InputError(f"layer {layer.name}: the RTL must count the {what} in {bits} bits, not {amount}")
    return capacity


def _places(count: int) -> NDArray[np.int32]:
    return np.stack([np.zeros(count, np.int32), np.arange(count, dtype=np.int32)], 1)


def _plane(codes: Ints, groups: int, lanes: int, banks: int) -> tuple[NDArray[np.int32], Ints]:
    """Return (places, words [n, lanes]) of codes [N, C, H, W] in a banked memory."""
    images, channels, height, width = codes.shape
    per_group, pixels = channels // groups, height * width
    words = -(-per_group // lanes)
    padded = np.zeros((images, groups, words * lanes, pixels), np.int64)
    padded[:, :, :per_group] = codes.reshape(images, groups, per_group, pixels)
    padded = padded.reshape(images, groups * words, lanes, pixels).transpose(0, 3, 1, 2)  # [N, pixel, word, lane]
    depth = -(-pixels // banks) * groups * words
    image, pixel, word = np.indices(padded.shape[:3])
    address = image * depth + pixel // banks * (groups * words) + word
    place = np.stack([pixel % banks, address], -1).reshape(-1, 2).astype(np.int32)
    return place, padded.reshape(-1, lanes)


def _weight_rows(layer: Layer, words: int, tiles: Ints, lanes: int, row_steps: int, columns: int) -> Ints:
    """Return the rows of the weight buffer, int64 [columns, rows, row_steps * lanes]: of each channel tile in turn."""
    weight = layer.weight.astype(np.int64)
    channels, per_group, taps_high, taps_wide = weight.shape
    steps = taps_high * taps_wide * words
    rows = -(-steps // row_steps)
    padded = np.zeros((channels, taps_high * taps_wide, words * lanes), np.int64)
    padded[:, :, :per_group] = weight.transpose(0, 2, 3, 1).reshape(channels, -1, per_group)
    by_row = np.zeros((channels + columns, rows * row_steps, lanes), np.int64)
    by_row[:channels, :steps] = padded.reshape(channels, steps, lanes)
    of_column = by_row[np.arange(columns)[:, None] + tiles[None, :]]  # [columns, tiles, steps, lanes]
    return of_column.reshape(columns, len(tiles) * rows, row_steps * lanes)
