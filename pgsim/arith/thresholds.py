"""Turn a monotone code function into exact integer thresholds, by bisection on that very function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def bisect_thresholds(
    codes_of: Callable[[NDArray[np.float64]], NDArray[np.float64]], low: IntArray, high: IntArray, levels: int
) -> IntArray:
    """Return the least v in [low, high] whose code is at least j, for j = 1 .. levels, else high + 1.

    Args:
        codes_of: float64 integers [K, levels] to their codes, channel by channel; non-decreasing in v.
        low, high: int64 [K], the reachable range of each channel.

    Returns:
        int64 [K, levels], each row non-decreasing: code(v) == number of thresholds <= v over the whole range.
    """
    wanted = np.arange(1, levels + 1)
    below = np.repeat(low[:, None] - 1, levels, axis=1)  # invariant: code(below) < j, or below = low - 1
    reached = np.repeat(high[:, None] + 1, levels, axis=1)  # invariant: code(reached) >= j, or reached = high + 1
    while (reached - below > 1).any():
        middle = (below + reached) // 2
        enough = codes_of(middle.astype(np.float64)) >= wanted
        open_ = reached - below > 1
        reached = np.where(open_ & enough, middle, reached)
        below = np.where(open_ & ~enough, middle, below)
    return reached
