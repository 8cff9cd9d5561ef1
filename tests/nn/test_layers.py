"""Modules: what they take, give, count and learn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

import pgsim.nn as pg  # noqa: E402
from pgsim.arith.formats import Encoding  # noqa: E402
from pgsim.nn.calibrate import Ranked  # noqa: E402
from pgsim.nn.codes import weight_codes  # noqa: E402
from pgsim.nn.functional import gated_conv2d  # noqa: E402

GATING = pg.Gating(2)
FINE = pg.WeightFormat(16, per_channel=True)
TWOS = Encoding.TWOS_COMPLEMENT


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def signed(bits: int, clip: float | None = 4.0) -> pg.QuantiseInput:
    return pg.QuantiseInput(bits, TWOS, clip)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's own layer says so
@pytest.mark.parametrize("padding", [0, (2, 1), "same", "valid"])
@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, False)])
def test_at_many_bits_a_convolution_is_torchs_own(padding: int, groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, (3, 4), padding=padding, dilation=(2, 1), groups=groups, bias=bias)
    layers = [
        pg.QuantConv2d(4, 6, (3, 4), 1, padding, (2, 1), groups, bias, input=signed(16), weights=FINE),
        pg.GatedConv2d(
            4, 6, (3, 4), 1, padding, (2, 1), groups, bias,
            input=signed(16), weights=FINE, gating=pg.Gating(8), delta=-float("inf"),
        ),
    ]  # fmt: skip
    x = normal(2, 4, 7, 8, seed=1)
    for layer in layers:
        layer.weight.data, layer.bias = plain.weight.data, plain.bias
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_at_many_bits_a_linear_layer_is_torchs_own(shape: tuple[int, ...]) -> None:
    plain, layer = nn.Linear(5, 4), pg.QuantLinear(5, 4, input=signed(16), weights=FINE)
    layer.load_state_dict(plain.state_dict(), strict=False)
    x = normal(*shape, seed=2)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gated", [False, True])
def test_at_many_bits_an_lstm_cell_is_torchs_own_gradients_included(gated: bool) -> None:
    torch.manual_seed(1)
    plain = nn.LSTMCell(3, 4)
    quantisers = {"input": signed(16, 5.0), "hidden": signed(16, 1.0)}
    cell = (
        pg.GatedLSTMCell(3, 4, **quantisers, gating=pg.Gating(15), weights=FINE, delta=-1e6)
        if gated
        else pg.QuantLSTMCell(3, 4, **quantisers, weights=FINE)
    )
    cell.load_state_dict(plain.state_dict(), strict=False)
    found = []
    for module in (plain, cell):
        x, state = normal(5, 2, 3, seed=3).requires_grad_(), None
        for step in x:
            state = module(step, state)
        (state[0].sum() + state[1].square().sum()).backward()
        found.append([*state, x.grad, *(getattr(module, name).grad for name in dict(plain.named_parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_an_lstm_cell_gates_each_pre_activation_on_the_raw_sum() -> None:
    torch.manual_seed(2)
    cell = pg.GatedLSTMCell(3, 2, input=signed(4, 2.0), hidden=signed(4, 1.0), gating=GATING, delta=0.1)
    x, h, c = normal(3, 3, seed=4), torch.tanh(normal(3, 2, seed=5)), normal(3, 2, seed=6)
    new_h, new_c = cell(x, (h, c))
    codes = torch.cat([torch.round(x / 2 * 7).clamp(-7, 7), torch.round(h * 7)], 1).double()
    real = torch.cat([cell.weight_ih * 2, cell.weight_hh], 1).detach().double()
    clip = real.abs().max()
    weight = torch.round(real / clip * 127) * clip / 127
    o_hb = torch.floor(codes / 4) * 4 / 7 @ weight.T
    pre = torch.where(o_hb > 0.1, codes / 7 @ weight.T, o_hb) + cell.bias_ih.double() + cell.bias_hh.double()
    i, f, g, o = pre.chunk(4, 1)
    expected_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    torch.testing.assert_close(new_c.double(), expected_c, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(new_h.double(), o.sigmoid() * expected_c.tanh(), rtol=1e-5, atol=1e-6)
    assert (cell.outputs, cell.updated) == (24, int((o_hb > 0.1).sum()))


def test_pact_in_a_layer_learns_its_clip_and_passes_gradients_inside_it() -> None:
    layer = pg.GatedConv2d(2, 3, 3, input=pg.Pact(3, alpha=1.5), gating=GATING)
    x = normal(1, 2, 5, 5, seed=7).requires_grad_()
    layer(x).square().sum().backward()
    for parameter in (layer.weight, layer.bias, layer.delta, layer.input.alpha):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    outside = (x <= 0) | (x >= 1.5)
    assert x.grad is not None
    assert bool((x.grad[outside] == 0).all())
    assert bool((x.grad[~outside] != 0).all())


def test_quantisers_give_the_codes_of_the_arithmetic() -> None:
    x = torch.tensor([-9.0, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 9.0])
    assert pg.QuantiseInput(3, TWOS, 3.0).codes(x).tolist() == [-3, -2, 0, 0, 0, 2, 2, 3]
    assert pg.QuantiseInput(3, Encoding.SIGN_MAGNITUDE, 7.0).codes(x).tolist() == [-7, -2, 0, 0, 0, 2, 2, 7]
    assert pg.QuantiseInput(3, Encoding.UNSIGNED, 7.0).codes(x).tolist() == [0, 0, 0, 0, 0, 2, 2, 7]
    assert pg.Pact(3, 7.0).codes(x).tolist() == [0, 0, 0, 0, 0, 2, 2, 7]
    assert pg.Pact(3, 3.5)(x).tolist() == [0, 0, 0, 0, 0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_fixed_scale_passes_gradients_where_it_does_not_cut_off(encoding: Encoding) -> None:
    x = torch.tensor([-9.0, -1.5, 0.5, 2.9, 9.0], requires_grad=True)
    pg.QuantiseInput(4, encoding, 3.0)(x).backward(torch.arange(1.0, 6.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0 if encoding is Encoding.UNSIGNED else 2, 3, 4, 0]


def two_layers() -> nn.Module:
    """24 outputs of 9 MACs, 4 bits, 2 of them predicted; then 6 outputs of 8 MACs, dense 3 bits."""
    torch.manual_seed(3)
    conv = pg.GatedConv2d(1, 2, 3, input=signed(4, 2.0), gating=GATING, bias=False)
    linear = pg.QuantLinear(8, 3, input=pg.Pact(3, 3.0))
    return nn.Sequential(conv, nn.Flatten(), linear)


def test_sparsity_and_average_bits_are_those_counted_by_hand() -> None:
    model = two_layers()
    x = normal(2, 1, 4, 4, seed=8)
    model(x)
    model(x)
    conv = model[0]
    _, mask = gated_conv2d(
        conv.input.codes(x), conv.weight, conv.delta, 2 / 7, act_bits=4, gating=GATING, encoding=TWOS
    )
    share = 1 - float(mask.double().mean())
    assert 0 < share < 1
    found = pg.sparsity(model)
    assert found.layers == {"0": pytest.approx(share)}
    assert found.by_output == found.by_mac == pytest.approx(share)
    bits = pg.b_avg(model)
    gated = 2 + (1 - share) * 2
    assert bits.gated_by_output == bits.gated_by_mac == pytest.approx(gated)
    assert bits.all_by_output == pytest.approx((32 * gated + 12 * 3) / 44)
    assert bits.all_by_mac == pytest.approx((32 * 9 * gated + 12 * 8 * 3) / (32 * 9 + 12 * 8))
    conv.gating = pg.Gating(2, pg.Policy.SEERNET)
    assert pg.b_avg(model).gated_by_output == pytest.approx(2 + (1 - share) * 4)
    pg.reset_counts(model)
    assert pg.sparsity(model).by_output != pg.sparsity(model).by_output  # NaN: nothing counted


def test_the_penalty_pulls_thresholds_to_their_target() -> None:
    model = two_layers()
    model[0].delta.data = torch.tensor([1.0, -2.0])
    assert pg.penalty(model, 0.5, 2.0).item() == 0.5 * (1 + 16)
    assert pg.penalty(model, 0.5, 2.0, squared=False).item() == pytest.approx(0.5 * 17**0.5)
    pg.penalty(model, 0.5, 2.0).backward()
    assert model[0].delta.grad.tolist() == [-1.0, -4.0]
    assert pg.penalty(nn.ReLU(), 1.0, 1.0).item() == 0


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_calibration_sets_scales_and_the_asked_sparsity(scope: str, share: float) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        pg.GatedConv2d(1, 2, 3, input=pg.QuantiseInput(6, TWOS), gating=pg.Gating(5), bias=False),
        pg.GatedConv2d(2, 3, 1, input=pg.Pact(6), gating=pg.Gating(5)),
    )
    batches = [normal(4, 1, 6, 6, seed=9), normal(2, 1, 6, 6, seed=10) / 2]
    pg.calibrate(model, batches, sparsity=share, scope=scope)
    assert model[0].input.clip == max(float(x.abs().max()) for x in batches)
    assert 0 < model[1].input.clip < 6
    assert model[0].outputs == 0
    for x in batches:
        model(x)
    first = pg.sparsity(model).layers["0"]
    assert share <= first < share + 0.2  # ties stay, too
    if scope == "layer":
        assert len(set(model[0].delta.tolist())) == 1


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize("share", [0.0, 0.37, 0.8, 1.0])
@pytest.mark.parametrize("per_channel", [False, True])
def test_thresholds_lie_where_the_outputs_of_all_batches_in_order_have_them(
    scope: str, share: float, per_channel: bool
) -> None:
    torch.manual_seed(6)
    form = pg.WeightFormat(6, per_channel=per_channel)
    layer = pg.GatedConv2d(2, 5, 3, bias=False, input=signed(5), gating=GATING, weights=form)
    layer.weight.data[2] = layer.weight[1]  # two channels with the same outputs
    batches = [normal(count, 2, 6, 6, seed=count) for count in (3, 1, 2, 3)]
    pg.calibrate(layer, batches, sparsity=share, scope=scope)
    deltas = layer.delta.detach().clone()
    layer.delta.data.fill_(torch.inf)
    predicted = torch.cat([layer(x).detach() for x in batches]).transpose(0, 1).flatten(1)
    if scope == "layer":
        assert len(set(deltas.tolist())) == 1
        predicted = predicted.reshape(1, -1).expand(5, -1)
    units = (2 ** (5 - 2) * layer.input.step * weight_codes(layer.weight, form)[1]).expand(5)  # real values of A_h = 1
    if scope == "layer":
        units = units.min().expand(5)
    for delta, unit, line in zip(deltas.tolist(), units.tolist(), predicted, strict=True):
        ordered = sorted(line.tolist())
        rank = math.ceil(share * len(ordered))
        last = ordered[rank - 1] if rank else ordered[0] - unit
        assert last < delta < last + unit


def test_numbers_by_rank_are_kept_once_each() -> None:
    numbers, ranked = normal(5, 300, seed=14).mul(9).round().double().numpy(), Ranked()
    for part in numbers:
        ranked.add(part)
    ordered = sorted(numbers.ravel().tolist())
    assert [ranked.at(rank) for rank in range(1, 1501)] == ordered
    assert ranked.values.tolist() == sorted(set(ordered))


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("small", [1e-5, 1e-8])
def test_no_fewer_outputs_stay_than_asked_where_channels_have_units_far_apart(
    scope: str, share: float, small: float
) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        weights, form = torch.randn(4, 8), pg.WeightFormat(per_channel=True)
        model = nn.Sequential(pg.GatedLinear(8, 4, False, input=pg.Pact(4, 1.0), gating=pg.Gating(2), weights=form))
        model[0].weight.data = weights * torch.tensor([small, 1.0, 1.0, 1.0])[:, None]
        x = torch.rand(50, 8)
        pg.calibrate(model, [x], sparsity=share, scope=scope, pact=False)
        model(x)
        assert pg.sparsity(model).by_output >= share


@pytest.mark.parametrize("rows", [7, 8])
def test_thresholds_of_a_linear_layer_over_a_map_are_those_of_its_rows(rows: int) -> None:
    torch.manual_seed(12)
    layer = pg.GatedLinear(6, 8, input=signed(4), gating=pg.Gating(2))
    x = normal(2, rows, 5, 6, seed=11)
    found = []
    for given in (x, x.flatten(0, 2)):
        pg.calibrate(layer, [given], sparsity=0.8, scope="channel")
        found.append(layer.delta.tolist())
    assert found[0] == found[1]
    assert len(set(found[0])) > 4


def test_a_batch_without_a_value_above_zero_has_no_say_in_a_clip() -> None:
    model = nn.Sequential(pg.GatedLinear(4, 3, input=pg.Pact(4), gating=pg.Gating(2)))
    x = torch.rand(10, 4, generator=torch.Generator().manual_seed(5)) * 0.01
    pg.calibrate(model, [x])
    clip = model[0].input.clip
    assert 0 < clip <= 0.01
    pg.calibrate(model, [-x, x, 0 * x])
    assert model[0].input.clip == clip
    pg.calibrate(model, [-x])
    assert model[0].input.clip == 1.0


def test_calibration_leaves_trained_clips_and_modes_alone() -> None:
    model = two_layers()
    model[2].eval()
    pg.calibrate(model, [normal(2, 1, 4, 4, seed=8)], pact=False)
    assert model[2].input.clip == 3.0
    assert [m.training for m in model] == [True, True, False]
    with pytest.raises(ValueError, match=r"^batches must hold at least one batch, not 0$"):
        pg.calibrate(model, [])
    with pytest.raises(ValueError, match=r"^sparsity must be 0 \.\. 1, not 2$"):
        pg.calibrate(model, [], sparsity=2)
    with pytest.raises(ValueError, match=r"^static must be max, least_squares, keep, not 'maximum'$"):
        pg.calibrate(model, [], static="maximum")
    with pytest.raises(ValueError, match=r"^scope must be channel, layer, not 'Layer'$"):
        pg.calibrate(model, [], scope="Layer")
    with pytest.raises(ValueError, match=r"^batches must hold at least one value for each layer, not an empty tensor$"):
        pg.calibrate(model, [torch.zeros(0, 1, 4, 4)])
    with pytest.raises(ValueError, match=r"^batches must hold at least one value for each layer, not an empty tensor$"):
        pg.calibrate(model, [torch.zeros(0, 1, 4, 4)], sparsity=0.5, pact=False, static="keep")
    with pytest.raises(
        TypeError, match=r"^batches must be a list of tensors or tuples \(\[x\] for one\), not a tensor$"
    ):
        pg.calibrate(model, normal(2, 1, 4, 4, seed=8))
    with pytest.raises(TypeError, match=r"^inputs must be a tensor, or a tuple .* arguments, not a list$"):
        pg.calibrate(model, [[normal(2, 1, 4, 4, seed=8), torch.zeros(2)]])


@pytest.mark.parametrize("static", ["max", "least_squares"])
def test_unsigned_codes_are_scaled_by_the_values_that_they_can_have(static: str) -> None:
    quantiser = pg.QuantiseInput(6, Encoding.UNSIGNED)
    pg.calibrate(quantiser, [torch.tensor([-100.0, 0.0, 1.0, 2.0, 3.0])], static=static)
    assert quantiser.clip == 3.0


def test_fixed_scales_come_from_the_largest_or_the_best_bound_or_stay() -> None:
    x = normal(4, 1, 6, 6, seed=9)
    model = nn.Sequential(pg.QuantiseInput(4, TWOS), pg.QuantiseInput(8, TWOS, 9.0, fixed=True), pg.Pact(4, 2.5))
    pg.calibrate(model, [x], static="least_squares", pact=False)
    errors = {
        clip: float((x - pg.QuantiseInput(4, TWOS, clip)(x)).square().sum())
        for clip in [float(x.abs().max()) * share / 40 for share in range(6, 41)]
    }
    assert model[0].clip == pytest.approx(min(errors, key=lambda clip: errors[clip]))
    assert model[0].clip < float(x.abs().max())
    assert (model[1].clip, model[2].clip) == (9.0, 2.5)
    pg.calibrate(model, [2 * x], static="keep", pact=False)
    assert model[0].clip < float(x.abs().max())
    pg.calibrate(model, [2 * x])
    assert model[0].clip == float(2 * x.abs().max())
    assert model[1].clip == 9.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes_than_float32_and_float64_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"^input of a quantised layer must be float32 or float64, not torch\."):
        pg.QuantLinear(3, 2, input=pg.Pact(4))(torch.ones(2, 3, dtype=dtype))


def test_layers_take_the_keywords_of_torchs_own() -> None:
    x = normal(2, 3, seed=1)
    pg.QuantLinear(3, 2, input=signed(4))(input=x)
    pg.QuantConv2d(2, 2, 1, input=signed(4))(input=normal(1, 2, 3, 3, seed=1))
    pg.QuantLSTMCell(3, 2, input=signed(4), hidden=signed(4, 1.0))(input=x, hx=(torch.zeros(2, 2), torch.zeros(2, 2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pg.Gating(2.5), r"^pred_bits must be an integer, not 2\.5$"),
        (lambda: pg.Gating(True), r"^pred_bits must be an integer, not True$"),
        (lambda: pg.WeightFormat(8.5), r"^bits must be an integer, not 8\.5$"),
        (lambda: pg.Pact(4.0), r"^bits must be an integer, not 4\.0$"),
        (lambda: pg.QuantiseInput(4.0), r"^bits must be an integer, not 4\.0$"),
        (lambda: pg.Gating(2, "zero"), r"^policy must be one of Policy\.KEEP, .*, not 'zero'$"),
        (lambda: pg.Gating(2, gradient="release"), r"^gradient must be one of MaskGradient\.PAPER, .*, not 'release'$"),
        (
            lambda: pg.WeightFormat(8, "twos_complement"),
            r"^encoding must be one of Encoding\.UNSIGNED, .*_complement'$",
        ),
        (lambda: pg.QuantiseInput(4, "unsigned", 1.0), r"^encoding must be one of Encoding\.UNSIGNED, .*'unsigned'$"),
        (lambda: pg.Recipe(encoding="sign_magnitude"), r"^encoding must be one of Encoding\.UNSIGNED, .*_magnitude'$"),
    ],
)
def test_a_word_is_no_member_of_an_enum(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("slope", [0.0, -5.0, float("nan"), float("inf")])
def test_the_surrogates_slope_is_above_zero(slope: float) -> None:
    with pytest.raises(ValueError, match=r"^slope must be finite and > 0, not"):
        pg.Gating(2, slope=slope)


def test_a_model_moves_copies_and_loads_with_its_exact_scales(device: str) -> None:
    model = two_layers()
    model[0].input.set_clip(0.1)
    moved = copy.deepcopy(model).float().to(device)
    assert moved[0].input.clip == 0.1
    other = two_layers()
    other.load_state_dict(moved.cpu().state_dict())
    assert other[0].input.clip == 0.1
    x = normal(2, 1, 4, 4, seed=8)
    assert torch.equal(other(x), model(x))
    torch.testing.assert_close(moved.to(device)(x.to(device)).cpu(), model(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pg.Pact(0), r"^act_bits must be 1 \.\. 15, not 0$"),
        (lambda: pg.Pact(3, -1.0), r"^clip must be finite and > 0, not -1\.0$"),
        (lambda: pg.QuantiseInput(1, TWOS), r"^act_bits of twos_complement codes must be 2 \.\. 16, not 1$"),
        (lambda: pg.WeightFormat(1), r"^bits of twos_complement weights must be 2 \.\. 16, not 1$"),
        (lambda: pg.WeightFormat(8, Encoding.UNSIGNED), "^encoding of weights must be twos_complement or"),
        (lambda: pg.GatedLinear(2, 2, input=pg.Pact(3), gating=pg.Gating(3)), r"^pred_bits must be 1 \.\. 2"),
        (lambda: pg.QuantLSTMCell(2, 2, input=signed(4), hidden=signed(5)), "^input and hidden must have one signed"),
        (lambda: pg.QuantLinear(2, 2, input=signed(4, None))(torch.ones(1, 2)), "^clip must be set before codes"),
        (lambda: two_layers()(torch.ones(4, 4)), r"^input of a convolution must be \[N, C, H, W\], not \[4, 4\]$"),
    ],
)
def test_a_wrong_call_says_what_it_must_be(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
