"""Programs of the post-processing unit: what is refused, where tensors lie, and how small a unit can be."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.errors import InputError
from pgsim.rtl.post import compile_post
from pgsim.rtl.post_regions import Region, lanes_of, lanes_of_segments, lanes_of_tiles, plan_regions, segment_writes
from pgsim.rtl.post_size import unit_for
from pgsim.rtl.post_unit import EVERY_PORT, WRITE, Field, Kind, PostUnit, Select
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Gate,
    Geometry,
    Layer,
    LayerKind,
    Logits,
    MaxPool,
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import Trace
from tests.build_boundary_trace import build_boundary_trace
from tests.build_trace import build_trace
from tests.rtl.post_drawn import ANY, layer_of
from tests.rtl.post_harness import SOURCES, run_verilator

ONE = np.ones(1, np.int64)
CODES = Requantise("codes", NumberFormat(Encoding.UNSIGNED, 3), np.arange(7)[None], np.ones(1, np.int8))
KEPT = Region(Select.HIGH_PLANE, 0, (7, 8, 8), (448, 64, 8, 1))
ADDED = Region(Select.SHORTCUTS, 0, (7, 8, 8), (448, 64, 8, 1), bits=16)
HALVE, BESIDE = SumPool((2, 2), (2, 2)), MaxPool((2, 2), (1, 1))
REGIONS = {"codes": KEPT, "added": ADDED, "saved": ADDED}


@pytest.mark.parametrize(("enum", "name"), [(Kind, "kind_t"), (Select, "select_t"), (Field, "field_t")])
def test_numbers_are_those_of_the_verilog_package(enum: type[Kind] | type[Select] | type[Field], name: str) -> None:
    text = (SOURCES / "post_package.sv").read_text()
    assert f"EVERY_PORT = {EVERY_PORT};" in (SOURCES / "post_unit.sv").read_text()
    body = re.sub("//.*", "", re.search(rf"enum logic \[\d:0\] {{([^}}]*)}} {name};", text)[1])  # type: ignore[index]
    numbers = {n.strip().removeprefix("TO_"): int(v.split("d")[1]) for n, v in (e.split("=") for e in body.split(","))}
    assert numbers == {member.name: member.value for member in enum}
    assert WRITE.itemsize == 16


def test_every_parameter_of_the_unit_has_a_size_and_the_same_default() -> None:
    text = (SOURCES / "post_unit.sv").read_text()
    declared = dict(
        re.findall(r"^ +parameter +(?:int|logic \[8\*STAGES-1:0\]) +(\w+) += ([^,\s]+)", text, re.MULTILINE)
    )
    given = PostUnit(4, (frozenset(Kind),) * 8).parameters()
    assert set(declared) == set(given)
    assert {name: value for name, value in declared.items() if name != "UNITS"} == {
        name: value for name, value in given.items() if name != "UNITS"
    }


PAST_THE_SIZES: list[tuple[str, int, tuple[int, int, int], list[PostStep], str, int]] = [
    ("images", 1, (1, 1, 1), [], ": the images of a batch", 2),
    ("tiles", 3, (10, 1, 1), [], ": the channels of a port", 4),
    ("map_bits", 2, (1, 4, 8), [], ": the bits of a row or column", 3),
    ("map_bits", 3, (1, 4, 8), [MaxPool((2, 2), (1, 1), (1, 1, 1, 1))], ", post[0]: the bits of a row or column", 4),
    ("factor_bits", 14, (1, 1, 1), [FixedPoint(8192 * ONE, ONE, 3)], ", post[0]: the bits of a multiplier", 15),
    ("bias_bits", 24, (1, 1, 1), [Bias(-(2**24) * ONE)], ", post[0]: the bits of a bias", 25),
    ("value_bits", 48, (1, 1, 1), [FixedPoint(8191 * ONE, ONE, 0)] * 3, ", post[2]: the bits of what it can give", 59),
    ("value_bits", 48, (1, 1, 1), [Bias(ONE), Clamp(2**50, 2**51)], ", post[1]: the bits of what it can give", 52),
    ("shortcut_bits", 20, (1, 1, 1), [SaveShortcut("saved", 21)], ", post[0]: the bits of a shortcut", 21),
    ("shortcut_bits", 15, (7, 8, 8), [AddShortcut("added")], ", post[0]: the bits of a shortcut", 16),
    ("shortcut_words", 895, (7, 8, 8), [SaveShortcut("saved", 9)], ", post[0]: the last word", 896),
    ("code_words", 895, (7, 8, 8), [CODES], ", post[0]: the last word", 896),
    ("pool_axis", 7, (1, 8, 8), [HALVE], ", post[0]: the height and width of a map that is pooled", 8),
    ("pool_overlap", 2, (1, 8, 8), [SumPool((3, 3), (1, 1))], ", post[0]: kernel / stride, rounded up,", 3),
    ("pool_count", 4, (1, 8, 8), [SumPool((4, 4), (4, 4))], ", post[0]: the bits of a window's count", 5),
    ("pool_words", 23, (7, 8, 8), [HALVE], ", post[0]: the windows of a bank", 24),
    ("pool_queue", 97, (1, 8, 8), [BESIDE], ", post[0]: the windows that can be finished and still queue", 98),
    ("levels", 2, (1, 1, 1), [CODES], ", post[0]: the levels of the search for a code", 3),
    ("code_bits", 2, (1, 1, 1), [CODES], ", post[0]: the bits of a code, its sign apart,", 3),
    ("tree_words", 3, (1, 1, 1), [CODES], ", post[0]: the thresholds of a level of the search", 4),
]


@pytest.mark.parametrize(("size", "limit", "shape", "steps", "what", "amount"), PAST_THE_SIZES)
def test_one_more_than_a_size_holds_is_refused_in_one_line(
    size: str, limit: int, shape: tuple[int, int, int], steps: list[PostStep], what: str, amount: int
) -> None:
    layer = layer_of(shape, steps)
    with pytest.raises(InputError) as refused:
        compile_post(layer, dataclasses.replace(ANY, **{size: limit}), REGIONS, images=2)
    expected = f"{what} must be at most {limit}, {size} of the post-processing unit, not {amount}"
    assert str(refused.value) == f"layer drawn{expected}"
    compile_post(layer, dataclasses.replace(ANY, **{size: amount}), REGIONS, images=2)


def test_what_no_size_helps_against_is_refused_in_one_line() -> None:
    decreasing = dataclasses.replace(CODES, threshold=np.array([[1, 0, 2, 3, 4, 5, 6]]))
    clamp_first = (frozenset({Kind.CLAMP}), frozenset({Kind.FIXED_POINT}))
    for stages, steps, message in (
        (ANY.stages, [AddShortcut("other")], "post[0]: the shortcut other must have a region, not none"),
        (ANY.stages, [Bias(ONE), decreasing], "post[1]: thresholds must not decrease along a row, as row 0 does"),
        (
            clamp_first,
            [Bias(ONE), Clamp(0, 9)],
            "post[1]: the post-processing unit must have a stage for clamp after stage 1, "
            "which the step before takes, not none",
        ),
        (clamp_first, [CODES], "post[0]: the post-processing unit must have a stage for requantise, not none"),
    ):
        unit = dataclasses.replace(ANY, stages=stages)
        with pytest.raises(InputError, match=f"^layer drawn, {re.escape(message)}$"):
            compile_post(layer_of((1, 1, 1), steps), unit, REGIONS)


def test_sizes_that_no_unit_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"value_bits must be psum_bits = 20 \.\. 62, not 63"):
        dataclasses.replace(ANY, value_bits=63)
    with pytest.raises(ValueError, match="pool_count must be at most 16, not 17"):
        dataclasses.replace(ANY, pool_count=17)
    with pytest.raises(ValueError, match="shortcut_bits must be below value_bits = 48, not 48"):
        dataclasses.replace(ANY, shortcut_bits=48)


def test_more_segments_than_the_unit_holds_are_refused() -> None:
    lanes, zeros = lanes_of_tiles([(0, 1)]), np.zeros(37, np.int64)
    expected = "^the segments of a layer must be at most 36, segments of the post-processing unit, not 37$"
    with pytest.raises(InputError, match=expected):
        segment_writes(ANY, lanes, zeros, zeros, zeros == 0)
    told = segment_writes(dataclasses.replace(ANY, segments=37), lanes, zeros + 2, zeros, zeros == 0)
    assert told["data"].tolist() == [2**48 + 2**17] * 37


def test_a_step_that_keeps_what_nobody_asks_for_is_left_out() -> None:
    program = compile_post(layer_of((1, 2, 2), [CODES, Logits("scores", 1.0)]), ANY, {"codes": KEPT})
    kinds = program.writes[(program.writes["select"] == Select.DESCRIPTOR) & (program.writes["address"] == Field.KIND)]
    assert kinds["data"].tolist() == [Kind.PASS] * 5 + [Kind.REQUANTISE]


@pytest.mark.parametrize("build", [build_trace, build_boundary_trace])
def test_the_smallest_unit_has_nothing_to_spare(build: Callable[[int], Trace]) -> None:
    trace = build(0)
    unit = unit_for(trace.layers, 3, 20, 2, trace.boundaries)
    regions, _ = plan_regions(trace.layers, 2, trace.boundaries)
    programs = [compile_post(layer, unit, regions, images=2) for layer in trace.layers]
    largest: dict[str, int] = {}
    for program in programs:
        for name, amount in program.needs.items():
            largest[name] = max(amount, largest.get(name, 1))
    assert largest == {name: getattr(unit, name) for name in largest}
    run_verilator(["--lint-only"], unit)


def test_a_unit_of_the_smallest_sizes_is_clean() -> None:
    ones = {f.name: 1 for f in dataclasses.fields(PostUnit) if f.name not in ("columns", "stages")}
    tiny = PostUnit(1, (frozenset(Kind),), **(ones | {"psum_bits": 2, "value_bits": 3}))
    run_verilator(["--lint-only"], tiny)


def test_an_order_of_stages_serves_every_layer() -> None:
    def layer(*steps: PostStep) -> Layer:
        return layer_of((1, 2, 2), list(steps))

    chains = [(Bias(ONE), CODES), (Clamp(0, 9), Bias(ONE), CODES), (SumPool((2, 2), (2, 2)), Logits("scores", 1.0))]
    unit = unit_for([layer(*chain) for chain in chains], 1, 20)
    assert sorted(next(iter(kinds)) for kinds in unit.stages) == [1, 3, 5, 6, 7]


def test_tensors_that_live_at_the_same_time_lie_apart() -> None:
    trace = build_trace(0)
    regions, words = plan_regions(trace.layers, 2)
    readers = [{layer.input_name, *(getattr(s, "source", None) for s in layer.post)} for layer in trace.layers]
    writers = [{getattr(s, "name", None) for s in layer.post} for layer in trace.layers]
    for index in range(len(trace.layers)):
        taken: dict[Select, set[int]] = {}
        later = set().union(*readers[index:])
        for name, region in regions.items():
            made = next(i for i, names in enumerate(writers) if name in names)
            if made <= index and (made == index or name in later):
                mine = set(region.addresses(2).ravel().tolist())
                assert len(mine) == 2 * int(np.prod(region.shape))
                assert not mine & taken.setdefault(region.memory, set()), name
                taken[region.memory] |= mine
        assert all(max(used) < words[memory] for memory, used in taken.items())


def test_a_tensor_takes_the_place_of_one_that_nobody_reads_any_more() -> None:
    _, words = plan_regions(build_trace(0).layers, 1)
    kept = [4 * 8 * 8, 4 * 8 * 8]  # stream0 and stream2 meet in layer 2
    assert words[Select.SHORTCUTS] == sum(kept)
    assert words[Select.HIGH_PLANE] == 2 * 4 * 8 * 8


def test_codes_are_split_as_their_readers_ask_and_whole_where_these_disagree() -> None:
    def reader(name: str, pred_bits: int) -> Layer:
        made = dataclasses.replace(layer_of((1, 2, 2), [], name), input_name="codes")
        form = NumberFormat(Encoding.UNSIGNED, 3)
        return dataclasses.replace(made, act=form, gate=Gate(pred_bits, np.zeros(1, np.int64)))

    first = layer_of((1, 2, 2), [CODES])
    plain = dataclasses.replace(layer_of((1, 2, 2), []), input_name="codes")
    assert plan_regions([first, plain], 1)[0]["codes"].low_bits == 0
    assert plan_regions([first, plain, reader("b", 1)], 1)[0]["codes"].low_bits == 2
    assert plan_regions([first, reader("a", 2), reader("b", 1)], 1)[0]["codes"].low_bits == 0


def test_channels_go_to_columns_tile_after_tile_and_group_after_group() -> None:
    grouped = lanes_of(Geometry(LayerKind.CONV, 4, 6, groups=2), 2)
    assert grouped.port.tolist() == [0, 1, 0, 0, 1, 0]
    assert grouped.tile.tolist() == [0, 0, 1, 2, 2, 3]
    depthwise = lanes_of(Geometry(LayerKind.CONV, 5, 5, groups=5), 2)
    assert depthwise.port.tolist() == [0, 1, 0, 1, 0]
    assert depthwise.tile.tolist() == [0, 0, 1, 1, 2]
    segments = lanes_of_segments(np.array([0, 2, 4, 0, 2, 4]), np.array([2, 2, 1, 2, 2, 1]))
    assert np.array_equal(segments.port, depthwise.port)
    assert np.array_equal(segments.tile, depthwise.tile)
    one_column = lanes_of_tiles([(channel, 1) for channel in range(3)])
    assert one_column.port.tolist() == [0, 0, 0]
    assert one_column.tile.tolist() == [0, 1, 2]
