"""Segments, tiles, bands, weight plans: worked out by hand on small layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.errors import InputError
from pgsim.hw.accelerator import DepthwisePort, Organisation
from pgsim.model.lanes import LaneWidths, Passes, operand_bits, passes_of, resolve_widths
from pgsim.model.schedule import Traffic, input_rows, make_schedule, tile_cycles
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from pgsim.workload.trace import InMemory, Trace
from tests.model.random_machines import Case, cases, make_accelerator

UNSIGNED3 = NumberFormat(Encoding.UNSIGNED, 3)
INT8 = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
ON_CHIP = Traffic(input_off_chip=False, pixel_bits=48, pixel_lsb_bits=0)
WIDTHS = LaneWidths(2, 1, True)


def conv(out_channels: int = 4, *, in_channels: int = 16, gated: bool = False, groups: int = 1, size: int = 6) -> Layer:
    """A 3 x 3 convolution with padding 1 over `size` x `size` pixels."""
    geometry = Geometry(
        LayerKind.CONV, in_channels, out_channels, size, size, (3, 3), (1, 1), (1, 1, 1, 1), groups=groups
    )
    gate = Gate(2, np.zeros(out_channels, dtype=np.int64)) if gated else None
    return Layer("c", geometry, UNSIGNED3, INT8, np.zeros(geometry.weight_shape, np.int16), 1.0, np.ones(1), gate)


def test_pixel_tiles_are_row_major_and_the_last_is_ragged() -> None:
    machine = make_accelerator(Organisation.DENSE, rows=8, columns=4, multipliers=8)
    schedule = make_schedule(conv(), machine, LaneWidths(3, 0, True), 2, ON_CHIP, gated=False)
    assert schedule.segment_image.tolist() == [0, 1]
    assert schedule.tile_first_pixel.tolist() == [0, 8, 16, 24, 32] * 2
    assert schedule.tile_pixels.tolist() == [8, 8, 8, 8, 4] * 2
    assert (schedule.steps, schedule.words) == (18, 2)  # 9 taps of ceil(16 / 8) words
    assert tile_cycles(schedule, Organisation.DENSE, False).tolist() == [18] * 10


def test_channel_tiles_never_span_groups() -> None:
    machine = make_accelerator(Organisation.DENSE, rows=36, columns=4, multipliers=8)
    schedule = make_schedule(conv(12, groups=2), machine, LaneWidths(3, 0, True), 1, ON_CHIP, gated=False)
    assert schedule.segment_first_channel.tolist() == [0, 4, 6, 10]
    assert schedule.segment_columns.tolist() == [4, 2, 4, 2]


@pytest.mark.parametrize(
    ("port", "first", "columns"),
    [(DepthwisePort.OWN_PORT, [0, 4], [4, 2]), (DepthwisePort.ONE_COLUMN, [0, 1, 2, 3, 4, 5], [1] * 6)],
)
def test_depthwise_channels_share_a_tile_only_with_ports_of_their_own(
    port: DepthwisePort, first: list[int], columns: list[int]
) -> None:
    machine = make_accelerator(Organisation.DENSE, rows=36, columns=4, depthwise=port)
    layer = conv(6, in_channels=6, groups=6)
    schedule = make_schedule(layer, machine, LaneWidths(3, 0, True), 1, ON_CHIP, gated=False)
    assert schedule.segment_first_channel.tolist() == first
    assert schedule.segment_columns.tolist() == columns


def test_weights_that_fit_are_read_once_for_the_batch() -> None:
    machine = make_accelerator(Organisation.DENSE, columns=2, weight_buffer_bits=4 * 144 * 8)
    schedule = make_schedule(conv(), machine, LaneWidths(3, 0, True), 3, ON_CHIP, gated=False)
    assert schedule.weight_fill_bits == 4 * 144 * 8
    assert schedule.segment_read_bits.tolist() == [2 * 144 * 8] * 2 + [0] * 4


def test_weights_that_do_not_fit_are_read_again_for_every_image() -> None:
    machine = make_accelerator(Organisation.DENSE, columns=1, weight_buffer_bits=4 * 144 * 8 - 1)
    schedule = make_schedule(conv(), machine, LaneWidths(3, 0, True), 3, ON_CHIP, gated=False)
    assert schedule.weight_fill_bits == 3 * 4 * 144 * 8


def test_k_splits_at_taps_into_the_fewest_equal_parts() -> None:
    # A tap of a channel tile of 2 columns: 2 * 16 * 8 = 256 bits; half the buffer holds 4 taps, so 9 taps take 3 parts.
    machine = make_accelerator(Organisation.DENSE, rows=4, columns=2, multipliers=16, weight_buffer_bits=2 * 4 * 256)
    schedule = make_schedule(conv(2), machine, LaneWidths(3, 0, True), 1, ON_CHIP, gated=False)
    assert schedule.parts == 3
    assert schedule.segment_first_step.tolist() == [0, 3, 6]
    assert schedule.segment_steps.tolist() == [3, 3, 3]
    assert tile_cycles(schedule, Organisation.DENSE, False).tolist() == [3] * 9 + [4 + 3] * 18


def test_a_gated_layer_narrows_its_channel_tile_instead() -> None:
    # One channel: 9 * 16 * 8 bits of weights and a threshold of 33; half the buffer holds three of them.
    machine = make_accelerator(rows=4, columns=4, weight_buffer_bits=2 * 3 * (144 * 8 + 33))
    schedule = make_schedule(conv(8, gated=True), machine, WIDTHS, 1, ON_CHIP, gated=True)
    assert schedule.parts == 1
    assert schedule.segment_columns.tolist() == [3, 3, 2]


@pytest.mark.parametrize(
    ("gated", "message"),
    [
        (True, "one output channel of layer c twice (2370 bits), not 2000 bits"),
        (False, "one tap of a channel tile of layer c twice (4096 bits), not 2000 bits"),
    ],
)
def test_a_weight_buffer_too_small_for_any_tile_is_refused(gated: bool, message: str) -> None:
    machine = make_accelerator(columns=16, weight_buffer_bits=2000)
    with pytest.raises(InputError) as error:
        make_schedule(conv(16, gated=gated), machine, WIDTHS, 1, ON_CHIP, gated=gated)
    assert str(error.value) == f"test: memory.weight.size must hold {message}"


def test_bands_are_as_tall_as_half_the_buffer_allows_and_reread_their_halo() -> None:
    # A row is 6 pixels of 48 bits: 288 bits. Half of 2400 bits holds 4 input rows: 3 output rows,
    # each band next to the padding on one side and with a halo row on the other.
    machine = make_accelerator(Organisation.DENSE, rows=6, columns=4, buffer_bits=2400)
    streamed = Traffic(input_off_chip=True, pixel_bits=48, pixel_lsb_bits=0)
    schedule = make_schedule(conv(), machine, LaneWidths(3, 0, True), 1, streamed, gated=False)
    assert (schedule.bands, schedule.band_rows) == (2, 3)
    assert schedule.activation_fill_bits == (4 + 4) * 288
    assert schedule.segment_pixels.tolist() == [18, 18]


def test_an_activation_buffer_too_small_for_one_row_is_refused() -> None:
    machine = make_accelerator(Organisation.DENSE, buffer_bits=1200)
    streamed = Traffic(input_off_chip=True, pixel_bits=48, pixel_lsb_bits=0)
    with pytest.raises(InputError) as error:
        make_schedule(conv(), machine, LaneWidths(3, 0, True), 1, streamed, gated=False)
    assert str(error.value) == (
        "test: memory.activation.size must leave room for two bands of one output row of layer c (1728 bits), "
        "not 1200 bits"
    )


@pytest.mark.parametrize(("first", "rows", "expected"), [(0, 1, 2), (0, 6, 6), (2, 1, 3), (5, 1, 2), (4, 2, 3)])
def test_input_rows_leave_out_padding(first: int, rows: int, expected: int) -> None:
    assert input_rows(conv().geometry, first, rows) == expected


@pytest.mark.parametrize(
    ("organisation", "widths", "gated", "predict", "update"),
    [
        (Organisation.DECOUPLED, LaneWidths(2, 1, True), True, 1, 1),
        (Organisation.DECOUPLED, LaneWidths(1, 1, True), True, 2, 1),
        (Organisation.DECOUPLED, LaneWidths(2, 1, True), False, 2, 0),
        (Organisation.DENSE, LaneWidths(8, 0, True), False, 1, 0),
        (Organisation.DENSE, LaneWidths(2, 0, True), False, 2, 0),
        (Organisation.GATED_FUSED, LaneWidths(2, 1, True), True, 1, 1),
        (Organisation.GATED_FUSED, LaneWidths(2, 1, True), False, 1, 0),
        (Organisation.TWO_PASS, LaneWidths(2, 0, True), True, 1, 1),
        (Organisation.TWO_PASS, LaneWidths(2, 0, True), False, 2, 0),
    ],
)
def test_passes_of_three_bit_codes(
    organisation: Organisation, widths: LaneWidths, gated: bool, predict: int, update: int
) -> None:
    passes = passes_of(conv(gated=True), make_accelerator(organisation), widths, gated)
    assert (passes.predict, passes.update) == (predict, update)


def test_sign_magnitude_weights_of_eight_bits_take_two_passes_on_eight_bit_lanes() -> None:
    layer = conv(gated=True)
    wide = Layer(
        "c",
        layer.geometry,
        UNSIGNED3,
        NumberFormat(Encoding.SIGN_MAGNITUDE, 8),
        layer.weight,
        1.0,
        np.ones(1),
        layer.gate,
    )
    assert passes_of(wide, make_accelerator(weight_bits=8), WIDTHS, True).weight == 2
    assert passes_of(wide, make_accelerator(weight_bits=9), WIDTHS, True).weight == 1


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_schedule_covers_every_output_once_and_moves_every_bit_once(case: Case) -> None:
    layer, images = case.layer, len(case.activation)
    gated = layer.gate is not None and case.accelerator.organisation is not Organisation.DENSE
    try:
        schedule = make_schedule(layer, case.accelerator, WIDTHS, images, case.traffic, gated=gated)
    except InputError:
        reject()
    times = np.zeros((images, layer.geometry.out_channels, layer.geometry.out_pixels), dtype=np.int64)
    for segment, first, pixels in zip(
        schedule.tile_segment, schedule.tile_first_pixel, schedule.tile_pixels, strict=True
    ):
        channel = schedule.segment_first_channel[segment]
        columns = slice(channel, channel + schedule.segment_columns[segment])
        times[schedule.segment_image[segment], columns, first : first + pixels] += 1
    assert (times == schedule.parts).all()
    assert schedule.segment_write_bits.sum() == images * case.traffic.write_bits
    moved = schedule.activation_fill_bits + schedule.weight_fill_bits + images * case.traffic.read_bits
    assert schedule.segment_read_bits.sum() == moved


def test_fused_lanes_of_one_bit_cannot_be_two_parts() -> None:
    machine = make_accelerator(Organisation.GATED_FUSED, act_bits=1)
    with pytest.raises(InputError) as error:
        resolve_widths(machine, Trace((conv(gated=True),), 1, InMemory(())))
    assert str(error.value) == "test: array.act_bits must be at least 2 in gated_fused, a bit for each part, not 1"


def test_sign_magnitude_activations_carry_their_sign_in_every_plane() -> None:
    layer = conv(gated=True)
    signed = replace(layer, act=NumberFormat(Encoding.SIGN_MAGNITUDE, 3))
    assert operand_bits(layer) == (2, 1, 3)
    assert operand_bits(signed) == (3, 2, 4)
    assert passes_of(signed, make_accelerator(), LaneWidths(2, 1, True), True) == Passes(2, 2, 1)
    assert passes_of(signed, make_accelerator(), LaneWidths(3, 2, True), True) == Passes(1, 1, 1)
    trace = Trace((signed,), 1, InMemory(()))
    assert resolve_widths(make_accelerator(), trace) == LaneWidths(3, 2, True)
    assert resolve_widths(make_accelerator(Organisation.DENSE), trace) == LaneWidths(4, 0, True)
