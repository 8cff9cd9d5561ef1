"""Convolve codes: the dense layer and the precision-gated one, with their gradients.

Both functions take integer codes in float32 and return real outputs `k * A`; their backward returns, in the slot of
the codes, the gradient of the *real* activation `codes * act_step` (see `pgsim.train.quantise.PactQuantise`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgsim.nn.gate import GateRule, gate_backward_rows, gate_rows
from pgsim.nn.rows import runs_kernels
from pgsim.train.integer_conv import convolve_codes, narrowed
from pgsim.train.quantise import WEIGHT_CODE_MAX, split_codes, weight_codes

SURROGATE_SLOPE = 5.0
"""Slope of the sigmoid that stands in for the gating step in the backward pass (the paper's alpha)."""


def integer_threshold(delta: Tensor, unit: float, update_bits: int) -> Tensor:
    """Return T = floor(delta / (unit * 2**update_bits)) in float64, so that `A_h > T` is `O_hb > delta`.

    Args:
        delta: float32 [out_channels], thresholds on the real output of the prediction phase.
        unit: real value of one accumulator unit, > 0.
        update_bits: bits of the low plane.
    """
    return torch.floor(delta.detach().double() / (unit * 2.0**update_bits))


def _backward_conv(ctx: Any, grad: Tensor, x: Tensor, w: Tensor, need_x: bool, need_w: bool) -> tuple[Any, Any]:
    grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
        grad, x.float(), w, None, [ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1, [need_x, need_w, False]
    )
    return grad_x, grad_w


def gate_tensors(
    high: Tensor, low: Tensor, threshold: Tensor, delta: Tensor, unit: Tensor, rule: GateRule
) -> tuple[Tensor, Tensor, Tensor]:
    """The twin of `gate_rows` in torch's own operations, for any device."""
    threshold, delta, unit = (each[:, None, None] for each in (threshold, delta, unit))
    mask = high > threshold
    high = high * 2.0**rule.update_bits
    out = ((high if rule.keep else high * mask) + low * mask) * unit
    gained = (low if rule.keep else high + low) * unit
    s = torch.sigmoid(rule.slope * (high * unit - delta))
    moved = gained * s * (1 - s) * (-rule.factor * rule.slope)
    return out, mask.to(torch.uint8), moved * mask if rule.sparse else moved


def gate_backward_tensors(grad: Tensor, mask: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """The twin of `gate_backward_rows` in torch's own operations, for any device."""
    return grad * mask, (grad * moved).sum((0, 2, 3))


class DenseConv(torch.autograd.Function):
    """Convolve `codes` [N, C, H, W] with the int8 codes of `weight` [K, C, R, S]; return real outputs [N, K, P, Q].

    `act_step` is the real value of one activation code; `signed` codes may be negative. No bias: batch norm follows.
    """

    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, weight: Tensor, act_step: float, stride: int, padding: int, signed: bool = False
    ) -> Tensor:
        codes = codes if signed else narrowed(codes)
        w_codes, clip = weight_codes(weight)
        ctx.weight_step = float(clip) / WEIGHT_CODE_MAX
        ctx.act_step, ctx.stride, ctx.padding = act_step, stride, padding
        ctx.save_for_backward(codes, w_codes)
        return convolve_codes(codes, w_codes, stride, padding).mul_(act_step * ctx.weight_step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        codes, w_codes = ctx.saved_tensors
        grad_x, grad_w = _backward_conv(ctx, grad, codes, w_codes, ctx.needs_input_grad[0], True)
        if grad_x is not None:
            grad_x.mul_(ctx.weight_step)
        return grad_x, grad_w.mul_(ctx.act_step), *[None] * 4


class GatedConv(torch.autograd.Function):
    """Convolve in two phases: O = O_hb + mask * O_lb with mask = O_hb > delta (equations 2 to 4).

    Forward takes `codes` [N, C, H, W] (integers in [0, 2**act_bits - 1]), `weight` [K, C, R, S], `delta` [K],
    `act_step`, `stride`, `padding`, `update_bits` and `sparse`; it returns the real output [N, K, P, Q] and the mask
    (uint8, same shape). The mask is decided on integers, exactly as the hardware does: A_h > floor(delta/(k*2**l)).

    Backward: the gradient of the output goes to O_hb as it is and to O_lb where the mask is 1, so that the weights get
    both planes' share; truncation passes no gradient to the low plane's activations, so these get the dense share of
    O_hb (as in the authors' release). The threshold gets the sigmoid's derivative (slope 5) in place of the step's;
    with `sparse`, only outputs whose mask is 1 contribute and the mask enters squared, hence the factor 2.

    Without `keep` an output whose mask is 0 becomes 0, O = mask * (O_hb + O_lb): the reading of Fix-Threshold, and of
    zero prediction. Its gradient reaches neither plane then.
    """

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        weight: Tensor,
        delta: Tensor,
        act_step: float,
        stride: int,
        padding: int,
        update_bits: int,
        sparse: bool,
        keep: bool = True,
    ) -> tuple[Tensor, Tensor]:
        w_codes, clip = weight_codes(weight)
        ctx.weight_step = float(clip) / WEIGHT_CODE_MAX
        ctx.act_step, ctx.stride, ctx.padding, ctx.update_bits = act_step, stride, padding, update_bits
        ctx.keep = keep
        unit = act_step * ctx.weight_step
        high, low = split_codes(narrowed(codes), update_bits)
        acc_high = convolve_codes(high, w_codes, stride, padding)
        acc_low = convolve_codes(low, w_codes, stride, padding)
        threshold = integer_threshold(delta, unit, update_bits).float()
        gate = gate_rows if runs_kernels(codes) else gate_tensors
        units = torch.full_like(threshold, unit)
        rule = GateRule(update_bits, SURROGATE_SLOPE, 2.0 if sparse else 1.0, sparse, keep)
        out, mask, moved = gate(acc_high, acc_low, threshold, delta.detach(), units, rule)
        ctx.save_for_backward(high, low, w_codes, mask, moved)
        ctx.mark_non_differentiable(mask)
        return out, mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _grad_mask: Any) -> Any:
        high, low, w_codes, mask, moved = ctx.saved_tensors
        backward = gate_backward_rows if runs_kernels(grad) else gate_backward_tensors
        masked, grad_delta = backward(grad, mask, moved)
        reaches_high = grad if ctx.keep else masked
        grad_x, grad_high = _backward_conv(ctx, reaches_high, high, w_codes, ctx.needs_input_grad[0], True)
        _, grad_low = _backward_conv(ctx, masked, low, w_codes, False, True)
        grad_w = grad_high.mul_(2.0**ctx.update_bits).add_(grad_low).mul_(ctx.act_step)
        if grad_x is not None:
            grad_x.mul_(ctx.weight_step)
        return grad_x, grad_w, grad_delta, *[None] * 6
