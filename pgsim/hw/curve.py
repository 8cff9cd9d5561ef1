"""A price, and a published row of prices by size with what lies between and beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SEPARATOR = "; "


@dataclass(frozen=True)
class Price:
    """A figure with its unit and where it comes from.

    `assumed` is True where no published source gives the figure; `note` says what was assumed or how it was derived.
    """

    value: float
    unit: str
    source: str
    assumed: bool = False
    note: str = ""

    def times(self, factor: float, note: str = "", assumed: bool = False, unit: str = "") -> Price:
        """Return this price times `factor`; what is assumed stays so, `note` is added."""
        return replace(
            self,
            value=self.value * factor,
            unit=unit or self.unit,
            assumed=self.assumed or assumed,
            note=_join(self.note, note),
        )

    def plus(self, other: Price) -> Price:
        """Return the sum of two prices in one unit, with the sources, notes and doubts of both."""
        if self.unit != other.unit:
            raise ValueError(f"prices must be in one unit, not {self.unit} and {other.unit}")
        return Price(
            value=self.value + other.value,
            unit=self.unit,
            source=_join(self.source, other.source),
            assumed=self.assumed or other.assumed,
            note=_join(self.note, other.note),
        )


def _join(first: str, second: str) -> str:
    if not second or second in first:
        return first
    return f"{first}{SEPARATOR}{second}" if first else second


@dataclass(frozen=True)
class Curve:
    """Prices at sizes x1 < x2 < ..., in bits.

    Between two rows: a straight line of log price over log size (of price over size where a price is 0). Beyond the
    rows: the nearest row's price times (size / its size)^growth, marked assumed; growth 0 keeps it, 1 is per bit.
    """

    points: tuple[tuple[int, Price], ...]
    growth: float

    def at(self, size_bits: int) -> Price:
        """Return the price at `size_bits` > 0. Raises ValueError for another size."""
        if size_bits <= 0:
            raise ValueError(f"size must be above 0 bits, not {size_bits}")
        for (low, low_price), (high, high_price) in zip(self.points, self.points[1:], strict=False):
            if low <= size_bits <= high:
                return _between(size_bits, low, low_price, high, high_price)
        size, price = self.points[0] if size_bits <= self.points[0][0] else self.points[-1]
        if size == size_bits:
            return price
        how = f"from the figure at {size} bit" + (f", growing with size^{self.growth:g}" if self.growth else "")
        return price.times((size_bits / size) ** self.growth, how, assumed=True)


def _between(size: int, low: int, low_price: Price, high: int, high_price: Price) -> Price:
    if size == low:
        return low_price
    if size == high:
        return high_price
    if min(low_price.value, high_price.value) > 0:
        share = math.log(size / low) / math.log(high / low)
        value = low_price.value * (high_price.value / low_price.value) ** share
    else:
        value = low_price.value + (high_price.value - low_price.value) * (size - low) / (high - low)
    both = low_price.plus(high_price)
    return replace(both, value=value, note=_join(both.note, f"between the figures at {low} and {high} bit"))
