"""Accumulators of psum_bits: what is proved, what is detected, and what saturation and wrapping leave."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pgsim.arith import fast, overflow
from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.arith.overflow import Accumulator, Overflow, bits_needed, proven_bits, reachable
from pgsim.arith.reference import GatedValues
from pgsim.arith.split import split
from pgsim.errors import OverflowDetected
from pgsim.workload.layer import Geometry, LayerKind

from .drawn import DrawnLayer, examples, layers

WALKS = {"interpreted": overflow.walk_loops.py_func, "compiled": overflow.walk_loops}
walks = pytest.mark.parametrize("loops", WALKS.values(), ids=WALKS.keys())
Loops = Callable[..., None]


def walk(layer: DrawnLayer, accumulator: Accumulator, loops: Loops = overflow.walk_loops) -> GatedValues:
    q_h, q_l = split(layer.activation, layer.encoding, layer.bits, layer.pred_bits)
    low = layer.bits - layer.pred_bits
    gate = (layer.threshold, low, layer.policy)
    return overflow.walk(q_h, q_l, layer.weight, layer.window, *gate, accumulator, "layer", loops=loops)


def in_registers(layer: DrawnLayer, accumulator: Accumulator) -> GatedValues:
    return partial(overflow.gated_layer, accumulator=accumulator, layer_name="layer")(*layer.arguments)


def row(codes: list[int], weights: list[int], word: int, psum_bits: int, mode: Overflow, loops: Loops) -> int:
    """One output of a layer that is not gated: input channels in a row."""
    activation = np.array(codes, np.int16).reshape(1, -1, 1, 1)
    weight = np.array(weights, np.int16).reshape(1, -1, 1, 1)
    geometry = Geometry(LayerKind.LINEAR, len(codes), 1)
    nothing = (np.zeros(1, np.int64), 0, GatePolicy.KEEP)
    accumulator = Accumulator(psum_bits, word, mode)
    values = overflow.walk(activation, None, weight, geometry, *nothing, accumulator, "fc", loops=loops)
    assert not values.mask.any()
    assert not values.a_l.any()
    return int(values.a.item())


# 4 bits hold -8 .. 7. Products 6, 6, -6: one a step 6, 12, 6; two a step 12, 6; three a step 6. By hand.
@walks
@pytest.mark.parametrize(
    ("word", "mode", "value"),
    [
        (1, Overflow.SATURATE, 1),  # 6, 12 -> 7, 1
        (1, Overflow.WRAP, 6),  # 6, 12 -> -4, -10 -> 6
        (2, Overflow.SATURATE, 1),  # 12 -> 7, 1
        (2, Overflow.WRAP, 6),
        (3, Overflow.SATURATE, 6),  # a word is summed before it meets the accumulator
        (3, Overflow.WRAP, 6),
        (3, Overflow.ERROR, 6),
        (64, Overflow.ERROR, 6),
    ],
)
def test_a_row_worked_by_hand(loops: Loops, word: int, mode: Overflow, value: int) -> None:
    assert row([3, 3, 3], [2, 2, -2], word, 4, mode, loops) == value


@walks
@pytest.mark.parametrize(
    ("codes", "mode", "value"),
    [
        ([2, 2], Overflow.SATURATE, -8),  # -4, -8: the least that 4 bits hold
        ([2, 3], Overflow.SATURATE, -8),  # -10 -> -8
        ([2, 3], Overflow.WRAP, 6),  # -10 + 16
        ([2, 2], Overflow.ERROR, -8),
    ],
)
def test_the_negative_end_worked_by_hand(loops: Loops, codes: list[int], mode: Overflow, value: int) -> None:
    assert row(codes, [-2, -2], 1, 4, mode, loops) == value


@walks
@pytest.mark.parametrize("word", [1, 2])
def test_an_intermediate_overflow_counts_though_the_sum_fits(loops: Loops, word: int) -> None:
    step = {1: "step 1", 2: "step 0"}[word]
    message = (
        "fc, channel 0: psum_bits must be at least 5, not 4: the sum reaches 12 (5 bits) at "
        f"{step}, image 0, output pixel (0, 0)"
    )
    with pytest.raises(OverflowDetected) as caught:
        row([3, 3, 3], [2, 2, -2], word, 4, Overflow.ERROR, loops)
    assert str(caught.value) == message


@walks
def test_channels_of_a_tap_come_before_the_next_tap_and_rows_before_columns(loops: Loops) -> None:
    # Products in order (r, s, c), c fastest: 6 -6 6 -6 | 6 -6 6 -6 never leave 4 bits; any other order meets 12.
    geometry = Geometry(LayerKind.CONV, 2, 1, 2, 2, (2, 2))
    activation = np.full((1, 2, 2, 2), 3, np.int16)
    weight = np.array([[2, 2, 2, 2], [-2, -2, -2, -2]], np.int16).reshape(1, 2, 2, 2)
    nothing = (np.zeros(1, np.int64), 0, GatePolicy.KEEP)
    values = overflow.walk(activation, None, weight, geometry, *nothing, Accumulator(4, 1), "conv", loops=loops)
    assert values.a.item() == 0
    rows_first = np.array([[2, 2, -2, -2], [0, 0, 0, 0]], np.int16).reshape(1, 2, 2, 2)  # 6 12 6 0 in (r, s, c)
    columns = rows_first.transpose(0, 1, 3, 2)  # 6 0 6 0: fits in (r, s, c), not with rows inside
    with pytest.raises(OverflowDetected, match=r"reaches 12 \(5 bits\) at step 2, image 0, output pixel \(0, 0\)$"):
        overflow.walk(activation, None, rows_first, geometry, *nothing, Accumulator(4, 1), "conv", loops=loops)
    values = overflow.walk(activation, None, columns, geometry, *nothing, Accumulator(4, 1), "conv", loops=loops)
    assert values.a.item() == 0


@walks
def test_a_tap_on_padding_takes_its_step(loops: Loops) -> None:
    geometry = Geometry(LayerKind.CONV, 3, 1, 1, 1, (2, 2), padding=(1, 0, 1, 0))  # only the last tap is inside
    activation = np.array([1, 7, 7], np.int16).reshape(1, 3, 1, 1)
    weight = np.ones((1, 3, 2, 2), np.int16)
    nothing = (np.zeros(1, np.int64), 0, GatePolicy.KEEP)
    with pytest.raises(OverflowDetected, match=r"reaches 8 \(5 bits\) at step 6,"):  # words of 2: steps 6 and 7
        overflow.walk(activation, None, weight, geometry, *nothing, Accumulator(4, 2), "conv", loops=loops)


def gated(code: int, weight: int, threshold: int, policy: GatePolicy, accumulator: Accumulator) -> GatedValues:
    """One tap of a 4-bit unsigned code, 2 bits predict."""
    activation, factor = np.full((1, 1, 1, 1), code, np.int16), np.full((1, 1, 1, 1), weight, np.int16)
    geometry, register = Geometry(LayerKind.LINEAR, 1, 1), np.array([threshold], np.int64)
    layer = (activation, factor, geometry, Encoding.UNSIGNED, 4, 2, register, policy)
    return overflow.gated_layer(*layer, accumulator, "conv1")


KEEP, ZERO = GatePolicy.KEEP, GatePolicy.ZERO


@pytest.mark.parametrize(
    ("threshold", "policy", "mode", "a_h", "a_l", "mask", "a"),
    [  # code 7 = 1 * 4 + 3, weight 3: A_h 3, A_h << 2 = 12, + 9 = 21; 4 bits hold -8 .. 7
        (0, KEEP, Overflow.SATURATE, 3, 0, True, 7),  # 12 -> 7, 16 -> 7
        (0, KEEP, Overflow.WRAP, 3, 9, True, 5),  # 12 -> -4, 5
        (3, KEEP, Overflow.SATURATE, 3, 0, False, 7),  # the shifted prediction is held to psum_bits too
        (3, KEEP, Overflow.WRAP, 3, 0, False, -4),
        (3, ZERO, Overflow.SATURATE, 3, 0, False, 0),
        (3, ZERO, Overflow.ERROR, 3, 0, False, 0),  # nothing is shifted
    ],
)
def test_the_update_phase_worked_by_hand(
    threshold: int, policy: GatePolicy, mode: Overflow, a_h: int, a_l: int, mask: bool, a: int
) -> None:
    values = gated(7, 3, threshold, policy, Accumulator(4, 1, mode))
    assert [getattr(values, name).item() for name in ("a_h", "a_l", "mask", "a")] == [a_h, a_l, mask, a]


@pytest.mark.parametrize(
    ("code", "weight", "threshold", "policy", "what"),
    [
        (7, 3, 0, KEEP, "psum_bits must be at least 6, not 4: the update phase reaches 12 (5 bits) at its start"),
        (7, 3, 3, KEEP, "psum_bits must be at least 5, not 4: the update phase reaches 12 (5 bits) at its start"),
        (7, 3, 0, ZERO, "psum_bits must be at least 6, not 4: the update phase reaches 12 (5 bits) at its start"),
        (3, 3, -1, KEEP, "psum_bits must be at least 5, not 4: the update phase reaches 9 (5 bits) at step 0"),
        (12, 3, 0, ZERO, "psum_bits must be at least 7, not 4: the prediction phase reaches 9 (5 bits) at step 0"),
        (12, -3, 0, KEEP, "psum_bits must be at least 7, not 4: the prediction phase reaches -9 (5 bits) at step 0"),
    ],
)
def test_the_error_names_layer_channel_value_and_width(
    code: int, weight: int, threshold: int, policy: GatePolicy, what: str
) -> None:
    with pytest.raises(OverflowDetected) as caught:
        gated(code, weight, threshold, policy, Accumulator(4, 1))
    assert str(caught.value) == f"conv1, channel 0: {what}, image 0, output pixel (0, 0)"


def test_a_shifted_prediction_below_every_code_is_not_taken_as_proved() -> None:
    # Two's complement -1 = -1 * 4 + 3: A is -3 and A_h is -3, but A_h << 2 is -12 and 4 bits end at -8.
    activation, weight = np.full((1, 1, 1, 1), -1, np.int16), np.full((1, 1, 1, 1), 3, np.int16)
    layer = (activation, weight, Geometry(LayerKind.LINEAR, 1, 1), Encoding.TWOS_COMPLEMENT, 4, 2)
    register = np.array([-4], np.int64)
    values = overflow.gated_layer(*layer, register, KEEP, Accumulator(4, 1, Overflow.SATURATE), "fc")
    assert (values.a_h.item(), values.a.item()) == (-3, 1)  # -12 -> -8, + 9
    with pytest.raises(
        OverflowDetected, match=r"at least 5, not 4: the update phase reaches -12 \(5 bits\) at its start"
    ):
        overflow.gated_layer(*layer, register, KEEP, Accumulator(4, 1), "fc")


def test_the_first_overflow_is_the_first_by_image_channel_and_pixel() -> None:
    activation = np.array([1, 1, 1, 1, 1, 9], np.int16).reshape(2, 1, 1, 3)
    weight = np.array([1, 100, 200], np.int16).reshape(3, 1, 1, 1)
    geometry = Geometry(LayerKind.CONV, 1, 3, 1, 3)
    with pytest.raises(OverflowDetected) as caught:
        overflow.dense_layer(activation, weight, geometry, Accumulator(9, 1), "a.b")
    assert str(caught.value) == (
        "a.b, channel 1: psum_bits must be at least 12, not 9: the sum reaches 900 (11 bits) at step 0, image 1, "
        "output pixel (0, 2)"
    )


def by_list(layer: DrawnLayer, accumulator: Accumulator) -> tuple[list[int], list[int]]:
    """A_h and A of every output, written a second way: each output's contributions in a list, in order of the steps."""
    half = 2 ** (accumulator.psum_bits - 1)

    def fit(value: int) -> int:
        if accumulator.overflow is Overflow.SATURATE:
            return sorted((-half, value, half - 1))[1]
        return (value + half) % (2 * half) - half

    top, bottom, left, right = layer.window.padding
    border = ((0, 0), (0, 0), (top, bottom), (left, right))
    planes = [np.pad(plane, border) for plane in split(layer.activation, layer.encoding, layer.bits, layer.pred_bits)]
    inputs, outputs = layer.weight.shape[1], layer.window.group_out_channels
    (high, wide), (down, across) = layer.window.stride, layer.window.dilation
    predictions, results = [], []
    for n, k, p, q in np.ndindex(len(layer.activation), *layer.window.output_shape):
        group = slice(k // outputs * inputs, (k // outputs + 1) * inputs)
        steps: list[list[int]] = []
        for plane in planes:
            steps.append([])
            for r, s in np.ndindex(*layer.window.kernel):
                products = (
                    plane[n, group, p * high + r * down, q * wide + s * across].astype(int) * layer.weight[k, :, r, s]
                )
                steps[-1] += [int(products[c : c + accumulator.word].sum()) for c in range(0, inputs, accumulator.word)]
        psum = 0
        for step in steps[0]:
            psum = fit(psum + step)
        predictions.append(psum)
        update = psum > layer.threshold[k]
        psum = fit(psum << (layer.bits - layer.pred_bits))
        if update:
            for step in steps[1]:
                psum = fit(psum + step)
        results.append(psum if update or layer.policy is GatePolicy.KEEP else 0)
    return predictions, results


widths = st.integers(2, 14)
words = st.integers(1, 4)


@walks
@pytest.mark.parametrize("mode", [Overflow.SATURATE, Overflow.WRAP])
@examples(40)
@given(layer=layers(), psum_bits=widths, word=words)
def test_every_walk_equals_one_over_lists(
    loops: Loops, mode: Overflow, layer: DrawnLayer, psum_bits: int, word: int
) -> None:
    accumulator = Accumulator(psum_bits, word, mode)
    values = walk(layer, accumulator, loops)
    a_h, a = by_list(layer, accumulator)
    assert values.a_h.ravel().tolist() == a_h
    assert values.a.ravel().tolist() == a
    for name, dtype in (("a_h", np.int64), ("a_l", np.int64), ("mask", np.bool_), ("a", np.int64)):
        assert getattr(values, name).dtype == dtype
    np.testing.assert_array_equal(values.mask, values.a_h > layer.threshold[None, :, None, None])


@pytest.mark.parametrize("mode", [Overflow.SATURATE, Overflow.WRAP])
@examples(40)
@given(layer=layers(), psum_bits=widths, word=words)
def test_the_layer_equals_its_walk_whether_it_is_proved_or_walked(
    mode: Overflow, layer: DrawnLayer, psum_bits: int, word: int
) -> None:
    accumulator = Accumulator(psum_bits, word, mode)
    values = in_registers(layer, accumulator)
    expected = walk(layer, accumulator)
    for name in ("a_h", "a_l", "mask", "a"):
        np.testing.assert_array_equal(getattr(values, name), getattr(expected, name), err_msg=name)


def all_partial_sums(layer: DrawnLayer, word: int) -> list[int]:
    """Every value that every exact accumulator takes, 0 at its start included."""
    q_h, q_l = split(layer.activation, layer.encoding, layer.bits, layer.pred_bits)
    found = []
    for index in np.ndindex(len(q_h), *layer.window.output_shape):
        wanted = np.zeros((len(q_h), *layer.window.output_shape), np.bool_)
        wanted[index] = True
        gate = (layer.threshold, layer.bits - layer.pred_bits, layer.policy, Accumulator(48, word), "layer")
        _, low, high = overflow._walked(q_h, q_l, layer.weight, layer.window, *gate, overflow.walk_loops, wanted)
        found += [low, high]
    return found


@examples(40)
@given(layer=layers(), word=words, known=st.tuples(st.integers(-60, 0), st.integers(0, 60)))
def test_extremes_are_those_of_every_accumulator_though_few_are_walked(
    layer: DrawnLayer, word: int, known: tuple[int, int]
) -> None:
    gate = (layer.encoding, layer.bits, layer.pred_bits, layer.threshold, layer.policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overflow, "FIRST_WALKED", 1)
        found = overflow.extremes(layer.activation, layer.weight, layer.window, gate, word, known)
    every = all_partial_sums(layer, word)
    assert found == (min([known[0], *every]), max([known[1], *every]))


@examples(40)
@given(layer=layers(), psum_bits=widths, word=words)
def test_an_error_is_that_of_the_walk_over_every_output(layer: DrawnLayer, psum_bits: int, word: int) -> None:
    def outcome(function: Callable[[DrawnLayer, Accumulator], GatedValues]) -> str:
        try:
            return str(function(layer, Accumulator(psum_bits, word)).a.tolist())
        except OverflowDetected as error:
            return str(error)

    assert outcome(in_registers) == outcome(walk)


def test_extremes_worked_by_hand() -> None:
    # Products 6 6 -6 6 -20: sums 6 12 6 12 -8; in words of two channels 12 12 -8.
    activation = np.array([3, 3, 3, 3, 5], np.int16).reshape(1, -1, 1, 1)
    weight = np.array([2, 2, -2, 2, -4], np.int16).reshape(1, -1, 1, 1)
    geometry = Geometry(LayerKind.LINEAR, 5, 1)
    assert overflow.extremes(activation, weight, geometry, None, 1) == (-8, 12)
    assert overflow.extremes(activation, weight, geometry, None, 5) == (-8, 0)
    assert overflow.extremes(activation, weight, geometry, None, 1, (-9, 20)) == (-9, 20)
    nobody = np.zeros((0, 5, 1, 1), np.int16)
    assert overflow.extremes(nobody, weight, geometry, None, 1) == (0, 0)


@examples(40)
@given(layer=layers(), psum_bits=widths, word=words)
def test_wrapping_leaves_the_exact_sum_modulo_its_width(layer: DrawnLayer, psum_bits: int, word: int) -> None:
    exact = fast.dense_layer(layer.activation, layer.weight, layer.window)
    half = 2 ** (psum_bits - 1)
    accumulator = Accumulator(psum_bits, word, Overflow.WRAP)
    got = overflow.dense_layer(layer.activation, layer.weight, layer.window, accumulator, "layer")
    np.testing.assert_array_equal(got, (exact + half) % (2 * half) - half)


@walks
@examples(60)
@given(layer=layers(), psum_bits=st.integers(2, 20), word=words)
def test_an_error_is_raised_exactly_where_saturation_would_change_something(
    loops: Loops, layer: DrawnLayer, psum_bits: int, word: int
) -> None:
    exact = fast.gated_layer(*layer.arguments)
    try:
        values = walk(layer, Accumulator(psum_bits, word), loops)
    except OverflowDetected as error:
        needed = int(str(error).split("at least ")[1].split(",")[0])
        assert needed > psum_bits
        for enough in (needed, needed + 1):
            np.testing.assert_array_equal(walk(layer, Accumulator(enough, word), loops).a, exact.a)
        with pytest.raises(OverflowDetected):
            walk(layer, Accumulator(needed - 1, word), loops)
    else:
        for mode in Overflow:
            same = walk(layer, Accumulator(psum_bits, word, mode), loops)
            for name in ("a_h", "a_l", "mask", "a"):
                np.testing.assert_array_equal(getattr(same, name), getattr(exact, name), err_msg=name)
                np.testing.assert_array_equal(getattr(values, name), getattr(exact, name), err_msg=name)


def worst_input(layer: DrawnLayer, sign: int, channel: int) -> DrawnLayer:
    """One window, no padding, that drives `channel` to an extreme: each weight meets an end of the codes' range."""
    window = Geometry(LayerKind.LINEAR, layer.weight[0].size, 1)
    weight = layer.weight[channel].reshape(1, -1, 1, 1)
    number_format = NumberFormat(layer.encoding, layer.bits)
    ends = np.where(sign * weight > 0, number_format.max_code, number_format.min_code).astype(np.int16)
    register = layer.threshold[channel : channel + 1]
    return layer.with_(activation=ends, weight=weight, window=window, threshold=register)


@examples(60)
@given(layer=layers(), sign=st.sampled_from([-1, 1]))
def test_the_reachable_ends_are_reached(layer: DrawnLayer, sign: int) -> None:
    number_format = NumberFormat(layer.encoding, layer.bits)
    low, high = reachable(layer.weight, number_format.min_code, number_format.max_code)
    assert low.dtype == high.dtype == np.int64
    for channel in range(len(layer.weight)):
        worst = worst_input(layer, sign, channel)
        exact = fast.dense_layer(worst.activation, worst.weight, worst.window).item()
        assert exact == (high if sign > 0 else low)[channel]


@examples(60)
@given(layer=layers(), word=words)
def test_no_input_overflows_the_proven_bits_and_some_input_any_less(layer: DrawnLayer, word: int) -> None:
    number_format = NumberFormat(layer.encoding, layer.bits)
    proven = proven_bits(layer.weight, number_format.min_code, number_format.max_code)
    updated = layer.gated_by(-(2**40))
    in_registers(updated, Accumulator(proven, word))
    walk(updated, Accumulator(proven, word))
    extremes = [worst_input(updated, sign, k) for sign in (-1, 1) for k in range(len(layer.weight))]
    for worst in extremes:
        walk(worst, Accumulator(proven, word))
    if proven > 1:
        refused = 0
        for worst in extremes:
            try:
                in_registers(worst, Accumulator(proven - 1, word))
            except OverflowDetected:
                refused += 1
        assert refused


def test_widths_given_by_the_literature_s_sizes() -> None:
    # 576 taps of 2-bit unsigned codes and 9-bit sign-magnitude weights: 576 * 3 * 255 = 440,640 < 2^19.
    assert proven_bits(np.full((1, 64, 3, 3), 255, np.int16), 0, 3) == 20
    # 4608 taps of 8-bit codes: 4608 * 255 * 255 = 299,635,200 < 2^29.
    assert proven_bits(np.full((1, 512, 3, 3), 255, np.int16), 0, 255) == 30
    assert proven_bits(np.zeros((2, 3, 1, 1), np.int16), 0, 255) == 1
    assert proven_bits(np.zeros((0, 3, 1, 1), np.int16), 0, 255) == 1


def test_the_range_of_codes_must_hold_the_padding() -> None:
    with pytest.raises(ValueError, match=r"0 must be a code: low_code <= 0 <= high_code, not 1 \.\. 3"):
        reachable(np.ones((1, 1), np.int16), 1, 3)


def test_bits_needed_are_those_of_two_s_complement() -> None:
    for bits in range(1, 12):
        for value in range(-(2 ** (bits - 1)), 2 ** (bits - 1)):
            assert bits_needed(value) <= bits
        assert bits_needed(2 ** (bits - 1)) == bits_needed(-(2 ** (bits - 1)) - 1) == bits + 1


@pytest.mark.parametrize(
    ("psum_bits", "word", "message"),
    [
        (0, 1, r"psum_bits must be 1 \.\. 48, not 0"),
        (49, 1, r"psum_bits must be 1 \.\. 48, not 49"),
        (24, 0, "word must be >= 1 input channels, not 0"),
    ],
)
def test_an_accumulator_of_no_width_is_refused(psum_bits: int, word: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Accumulator(psum_bits, word)


def test_a_proved_layer_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(overflow, "walk", refuse)
    assert gated(7, 3, 0, KEEP, Accumulator(6, 1)).a.item() == 21
    with pytest.raises(AssertionError, match="walked"):
        gated(7, 3, 0, KEEP, Accumulator(5, 1))
    one: NDArray[np.int16] = np.full((1, 1, 1, 1), 7, np.int16)
    dense = partial(overflow.dense_layer, one, one, Geometry(LayerKind.LINEAR, 1, 1), layer_name="fc")
    assert dense(accumulator=Accumulator(7, 1)).item() == 49
    with pytest.raises(AssertionError, match="walked"):
        dense(accumulator=Accumulator(6, 1))
