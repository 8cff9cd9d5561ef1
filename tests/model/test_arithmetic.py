"""A network under another arithmetic: rewritten layers, walked accumulators and the plain reference agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pgsim.arith import post
from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.arith.overflow import Accumulator, Overflow
from pgsim.errors import InputError, OverflowDetected
from pgsim.model.arithmetic import Values, partial_sums, run, run_layers
from pgsim.model.plain_arithmetic import plain_run
from pgsim.workload.arithmetic import (
    Arithmetic,
    Exported,
    Line,
    Rounding,
    Shortcut,
    coarser,
    multiply_and_shift,
    rewritten,
)
from pgsim.workload.layer import AddShortcut, Bias, Clamp, FixedPoint, PostStep, Requantise, SaveShortcut
from tests.model.drawn_network import draw_network

TRUNCATE = Rounding.TRUNCATE
CHOICES = {
    "exact": Arithmetic(),
    "multiply 8": Arithmetic(block_bits=8, stream_bits=8),
    "multiply 10": Arithmetic(block_bits=10, stream_bits=10),
    "multiply 24": Arithmetic(block_bits=24, stream_bits=24),
    "truncate 8": Arithmetic(block_bits=8, stream_bits=8, rounding=TRUNCATE),
    "block 6": Arithmetic(block_bits=6),
    "stream 6, truncated": Arithmetic(stream_bits=6, rounding=TRUNCATE),
    "shortcut 12": Arithmetic(shortcut=12),
    "shortcut 5": Arithmetic(shortcut=5),
    "shortcut as codes": Arithmetic(shortcut=Shortcut.CODES),
    "thresholds 8": Arithmetic(threshold_bits=8),
    "thresholds 5": Arithmetic(threshold_bits=5),
    "zero": Arithmetic(policy=GatePolicy.ZERO),
    "saturate 11": Arithmetic(accumulator=Accumulator(11, 2, Overflow.SATURATE)),
    "wrap 12": Arithmetic(accumulator=Accumulator(12, 8, Overflow.WRAP)),
    "much": Arithmetic(9, 10, shortcut=9, policy=GatePolicy.ZERO, accumulator=Accumulator(13, 3, Overflow.SATURATE)),
    "codes and multiply": Arithmetic(9, 10, shortcut=Shortcut.CODES),
    "thresholds and blocks": Arithmetic(block_bits=9, threshold_bits=7, shortcut=11),
}  # fmt: skip
RUNS = {"rewritten": run, "plain": plain_run}


def assert_equal(one: Values, other: Values) -> None:
    np.testing.assert_array_equal(one.logits, other.logits, strict=True)
    for number, (a, b) in enumerate(zip(one.layers, other.layers, strict=True)):
        np.testing.assert_array_equal(a.activation, b.activation, f"codes of layer {number}", strict=True)
        np.testing.assert_array_equal(a.output, b.output, f"output of layer {number}", strict=True)
        assert (a.mask is None) == (b.mask is None)
        if a.mask is not None and b.mask is not None:
            np.testing.assert_array_equal(a.mask, b.mask, strict=True)


def differing(one: Values, other: Values) -> bool:
    return any((a.output != b.output).any() for a, b in zip(one.layers, other.layers, strict=True))


@pytest.mark.parametrize("choice", CHOICES)
def test_a_rewritten_network_computes_what_its_choices_mean(choice: str) -> None:
    changed = []
    for seed in range(3):
        network, codes = draw_network(seed)
        found = run(network, CHOICES[choice], codes)
        assert_equal(found, plain_run(network, CHOICES[choice], codes))
        changed.append(differing(found, run_layers(network.layers, codes)))
    assert any(changed) == (choice not in ("exact", "multiply 24")), "the test must see the choice"


@pytest.mark.parametrize("run_", RUNS.values(), ids=RUNS)
def test_the_exact_arithmetic_is_that_of_the_layers(run_: Callable[..., Values]) -> None:
    network, codes = draw_network(4)
    assert_equal(run_(network, Arithmetic(), codes), run_layers(network.layers, codes))
    assert rewritten(network, Arithmetic()) == network


@pytest.mark.parametrize(
    ("scale", "multiplier", "exponent"),
    [  # TensorFlow Lite's quantization_util_test.cc, QuantizeMultiplierSmallerThanOneExp: 2^31 fixed point, an exponent
        (0.25, 1073741824, -1),
        (0.50 - 5e-9, 2147483627, -1),
        (0.50 - 1e-10, 1073741824, 0),
        (0.50, 1073741824, 0),
        (0.75, 1610612736, 0),
        (1 - 1e-9, 2147483646, 0),
    ],
)
def test_multipliers_of_32_bits_are_those_of_tensorflow_lite(scale: float, multiplier: int, exponent: int) -> None:
    step = multiply_and_shift(Line(np.array([scale]), np.zeros(1)), 32, Rounding.HALF_UP, "x")
    assert (step.multiplier.tolist(), step.bias.tolist(), step.shift) == ([multiplier], [0], 31 - exponent)


@pytest.mark.parametrize(
    ("rounding", "codes"),
    [  # 0.3 v + 0.25 in 4 signed bits: 0.3 * 16 = 4.8 -> 5, 0.25 * 16 = 4, and 0.3 * 32 = 9.6 would pass 7
        (Rounding.HALF_UP, [-2, -1, 0, 1, 2, 2, 5]),  # (5 v + 4 + 8) >> 4 of -8 -4 0 2 4 5 15: -28 -8 12 22 32 37 87
        (Rounding.TRUNCATE, [-3, -1, 0, 0, 1, 1, 4]),  # (5 v + 4) >> 4: -36 -16 4 14 24 29 79
    ],
)
def test_a_line_worked_by_hand(rounding: Rounding, codes: list[int]) -> None:
    step = multiply_and_shift(Line(np.array([0.3]), np.array([0.25])), 4, rounding, "x")
    assert (step.multiplier.tolist(), step.shift) == ([5], 4)
    v = np.array([-8, -4, 0, 2, 4, 5, 15]).reshape(1, 1, 1, -1)
    assert post.fixed_point(v, step.multiplier, step.bias, step.shift).ravel().tolist() == codes


def test_the_widest_channel_sets_the_shift_of_all() -> None:
    line = Line(np.array([0.5, -0.01, 0.0]), np.array([0.0, 1.0, -2.0]))
    step = multiply_and_shift(line, 8, Rounding.HALF_UP, "x")
    assert (step.multiplier.tolist(), step.bias.tolist(), step.shift) == ([64, -1, 0], [0, 128, -256], 7)
    nothing = multiply_and_shift(Line(np.zeros(1), np.array([3.0])), 8, Rounding.HALF_UP, "x")
    assert (nothing.multiplier.tolist(), nothing.bias.tolist(), nothing.shift) == ([0], [3 << 40], 40)


def test_a_fixed_point_step_loses_the_bits_that_do_not_fit_and_no_others() -> None:
    step = FixedPoint(np.array([1000, -37]), np.array([5000, 77]), 10)
    kept = coarser(step, 11, Rounding.HALF_UP, "x")
    assert (kept.multiplier.tolist(), kept.bias.tolist(), kept.shift) == ([1000, -37], [5000, 77], 10)
    found = coarser(step, 8, Rounding.HALF_UP, "x")  # 1000 / 8 = 125, -37 / 8 = -4.625; 625, 9.625
    assert (found.multiplier.tolist(), found.bias.tolist(), found.shift) == ([125, -5], [625, 10], 7)
    truncated = coarser(step, 8, TRUNCATE, "x")
    assert truncated.bias.tolist() == [625 - 64, 10 - 64]


def residual(*steps: PostStep) -> Exported:
    """The stem of a drawn network with other steps behind it."""
    network, _ = draw_network(0)
    return replace(network, layers=(replace(network.layers[0], post=steps),))


CODES3 = NumberFormat(Encoding.UNSIGNED, 3)
THRESHOLDS = np.array([[-5, 100, 101, 127, 128, 900, 2000]])
TO_CODES = Requantise("stem.codes", CODES3, THRESHOLDS, np.ones(1, np.int8))


def test_what_follows_an_addition_is_the_stream() -> None:
    layer = residual(AddShortcut("s"), TO_CODES)
    assert rewritten(layer, Arithmetic(block_bits=8)).layers[0].post == layer.layers[0].post
    kinds = [type(step) for step in rewritten(layer, Arithmetic(stream_bits=8)).layers[0].post]
    assert kinds == [AddShortcut, FixedPoint, Clamp, Requantise]


def test_a_narrow_stream_has_a_coarser_unit() -> None:
    layer = residual(
        FixedPoint(np.array([7]), np.array([3]), 5), Clamp(0, 2000), SaveShortcut("s", 11), TO_CODES
    )  # fmt: skip
    scale, clamp, save, codes = rewritten(layer, Arithmetic(shortcut=6)).layers[0].post
    assert isinstance(scale, FixedPoint)
    assert (scale.multiplier.tolist(), scale.bias.tolist(), scale.shift) == ([7], [3], 10)
    assert clamp == Clamp(0, 63)  # 2000 / 32 = 62.5, half up
    assert save == SaveShortcut("s", 6)
    assert isinstance(codes, Requantise)
    assert codes.threshold.tolist() == [[0, 4, 4, 4, 4, 29, 63]]  # least v with 32 v >= threshold


def test_a_narrow_stream_ends_at_the_largest_value_that_its_bits_hold() -> None:
    network = rewritten(residual(Clamp(0, 2047), SaveShortcut("s", 11)), Arithmetic(shortcut=6))
    assert network.layers[0].post == (Clamp(0, 63), SaveShortcut("s", 6))  # 2047 / 32 is nearer to 64


def test_thresholds_lose_their_low_bits_half_up() -> None:
    (codes,) = rewritten(residual(TO_CODES), Arithmetic(threshold_bits=8)).layers[0].post
    assert isinstance(codes, Requantise)  # 2000 takes 12 signed bits: four go
    assert codes.threshold.tolist() == [[0, 96, 96, 128, 128, 896, 2000]]
    assert rewritten(residual(TO_CODES), Arithmetic(threshold_bits=12)).layers[0].post[0].threshold.tolist() == (  # type: ignore[union-attr]
        THRESHOLDS.tolist()
    )


def test_a_shortcut_as_codes_holds_no_more_than_the_codes() -> None:
    network, _ = draw_network(1)
    found = rewritten(network, Arithmetic(shortcut=Shortcut.CODES))
    (to_codes, back), high = found.layers[0].post[2:4], found.layers[0].post[1].high  # type: ignore[union-attr]
    assert isinstance(to_codes, FixedPoint)
    assert isinstance(back, FixedPoint)
    stream = np.arange(high + 1).reshape(1, 1, 1, -1)
    code = post.fixed_point(stream, to_codes.multiplier, to_codes.bias, to_codes.shift)
    exact = [(2 * 7 * r + high) // (2 * high) for r in range(high + 1)]  # round(7 r / high), halves upwards
    assert code.ravel().tolist() == exact
    value = post.fixed_point(code, back.multiplier, back.bias, back.shift)
    assert sorted(set(value.ravel().tolist())) == [(2 * q * high + 7) // 14 for q in range(8)]


@pytest.mark.parametrize(
    ("network", "arithmetic", "message"),
    [
        (residual(TO_CODES), Arithmetic(shortcut=8), "shortcuts must all have one width of at least 8 bits, not []"),
        (
            residual(Clamp(0, 9), SaveShortcut("s", 6)), Arithmetic(shortcut=8),
            "shortcuts must all have one width of at least 8 bits, not [6]",
        ),
        (
            residual(Clamp(0, 9), SaveShortcut("s", 9), Bias(np.zeros(1, np.int64))), Arithmetic(shortcut=8),
            "stem, post[2]: no Bias may follow the stream",
        ),
        (
            residual(Clamp(0, 9), SaveShortcut("s", 9)), Arithmetic(shortcut=Shortcut.CODES),
            "stem, post[1]: a shortcut must stand between a clamp from 0 and its codes",
        ),
        (
            residual(replace(TO_CODES, name="other")), Arithmetic(block_bits=8),
            "stem, post[0]: other must have a line, to be a multiply and shift",
        ),
        (
            residual(TO_CODES, Clamp(0, 9)), Arithmetic(block_bits=8),
            "stem, post[0]: requantise must be the last step, to be a multiply and shift",
        ),
        (
            Exported(residual(TO_CODES).layers, {"stem.codes": Line(np.array([99.0]), np.zeros(1))}),
            Arithmetic(block_bits=6), "stem, post[0]: multipliers must fit 6 signed bits, not reach 99.0",
        ),
        (
            residual(FixedPoint(np.array([99]), np.zeros(1, np.int64), 0)), Arithmetic(stream_bits=6),
            "stem, post[0]: multipliers must fit 6 signed bits, not need more at shift 0",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(network: Exported, arithmetic: Arithmetic, message: str) -> None:
    with pytest.raises(InputError) as caught:
        rewritten(network, arithmetic)
    assert str(caught.value) == message


def test_widths_below_two_bits_are_wrong_calls() -> None:
    for name in ("block_bits", "stream_bits", "shortcut", "threshold_bits"):
        with pytest.raises(ValueError, match=f"^{name} must be >= 2, not 1$"):
            Arithmetic(**{name: 1})


def test_partial_sums_are_those_that_an_accumulator_meets() -> None:
    network, codes = draw_network(2)
    values = run_layers(network.layers, codes)
    for layer, tensors in zip(network.layers, values.layers, strict=True):
        low, high = partial_sums(layer, tensors.activation, 2)
        bits = max(-low - 1, high).bit_length() + 1
        for fits in (True, False):
            register = Arithmetic(accumulator=Accumulator(bits - 1 + fits, 2, Overflow.ERROR))
            one = Exported((replace(layer, post=network.layers[-1].post[1:], input_name=None),))
            if fits:
                assert (run(one, register, tensors.activation).layers[0].output == tensors.output).all()
            else:
                with pytest.raises(OverflowDetected, match=f"must be at least {bits}, not {bits - 1}"):
                    run(one, register, tensors.activation)
