"""Precision Gating as autograd functions on integer codes: dense and gated convolutions and products.

    codes --split--> high --(*) weight codes--> A_h --A_h > T--> mask          O_hb = k * 2^l * A_h
                 `-> low  --(*) weight codes--> A_l -------------mask---> O    O_lb = k * A_l

Forward (equations 2 to 4 of Precision Gating, ICLR 2020, arXiv 2002.07136): O = O_hb + mask * O_lb, on integers:
mask = A_h > floor(Delta / (k * 2^l)), per output channel, in float64, as the hardware does. k is the real value of one
accumulator unit, act_step * weight_step. No bias: add it to what comes back.

Backward (equations 5 to 7). With s = sigmoid(slope * (O_hb - Delta)), slope 5, in the step's place and g = dL/dO:

    dL/dDelta = -sum(g * O_lb * slope * s(1-s))              dense back-propagation
    dL/dDelta = -sum(g * O_lb * slope * s(1-s) * 2 * mask)   sparse: the model's mask is squared (equation 6)
    dL/dO_hb  = g,   dL/dO_lb = g * mask                     (equation 7; g * mask twice where Policy.ZERO drops O_hb)

Weights get both phases' share. Truncation passes no gradient, so activations get that of O_hb only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat, check_integer, check_member
from pgsim.nn.codes import WeightFormat, max_magnitude, split_codes, weight_codes
from pgsim.nn.gate import GateRule, gate_backward_rows, gate_rows, kernels_take
from pgsim.nn.product import Convolution, Matrix, Product, exact_dtype, exact_sum, narrowed

SURROGATE_SLOPE = 5.0
"""Slope of the sigmoid that stands in for the gating step in the backward pass (the paper's alpha)."""


class Policy(Enum):
    """What becomes of an output that is not updated, and what one that is costs."""

    KEEP = "keep"  # O_hb stays; an update adds O_lb: B_hb + (1-Sp) * (B - B_hb) bits (Precision Gating)
    ZERO = "zero"  # the output becomes zero: the reading of Fix-Threshold; bits as KEEP
    SEERNET = "seernet"  # O_hb stays; an update computes all B bits anew: B_hb + (1-Sp) * B bits, values as KEEP

    @property
    def traced(self) -> GatePolicy:
        """What a trace calls it: outputs of SEERNET are those of KEEP."""
        return GatePolicy.ZERO if self is Policy.ZERO else GatePolicy.KEEP


class MaskGradient(Enum):
    """Where the gradient of the mask goes."""

    PAPER = "paper"  # to Delta only; factor 2 * mask where back-propagation is sparse (equations 6 and 7)
    RELEASE = "release"  # the authors' code: to Delta and, with the other sign, to O_hb; factor mask where sparse


@dataclass(frozen=True)
class Gating:
    """How a layer is gated: `pred_bits` (h, 0 < h < act_bits) predict, the rest updates.

    `sparse` is sparse back-propagation: only outputs whose mask is 1 move their threshold. `slope` is the surrogate's.
    Raises TypeError for pred_bits that are no int and a policy or gradient that is no member of its enum, ValueError
    for a slope that is not above 0.
    """

    pred_bits: int
    policy: Policy = Policy.KEEP
    sparse: bool = True
    gradient: MaskGradient = MaskGradient.PAPER
    slope: float = SURROGATE_SLOPE

    def __post_init__(self) -> None:
        check_integer("pred_bits", self.pred_bits)
        check_member("policy", self.policy, Policy)
        check_member("gradient", self.gradient, MaskGradient)
        if not (self.slope > 0 and math.isfinite(self.slope)):
            raise ValueError(f"slope must be finite and > 0, not {self.slope}")

    @property
    def threshold_factor(self) -> float:
        """Factor of the surrogate's derivative: 2 where the mask is squared (equation 6), else 1."""
        return 2.0 if self.sparse and self.gradient is MaskGradient.PAPER else 1.0

    def update_bits(self, act_bits: int) -> int:
        """Return l = B - h; raises ValueError unless 0 < h < B."""
        if not 0 < self.pred_bits < act_bits:
            raise ValueError(f"pred_bits must be 1 .. {act_bits - 1} for act_bits {act_bits}, not {self.pred_bits}")
        return act_bits - self.pred_bits


@dataclass(frozen=True)
class Phases:
    """A gated layer's integers, all in one exact float type: a_h, a_l, a [N, K, ...]; mask bool; unit float64 [1|K]."""

    a_h: Tensor
    a_l: Tensor
    a: Tensor
    mask: Tensor
    unit: Tensor


def integer_threshold(delta: Tensor, unit: Tensor | float, update_bits: int) -> Tensor:
    """Return T = floor(delta / (unit * 2^update_bits)), float64 [K], so that A_h > T is O_hb > delta.

    `delta` [K] holds thresholds on the real output (-inf updates all, +inf none), `unit` is float64 [1] or [K].
    """
    return torch.floor(delta.detach().double() / (unit * 2.0**update_bits))


def gated_phases(
    product: Product,
    planes: tuple[Tensor, Tensor],
    weight: tuple[Tensor, Tensor],
    delta: Tensor,
    act_step: float,
    act: NumberFormat,
    gating: Gating,
) -> Phases:
    """Compute both phases and gate them. `planes` are high and low, `weight` codes and step (pgsim.nn.codes)."""
    w_codes, w_step = weight
    dtype = exact_dtype(w_codes, max_magnitude(act))
    a_h, a_l = (exact_sum(product, plane, w_codes, dtype) for plane in planes)
    return _gated(a_h, a_l, product, delta, act_step * w_step, act, gating)


def _gated(
    a_h: Tensor, a_l: Tensor, product: Product, delta: Tensor, unit: Tensor, act: NumberFormat, gating: Gating
) -> Phases:
    """Gate both phases' sums; `unit` float64 [1] or [K]."""
    update_bits = gating.update_bits(act.bits)
    # A threshold that rounds in float32 is beyond 2^24, where no A_h is: the comparison's result stays.
    mask = a_h > product.along(integer_threshold(delta, unit, update_bits).to(a_h.dtype))
    predicted = a_h * 2.0**update_bits
    rest = torch.zeros_like(a_h) if gating.policy is Policy.ZERO else predicted
    return Phases(a_h, a_l, torch.where(mask, predicted + a_l, rest), mask, unit)


class DenseProduct(torch.autograd.Function):
    """Dense layer on codes: real outputs k * A. Arguments as in `dense_conv2d`."""

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        weight: Tensor,
        act_step: float,
        product: Product,
        act: NumberFormat,
        form: WeightFormat,
    ) -> Tensor:
        w_codes, w_step = weight_codes(weight, form)
        dtype, given = exact_dtype(w_codes, max_magnitude(act)), codes.dtype
        if weight.shape[2:].numel() > 1:  # a kernel of one tap is done before bytes, and floats again backward, pay off
            codes = narrowed(product, codes, dtype, act, form.format)
        sums = exact_sum(product, codes, w_codes, dtype)
        ctx.save_for_backward(codes, w_codes, w_step)
        ctx.act_step, ctx.product = act_step, product
        return _times(sums, product.along(act_step * w_step), given)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        codes, w_codes, w_step = ctx.saved_tensors
        real = _real_weight(w_codes, w_step, grad.dtype)
        need_x, need_w = ctx.needs_input_grad[:2]
        grad_x, grad_w = ctx.product.gradients(grad, codes.to(grad.dtype), real, need_x, need_w)
        return grad_x, None if grad_w is None else grad_w.mul_(ctx.act_step), None, None, None, None


class GatedProduct(torch.autograd.Function):
    """Gated layer on codes: real outputs and the mask. Arguments as in `gated_conv2d`; gradients as on this page."""

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        weight: Tensor,
        delta: Tensor,
        act_step: float,
        product: Product,
        act: NumberFormat,
        form: WeightFormat,
        gating: Gating,
    ) -> tuple[Tensor, Tensor]:
        w_codes, w_step = weight_codes(weight, form)
        ctx.update_bits = gating.update_bits(act.bits)
        dtype = exact_dtype(w_codes, max_magnitude(act))
        high, low = split_codes(narrowed(product, codes, dtype, act, form.format), act.encoding, ctx.update_bits)
        sums = exact_sum(product, high, w_codes, dtype), exact_sum(product, low, w_codes, dtype)
        unit = act_step * w_step
        ctx.on_kernels = kernels_take(sums[0], codes.dtype)
        if ctx.on_kernels:
            columns = integer_threshold(delta, unit, ctx.update_bits), delta, unit.expand(len(delta))
            keep = gating.policy is not Policy.ZERO
            rule = GateRule(ctx.update_bits, gating.slope, gating.threshold_factor, gating.sparse, keep)
            out, mask, moved = gate_rows(*sums, *columns, rule)
            mask = mask.view(torch.bool)
        else:
            phases = _gated(*sums, product, delta, unit, act, gating)
            moved = _threshold_share(phases, delta, product, ctx.update_bits, gating, codes.dtype)
            out, mask = _times(phases.a, product.along(unit), codes.dtype), phases.mask
        ctx.save_for_backward(high, low, w_codes, w_step, mask, moved)
        ctx.act_step, ctx.product, ctx.gating, ctx.delta_dtype = act_step, product, gating, delta.dtype
        ctx.mark_non_differentiable(mask)
        return out, mask

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _grad_mask: Any) -> Any:
        high, low, w_codes, w_step, mask, moved = ctx.saved_tensors
        high, low = high.to(grad.dtype), low.to(grad.dtype)
        product, gating = ctx.product, ctx.gating
        need_x, need_w, need_delta = ctx.needs_input_grad[:3]
        grad_delta: Tensor | None
        if ctx.on_kernels:
            on_low, grad_delta = gate_backward_rows(grad, mask.view(torch.uint8), moved)
        else:
            on_low, grad_delta = grad * mask, product.over(grad * moved) if need_delta else None
        on_high = on_low if gating.policy is Policy.ZERO else grad
        if gating.gradient is MaskGradient.RELEASE:
            on_high = on_high - grad * moved
        grad_x, grad_high = product.gradients(on_high, high, _real_weight(w_codes, w_step, grad.dtype), need_x, need_w)
        _, grad_low = product.gradients(on_low, low, w_codes.to(grad.dtype), False, need_w)
        grad_w = None
        if need_w:
            grad_w = grad_high.mul_(2.0**ctx.update_bits).add_(grad_low).mul_(ctx.act_step)
        if grad_delta is not None:
            grad_delta = grad_delta.to(ctx.delta_dtype)
        return grad_x, grad_w, grad_delta, None, None, None, None, None


def _times(sums: Tensor, unit: Tensor, dtype: torch.dtype) -> Tensor:
    """Return exact sums times their unit as `dtype`, multiplied in the wider float type; the sums are used up."""
    wide = sums.to(torch.promote_types(sums.dtype, dtype))
    return wide.mul_(unit.to(wide.dtype)).to(dtype)


def _threshold_share(
    phases: Phases, delta: Tensor, product: Product, update_bits: int, gating: Gating, dtype: torch.dtype
) -> Tensor:
    """Return dO/dDelta of every output, by the sigmoid: what the mask switches, times the surrogate's slope."""
    wide = torch.promote_types(phases.a_h.dtype, dtype)
    unit = product.along(phases.unit).to(wide)
    o_hb, o_lb = phases.a_h.to(wide) * (unit * 2.0**update_bits), phases.a_l.to(wide) * unit
    switched = o_hb + o_lb if gating.policy is Policy.ZERO else o_lb
    return threshold_share(o_hb - product.along(delta.detach()), switched, phases.mask, gating).to(dtype)


def threshold_share(distance: Tensor, switched: Tensor, mask: Tensor, gating: Gating) -> Tensor:
    """Return dO/dDelta of outputs whose O_hb - Delta is `distance`; the mask switches `switched` on."""
    s = torch.sigmoid(gating.slope * distance)
    share = switched * (s * (1 - s)) * (-gating.slope * gating.threshold_factor)
    return share * mask if gating.sparse else share


def _real_weight(codes: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.to(dtype) * step.to(dtype).view(-1, *[1] * (codes.dim() - 1))


def gated_product(
    codes: Tensor,
    weight: Tensor,
    delta: Tensor,
    act_step: float,
    product: Product,
    act: NumberFormat,
    gating: Gating,
    weights: WeightFormat,
) -> tuple[Tensor, Tensor]:
    """Return real output and mask of a gated layer whose sum is `product`; see `gated_conv2d`."""
    return cast(
        tuple[Tensor, Tensor], GatedProduct.apply(codes, weight, delta, act_step, product, act, weights, gating)
    )


def dense_product(
    codes: Tensor, weight: Tensor, act_step: float, product: Product, act: NumberFormat, weights: WeightFormat
) -> Tensor:
    """Return the real output of a dense layer whose sum is `product`; see `dense_conv2d`."""
    return cast(Tensor, DenseProduct.apply(codes, weight, act_step, product, act, weights))


def gated_conv2d(
    codes: Tensor,
    weight: Tensor,
    delta: Tensor,
    act_step: float,
    *,
    act_bits: int,
    gating: Gating,
    encoding: Encoding = Encoding.UNSIGNED,
    weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Convolve codes in two phases; return the real output and the mask, both [N, K, P, Q].

    Args:
        codes: [N, C, H, W], integers of `act_bits` bits in `encoding`, in float32 or float64.
        weight: real master weights [K, C/G, R, S], quantised here by `weights`.
        delta: [K], thresholds on the real output of the prediction phase.
        act_step: real value of activation code 1, > 0.

    The output has codes' dtype, the mask is bool. Gradients: this module's page; codes' slot takes the real value's.
    Raises ValueError for pred_bits outside 1 .. act_bits - 1.
    """
    product = Convolution(stride, padding, dilation, groups)
    return gated_product(codes, weight, delta, act_step, product, NumberFormat(encoding, act_bits), gating, weights)


def gated_linear(
    codes: Tensor,
    weight: Tensor,
    delta: Tensor,
    act_step: float,
    *,
    act_bits: int,
    gating: Gating,
    encoding: Encoding = Encoding.UNSIGNED,
    weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
) -> tuple[Tensor, Tensor]:
    """Multiply codes [..., C] by weight [K, C] in two phases; return real output and mask [..., K]: `gated_conv2d`."""
    act = NumberFormat(encoding, act_bits)
    return gated_product(codes, weight, delta, act_step, Matrix(), act, gating, weights)


def dense_conv2d(
    codes: Tensor,
    weight: Tensor,
    act_step: float,
    *,
    act_bits: int,
    encoding: Encoding = Encoding.UNSIGNED,
    weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve codes [N, C, H, W] with quantised weights [K, C/G, R, S] at all bits; real output [N, K, P, Q]."""
    product = Convolution(stride, padding, dilation, groups)
    return dense_product(codes, weight, act_step, product, NumberFormat(encoding, act_bits), weights)


def dense_linear(
    codes: Tensor,
    weight: Tensor,
    act_step: float,
    *,
    act_bits: int,
    encoding: Encoding = Encoding.UNSIGNED,
    weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
) -> Tensor:
    """Multiply codes [..., C] by quantised weights [K, C] at all bits; real output [..., K]."""
    return dense_product(codes, weight, act_step, Matrix(), NumberFormat(encoding, act_bits), weights)
