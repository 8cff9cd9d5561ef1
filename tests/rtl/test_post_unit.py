"""The post-processing unit in Verilog holds what the integer reference computes, whatever comes when."""

from __future__ import annotations

import dataclasses
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.errors import InputError
from pgsim.rtl.post_regions import Region
from pgsim.rtl.post_unit import Kind, Select
from pgsim.workload.layer import Bias, Clamp, Logits, MaxPool, PostStep, Requantise, SumPool
from tests.rtl.post_drawn import ANY, Case, after, check_case, draw_case, kept_by, layer_of
from tests.rtl.post_harness import Machine, run_verilator


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(ANY)


def dense(memory: Select, shape: tuple[int, ...], low_bits: int = 0) -> Region:
    """A tensor [N, K, P, Q] from the memory's first word on."""
    channels, height, width = shape[1:]
    strides = (channels * height * width, height * width, width, 1)
    return Region(memory, 0, (channels, height, width), strides, low_bits=low_bits)


def test_verilator_finds_nothing_to_complain_of() -> None:
    run_verilator(["--lint-only", "-GCOLUMNS=1"], None)
    run_verilator(["--lint-only"], ANY)
    run_verilator(
        ["--lint-only"], dataclasses.replace(ANY, columns=1, map_bits=20, pool_count=16, tiles=4096, images=1024)
    )
    for kinds in (
        frozenset[Kind](),
        frozenset({Kind.ADD}),
        frozenset({Kind.SAVE, Kind.POOL}),
        frozenset({Kind.LOGITS}),
    ):
        run_verilator(["--lint-only"], dataclasses.replace(ANY, columns=1, stages=(kinds,)))


@settings(max_examples=200, deadline=None)
@given(random=st.randoms(use_true_random=False), gap=st.sampled_from([0.0, 0.0, 0.3, 0.8]), in_order=st.booleans())
def test_any_chain_in_any_order_gives_the_integers_of_the_reference(
    machine: Machine, random: Random, gap: float, in_order: bool
) -> None:
    case = draw_case(random)
    try:
        check_case(machine, case, random, in_order=in_order, gap=gap)
    except InputError as error:
        assume("value_bits" not in str(error))
        raise


CODES = [NumberFormat(encoding, bits) for encoding in Encoding for bits in range(1, 5)]


@pytest.mark.parametrize("form", CODES, ids=lambda form: f"{form.encoding.value}-{form.bits}")
def test_every_code_of_a_small_format_comes_out_in_every_split(machine: Machine, form: NumberFormat) -> None:
    for base in range(form.min_code, form.max_code):
        levels = form.max_code - base
        value = np.arange(-2 * levels - 3, 2 * levels + 4)  # below, on, between and above all thresholds
        rows = np.arange(levels) * 2 - levels + np.arange(-1, 3)[:, None]  # four channels, thresholds two apart
        direction = np.array([1, -1, 1, -1], np.int8)
        step = Requantise("codes", form, rows, direction, base)
        pieces = [value[i : i + 25] for i in range(0, len(value), 25)]
        pieces[-1] = np.resize(pieces[-1], 25)
        accumulator = np.stack([np.broadcast_to(piece.reshape(5, 5), (4, 5, 5)) for piece in pieces])
        kept = kept_by(step, accumulator)
        assert kept is not None
        assert np.array_equal(np.unique(kept), np.arange(base, form.max_code + 1))
        for low_bits in range(form.bits):
            region = dense(Select.HIGH_PLANE, accumulator.shape, low_bits)
            case = Case(layer_of((4, 5, 5), [step]), accumulator, {}, {"codes": kept}, {"codes": region})
            check_case(machine, case, Random(0))


def run_steps(machine: Machine, accumulator: np.ndarray, steps: list[PostStep]) -> int:
    """Check steps that end in codes or logits, at a result a port and cycle; return the cycles until idle."""
    value = accumulator
    for step in steps:
        value = after(step, value, {})
    last = steps[-1]
    assert isinstance(last, Requantise | Logits)
    kept = kept_by(last, value)
    assert kept is not None
    memory = Select.LOGITS if isinstance(last, Logits) else Select.HIGH_PLANE
    regions = {last.name: dense(memory, kept.shape)}
    case = Case(layer_of(accumulator.shape[1:], steps), accumulator, {}, {last.name: kept}, regions)
    return check_case(machine, case, Random(0)).drain


def test_results_come_out_a_fixed_time_after_they_went_in(machine: Machine) -> None:
    accumulator = np.random.default_rng(0).integers(-200, 200, (1, 7, 5, 5))
    codes = NumberFormat(Encoding.UNSIGNED, 3)
    requantise = Requantise("codes", codes, np.arange(7)[None] * 20, np.ones(1, np.int8))
    steps: list[PostStep] = [
        Bias(np.ones(1, np.int64)),
        Clamp(0, 100),
        SumPool((1, 1), (1, 1)),
        Clamp(0, 99),
        requantise,
    ]
    assert run_steps(machine, accumulator, steps) == ANY.latency == 1 + 4 + ANY.levels
    assert run_steps(machine, accumulator, [requantise]) == 1 + ANY.levels
    assert run_steps(machine, accumulator, [Logits("scores", 1.0)]) == 1 + len(ANY.stages)


def test_windows_that_overlap_queue_and_none_is_lost(machine: Machine) -> None:
    accumulator = np.random.default_rng(1).integers(-200, 200, (4, 3, 5, 5))
    for kernel, stride, padding in (((2, 2), (1, 1), (1, 1, 1, 1)), ((3, 3), (2, 2), (1, 1, 1, 1))):
        drain = run_steps(machine, accumulator, [MaxPool(kernel, stride, padding), Logits("scores", 1.0)])
        assert drain > 1 + len(ANY.stages)
