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
    channels, levels = nominal.shape
    largest = np.full((channels, levels + 1), INT64.min)
    smallest = np.full((channels, levels + 1), INT64.max)
    place = (np.arange(channels)[:, None], codes)
    np.maximum.at(largest, place, values)
    np.minimum.at(smallest, place, values)
    least = np.maximum.accumulate(largest, axis=1)[:, :-1]  # of a smaller code than the level's
    most = np.minimum.accumulate(smallest[:, ::-1], axis=1)[:, ::-1][:, 1:]
    least += least > INT64.min  # above every value of a smaller code
    moved = np.clip(nominal, least, np.maximum(least, most))
    fits = (least <= most) & (moved - nominal <= reach[:, None]) & (nominal - moved <= reach[:, None])
    fitted: NDArray[np.int64] = np.maximum.accumulate(np.where(fits, moved, nominal), axis=1)
    return fitted
