"""Batch norm, residual add and PACT in one autograd function, on the kernels of `pgsim.train.kernels`.

The plain twin, used in evaluation and by the tests, is `pact(batch_norm(x) + shortcut)` with
`pgsim.train.quantise.PactQuantise`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pgsim.nn.rows import along_rows, by_channel, in_parts, new_like, rows
from pgsim.train import kernels


class NormPact(torch.autograd.Function):
    """Normalise x by its batch's moments, add the shortcut, clip to [0, alpha] and quantise.

    Forward takes `x` [N, C, H, W], `gamma`, `beta` [C], `alpha` (scalar), `shortcut` (as x, or None), `levels`,
    `running` (mean, variance; updated in place with `momentum`) and `eps`; it returns `clipped` and `codes`. The
    variance is E[x^2] - E[x]^2 of sums in float32 and float64: 1e-4 of it is lost where |mean| is 100 deviations
    (trained networks have 4 at most), 1 % at 1000.
    The backward convention is that of `PactQuantise`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        alpha: Tensor,
        shortcut: Tensor | None,
        levels: int,
        running: tuple[Tensor, Tensor],
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        data = rows(x)
        total, square = (by_channel(sums, x) for sums in zip(*in_parts(kernels.column_moments, data), strict=True))
        count = x.numel() // x.shape[1]
        mean = total / count
        variance = np.maximum(square / count - mean * mean, 0.0)
        inverse = 1.0 / np.sqrt(variance + eps)
        scale = gamma.detach().numpy() * inverse
        shift = beta.detach().numpy() - scale * mean
        clipped, codes, state = new_like(x), new_like(x), new_like(x, torch.uint8)
        in_parts(
            kernels.affine_clip,
            data,
            data if shortcut is None else rows(shortcut),
            shortcut is not None,
            along_rows(scale, x),
            along_rows(shift, x),
            float(alpha),
            levels,
            rows(clipped),
            rows(codes),
            rows(state),
        )
        running[0].lerp_(torch.from_numpy(mean.astype(np.float32)), momentum)
        unbiased = variance * (count / max(1, count - 1))
        running[1].lerp_(torch.from_numpy(unbiased.astype(np.float32)), momentum)
        ctx.save_for_backward(x, gamma, state)
        ctx.mean, ctx.inverse, ctx.has_shortcut = mean, inverse, shortcut is not None
        ctx.set_materialize_grads(False)
        return clipped, codes

    @staticmethod
    def backward(ctx: Any, grad_clipped: Tensor | None, grad_real: Tensor | None) -> Any:
        x, gamma, state = ctx.saved_tensors
        first = grad_real if grad_real is not None else grad_clipped
        if first is None:
            return (None,) * 9
        more = grad_clipped if grad_real is not None else None
        data, dy = rows(x), new_like(x)
        grad = rows(first)
        more_rows = grad if more is None else rows(more)
        found = in_parts(kernels.clip_backward, grad, more_rows, more is not None, rows(state), data, rows(dy))
        *sums, above = zip(*found, strict=True)
        total, product = (by_channel(each, x) for each in sums)
        count = x.numel() // x.shape[1]
        mean, inverse = ctx.mean, ctx.inverse
        grad_gamma = (product - total * mean) * inverse
        scale = gamma.detach().numpy().astype(np.float64) * inverse
        on_x = -scale * inverse * grad_gamma / count
        constant = -scale * total / count - on_x * mean
        grad_x = new_like(x)
        a, b, c = (along_rows(v, x) for v in (scale, on_x, constant))
        in_parts(kernels.affine_backward, rows(dy), data, a, b, c, rows(grad_x))
        return (
            grad_x,
            torch.from_numpy(grad_gamma.astype(np.float32)),
            torch.from_numpy(total.astype(np.float32)),
            torch.tensor(sum(above), dtype=torch.float32),
            dy if ctx.has_shortcut else None,
            None,
            None,
            None,
            None,
        )


def norm_pact(
    x: Tensor, norm: nn.BatchNorm2d, alpha: Tensor, shortcut: Tensor | None, levels: int
) -> tuple[Tensor, Tensor]:
    """Apply `norm` in training mode, add `shortcut`, clip and quantise; update the running statistics."""
    batches = cast(Tensor, norm.num_batches_tracked)
    batches.add_(1)
    momentum = 1.0 / float(batches) if norm.momentum is None else norm.momentum
    running = (cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var))
    return cast(
        tuple[Tensor, Tensor],
        NormPact.apply(x, norm.weight, norm.bias, alpha, shortcut, levels, running, momentum, norm.eps),
    )
