"""Gated and dense sums against the scalar reference; their gradients against closed forms written out here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from pgsim.arith import reference  # noqa: E402
from pgsim.arith.formats import Encoding, NumberFormat  # noqa: E402
from pgsim.arith.gating import integer_thresholds  # noqa: E402
from pgsim.nn.codes import WeightFormat, weight_codes  # noqa: E402
from pgsim.nn.functional import (  # noqa: E402
    Gating,
    MaskGradient,
    Policy,
    dense_conv2d,
    gated_conv2d,
    gated_linear,
    integer_threshold,
)
from pgsim.nn.product import exact_dtype  # noqa: E402
from pgsim.workload.layer import Geometry, LayerKind  # noqa: E402


@dataclass(frozen=True)
class Shape:
    """One convolution: K, C, H, W, (R, S), stride, padding, dilation, groups."""

    k: int
    c: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> Geometry:
        (top, left), (h, w) = self.padding, self.size
        return Geometry(
            LayerKind.CONV, self.c, self.k, h, w, self.kernel, self.stride, (top, top, left, left), self.dilation,
            self.groups,
        )  # fmt: skip

    @property
    def window(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in ("stride", "padding", "dilation", "groups")}

    def columns(self, x: Tensor) -> Tensor:
        """[N, G, C/G*R*S, P*Q]: what each output pixel reads."""
        found = F.unfold(x, self.kernel, self.dilation, self.padding, self.stride)
        return found.reshape(len(x), self.groups, -1, found.shape[-1])


SHAPES = [
    Shape(4, 3, (5, 5), (3, 3), padding=(1, 1)),
    Shape(6, 4, (6, 5), (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
    Shape(4, 4, (5, 4), (3, 3), padding=(1, 1), groups=4),
    Shape(5, 3, (3, 3), (1, 1)),
]
SIGNED = (Encoding.SIGN_MAGNITUDE, Encoding.TWOS_COMPLEMENT)
WEIGHTS = [
    WeightFormat(),
    WeightFormat(8, Encoding.SIGN_MAGNITUDE, per_channel=True),
    WeightFormat(3, per_channel=True),
]
STEP = 0.2
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "last"])
"""Of codes: kernels and 8-bit sums take those that lie channels last."""


def codes_of(shape: tuple[int, ...], form: NumberFormat, seed: int = 0) -> Tensor:
    """Codes from the format's lowest to its largest."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(form.min_code, form.max_code + 1, shape, generator=generator).float()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(
    shape: Shape, form: NumberFormat, layout: torch.memory_format = torch.contiguous_format
) -> tuple[Tensor, Tensor, Tensor]:
    delta = torch.linspace(-0.6, 1.0, shape.k)
    weight = normal(shape.k, shape.c // shape.groups, *shape.kernel, seed=1)
    return codes_of((2, shape.c, *shape.size), form).contiguous(memory_format=layout), weight, delta


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("policy", list(Policy))
@LAYOUTS
def test_outputs_and_masks_are_those_of_the_scalar_reference(
    shape: Shape, encoding: Encoding, policy: Policy, layout: torch.memory_format, device: str
) -> None:
    form = NumberFormat(encoding, 4)
    codes, weight, delta = operands(shape, form, layout)
    for weights in WEIGHTS:
        gating = Gating(2, policy)
        out, mask = gated_conv2d(
            codes.to(device), weight.to(device), delta.to(device), STEP, act_bits=4, gating=gating, encoding=encoding,
            weights=weights, **shape.window,
        )  # fmt: skip
        w_codes, w_step = weight_codes(weight, weights)
        threshold = integer_thresholds(delta.double().numpy(), STEP, w_step.numpy(), 2)
        integers = codes.numpy().astype(np.int64), w_codes.numpy().astype(np.int64)
        expected = reference.gated_layer(*integers, shape.geometry, encoding, 4, 2, threshold, policy.traced)
        np.testing.assert_array_equal(mask.cpu().numpy(), expected.mask)
        assert expected.mask.any()
        assert not expected.mask.all()
        unit = STEP * w_step.numpy().reshape(-1, 1, 1)
        np.testing.assert_allclose(out.cpu().numpy(), expected.a * unit, rtol=3e-7, atol=1e-7)
        dense = dense_conv2d(
            codes.to(device), weight.to(device), STEP, act_bits=4, encoding=encoding, weights=weights, **shape.window
        )
        whole = reference.dense_layer(*integers, shape.geometry)
        np.testing.assert_allclose(dense.cpu().numpy(), whole * unit, rtol=3e-7, atol=1e-7)


def closed_forms(
    shape: Shape, form: NumberFormat, gating: Gating, weights: WeightFormat, grad: Tensor
) -> dict[str, Tensor]:
    """Every gradient by equations 5 to 7 on im2col columns, in float64; nothing here is shared with the package."""
    codes, weight, delta = (x.double() for x in operands(shape, form))
    largest = 2 ** (weights.bits - (weights.encoding is Encoding.TWOS_COMPLEMENT)) - 1
    clip = weight.flatten(1).abs().max(1).values if weights.per_channel else weight.abs().max().expand(shape.k)
    clip = clip.view(-1, 1, 1, 1)
    real_w = torch.round(weight / clip * largest) * clip / largest
    scale = 2.0 ** (form.bits - gating.pred_bits)
    whole = codes / scale
    high = scale * (
        torch.sign(whole) * whole.abs().floor() if form.encoding is Encoding.SIGN_MAGNITUDE else whole.floor()
    )
    low = codes - high
    rows = real_w.reshape(shape.groups, shape.k // shape.groups, -1)
    sides = {name: shape.columns(x * STEP) for name, x in (("high", high), ("low", low))}
    n, pixels = len(codes), sides["high"].shape[-1]
    o_hb, o_lb = (
        torch.einsum("gkc,ngcp->ngkp", rows, sides[name]).reshape(n, shape.k, pixels) for name in ("high", "low")
    )
    line = delta.view(1, -1, 1)
    mask = (o_hb > line).double()
    g = grad.double().reshape(n, shape.k, pixels)
    s = 1 / (1 + torch.exp(-5.0 * (o_hb - line)))
    bump = 5.0 * s * (1 - s) * (o_hb + o_lb if gating.policy is Policy.ZERO else o_lb)
    if gating.sparse:
        bump = bump * mask * (2 if gating.gradient is MaskGradient.PAPER else 1)
    on_low = g * mask
    on_high = g * mask if gating.policy is Policy.ZERO else g
    if gating.gradient is MaskGradient.RELEASE:
        on_high = on_high + g * bump
    grouped = (n, shape.groups, shape.k // shape.groups, pixels)
    grad_w = sum(
        torch.einsum("ngkp,ngcp->gkc", on.reshape(grouped), sides[name])
        for name, on in (("high", on_high), ("low", on_low))
    )
    assert isinstance(grad_w, Tensor)
    back = torch.einsum("gkc,ngkp->ngcp", rows, on_high.reshape(grouped)).reshape(n, -1, pixels)
    grad_x = F.fold(back, shape.size, shape.kernel, shape.dilation, shape.padding, shape.stride)
    return {"codes": grad_x, "weight": grad_w.reshape(weight.shape), "delta": -(g * bump).sum((0, 2))}


@pytest.mark.parametrize("gradient", list(MaskGradient))
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("shape", SHAPES)
@LAYOUTS
def test_gradients_are_the_closed_forms_of_equations_5_to_7(
    shape: Shape, policy: Policy, sparse: bool, gradient: MaskGradient, layout: torch.memory_format, device: str
) -> None:
    for encoding, bits, weights in ((Encoding.UNSIGNED, 4, WEIGHTS[0]), *((e, 5, WEIGHTS[1]) for e in SIGNED)):
        form, gating = NumberFormat(encoding, bits), Gating(2, policy, sparse, gradient)
        leaves = [x.to(device).requires_grad_() for x in operands(shape, form, layout)]
        out, _ = gated_conv2d(
            *leaves, STEP, act_bits=bits, gating=gating, encoding=encoding, weights=weights, **shape.window
        )
        grad = normal(*out.shape, seed=2)
        out.backward(grad.to(device))
        for leaf, (name, expected) in zip(
            leaves, closed_forms(shape, form, gating, weights, grad).items(), strict=True
        ):
            assert leaf.grad is not None
            assert expected.abs().max() > 0.01
            torch.testing.assert_close(
                leaf.grad.cpu().double(), expected, rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("shape", SHAPES)
@LAYOUTS
def test_a_dense_convolution_passes_the_gradient_of_its_real_operands(
    shape: Shape, layout: torch.memory_format, device: str
) -> None:
    for encoding in Encoding:
        codes, weight, _ = operands(shape, NumberFormat(encoding, 4), layout)
        leaves = [x.clone().to(device).requires_grad_() for x in (codes, weight)]
        out = dense_conv2d(*leaves, STEP, act_bits=4, encoding=encoding, **shape.window)
        grad = normal(*out.shape, seed=2).contiguous(memory_format=layout)
        out.backward(grad.to(device))
        clip = weight.abs().max()
        real = [(codes * STEP).double(), (torch.round(weight / clip * 127) * clip / 127).double()]
        expected = F.conv2d(*(x.requires_grad_() for x in real), None, **shape.window)
        expected.backward(grad.double())
        torch.testing.assert_close(out.detach().cpu().double(), expected.detach(), rtol=1e-6, atol=1e-5)
        for leaf, wanted in zip(leaves, real, strict=True):
            assert leaf.grad is not None
            assert wanted.grad is not None
            torch.testing.assert_close(leaf.grad.cpu().double(), wanted.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparse", [True, False])
def test_the_thresholds_gradient_is_the_surrogates_finite_difference(sparse: bool) -> None:
    """O = O_hb + m * O_lb with the sigmoid m for the mask; sparse: m^2, whose derivative is taken at the hard mask."""
    shape, form = SHAPES[0], NumberFormat(Encoding.UNSIGNED, 4)
    codes, weight, delta = operands(shape, form)
    leaf = delta.clone().requires_grad_()
    out, mask = gated_conv2d(codes, weight, leaf, STEP, act_bits=4, gating=Gating(2, sparse=sparse), **shape.window)
    grad = normal(*out.shape, seed=3)
    out.backward(grad)
    none, every = (torch.full((4,), x) for x in (float("inf"), -float("inf")))
    o_hb, o = (
        gated_conv2d(codes, weight, d, STEP, act_bits=4, gating=Gating(2), **shape.window)[0].double()
        for d in (none, every)
    )
    weighting = 2.0 * mask if sparse else 1.0

    def surrogate(shift: float) -> Tensor:
        m = torch.sigmoid(5 * (o_hb - (delta.double() + shift).view(-1, 1, 1)))
        return (grad * weighting * m * (o - o_hb)).sum((0, 2, 3))

    difference = (surrogate(1e-5) - surrogate(-1e-5)) / 2e-5
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.double(), difference, rtol=1e-4, atol=1e-4)


def test_a_matrix_product_of_any_leading_shape_is_the_one_by_one_convolution(device: str) -> None:
    form, gating = NumberFormat(Encoding.SIGN_MAGNITUDE, 4), Gating(2)
    x, weight, delta = codes_of((2, 3, 6), form), normal(5, 6, seed=4), torch.linspace(-0.5, 0.5, 5)
    results = []
    for name in ("linear", "conv"):
        leaves = [t.clone().to(device).requires_grad_() for t in (x, weight, delta)]
        if name == "linear":
            out, mask = gated_linear(*leaves, STEP, act_bits=4, gating=gating, encoding=form.encoding)
        else:
            image = leaves[0].transpose(1, 2)[..., None]
            kernel = leaves[1][:, :, None, None]
            out, mask = gated_conv2d(image, kernel, leaves[2], STEP, act_bits=4, gating=gating, encoding=form.encoding)
            out, mask = (t[..., 0].transpose(1, 2) for t in (out, mask))
        out.backward(normal(2, 3, 5, seed=5).to(device))
        results.append([out, mask, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_thresholds_out_of_reach_update_all_and_none() -> None:
    shape, form = SHAPES[0], NumberFormat(Encoding.UNSIGNED, 4)
    codes, weight, _ = operands(shape, form)
    for value, share in ((-float("inf"), True), (float("inf"), False), (1e30, False), (-1e30, True)):
        _, mask = gated_conv2d(
            codes, weight, torch.full((4,), value), STEP, act_bits=4, gating=Gating(1), **shape.window
        )
        assert bool((mask == share).all())


@pytest.mark.parametrize("unit", [0.25, torch.full((4,), 0.25, dtype=torch.float64)], ids=["number", "tensor"])
def test_the_integer_threshold_decides_as_the_real_one(unit: float | Tensor) -> None:
    delta = torch.tensor([0.75, -0.75, 0.0, 1.0])
    threshold = integer_threshold(delta, unit, 1)
    assert threshold.dtype == torch.float64
    assert threshold.tolist() == [1.0, -2.0, 0.0, 2.0]
    high = torch.arange(-6, 7).double()
    for d, t in zip(delta.tolist(), threshold.tolist(), strict=True):
        assert torch.equal(high > t, high * 2 * 0.25 > d)


def test_sums_that_could_pass_two_to_the_24_run_in_float64_and_stay_exact() -> None:
    weight = torch.full((1, 8), 127.0)
    assert exact_dtype(weight, 16513) is torch.float32  # 8 * 127 * 16513 = 2^24 - 8
    assert exact_dtype(weight, 16514) is torch.float64
    with pytest.raises(ValueError, match=r"^sums of a layer must stay below 2\^53, not reach 1"):
        exact_dtype(weight, 2**44)
    codes = torch.tensor([[32767.0] * 512 + [1.0] * 8])
    ones = torch.ones(1, 520)
    out, _ = gated_linear(
        codes.double(), ones, torch.tensor([-float("inf")]), 1.0, act_bits=15, gating=Gating(8),
        weights=WeightFormat(16, per_channel=True),
    )  # fmt: skip
    assert out.item() == pytest.approx(512 * 32767 + 8, rel=1e-12)  # A is 32767 times that: float32 is off by 1e-8


@contextmanager
def fewer_bits(part: str) -> Iterator[None]:
    """Let torch compute float32 matrix products or convolutions of a CPU, or all, with bfloat16."""
    holder = {"all": torch.backends, "mkldnn": torch.backends.mkldnn}.get(part) or getattr(torch.backends.mkldnn, part)
    holder.fp32_precision = "bf16"
    try:
        yield
    finally:
        holder.fp32_precision = "none"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has no fp32_precision")
@pytest.mark.parametrize("part", ["all", "mkldnn", "conv", "matmul"])
def test_sums_run_in_float64_where_float32_has_fewer_bits(part: str) -> None:
    with fewer_bits(part):
        assert exact_dtype(torch.ones(1, 4), 15) == torch.float64
    assert exact_dtype(torch.ones(1, 4), 15) == torch.float32


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_sums_are_exact_without_onednn_and_under_autocast() -> None:
    # Without oneDNN torch would take NNPACK's Winograd transform for 3x3 kernels of 16 images and more.
    codes = codes_of((16, 16, 8, 8), NumberFormat(Encoding.UNSIGNED, 8))
    weight = normal(16, 16, 3, 3, seed=3)
    w_codes, step = weight_codes(weight, WeightFormat())
    wanted = F.conv2d(codes.double(), w_codes.double(), padding=1).float() * step.float()
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(dense_conv2d(codes, weight, 1.0, act_bits=8, padding=(1, 1)), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dense_conv2d(codes, weight, 1.0, act_bits=8, padding=(1, 1)), wanted)


def test_float64_codes_give_float64_outputs_and_surrogates() -> None:
    codes = codes_of((2, 3, 5, 5), NumberFormat(Encoding.UNSIGNED, 4)).double()
    weight = normal(4, 3, 3, 3, seed=4).double()
    delta = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
    w_codes, step = weight_codes(weight, WeightFormat())
    out, mask = gated_conv2d(codes, weight, delta, 0.1, act_bits=4, gating=Gating(2))
    unit = 0.1 * float(step)
    high, low = (F.conv2d(plane, w_codes) for plane in (torch.floor(codes / 4), codes % 4))
    assert torch.equal(out, (4 * high + mask * low) * unit)
    out.sum().backward()
    s = torch.sigmoid(5 * (high * (unit * 4) - 0.3))
    wanted = -(low * unit * 5 * s * (1 - s) * 2 * mask).sum((0, 2, 3))
    torch.testing.assert_close(delta.grad, wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize("exponent", [-149, -126, -100, -65, -64, -63, 0, 100])
@pytest.mark.parametrize("bits", [8, 16])
def test_weights_of_any_size_have_the_codes_of_their_ratios(exponent: int, bits: int) -> None:
    ratios = torch.tensor([[1.0, 0.0, -0.25, 0.75]])
    channels = torch.cat([ratios * 4 * 2.0**exponent, ratios])
    codes, step = weight_codes(channels, WeightFormat(bits, per_channel=True))
    assert torch.equal(codes[0], codes[1])
    assert step[0] == 4 * step[1] * 2.0**exponent
    alone, _ = weight_codes(channels[:1], WeightFormat(bits))
    assert torch.equal(alone, codes[:1])


def test_two_runs_give_the_same_bits(device: str) -> None:
    shape, form = SHAPES[1], NumberFormat(Encoding.UNSIGNED, 4)
    found = []
    for _ in range(2):
        leaves = [x.to(device).requires_grad_() for x in operands(shape, form)]
        out, _ = gated_conv2d(*leaves, STEP, act_bits=4, gating=Gating(2), **shape.window)
        out.square().sum().backward()
        found.append([out, *(leaf.grad for leaf in leaves)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("pred_bits", [0, 4, 5])
def test_a_split_that_leaves_a_plane_empty_is_refused(pred_bits: int) -> None:
    shape, form = SHAPES[3], NumberFormat(Encoding.UNSIGNED, 4)
    with pytest.raises(ValueError, match=rf"^pred_bits must be 1 \.\. 3 for act_bits 4, not {pred_bits}$"):
        gated_conv2d(*operands(shape, form), STEP, act_bits=4, gating=replace(Gating(1), pred_bits=pred_bits))
