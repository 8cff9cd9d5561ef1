"""A network that begins with recorded boundaries is verified, run on its own integers, placed and simulated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.hw.accelerator import FeatureMaps, Organisation
from pgsim.io.energy import load_energy_table
from pgsim.io.trace import load_trace, write_trace
from pgsim.model.inference import ENGINES, Chain, fast_engine, infer
from pgsim.model.lanes import LaneWidths
from pgsim.model.post_unit import parameter_bits
from pgsim.model.residency import place
from pgsim.model.simulate import Engine, simulate
from pgsim.model.simulated import simulator_engine
from pgsim.model.verify import verify_trace
from pgsim.results.actions import ActionKind
from pgsim.results.mismatch import Mismatch
from pgsim.workload.layer import AddShortcut, Geometry, LayerKind, Logits
from pgsim.workload.trace import InMemory, LayerTensors, Trace
from tests.build_boundary_trace import ENTRY_BITS, SIDE_BITS, build_boundary_trace, build_with_logits, changed_value
from tests.build_trace import UNSIGNED3, Builder, requantise, step
from tests.model.random_machines import make_accelerator

LAYERS = ("first", "second", "branch", "third", "classifier")
ENTRY, SIDE = 0, 1


def with_value(trace: Trace, index: int, where: tuple[int, ...], value: int) -> Trace:
    """Return the trace with one value of a boundary changed."""
    assert isinstance(trace.source, InMemory)
    values = [array.copy() for array in trace.source.boundaries]
    values[index][where] = value
    return dataclasses.replace(trace, source=dataclasses.replace(trace.source, boundaries=tuple(values)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_boundaries_computed_by_another_program_verify_and_give_its_logits(seed: int, engine: str) -> None:
    trace, logits = build_with_logits(seed, images=1 + seed % 3)
    verification = verify_trace(trace, engines={engine: ENGINES[engine]})
    assert verification.first is None
    assert verification.correct == trace.images
    assert [check.codes > 0 for check in verification.layers] == [True] * 5
    result = infer(trace, ENGINES[engine])
    assert result.equal
    assert list(result.logits) == ["map", "scores"]
    for name, expected in logits.items():
        assert np.array_equal(result.logits[name], expected)


def test_a_flip_in_a_boundary_is_found_in_the_codes_of_every_layer_that_reads_them() -> None:
    trace = build_boundary_trace()
    where = (1, 2, 3, 4)
    right = int(trace.tensors(0).activation[where])
    changed = with_value(trace, ENTRY, where, changed_value(trace, ENTRY, where))
    verification = verify_trace(changed)
    found = verification.first
    assert found is not None
    assert (found.engine, found.layer, found.what, found.index) == ("boundary entry", "first", "codes", where)
    assert found.recorded == right != found.computed
    assert str(found) == f"first: codes[1,2,3,4] is {right} in the trace, {found.computed} by boundary entry"
    wrong = {check.layer: [m.engine for m in check.mismatches] for check in verification.layers if check.wrong}
    assert wrong["branch"] == ["boundary entry"]
    assert wrong["third"] == ["post steps"]  # through the shortcut
    assert [m.engine for m in infer(changed).mismatches if m.layer in ("first", "branch")] == ["boundary entry"] * 2


def test_a_flip_in_a_boundary_that_is_only_added_is_found_behind_the_adding_layer() -> None:
    trace = build_boundary_trace()
    where = (0, 1, 2, 4)  # of even row and column, which the stride takes
    verification = verify_trace(with_value(trace, SIDE, where, changed_value(trace, SIDE, where)))
    assert [(check.layer, check.wrong) for check in verification.layers if check.wrong] == [("classifier", 1)]
    assert verification.first is not None
    assert (verification.first.engine, verification.first.index) == ("post steps", (0, 2, 0, 0))
    left_out = (0, 1, 3, 4)
    assert verify_trace(with_value(trace, SIDE, left_out, changed_value(trace, SIDE, left_out))).equal


def test_a_recorded_activation_that_the_boundary_does_not_give_is_found() -> None:
    trace = build_boundary_trace()
    assert isinstance(trace.source, InMemory)
    items = list(trace.source.items)
    codes = items[2].activation.copy()
    right = int(codes[0, 3, 5, 5])
    codes[0, 3, 5, 5] = 7 - right
    items[2] = dataclasses.replace(items[2], activation=codes)
    changed = dataclasses.replace(trace, source=dataclasses.replace(trace.source, items=tuple(items)))
    expected = Mismatch("boundary entry", "branch", "codes", (0, 3, 5, 5), 7 - right, right)
    assert expected in infer(changed).mismatches
    assert verify_trace(changed).first == expected


def test_requantisation_of_a_boundary_that_cannot_be_done_is_refused_with_its_place() -> None:
    trace = build_boundary_trace()
    step = trace.boundaries[ENTRY].requantise
    assert step is not None
    entry = dataclasses.replace(
        trace.boundaries[ENTRY], requantise=dataclasses.replace(step, threshold=step.threshold[:, ::-1])
    )
    with pytest.raises(InputError) as caught:
        infer(dataclasses.replace(trace, boundaries=(entry, trace.boundaries[SIDE])))
    expected = "boundaries[0].requantise: thresholds must not decrease along a row, as row 0 does"
    assert str(caught.value) == expected


def test_a_boundary_is_read_once_when_its_first_reader_comes_and_freed_after_its_last() -> None:
    trace = build_boundary_trace()
    log: list[str] = []

    class Logged:
        def tensors(self, index: int) -> LayerTensors:
            return trace.tensors(index)

        def boundary(self, index: int) -> NDArray[np.int64]:
            log.append(trace.boundaries[index].name)
            return trace.boundary(index)

    logged = dataclasses.replace(trace, source=Logged())
    chain = Chain(logged)
    kept, read = [], []
    for index, layer in enumerate(trace.layers):
        codes = chain.codes_for(index)
        assert codes is not None
        chain.follow(index, fast_engine(layer, codes).output)
        kept.append(sorted(chain._kept))
        read.append(list(log))
    assert kept == [["entry", "first.codes"], ["entry", "second.codes"], ["second.codes"], ["features"], []]
    assert read == [["entry"]] * 3 + [["entry", "side"]] * 2
    log.clear()
    verify_trace(logged, layers=["first", "second"])
    assert log == []


def test_a_boundary_of_which_only_the_codes_are_read_needs_no_shortcut(tmp_path: Path) -> None:
    builder = Builder(0, 2)
    builder.boundary("outside", (2, 4, 4), 8, codes=requantise("codes", UNSIGNED3))
    for name in ("one", "other"):
        geometry = Geometry(LayerKind.CONV, 2, 3, 4, 4)
        builder.add(name, geometry, UNSIGNED3, input_name="codes", post=[step(Logits(f"{name}.out", 1.0))])
    trace = builder.trace({})
    assert verify_trace(trace).equal
    assert infer(trace).equal
    write_trace(tmp_path / "t.npz", trace)
    assert verify_trace(load_trace(tmp_path / "t.npz")).equal


def test_labels_say_nothing_about_a_result_that_is_a_map() -> None:
    trace = build_boundary_trace()
    assert isinstance(trace.source, InMemory)
    source = dataclasses.replace(trace.source, items=trace.source.items[:3])
    verification = verify_trace(dataclasses.replace(trace, layers=trace.layers[:3], source=source))
    assert verification.equal
    assert verification.correct is None


def test_a_boundary_comes_over_the_channel_for_each_layer_that_adds_it_or_reads_its_codes() -> None:
    trace = build_boundary_trace()
    base = make_accelerator()
    on_chip = dataclasses.replace(base, memory=dataclasses.replace(base.memory, feature_maps=FeatureMaps.ON_CHIP))
    places = place(trace, on_chip, LaneWidths(2, 1, True), 32)
    # entry whole; entry at stride 2, 3 x 3 of 6 x 6; side at stride 2, 3 x 3 of 5 x 5
    shortcuts = [0, 4 * 6 * 6 * ENTRY_BITS, 4 * 3 * 3 * ENTRY_BITS, 3 * 3 * 3 * SIDE_BITS, 0]
    assert [p.traffic.read_bits for p in places] == shortcuts
    assert [p.shortcut_read_bits for p in places] == shortcuts
    assert [p.traffic.input_off_chip for p in places] == [True, False, True, False, False]
    assert [p.words for p in places] == [
        "input off chip, output on chip",
        "input on chip, output off chip, shortcut off chip",  # its stream, which no layer adds
        "input off chip, output off chip, shortcut off chip",
        "input on chip, output on chip, shortcut off chip",
        "input on chip, output off chip",
    ]
    assert [p.unread for p in places] == [(), ("stream",), (), (), ()]


def test_a_layer_that_streams_a_boundary_s_codes_leaves_a_quarter_of_the_buffer_to_them() -> None:
    trace = build_boundary_trace()
    base = make_accelerator()
    need = 4 * 6 * 6 * 2  # first.codes, in the MSB plane, beside the streamed input

    def input_of_second(size_bits: int) -> bool:
        memory = dataclasses.replace(
            base.memory,
            feature_maps=FeatureMaps.ON_CHIP,
            activation=dataclasses.replace(base.memory.activation, size_bits=size_bits),
        )
        accelerator = dataclasses.replace(base, memory=memory)
        return place(trace, accelerator, LaneWidths(2, 1, True), 32)[1].traffic.input_off_chip

    assert not input_of_second(2 * need)
    assert not input_of_second(need * 4 // 3)
    assert input_of_second(need * 4 // 3 - 2)  # 382 bits, of which 95 stay free


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("organisation", Organisation)
def test_a_boundary_network_is_simulated_with_its_integers_checked(organisation: Organisation, engine: Engine) -> None:
    trace = build_boundary_trace(2, images=2)
    base = make_accelerator(organisation)
    off_chip = dataclasses.replace(base.memory.off_chip, kind="lpddr4")
    memory = dataclasses.replace(base.memory, feature_maps=FeatureMaps.ON_CHIP, off_chip=off_chip)
    accelerator = dataclasses.replace(base, memory=memory)
    result = simulate(trace, accelerator, load_energy_table("45nm"), engine=engine)
    dense = organisation is Organisation.DENSE  # updates every output, where the recording did not
    assert [row.counts.outputs_differing > 0 for row in result.layers] == [dense, False, dense, dense, False]
    assert all(row.counts.outputs_checked for row in result.layers)
    assert [check for check in result.audit if not check.holds] == []
    # The second layer's input stays on chip: what it reads are its weights and parameters, for each image, and its
    # shortcut.
    own, shared = parameter_bits(trace.layers[1], 32)
    weights = 4 * 4 * 9 * 8 + 4 * own + shared
    second = result.layers[1].counts.actions
    assert second.count(ActionKind.DRAM_READ) == 2 * (weights + 4 * 6 * 6 * ENTRY_BITS)


def test_the_simulated_machine_verifies_a_boundary_network() -> None:
    trace = build_boundary_trace(1)
    verification = verify_trace(trace, engines={"simulator": simulator_engine(make_accelerator())})
    assert verification.equal


def test_a_shortcut_of_odd_size_is_counted_element_by_element() -> None:
    from tests.model.test_shortcuts import odd_network

    trace = odd_network()[0]
    step = trace.layers[1].post[0]
    assert isinstance(step, AddShortcut)
    placement = place(trace, make_accelerator(), LaneWidths(2, 1, True), 32)[1]
    assert placement.shortcut_read_bits == 3 * 3 * 4 * 32  # 3 channels of 3 x 4 from 5 x 7
