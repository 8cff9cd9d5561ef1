"""Quantise weights and activations, with the gradients training needs.

Codes are integers held in float32 tensors, so that a convolution over them runs through BLAS and stays exact while
every partial sum is below 2**24. Rounding is to nearest, ties to even, throughout (the project's quantisers).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgsim.nn.codes import SMALL

WEIGHT_CODE_MAX = 127
"""Largest weight code: int8, symmetric, so -128 never occurs."""


def weight_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight tensor to int8 codes with one scale for the whole tensor.

    Args:
        weight: float32, any shape.

    Returns:
        `codes`, float32 tensor of integers in [-127, 127], and `clip`, the float32 scalar max|weight| (1 for an
        all-zero tensor). The real weight of a code is `code * clip / 127`.
    """
    weight = weight.detach()
    clip = weight.abs().max()
    clip = torch.where(clip > 0, clip, torch.ones_like(clip))
    lift = torch.where(clip < SMALL, 1.0 / SMALL, 1.0)
    codes = torch.round(weight * lift * (WEIGHT_CODE_MAX / (clip * lift)))
    return codes.clamp_(-WEIGHT_CODE_MAX, WEIGHT_CODE_MAX), clip


def split_codes(codes: Tensor, update_bits: int) -> tuple[Tensor, Tensor]:
    """Split unsigned codes into their high and low plane: `codes == high * 2**update_bits + low` (equation 1).

    Args:
        codes: integers in [0, 2**act_bits - 1], of dtype float32 or uint8.
        update_bits: bits of the low plane, 1 or more.

    Returns:
        `high` and `low`, non-negative integers of the same dtype.
    """
    if codes.dtype == torch.uint8:
        return codes >> update_bits, codes & (2**update_bits - 1)
    high = torch.mul(codes, 2.0**-update_bits).floor_()
    return high, torch.sub(codes, high, alpha=2.0**update_bits)


class PactQuantise(torch.autograd.Function):
    """Clip to [0, alpha] and quantise to unsigned codes (PACT, Choi et al. 2018, with a straight-through rounding).

    Forward takes `y` (float32, any shape), `alpha` (float32 scalar, > 0) and `levels` = 2**act_bits - 1; it returns
    `clipped` (float32, in [0, alpha]) and `codes` (float32 integers in [0, levels]). Backward takes the gradients of
    the two *real* values: the slot of `codes` carries the gradient of `codes * alpha / levels`, as the convolutions
    of `pgsim.train.gating` return it. The gradient reaches `y` where 0 < y < alpha, and `alpha` where y >= alpha.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, alpha: Tensor, levels: int) -> tuple[Tensor, Tensor]:
        bound = float(alpha)
        clipped = torch.clamp(y, 0.0, bound)
        codes = torch.mul(clipped, levels / bound).round_()
        ctx.save_for_backward(y)
        ctx.bound = bound
        ctx.set_materialize_grads(False)
        return clipped, codes

    @staticmethod
    def backward(ctx: Any, grad_clipped: Tensor | None, grad_real: Tensor | None) -> Any:
        (y,) = ctx.saved_tensors
        if grad_clipped is None or grad_real is None:
            grad = grad_real if grad_clipped is None else grad_clipped
        else:
            grad = grad_clipped + grad_real
        if grad is None:
            return None, None, None
        grad_y = torch.ops.aten.hardtanh_backward(grad, y, 0.0, ctx.bound)
        grad_alpha = (grad * (y >= ctx.bound)).sum()
        return grad_y, grad_alpha, None
