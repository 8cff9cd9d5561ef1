"""Thresholds that give the codes a float network gave, as near as they can be to those of exact arithmetic.

A float32 sum is off by its rounding, so an activation that lies within that of a code's edge may get the code on
either side. Exact arithmetic puts the edge in one place; where the batch's codes say that it lay elsewhere, the
threshold moves there, by no more than float32 rounding explains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INT64 = np.iinfo(np.int64)


def fit_thresholds(
    nominal: NDArray[np.int64], values: NDArray[np.int64], codes: NDArray[np.int64], reach: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Move thresholds so that values get the codes they are said to have.

    Args:
        nominal: int64 [K, levels], each row non-decreasing; code j means that threshold j - 1 is reached, j not.
        values, codes: int64 [K, n], what each channel saw and the codes, 0 .. levels, that it should get.
        reach: int64 [K], how far a channel's thresholds may move.

    Returns:
        int64 [K, levels], each row non-decreasing. A threshold moves as little as it must, and stays where no place
        within reach does: the caller compares.
    """
    fitted = nominal.copy()
    for level in range(1, nominal.shape[1] + 1):
        column = nominal[:, level - 1]
        least = np.where(codes < level, values, INT64.min).max(axis=1, initial=INT64.min)
        most = np.where(codes >= level, values, INT64.max).min(axis=1, initial=INT64.max)
        least += least > INT64.min  # above every value of a smaller code
        moved = np.clip(column, least, np.maximum(least, most))
        fits = (least <= most) & (moved - column <= reach) & (column - moved <= reach)
        fitted[:, level - 1] = np.where(fits, moved, column)
    return np.maximum.accumulate(fitted, axis=1)
