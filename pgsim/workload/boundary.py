"""A tensor that enters a traced network from outside: recorded, because no layer of the trace computes it.

boundary [N, C, H, W] --+--> shortcut of any layer
                        +--requantise--> codes of any layer
"""

from __future__ import annotations

from dataclasses import dataclass

from pgsim.workload.layer import Requantise


@dataclass(frozen=True)
class Boundary:
    """One recorded fixed-point tensor, [channels, height, width] an image: everything but its values.

    A float stem's output, a concatenation, a channel shuffle. The values fit in `bits` (1 .. 63), two's complement
    where `signed`; a Trace hands them out on demand. Layers add it as a shortcut by its `name`, and read the codes of
    `requantise`, where it has one, by that step's name. A matmul of M rows takes C channels of M x 1.
    """

    name: str
    channels: int
    height: int
    width: int
    bits: int
    signed: bool = False
    requantise: Requantise | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.height, self.width)
