"""Batch norm, residual add and PACT in one autograd function, on the kernels of `pgsim.train.kernels`.

The plain twin, used in evaluation and by the tests, is `pact(batch_norm(x) + shortcut)` with
`pgsim.train.quantise.PactQuantise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.train import kernels

WIDTH = 1024
"""Values in a row of the matrices that kernels walk: rows as short as 16 channels leave vectors and time unused."""
PART = 2 * kernels.BLOCK
"""Rows that a kernel walks in one go: the same for any number of threads, so that a run's bits are, too."""


def runs_kernels(x: Tensor) -> bool:
    """Tell whether the kernels of `pgsim.train.kernels` take x: on a CPU. Elsewhere torch's own operations do."""
    return x.device.type == "cpu"


def pixels_a_row(x: Tensor) -> int:
    """Return how many pixels of [N, C, H, W] a row of `rows` holds: a power of two that divides N*H*W, C times which
    is at most WIDTH, or 1."""
    channels = x.shape[1]
    most = 1 << max(0, (WIDTH // channels).bit_length() - 1)
    return math.gcd(x.numel() // channels, most)


def rows(x: Tensor) -> NDArray[Any]:
    """View a channels-last tensor [N, C, H, W] as a contiguous matrix [N*H*W/k, k*C], k = `pixels_a_row`; copies only
    if it is not."""
    view = x.detach().permute(0, 2, 3, 1)
    if not view.is_contiguous():
        view = view.contiguous()
    return view.reshape(-1, pixels_a_row(x) * x.shape[1]).numpy()


def along_rows(values: NDArray[Any], x: Tensor) -> NDArray[np.float32]:
    """Repeat one value a channel [C] for each pixel of a row of `rows(x)`: float32 [k*C]."""
    return np.tile(values.astype(np.float32), pixels_a_row(x))


def by_channel(sums: Sequence[NDArray[np.float64]], x: Tensor) -> NDArray[np.float64]:
    """Add sums over the columns of `rows(x)` [k*C], of each of its parts, by channel: float64 [C]."""
    return np.sum(sums, 0).reshape(-1, x.shape[1]).sum(0)


def in_parts(kernel: Callable[..., Any], *args: Any) -> list[Any]:
    """Call a kernel on PART rows of every matrix among its arguments after the other, on as many threads as torch has.

    Returns what the calls return, in the order of the rows. The matrices have equally many rows.
    """
    firsts = range(0, next(len(a) for a in args if _is_matrix(a)), PART)

    def some(firsts: range) -> list[Any]:
        return [kernel(*(a[first : first + PART] if _is_matrix(a) else a for a in args)) for first in firsts]

    threads = torch.get_num_threads()
    share = -(-len(firsts) // threads)
    if share == len(firsts):
        return some(firsts)
    shares = [firsts[k : k + share] for k in range(0, len(firsts), share)]
    others = [_pool(threads).submit(some, each) for each in shares[1:]]
    return sum((other.result() for other in others), some(shares[0]))


def _is_matrix(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 2


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "pgsim kernel")


def new_like(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialised channels-last tensor of x's shape."""
    return torch.empty(x.shape, dtype=dtype, memory_format=torch.channels_last)


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
