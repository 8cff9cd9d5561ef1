"""Walk tensors as matrices of rows, on as many threads as torch has, for kernels that are compiled by numba."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.nn.kernels import BLOCK

WIDTH = 1024
"""Values in a row of the matrices that kernels walk: rows as short as 16 channels leave vectors and time unused."""
PART = 2 * BLOCK
"""Rows that a kernel walks in one go: the same for any number of threads, so that a run's bits are, too."""


LEAST, NARROWEST = 2**15, 64
"""Values of the smallest tensor, and of the narrowest row, that element-wise kernels are faster on than torch."""


def runs_kernels(x: Tensor) -> bool:
    """Tell whether kernels take x: a plain tensor on a CPU. Torch's own operations take the others."""
    return x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter)


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


def dense_rows(x: Tensor, like: Tensor | None = None) -> NDArray[np.float32] | None:
    """View x, of any shape, as a contiguous matrix of its values as they lie in memory, or as those of `like` lie.

    None where kernels do not take it: not float32 on a CPU, or too small to be worth it; or with gaps or in another
    order than torch's two.
    """
    order = x if like is None else like
    width = math.gcd(x.numel(), WIDTH)
    if not runs_kernels(x) or x.dtype != torch.float32 or x.numel() < LEAST or width < NARROWEST:
        return None
    x = x.detach()
    if order.is_contiguous():
        flat = x.contiguous()
    elif order.dim() == 4 and order.is_contiguous(memory_format=torch.channels_last):
        flat = x.permute(0, 2, 3, 1).contiguous()
    else:
        return None
    return cast(NDArray[np.float32], flat.view(-1, width).numpy())


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
    others = [_pool(threads, os.getpid()).submit(some, each) for each in shares[1:]]
    return sum((other.result() for other in others), some(shares[0]))


def _is_matrix(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 2


@lru_cache(maxsize=1)
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """Return this process's threads: those of the process that forked it are not there."""
    return ThreadPoolExecutor(threads, "pgsim kernel")


def new_like(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialised channels-last tensor of x's shape."""
    return torch.empty(x.shape, dtype=dtype, memory_format=torch.channels_last)
