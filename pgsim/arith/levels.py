"""Requantisation's loop, compiled: how many of its row's thresholds each value reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LARGEST_TABLE = 2**20  # codes, 8 MiB: larger ones would wait for memory


@njit(cache=True, nogil=True)
def count_reached(v: Any, direction: Any, threshold: Any, base: int, codes: Any) -> None:
    """Write base + how many of its row's non-decreasing thresholds each direction * v reaches.

    v and codes int64 [N, rows, places], direction int64 [rows], threshold int64 [rows, levels].
    """
    # A row with values enough for the integers between them looks its codes up in a table of these.
    images, rows, places = v.shape
    levels = threshold.shape[1]
    for c in range(rows if v.size else 0):
        sign, line = direction[c], threshold[c]
        low = high = sign * v[0, c, 0]
        for n in range(images):
            for i in range(places):
                low, high = min(low, sign * v[n, c, i]), max(high, sign * v[n, c, i])
        if np.uint64(high) - np.uint64(low) < np.uint64(min(8 * images * places, LARGEST_TABLE)):
            table = np.empty(high - low + 1, np.int64)
            reached = 0
            for step in range(len(table)):
                while reached < levels and line[reached] <= low + step:
                    reached += 1
                table[step] = base + reached
            for n in range(images):
                for i in range(places):
                    codes[n, c, i] = table[np.uint64(sign * v[n, c, i] - low)]
        else:
            for n in range(images):
                for i in range(places):
                    codes[n, c, i] = base + np.searchsorted(line, sign * v[n, c, i], side="right")
