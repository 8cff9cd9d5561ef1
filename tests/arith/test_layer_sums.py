"""Every engine's layer sums: the same integers, from hand-worked cases to hypothesis-drawn layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pgsim.arith import fast, overflow, reference, sddmm
from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.arith.gating import INT64_MAX, INT64_MIN
from pgsim.arith.reference import GatedValues
from pgsim.arith.split import join, split
from pgsim.workload.layer import Geometry, LayerKind

from .drawn import SPLITS, DrawnLayer, examples, layers

WIDE = overflow.Accumulator(psum_bits=48, word=2)


def masked_dense(*layer: Any) -> GatedValues:
    """The fast path with the update phase as dense sums under the mask."""
    activation, weight, window, encoding, bits, pred_bits, _, policy = layer
    values = fast.gated_layer(*layer)
    dense = fast.dense_layer(split(activation, encoding, bits, pred_bits)[1], weight, window)
    a_l = np.where(values.mask, dense, 0)
    predicted = values.a_h * 2 ** (bits - pred_bits)
    unmasked = predicted if policy is GatePolicy.KEEP else 0 * predicted
    return GatedValues(values.a_h, a_l, values.mask, np.where(values.mask, predicted + a_l, unmasked))


def walked(*layer: Any) -> GatedValues:
    """Accumulators that are wide enough, step by step."""
    activation, weight, window, encoding, bits, pred_bits, threshold, policy = layer
    q_h, q_l = split(activation, encoding, bits, pred_bits)
    return overflow.walk(q_h, q_l, weight, window, threshold, bits - pred_bits, policy, WIDE, "layer")


interpreted = partial(reference.gated_layer, loops=reference.gated_loops.py_func)
GATED: dict[str, Callable[..., GatedValues]] = {
    "interpreted": interpreted,
    "compiled": reference.gated_layer,
    "fast": fast.gated_layer,
    "masked dense": masked_dense,
    "walked": walked,
    "proved": partial(overflow.gated_layer, accumulator=WIDE, layer_name="layer"),
}
DENSE: dict[str, Callable[..., NDArray[np.int64]]] = {
    "interpreted": partial(reference.dense_layer, loops=reference.dense_loops.py_func),
    "compiled": reference.dense_layer,
    "fast": fast.dense_layer,
    "proved": partial(overflow.dense_layer, accumulator=WIDE, layer_name="layer"),
}
gated_engines = pytest.mark.parametrize("engine", GATED.values(), ids=GATED.keys())
dense_engines = pytest.mark.parametrize("engine", DENSE.values(), ids=DENSE.keys())
Engine = Callable[..., Any]


def assert_same(got: GatedValues, expected: GatedValues) -> None:
    for name in ("a_h", "a_l", "mask", "a"):
        left, right = getattr(got, name), getattr(expected, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)


def conv(shape: tuple[int, int, int], out_channels: int, kernel: tuple[int, int], **changes: Any) -> Geometry:
    return Geometry(LayerKind.CONV, shape[0], out_channels, shape[1], shape[2], kernel, **changes)


def filled(values: Any, shape: tuple[int, ...]) -> NDArray[np.int16]:
    return np.array(values, np.int16).reshape(shape)


# 4-bit codes, 2 of them predict, a 2 x 2 kernel of 2 -1 / 5 1 over one window; worked by hand.
ONE_WINDOW = [
    (Encoding.UNSIGNED, [13, 6, 3, 8], 7, 15),  # q_h 3 1 0 2, q_l 1 2 3 0; 26 - 6 + 15 + 8 = 43 = 28 + 15
    (Encoding.SIGN_MAGNITUDE, [-13, 6, 3, -8], -9, 11),  # q_h -3 1 0 -2, q_l -1 2 3 0; -25 = -36 + 11
    (Encoding.TWOS_COMPLEMENT, [-8, 7, 3, -5], -7, 15),  # q_h -2 1 0 -2, q_l 0 3 3 3; -13 = -28 + 15
]


@gated_engines
@pytest.mark.parametrize("policy", GatePolicy)
@pytest.mark.parametrize(("encoding", "codes", "a_h", "a_l"), ONE_WINDOW)
def test_one_window_worked_by_hand(
    engine: Engine, policy: GatePolicy, encoding: Encoding, codes: list[int], a_h: int, a_l: int
) -> None:
    activation, weight = filled(codes, (1, 1, 2, 2)), filled([2, -1, 5, 1], (1, 1, 2, 2))
    rest = 4 * a_h if policy is GatePolicy.KEEP else 0
    for threshold, update in ((a_h - 1, True), (a_h, False), (a_h + 1, False), (INT64_MIN, True), (INT64_MAX, False)):
        register = np.array([threshold], np.int64)
        values = engine(activation, weight, conv((1, 2, 2), 1, (2, 2)), encoding, 4, 2, register, policy)
        assert [values.a_h.item(), values.mask.item()] == [a_h, update]
        assert [values.a_l.item(), values.a.item()] == ([a_l, 4 * a_h + a_l] if update else [0, rest])
        assert [array.dtype for array in (values.a_h, values.a_l, values.mask, values.a)] == [
            np.int64,
            np.int64,
            np.bool_,
            np.int64,
        ]


# Weights 1, 10, 100, ... show in the digits which code met which tap; worked by hand.
DIGITS: list[tuple[str, Geometry, list[int], list[int], list[int]]] = [
    ("stride 2, dilation 2", conv((1, 1, 7), 1, (1, 3), stride=(1, 2), dilation=(1, 2)), [1, 2, 3, 4, 5, 6, 7],
     [1, 10, 100], [531, 753]),
    ("left and right padding differ", conv((1, 1, 2), 1, (1, 2), padding=(0, 0, 2, 1)), [3, 4], [1, 10],
     [0, 30, 43, 4]),
    ("top padding alone", conv((1, 1, 1), 1, (2, 2), padding=(1, 0, 0, 1)), [7], [1, 10, 100, 1000], [700]),
    ("bottom padding alone", conv((1, 1, 1), 1, (2, 2), padding=(0, 1, 1, 0)), [7], [1, 10, 100, 1000], [70]),
    ("two groups", conv((2, 1, 1), 4, (1, 1), groups=2), [3, 5], [1, 10, 100, 1000], [3, 30, 500, 5000]),
    ("channels", conv((3, 1, 1), 1, (1, 1)), [3, 5, 7], [1, 10, 100], [753]),
    ("1 x 1, two pixels", conv((2, 1, 2), 2, (1, 1)), [1, 2, 3, 4], [1, 10, 100, 1000], [31, 42, 3100, 4200]),
]  # fmt: skip


@dense_engines
@pytest.mark.parametrize(("geometry", "codes", "weight", "output"), [row[1:] for row in DIGITS],
                         ids=[row[0] for row in DIGITS])  # fmt: skip
def test_geometry_worked_by_hand(
    engine: Engine, geometry: Geometry, codes: list[int], weight: list[int], output: list[int]
) -> None:
    activation = filled(codes, (1, *geometry.activation_shape))
    a = engine(activation, filled(weight, geometry.weight_shape), geometry)
    assert a.shape == (1, *geometry.output_shape)
    assert a.dtype == np.int64
    assert a.ravel().tolist() == output


@gated_engines
@examples(50)
@given(layer=layers())
def test_every_engine_computes_the_reference_s_integers(engine: Engine, layer: DrawnLayer) -> None:
    assert_same(engine(*layer.arguments), interpreted(*layer.arguments))


@gated_engines
@examples(25)
@given(layer=layers(), choice=st.randoms(use_true_random=False), offset=st.sampled_from([-1, 0, 1]))
def test_every_engine_agrees_where_thresholds_tie(engine: Engine, layer: DrawnLayer, choice: Any, offset: int) -> None:
    a_h = interpreted(*layer.gated_by(0).arguments).a_h
    ties = [choice.choice(a_h[:, k].ravel().tolist()) + offset for k in range(a_h.shape[1])]
    tied = layer.with_(threshold=np.array(ties, np.int64))
    values = engine(*tied.arguments)
    np.testing.assert_array_equal(values.mask, a_h > tied.threshold[None, :, None, None])
    assert_same(values, interpreted(*tied.arguments))


@dense_engines
@examples(50)
@given(layer=layers())
def test_every_dense_engine_computes_the_reference_s_integers(engine: Engine, layer: DrawnLayer) -> None:
    expected = DENSE["interpreted"](layer.activation, layer.weight, layer.window)
    got = engine(layer.activation, layer.weight, layer.window)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


BIG = {  # long runs, several blocks of im2col, the kernels' vector loops and their remainders
    "first block of ResNet-20": conv((16, 32, 32), 16, (3, 3), padding=(1, 1, 1, 1)),
    "strided": conv((16, 31, 33), 32, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    "K = 576": conv((64, 8, 8), 64, (3, 3), padding=(1, 1, 1, 1)),
    "depthwise": conv((96, 15, 15), 96, (3, 3), stride=(2, 2), padding=(0, 1, 0, 1), groups=96),
    "grouped 1 x 1": conv((60, 14, 14), 120, (1, 1), groups=3),
    "stem 7 x 7": conv((3, 40, 40), 8, (7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    "dilated, not square": conv((5, 20, 70), 7, (2, 5), dilation=(3, 4), padding=(0, 2, 5, 1)),
    "linear": Geometry(LayerKind.LINEAR, 513, 10),
    "matmul": Geometry(LayerKind.MATMUL, 77, 33, in_height=9),
    "one row fills a block": conv((64, 4, 700), 4, (3, 3), padding=(1, 1, 1, 1)),
}


def big_layer(geometry: Geometry, encoding: Encoding, bits: int, pred_bits: int, seed: int) -> DrawnLayer:
    random = np.random.default_rng(seed)
    number_format = NumberFormat(encoding, bits)
    shape = (3, *geometry.activation_shape)
    activation = random.integers(number_format.min_code, number_format.max_code + 1, shape).astype(np.int16)
    weight = random.integers(-255, 256, geometry.weight_shape).astype(np.int16)
    threshold = random.integers(-2000, 2000, geometry.out_channels)
    return DrawnLayer(activation, weight, geometry, encoding, bits, pred_bits, threshold, GatePolicy.KEEP)


@pytest.mark.parametrize("name", ["fast", "masked dense"])
@pytest.mark.parametrize("geometry", BIG.values(), ids=BIG.keys())
@pytest.mark.parametrize(
    ("encoding", "bits", "pred_bits"),
    [(Encoding.UNSIGNED, 3, 2), (Encoding.TWOS_COMPLEMENT, 8, 3), (Encoding.SIGN_MAGNITUDE, 5, 2)],
)
def test_big_layers_equal_the_compiled_reference(
    name: str, geometry: Geometry, encoding: Encoding, bits: int, pred_bits: int
) -> None:
    layer = big_layer(geometry, encoding, bits, pred_bits, seed=bits)
    assert_same(GATED[name](*layer.arguments), reference.gated_layer(*layer.arguments))


def torch_sums(activation: NDArray[Any], weight: NDArray[Any], window: Geometry) -> NDArray[np.int64]:
    """torch's convolution in float64 on integers: exact, and written by others."""
    torch = pytest.importorskip("torch", reason="the independent oracle is torch's convolution")
    top, bottom, left, right = window.padding
    source = torch.nn.functional.pad(torch.from_numpy(activation.astype(np.float64)), (left, right, top, bottom))
    factors = torch.from_numpy(weight.astype(np.float64))
    how = {"stride": window.stride, "dilation": window.dilation, "groups": window.groups}
    result: NDArray[np.float64] = torch.nn.functional.conv2d(source, factors, **how).numpy()
    return result.astype(np.int64)


@dense_engines
@examples(25)
@given(layer=layers())
def test_dense_sums_equal_torch(engine: Engine, layer: DrawnLayer) -> None:
    expected = torch_sums(layer.activation, layer.weight, layer.window)
    np.testing.assert_array_equal(engine(layer.activation, layer.weight, layer.window), expected)


@pytest.mark.parametrize("name", ["compiled", "fast"])
@pytest.mark.parametrize("geometry", BIG.values(), ids=BIG.keys())
def test_gated_sums_equal_torch_on_the_planes(name: str, geometry: Geometry) -> None:
    layer = big_layer(geometry, Encoding.SIGN_MAGNITUDE, 8, 4, seed=1)
    magnitude, sign = np.abs(layer.activation), np.sign(layer.activation)
    a_h = torch_sums(sign * (magnitude // 16), layer.weight, geometry)
    mask = a_h > layer.threshold[None, :, None, None]
    a_l = np.where(mask, torch_sums(sign * (magnitude % 16), layer.weight, geometry), 0)
    assert_same(GATED[name](*layer.arguments), GatedValues(a_h, a_l, mask, a_h * 16 + a_l))


@gated_engines
@examples(20)
@given(layer=layers())
def test_updating_every_output_gives_the_dense_layer(engine: Engine, layer: DrawnLayer) -> None:
    values = engine(*layer.gated_by(INT64_MIN).arguments)
    assert values.mask.all()
    np.testing.assert_array_equal(values.a, DENSE["interpreted"](layer.activation, layer.weight, layer.window))


@gated_engines
@examples(20)
@given(layer=layers())
def test_updating_no_output_gives_the_shifted_prediction_or_zero(engine: Engine, layer: DrawnLayer) -> None:
    values = engine(*layer.gated_by(INT64_MAX).arguments)
    q_h, _ = split(layer.activation, layer.encoding, layer.bits, layer.pred_bits)
    a_h = DENSE["interpreted"](q_h, layer.weight, layer.window)
    kept = a_h * 2 ** (layer.bits - layer.pred_bits) if layer.policy is GatePolicy.KEEP else 0 * a_h
    assert not values.mask.any()
    np.testing.assert_array_equal(values.a_h, a_h)
    np.testing.assert_array_equal(values.a_l, 0 * a_h)
    np.testing.assert_array_equal(values.a, kept)


@gated_engines
@examples(20)
@given(layer=layers(), seed=st.integers(0, 2**32))
def test_the_low_plane_moves_neither_the_mask_nor_an_output_outside_it(
    engine: Engine, layer: DrawnLayer, seed: int
) -> None:
    q_h, q_l = split(layer.activation, layer.encoding, layer.bits, layer.pred_bits)
    if layer.encoding is Encoding.SIGN_MAGNITUDE:  # the low bits change under the sign that the code has
        sign = np.where(layer.activation < 0, -1, 1)
        q_l = sign * np.random.default_rng(seed).permutation(np.abs(q_l).ravel()).reshape(q_l.shape)
    else:
        q_l = np.random.default_rng(seed).permutation(q_l.ravel()).reshape(q_l.shape)
    moved = layer.with_(activation=join(q_h, q_l, layer.bits - layer.pred_bits).astype(np.int16))
    before, after = engine(*layer.arguments), engine(*moved.arguments)
    np.testing.assert_array_equal(before.a_h, after.a_h)
    np.testing.assert_array_equal(before.mask, after.mask)
    np.testing.assert_array_equal(before.a[~before.mask], after.a[~after.mask])


class CountedReads:
    """An array that counts how often an element is read: each read of a weight is one MAC."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape, self.reads = array, array.shape, 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return self.array[index]


@examples(50)
@given(layers())
def test_the_reference_spends_one_dense_layer_on_prediction_and_the_mask_on_updates(layer: DrawnLayer) -> None:
    reads = []

    def counted(q_h: Any, q_l: Any, weight: Any, *rest: Any) -> None:
        counting = CountedReads(weight)
        reference.gated_loops.py_func(q_h, q_l, counting, *rest)
        reads.append(counting.reads)

    values = partial(reference.gated_layer, loops=counted)(*layer.arguments)
    per_pixel = layer.window.taps_inside() * layer.window.group_in_channels
    predicted = values.mask.shape[0] * layer.window.out_channels * int(per_pixel.sum())
    updated = int((values.mask * per_pixel).sum())
    assert reads == [predicted + updated]
    if not any(layer.window.padding):
        assert updated == int(values.mask.sum()) * layer.window.reduction
        assert predicted == values.mask.size * layer.window.reduction


@gated_engines
@examples(20)
@given(layer=layers(groups=st.just(1)), seed=st.integers(0, 2**32))
def test_permuting_images_and_channels_permutes_the_outputs(engine: Engine, layer: DrawnLayer, seed: int) -> None:
    random = np.random.default_rng(seed)
    images, inputs, outputs = (
        random.permutation(n) for n in (len(layer.activation), layer.weight.shape[1], len(layer.weight))
    )
    moved = layer.with_(
        activation=layer.activation[images][:, inputs],
        weight=layer.weight[outputs][:, inputs],
        threshold=layer.threshold[outputs],
    )
    before, after = engine(*layer.arguments), engine(*moved.arguments)
    for name in ("a_h", "a_l", "mask", "a"):
        np.testing.assert_array_equal(getattr(before, name)[images][:, outputs], getattr(after, name), err_msg=name)


@gated_engines
@examples(20)
@given(layer=layers(), seed=st.integers(0, 2**32))
def test_permuting_the_pixels_of_a_1x1_layer_permutes_the_outputs(engine: Engine, layer: DrawnLayer, seed: int) -> None:
    window = conv(layer.window.activation_shape, layer.window.out_channels, (1, 1), groups=layer.window.groups)
    flat = layer.with_(window=window, weight=layer.weight[:, :, :1, :1])
    order = np.random.default_rng(seed).permutation(window.out_pixels)

    def shuffled(array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(*array.shape[:2], -1)[..., order].reshape(array.shape)

    before = engine(*flat.arguments)
    after = engine(*flat.with_(activation=shuffled(layer.activation)).arguments)
    for name in ("a_h", "a_l", "mask", "a"):
        np.testing.assert_array_equal(shuffled(getattr(before, name)), getattr(after, name), err_msg=name)


@pytest.mark.parametrize(("encoding", "bits", "pred_bits"), SPLITS)
def test_every_code_of_every_format_meets_extreme_weights(encoding: Encoding, bits: int, pred_bits: int) -> None:
    number_format = NumberFormat(encoding, bits)
    codes = list(range(number_format.min_code, number_format.max_code + 1))
    activation = filled(codes, (1, 1, 1, len(codes)))
    weight = filled([255, -255, 1, 0], (4, 1, 1, 1))
    planes = [
        divmod(abs(code) if encoding is Encoding.SIGN_MAGNITUDE else code, 2 ** (bits - pred_bits)) for code in codes
    ]
    signs = [-1 if encoding is Encoding.SIGN_MAGNITUDE and code < 0 else 1 for code in codes]
    for threshold in (0, 254, 255, -255, -256):
        expected = []
        for w in (255, -255, 1, 0):
            for code, (high, _), sign in zip(codes, planes, signs, strict=True):
                predicted = sign * high * w
                expected.append(code * w if predicted > threshold else predicted * 2 ** (bits - pred_bits))
        register = np.full(4, threshold, np.int64)
        for engine in (reference.gated_layer, fast.gated_layer):
            window = conv((1, 1, len(codes)), 4, (1, 1))
            values = engine(activation, weight, window, encoding, bits, pred_bits, register, GatePolicy.KEEP)
            assert values.a.ravel().tolist() == expected


def test_sums_beyond_float32_s_integers_stay_exact() -> None:
    # 4608 taps of 127 * 31 make 18,141,696 > 2^24; taking 1 from one weight makes it odd, which float32 cannot hold.
    geometry = Geometry(LayerKind.LINEAR, 4608, 1)
    activation = np.full((1, 4608, 1, 1), 31, np.int16)
    weight = np.full((1, 4608, 1, 1), 127, np.int16)
    weight[0, 0] = 126
    expected = 31 * (127 * 4608 - 1)
    assert fast.accumulator_bound(weight, 31) == expected > 2**24
    assert int(np.float32(expected)) != expected
    assert fast.dense_layer(activation, weight, geometry).item() == expected


def test_sums_beyond_float64_s_integers_stay_exact() -> None:
    taps = 2**21 + 102  # 65535 * (65535 * an even number - 1) is odd: no float64 beyond 2^53
    activation = np.full((1, taps, 1, 1), 65535, np.uint16)
    weight = np.full((1, taps, 1, 1), 65535, np.int32)
    weight[0, 0] = 65534
    expected = 65535 * (65535 * taps - 1)
    assert fast.accumulator_bound(weight, 65535) == expected > 2**53
    assert int(float(expected)) != expected
    assert fast.dense_layer(activation, weight, Geometry(LayerKind.LINEAR, taps, 1)).item() == expected


def test_the_bound_is_the_largest_sum_of_weight_magnitudes() -> None:
    assert fast.accumulator_bound(filled([1, -2, 3, -255, 0, 4], (2, 3, 1, 1)), 7) == 7 * 259
    assert fast.accumulator_bound(np.array([[-(2**15)]], np.int16), 1) == 2**15
    assert fast.accumulator_bound(np.zeros((0, 3, 1, 1), np.int16), 7) == 0


def test_updates_too_large_for_the_sparse_kernel_take_the_dense_path() -> None:
    # 16-bit codes, 15 of them updated: 300 * 32767 * 255 passes 2^31, so a run's int32 would wrap.
    geometry = conv((100, 1, 3), 1, (1, 3))
    activation = np.full((1, 100, 1, 3), 32767, np.int32)
    weight = np.full((1, 100, 1, 3), 255, np.int16)
    assert not sddmm.fits(activation, weight, geometry)
    with pytest.raises(ValueError, match=r"codes and weight must fit int16, and a run of their products int32"):
        sddmm.update_sums(activation, weight, geometry, np.ones((1, 1, 1, 1), np.bool_))
    geometry, weight = conv((100, 1, 3), 2, (1, 3)), weight.repeat(2, axis=0)
    register = np.array([-1, 0], np.int64)  # A_h = 0 in both channels: only the first is updated
    values = fast.gated_layer(activation, weight, geometry, Encoding.UNSIGNED, 16, 1, register, GatePolicy.KEEP)
    assert values.mask.ravel().tolist() == [True, False]
    assert values.a_h.ravel().tolist() == [0, 0]
    assert values.a_l.ravel().tolist() == values.a.ravel().tolist() == [300 * 32767 * 255, 0]


@pytest.mark.parametrize(
    ("code", "weight", "fits"),
    [
        (32767, 218, True),
        (32767, 219, False),
        (-32767, 218, True),
        (-32767, 219, False),
        (32768, 1, False),
        (1, 32768, False),
    ],
)
def test_the_sparse_kernel_takes_what_its_registers_hold(code: int, weight: int, fits: bool) -> None:
    # A run of 300: 300 * 32767 * 218 = 2,142,961,800 <= 2^31 - 1 = 2,147,483,647 < 300 * 32767 * 219.
    geometry = conv((100, 1, 3), 1, (1, 3))
    codes = np.full((1, 100, 1, 3), code, np.int32)
    factors = np.full((1, 100, 1, 3), weight, np.int32)
    assert sddmm.fits(codes, factors, geometry) == fits
    if fits:
        sums = sddmm.update_sums(codes, factors, geometry, np.ones((1, 1, 1, 1), np.bool_))
        assert sums.item() == 300 * code * weight


@gated_engines
def test_no_images_make_empty_outputs(engine: Engine) -> None:
    geometry = conv((2, 3, 3), 4, (3, 3), padding=(1, 1, 1, 1))
    activation, weight = np.zeros((0, 2, 3, 3), np.int16), np.ones((4, 2, 3, 3), np.int16)
    values = engine(activation, weight, geometry, Encoding.UNSIGNED, 3, 2, np.zeros(4, np.int64), GatePolicy.KEEP)
    assert [array.shape for array in (values.a_h, values.a_l, values.mask, values.a)] == [(0, 4, 3, 3)] * 4


@dense_engines
@pytest.mark.parametrize(
    ("activation", "weight", "changes", "message"),
    [
        ((1, 3, 4, 4), (4, 2, 3, 3), {}, "must read 2 input channels and split 4 output channels evenly, not read 3"),
        ((1, 4, 4, 4), (3, 2, 3, 3), {"groups": 2}, "split 3 output channels evenly"),
        ((1, 2, 4, 4), (4, 2, 5, 3), {}, "the kernel must fit the padded input, not reach past it: output 0 x 2"),
        ((1, 2, 4, 4), (4, 2, 3, 3), {"padding": (0, 0, 0, -1)}, "padding must be >= 0"),
        ((1, 2, 4, 4), (4, 2, 3, 3), {"stride": (0, 1)}, "stride and dilation >= 1"),
        ((2, 4, 4), (4, 2, 3, 3), {}, "activation must have 4 axes, not 3"),
    ],
)
def test_arrays_that_make_no_layer_are_refused(
    engine: Engine, activation: tuple[int, ...], weight: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        engine(np.zeros(activation, np.int16), np.zeros(weight, np.int16), conv((2, 4, 4), 4, (3, 3), **changes))


@dense_engines
def test_floats_make_no_layer(engine: Engine) -> None:
    with pytest.raises(TypeError, match="weight must be an integer array, not float64"):
        engine(np.zeros((1, 1, 1, 1), np.int16), np.zeros((1, 1, 1, 1)), conv((1, 1, 1), 1, (1, 1)))


@gated_engines
@pytest.mark.parametrize("threshold", [np.zeros(3, np.int64), np.zeros(2, np.int32), np.zeros(2)])
def test_a_threshold_of_another_shape_or_dtype_is_refused(engine: Engine, threshold: NDArray[Any]) -> None:
    activation, weight = np.zeros((1, 1, 1, 1), np.int16), np.zeros((2, 1, 1, 1), np.int16)
    with pytest.raises(ValueError, match=rf"threshold must be int64 \[2\], not {threshold.dtype}"):
        engine(activation, weight, conv((1, 1, 1), 2, (1, 1)), Encoding.UNSIGNED, 3, 2, threshold, GatePolicy.KEEP)


@gated_engines
def test_a_code_out_of_range_is_refused(engine: Engine) -> None:
    activation, weight = np.full((1, 1, 1, 1), 8, np.int16), np.zeros((1, 1, 1, 1), np.int16)
    threshold = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=r"3-bit unsigned codes must be 0 \.\. 7, not 8"):
        engine(activation, weight, conv((1, 1, 1), 1, (1, 1)), Encoding.UNSIGNED, 3, 2, threshold, GatePolicy.KEEP)
