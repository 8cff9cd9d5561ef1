"""The first integer in which two computations of the same thing differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mismatch:
    """One recorded integer that an engine computes otherwise.

    `what` is "output", "mask", "codes" (a layer's input, computed by the post steps or the boundary before it),
    "threshold" (against delta) or "prediction" (against info.predictions). `index` is (n, k, p, q) for output and mask,
    (n, c, h, w) for codes, (k,) for threshold, (n,) for prediction. The partial sums A_h and A_l and the threshold are
    those of that output where the layer is gated, None elsewhere; for a layer that is not gated `a_h` is the whole sum.
    """

    engine: str
    layer: str
    what: str
    index: tuple[int, ...]
    recorded: int
    computed: int
    a_h: int | None = None
    a_l: int | None = None
    threshold: int | None = None

    def __str__(self) -> str:
        """Return one line: layer, index, both values, partial sums and threshold."""
        position = ",".join(str(i) for i in self.index)
        line = (
            f"{self.layer}: {self.what}[{position}] is {self.recorded} in the trace, {self.computed} by {self.engine}"
        )
        sums = [("A_h", self.a_h), ("A_l", self.a_l), ("T", self.threshold)]
        shown = ", ".join(f"{name} = {value}" for name, value in sums if value is not None)
        return f"{line} ({shown})" if shown else line
