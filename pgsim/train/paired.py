"""Two networks judged on the same images: who is right where, and whether that may be chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Paired:
    """Counts over the same images.

    Attributes:
        images: all of them.
        right, other_right: labels that the first and the second network get right.
        only_first, only_second: images that one of them alone gets right (McNemar's b and c).
        changed: images whose label differs, right or wrong.
    """

    images: int
    right: int
    other_right: int
    only_first: int
    only_second: int
    changed: int

    @property
    def difference_points(self) -> float:
        """Accuracy of the second less that of the first, in percentage points."""
        return 100.0 * (self.only_second - self.only_first) / self.images

    @property
    def p_value(self) -> float:
        """Two-sided exact McNemar test: how often chance alone makes b and c at least so unequal. 1 for b = c."""
        fewer, n = min(self.only_first, self.only_second), self.only_first + self.only_second
        ways, tail = 1, 1  # n choose i, and the sum of these up to i
        for i in range(fewer):
            ways = ways * (n - i) // (i + 1)
            tail += ways
        return min(1.0, 2 * tail / 2**n)

    @property
    def interval_points(self) -> tuple[float, float]:
        """95 % interval of `difference_points`: normal approximation for paired proportions."""
        b, c, n = self.only_first, self.only_second, self.images
        half = 100.0 * NORMAL_95 * sqrt(b + c - (b - c) ** 2 / n) / n
        return self.difference_points - half, self.difference_points + half
