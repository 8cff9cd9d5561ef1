"""PACT of a residual stream: the clipped values go on beside their codes (`pgsim.nn.codes` has PACT of codes alone)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PactQuantise(torch.autograd.Function):
    """Clip to [0, alpha] and quantise to unsigned codes (PACT, Choi et al. 2018, with a straight-through rounding).

    Forward takes `y` (float32, any shape), `alpha` (float32 scalar, > 0) and `levels` = 2**act_bits - 1; it returns
    `clipped` (float32, in [0, alpha]) and `codes` (float32 integers in [0, levels]). Backward takes the gradients of
    the two *real* values: the slot of `codes` carries the gradient of `codes * alpha / levels`, as the convolutions
    of `pgsim.nn.functional` return it. The gradient reaches `y` where 0 < y < alpha, and `alpha` where y >= alpha.
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
