"""Where tensors stay, and what is counted: a network of three small layers, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, Buffer, FeatureMaps, Organisation
from pgsim.hw.prices import Stimulus
from pgsim.model.counts import count_layer, crossbar_actions, parameter_actions
from pgsim.model.fast import run_fast
from pgsim.model.job import make_job
from pgsim.model.lanes import LaneWidths, resolve_widths
from pgsim.model.post_unit import parameter_bits, post_work
from pgsim.model.residency import place, plane_bits, saved_shapes
from pgsim.model.schedule import make_schedule
from pgsim.results.actions import Action, ActionKind, Actions
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    FixedPoint,
    Gate,
    Geometry,
    Layer,
    LayerKind,
    Logits,
    MaxPool,
    Requantise,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import InMemory, Trace
from tests.model.random_machines import make_accelerator

U3, INT8 = NumberFormat(Encoding.UNSIGNED, 3), NumberFormat(Encoding.TWOS_COMPLEMENT, 8)


def requantise(name: str) -> Requantise:
    return Requantise(name, U3, np.zeros((1, 7), np.int64), np.ones(1, np.int8))


def network(*, gated: bool = True) -> Trace:
    """stem 4 x 4 x 4 -> shortcut (16 bits) and codes; a gated 3 x 3 layer; a layer that adds the shortcut and pools."""
    geometry = Geometry(LayerKind.CONV, 4, 4, 4, 4, (3, 3), padding=(1, 1, 1, 1))
    weight = np.ones(geometry.weight_shape, np.int16)
    fixed = FixedPoint(np.full(4, 3), np.zeros(4, np.int64), 1)
    first_post = (fixed, SaveShortcut("s0", 16), requantise("a"))
    last_post = (fixed, AddShortcut("s0"), SumPool((4, 4), (4, 4)), Logits("logits", 1.0))
    plain = Layer("stem", geometry, U3, INT8, weight, 1.0, np.ones(1), None, None, first_post)
    gate = Gate(2, np.zeros(4, np.int64)) if gated else None
    middle = replace(plain, name="middle", gate=gate, input_name="a", post=(requantise("b"),))
    last = replace(plain, name="last", input_name="b", post=last_post)
    return Trace((plain, middle, last), 1, InMemory(()))


def machine(organisation: Organisation = Organisation.DECOUPLED, **sizes: int) -> Accelerator:
    base = make_accelerator(organisation, rows=4, columns=4, multipliers=4, groups=1, lanes=4, queue_depth=8, banks=2)
    memory = replace(base.memory, feature_maps=FeatureMaps.ON_CHIP)
    for name, bits in sizes.items():
        memory = replace(memory, **{name: replace(memory.buffers[name], size_bits=bits)})
    return replace(base, memory=memory)


def test_saved_shapes_follow_pooling() -> None:
    assert saved_shapes(network().layers[2]) == {"logits": (4, 1, 1)}


def test_everything_that_fits_stays_on_chip() -> None:
    trace, accelerator = network(), machine()
    places = place(trace, accelerator, LaneWidths(2, 1, True), 32)
    assert [p.traffic.input_off_chip for p in places] == [True, False, False]
    assert [p.traffic.write_bits for p in places] == [0, 0, 4 * 32]  # four logits of psum_bits
    assert [p.traffic.read_bits for p in places] == [0, 0, 0]
    assert places[0].code_write_bits == 64 * 3
    assert places[0].shortcut_write_bits == 64 * 16
    assert places[2].shortcut_read_bits == 64 * 16


def test_a_shortcut_without_room_goes_off_chip_and_comes_back() -> None:
    # 64 x 16 = 1024 bits; a quarter of the buffer is kept for streaming, so 1364 bits are one too few.
    kept = place(network(), machine(output=1366), LaneWidths(2, 1, True), 32)
    assert kept[0].traffic.write_bits == 0
    gone = place(network(), machine(output=1364), LaneWidths(2, 1, True), 32)
    assert gone[0].traffic.write_bits == 1024
    assert gone[2].traffic.read_bits == 1024


def test_codes_without_room_go_off_chip() -> None:
    # Layer 1 holds a (64 x 2 bits in the MSB plane) and b beside each other: 256 bits.
    gone = place(network(), machine(activation=254), LaneWidths(2, 1, True), 32)
    assert [p.traffic.input_off_chip for p in gone] == [True, False, True]
    assert gone[1].traffic.write_bits == 64 * 3


def test_codes_and_shortcuts_that_no_layer_reads_leave_the_chip() -> None:
    trace = network()
    more = (SaveShortcut("sums", 20), MaxPool((2, 2), (2, 2)), requantise("pooled"))
    stem = replace(trace.layers[0], post=(*trace.layers[0].post, *more))
    places = place(replace(trace, layers=(stem, *trace.layers[1:])), machine(), LaneWidths(2, 1, True), 32)
    assert places[0].unread == ("sums", "pooled")
    assert places[0].traffic.write_bits == 64 * 20 + 16 * 3
    assert places[0].code_write_bits == 64 * 3  # what is read stays, as before
    assert not places[0].raw_output
    assert [p.unread for p in places[1:]] == [(), ()]


def test_a_batch_needs_room_for_all_its_images() -> None:
    two = replace(machine(output=1366), batch=2)
    assert place(network(), two, LaneWidths(2, 1, True), 32)[0].traffic.write_bits == 1024


def test_codes_leave_room_for_the_input_that_their_producer_streams() -> None:
    # a and b of two images need 256 bits each of the MSB plane. The stem streams its input, so that a goes off chip;
    # then the layer that reads a streams, and b may not fill the buffer.
    accelerator = replace(machine(activation=256), batch=2)
    places = place(network(), accelerator, LaneWidths(2, 1, True), 32)
    assert [p.traffic.input_off_chip for p in places] == [True, True, True]
    for layer, placement in zip(network().layers, places, strict=True):
        make_schedule(
            layer, accelerator, LaneWidths(2, 1, True), 2, placement.traffic, gated=layer.gate is not None
        )  # has room


def counted(
    organisation: Organisation,
    index: int,
    mask: np.ndarray | None,
    accelerator: Accelerator | None = None,
    trace: Trace | None = None,
) -> tuple[Actions, int, int, int]:
    trace, accelerator = trace or network(), accelerator or machine(organisation)
    layer, widths = trace.layers[index], resolve_widths(accelerator, trace)
    placement = place(trace, accelerator, widths, 32)[index]
    schedule = make_schedule(layer, accelerator, widths, 1, placement.traffic, gated=mask is not None)
    job = make_job(schedule, layer.geometry, accelerator, mask)
    timing = run_fast(job)
    actions, busy, update_busy = count_layer(layer, accelerator, widths, job, timing, placement, 1, mask)
    return actions, busy, update_busy, timing.cycles


# 16 pixels, 36 MACs an output, 64 outputs: 2304 MACs. Taps inside: 4 corners x 4, 8 edges x 6, 4 inner x 9 = 100.
TAPS_INSIDE = 100
# Of the gated layer: 4 gate thresholds of 33 bits; 7 requantisation thresholds of 33 bits and a direction, for all.
PARAMETERS = 4 * 33 + 7 * 33 + 1


def test_a_decoupled_gated_layer_counts_each_plane_and_each_update() -> None:
    mask = np.zeros((1, 4, 4, 4), np.bool_)
    mask[0, 1, :, 0] = True  # four outputs of channel 1
    actions, busy, update_busy, cycles = counted(Organisation.DECOUPLED, 1, mask)
    mac = {a.component + "/" + a.stimulus.value: n for a, n in actions.counts.items() if a.kind is ActionKind.MAC}  # type: ignore[union-attr]
    assert busy == mac["array/msb"] == 2304
    assert update_busy == mac["update_array/lsb"] == 4 * 36
    assert mac["array/gated"] == 64 * cycles - 2304
    assert mac["update_array/gated"] == 16 * cycles - 144
    assert actions.count(ActionKind.SRAM_READ, "activation") == TAPS_INSIDE * 4 * 2  # words of 4 channels x 2 bits
    assert actions.counts[Action(ActionKind.COMPARE, "comparator", 32)] == 64
    entry = 32 + 4 + 1  # psum, one of 16 pixels, and which of two segments
    assert actions.counts[Action(ActionKind.FIFO_PUSH, "queue", entry)] == 4
    assert actions.counts[Action(ActionKind.FIFO_POP, "queue", entry)] == 4
    # 4 tiles of 4 columns x 9 steps, one launch of 9 steps, words of 4 x 8 bits.
    launches = (actions.count(ActionKind.SRAM_READ, "weight") - PARAMETERS) // (4 * 8) - 4 * 4 * 9
    assert launches % 9 == 0
    assert 1 <= launches // 9 <= 4
    # The window of column 0: rows 0 to 3 of pixels -1, 0, 1. Rows 0 and 3 have 2 taps down inside, the others 3.
    lsb_words = actions.count(ActionKind.SRAM_READ, "activation_lsb") // 4
    assert lsb_words <= (2 + 3 + 3 + 2) * 2  # fewer where lanes share a word


def test_two_pass_visits_every_output_in_its_update_phase() -> None:
    mask = np.zeros((1, 4, 4, 4), np.bool_)
    mask[0, 0, 0, :3] = True
    actions, busy, _, cycles = counted(Organisation.TWO_PASS, 1, mask)
    assert busy == 2304 + 3 * 36
    assert actions.count(ActionKind.MAC, "array", Stimulus.LSB) == 3 * 36
    assert cycles >= 4 * 2 * 9  # four tiles, nine steps, both phases
    assert actions.count(ActionKind.SRAM_READ, "weight") == 2 * 4 * 4 * 9 * 4 * 8 + PARAMETERS


def test_gated_fused_takes_one_tile_time_a_tile() -> None:
    none, all_updated = np.zeros((1, 4, 4, 4), np.bool_), np.ones((1, 4, 4, 4), np.bool_)
    few, _, update_few, cycles = counted(Organisation.GATED_FUSED, 1, none)
    many, _, update_many, cycles_many = counted(Organisation.GATED_FUSED, 1, all_updated)
    assert cycles == cycles_many  # energy only: no cycles saved
    assert (update_few, update_many) == (0, 2304)
    assert few.count(ActionKind.SRAM_READ) == many.count(ActionKind.SRAM_READ)


def test_both_parts_of_a_fused_pe_work_on_a_layer_without_a_gate() -> None:
    actions, busy, update_busy, cycles = counted(Organisation.GATED_FUSED, 2, None)
    lanes = 4 * 4 * 4
    assert busy == update_busy == 2304  # 3-bit codes on lanes of 2 and 1 bits: one pass
    assert {a: n for a, n in actions.counts.items() if a.kind is ActionKind.MAC} == {
        Action(ActionKind.MAC, "array", 2, 8, Stimulus.DENSE): 2304,
        Action(ActionKind.MAC, "array", 2, 8, Stimulus.GATED): lanes * cycles - 2304,
        Action(ActionKind.MAC, "update_array", 1, 8, Stimulus.DENSE): 2304,
        Action(ActionKind.MAC, "update_array", 1, 8, Stimulus.GATED): lanes * cycles - 2304,
    }


@pytest.mark.parametrize("organisation", [Organisation.DENSE, Organisation.DECOUPLED])
def test_a_layer_without_a_gate_counts_dense_lanes_and_its_post_steps(organisation: Organisation) -> None:
    actions, busy, update_busy, _ = counted(organisation, 2, None)
    passes = 1 if organisation is Organisation.DENSE else 2  # 3-bit codes on 3-bit lanes, or on 2-bit MSB lanes
    assert busy == actions.count(ActionKind.MAC, "array", Stimulus.DENSE) == 2304 * passes
    assert update_busy == 0
    assert actions.counts[Action(ActionKind.MULTIPLY, "post", 32, 3)] == 64  # multiplier 3: 2 bits and a sign
    assert actions.counts[Action(ActionKind.ADD, "post", 32)] == 64 + 64  # the shortcut, then the pool
    assert actions.count(ActionKind.COMPARE, "comparator") == 0
    assert actions.count(ActionKind.SRAM_READ, "output") == 64 * 16 + 4 * 32  # shortcut; logits on their way out
    assert actions.count(ActionKind.DRAM_WRITE) == 4 * 32
    assert actions.count(ActionKind.DRAM_READ) == 4 * (36 * 8 + 3 + 1)  # weights, multiplier, bias


def two_banks(accelerator: Accelerator) -> Accelerator:
    """The machine with two banks of one port for activations and for weights, as the LSB plane has."""
    memory = accelerator.memory
    activation, weight = (Buffer(buffer.size_bits, 2) for buffer in (memory.activation, memory.weight))
    return replace(accelerator, memory=replace(memory, activation=activation, weight=weight))


def test_words_pass_multiplexers_from_their_bank_to_each_lane_that_takes_them() -> None:
    mask = np.zeros((1, 4, 4, 4), np.bool_)
    mask[0, 1, :, 0] = True  # four outputs of channel 1, which one launch takes
    actions, *_ = counted(Organisation.DECOUPLED, 1, mask, two_banks(machine()))
    words = TAPS_INSIDE * 4 * 2 + (4 + 6 + 6 + 4) * 4 * 1  # to pixels and to lanes, from two banks: one level
    weights = 9 * 4 * 8  # of a launch, from two banks
    entries, results = 4 * (32 + 4 + 1) * 2, 4 * 32 * 2  # from four FIFOs and from four lanes: two levels
    ports = 64 * 32  # a group's result or the drain's
    assert actions.count(ActionKind.SELECT, "crossbar") == words + weights + entries + results + ports
    plain, *_ = counted(Organisation.DECOUPLED, 2, None, two_banks(machine()))
    assert plain.count(ActionKind.SELECT, "crossbar") == TAPS_INSIDE * 4 * (2 + 1) + ports
    for organisation, gate in ((Organisation.DENSE, None), (Organisation.TWO_PASS, mask)):
        actions, *_ = counted(organisation, 1, gate, two_banks(machine(organisation)))
        assert actions.count(ActionKind.SELECT, "crossbar") == TAPS_INSIDE * 4 * 3


def test_every_lane_that_shares_a_tile_takes_words_of_both_planes() -> None:
    base = two_banks(machine())
    assert base.update is not None
    accelerator = replace(base, cooperative=True, update=replace(base.update, groups=4))
    trace, widths = network(), resolve_widths(machine(), network())
    placement = place(trace, accelerator, widths, 32)[2]
    schedule = make_schedule(trace.layers[2], accelerator, widths, 1, placement.traffic, gated=False)
    timing = run_fast(make_job(schedule, trace.layers[2].geometry, accelerator, None))
    found = crossbar_actions(trace.layers[2], accelerator, widths, schedule, timing, placement, None)
    shared = np.flatnonzero(timing.tile_on_lsb)
    assert 0 < len(shared) < 4
    taps = np.array([20, 30, 30, 20])  # of a row of four pixels inside the input
    words = int(taps.sum() - taps[shared].sum() + 4 * taps[shared].sum())  # pixels share a word, columns do not
    launches = len(timing.launches)
    results = len(shared) * 16 * 32 * 2
    expected = words * 4 * 3 + launches * 9 * 4 * 8 + results + 64 * 32 * 3  # four groups or the drain: three levels
    assert found[Action(ActionKind.SELECT, "crossbar")] == expected


def test_parameters_are_read_for_each_channel_tile_and_shared_ones_once() -> None:
    # A layer of its own: a bias of 9 bits a channel, 3 thresholds a channel of 16 + 1 bits, one direction for all.
    trace = network()
    levels = np.tile(np.arange(3, dtype=np.int64), (4, 1))
    own = Requantise("a", NumberFormat(Encoding.UNSIGNED, 2), levels, np.ones(1, np.int8))
    post = (Bias(np.array([-255, 3, 0, 1])), SaveShortcut("s0", 16), own)
    trace = replace(trace, layers=(replace(trace.layers[0], post=post), *trace.layers[1:]))
    assert parameter_bits(trace.layers[0], 32) == (9 + 3 * 17, 1)
    base = machine(Organisation.DENSE)
    narrow = replace(base, array=replace(base.array, columns=2))  # two channel tiles of 2
    weights = 4 * 4 * 9 * 4 * 8  # 4 pixel tiles, 4 channels, 9 steps, words of 4 x 8 bits
    for accelerator in (base, narrow):
        actions, *_ = counted(Organisation.DENSE, 0, None, accelerator, trace)
        assert actions.count(ActionKind.SRAM_READ, "weight") == weights + 4 * (9 + 3 * 17) + 1
        assert actions.counts[Action(ActionKind.REGISTER_WRITE, "post", 9 + 3 * 17)] == 4
        assert actions.counts[Action(ActionKind.REGISTER_WRITE, "post", 1)] == 1


def test_bands_and_images_are_given_their_parameters_again_and_parts_of_k_are_not() -> None:
    def read(accelerator: Accelerator, images: int = 1) -> int:
        """Sets of gate thresholds or of multiplier and bias that channels were given."""
        trace, widths = network(), resolve_widths(accelerator, network())
        placement = place(trace, accelerator, widths, 32)[2]
        schedule = make_schedule(trace.layers[2], accelerator, widths, images, placement.traffic, gated=False)
        counts = parameter_actions(trace.layers[2], accelerator, schedule)
        assert set(counts) == {Action(ActionKind.SRAM_READ, "weight"), Action(ActionKind.REGISTER_WRITE, "post", 4)}
        assert counts[Action(ActionKind.SRAM_READ, "weight")] % (4 * (3 + 1)) == 0  # 4 channels, 3 bits and 1
        return counts[Action(ActionKind.SRAM_READ, "weight")] // 16

    dense = machine(Organisation.DENSE)
    assert read(dense) == 1
    assert read(dense, images=3) == 3
    assert read(machine(Organisation.DENSE, weight=1024)) == 1  # three parts of K
    # The input streams: a row is 4 pixels of 12 bits, and 300 bits hold two bands of 3 rows, which 2 output rows read.
    assert read(machine(Organisation.DENSE, activation=300)) == 2


def test_pooling_windows_that_overlap_take_their_values_again() -> None:
    layer = replace(network().layers[0], post=(MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), Logits("x", 1.0)))
    (work,) = post_work(layer, 32)
    assert work.action == Action(ActionKind.COMPARE, "post", 32)
    assert work.times == 4 * 2 * 2 * 9  # four channels of 2 x 2 windows of 9 values
    assert work.parts == 4  # a value is in up to 2 x 2 windows


def test_a_shortcut_kept_on_chip_is_written_beside_codes_that_leave() -> None:
    # Codes of two images need 256 bits of the MSB plane; the shortcut stays.
    accelerator = replace(machine(activation=200), batch=2)
    actions, *_ = counted(Organisation.DECOUPLED, 0, None, accelerator)
    assert actions.count(ActionKind.DRAM_WRITE) == 64 * 3
    assert actions.count(ActionKind.SRAM_WRITE, "output") == 64 * 16 + 64 * 3
    assert actions.count(ActionKind.SRAM_READ, "output") == 64 * 3


def test_codes_are_written_into_the_planes_that_their_reader_splits_them_into() -> None:
    base = machine()
    assert base.update is not None
    accelerator = replace(base, array=replace(base.array, act_bits=4), update=replace(base.update, act_bits=4))
    actions, *_ = counted(Organisation.DECOUPLED, 0, None, accelerator)
    fill = 64 * 3  # the input comes from off chip; a layer without a gate halves its codes: 2 bits and 1
    assert actions.count(ActionKind.SRAM_WRITE, "activation") == 64 * 2 + fill * 2 // 3
    assert actions.count(ActionKind.SRAM_WRITE, "activation_lsb") == 64 + fill // 3


def two_readers(pred_bits: int | None) -> Trace:
    """Codes a, read first by `side`, with a gate of `pred_bits` if any, and then by `middle`, with one of 2 bits."""
    trace = network()
    stem, middle, last = trace.layers
    gate = Gate(pred_bits, np.zeros(4, np.int64)) if pred_bits is not None else None
    side = replace(middle, name="side", gate=gate, post=(Logits("side.out", 1.0),))
    return replace(trace, layers=(stem, side, middle, last))


def narrow_and_wide() -> Accelerator:
    """A machine whose MSB lanes take a bit and whose LSB lanes two: codes without a gate are split so."""
    base = machine()
    assert base.update is not None
    return replace(base, array=replace(base.array, act_bits=1), update=replace(base.update, act_bits=2))


def test_codes_are_split_once_as_the_layer_with_a_gate_needs_them() -> None:
    trace, accelerator = two_readers(None), narrow_and_wide()
    widths = resolve_widths(accelerator, trace)
    assert plane_bits(trace.layers[1], widths) == (1, 2)  # by itself
    places = place(trace, accelerator, widths, 32)
    assert [p.planes for p in places] == [(1, 2), (2, 1), (2, 1), (1, 2)]
    assert (places[0].code_write_bits, places[0].code_lsb_write_bits) == (64 * 3, 64)
    actions, *_ = counted(Organisation.DECOUPLED, 1, None, accelerator, trace)
    assert actions.count(ActionKind.SRAM_READ, "activation") == TAPS_INSIDE * 4 * 2
    assert actions.count(ActionKind.SRAM_READ, "activation_lsb") == TAPS_INSIDE * 4 * 1
    away = replace(accelerator, memory=replace(accelerator.memory, feature_maps=FeatureMaps.OFF_CHIP))
    assert [p.planes for p in place(trace, away, widths, 32)] == [(1, 2), (1, 2), (2, 1), (1, 2)]  # each its own


def test_codes_that_two_gates_need_in_other_planes_go_off_chip_where_planes_are_apart() -> None:
    trace, accelerator = two_readers(1), narrow_and_wide()
    places = place(trace, accelerator, resolve_widths(accelerator, trace), 32)
    assert [p.traffic.input_off_chip for p in places] == [True, True, True, False]
    assert [p.planes for p in places] == [(1, 2), (1, 2), (2, 1), (1, 2)]
    assert (places[0].traffic.write_bits, places[0].code_write_bits) == (64 * 3, 0)
    traffic = places[2].traffic
    assert (traffic.pixel_bits, traffic.pixel_lsb_bits) == (4 * 2, 4 * 1)
    fused = machine(Organisation.GATED_FUSED)
    places = place(trace, fused, resolve_widths(fused, trace), 32)
    assert [p.planes for p in places] == [(3, 0)] * 4
    assert [p.traffic.input_off_chip for p in places] == [True, False, False, False]


def test_shortcuts_from_off_chip_have_room_beside_the_outputs_that_leave() -> None:
    # The shortcut's 1024 bits are too many for 3/4 of the buffer. Two channel tiles of 4 rows take 2048 bits for it
    # and 256 for logits; two bands of 2 rows 1024 and 128.
    def rows(size: int) -> int:
        accelerator = machine(output=size)
        placement = place(network(), accelerator, LaneWidths(2, 1, True), 32)[2]
        assert placement.traffic.read_bits == 1024
        assert placement.words == "input on chip, output off chip, shortcut off chip"
        layer = network().layers[2]
        schedule = make_schedule(layer, accelerator, LaneWidths(2, 1, True), 1, placement.traffic, gated=False)
        return schedule.band_rows

    assert rows(1364) == 2
    assert rows(1152) == 2
    assert rows(1151) == 1
    assert rows(576) == 1
    with pytest.raises(InputError, match=r"two bands of one output row of layer last \(576 bits\), not 575 bits"):
        rows(575)


def test_bands_are_cut_for_shortcuts_where_no_output_leaves() -> None:
    trace = network()
    stem, middle, last = trace.layers
    third = replace(last, name="third", post=(last.post[0], AddShortcut("s0"), requantise("c")))
    end = replace(last, name="end", input_name="c", post=(last.post[0], Logits("logits", 1.0)))
    trace = replace(trace, layers=(stem, middle, third, end))
    small, widths = machine(output=1364), LaneWidths(2, 1, True)
    placement = place(trace, small, widths, 32)[2]
    assert placement.words == "input on chip, output on chip, shortcut off chip"
    assert (placement.traffic.write_bits, placement.traffic.read_bits) == (0, 1024)
    schedule = make_schedule(third, small, widths, 1, placement.traffic, gated=False)
    assert schedule.band_rows == 2  # 4 rows take 2 x 1024 bits, 2 rows 2 x 512


def test_parameters_come_from_off_chip_with_their_channels_and_shared_ones_once() -> None:
    trace, accelerator = network(), machine()
    widths = LaneWidths(2, 1, True)
    for layer, placement in zip(trace.layers, place(trace, accelerator, widths, 32), strict=True):
        bare = replace(layer, post=())
        own, shared = parameter_bits(layer, accelerator.array.psum_bits)
        fills = [
            make_schedule(each, accelerator, widths, 2, placement.traffic, gated=False).weight_fill_bits
            for each in (layer, bare)
        ]
        assert fills[0] - fills[1] == layer.geometry.out_channels * own + shared
    assert any(sum(parameter_bits(layer, 32)) for layer in trace.layers)


def test_every_part_of_k_drains_through_the_shadow_registers() -> None:
    # A tap of the channel tile is 128 bits; half the buffer holds 4 of 9 taps.
    actions, *_ = counted(Organisation.DENSE, 2, None, machine(Organisation.DENSE, weight=1024))
    assert actions.counts[Action(ActionKind.REGISTER_WRITE, "array", 32)] == 3 * 64


@pytest.mark.parametrize("organisation", [Organisation.TWO_PASS, Organisation.GATED_FUSED])
def test_both_streams_of_sign_magnitude_codes_carry_the_sign(organisation: Organisation) -> None:
    trace = network()
    signed = replace(trace.layers[1], act=NumberFormat(Encoding.SIGN_MAGNITUDE, 3))
    trace = replace(trace, layers=(trace.layers[0], signed, trace.layers[2]))
    actions, *_ = counted(organisation, 1, np.zeros((1, 4, 4, 4), np.bool_), trace=trace)
    assert actions.count(ActionKind.SRAM_READ, "activation") == TAPS_INSIDE * 4 * (3 + 2)
