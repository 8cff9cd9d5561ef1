"""The post-processing unit as its host sees it: sizes, the numbers of sv/post_package.sv, and what a host write is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np


class Kind(IntEnum):
    """What a stage does: kind_t of sv/post_package.sv."""

    PASS = 0
    FIXED_POINT = 1
    ADD = 2
    CLAMP = 3
    SAVE = 4
    POOL = 5
    REQUANTISE = 6
    LOGITS = 7


class Select(IntEnum):
    """What a host write goes to: select_t of sv/post_package.sv."""

    DESCRIPTOR = 0
    FACTOR = 1
    BIAS = 2
    OFFSET = 3
    DIRECTION = 4
    TREE = 5
    AXIS_ROWS = 6
    AXIS_COLUMNS = 7
    SEGMENTS = 8
    SHORTCUTS = 9
    HIGH_PLANE = 10
    LOW_PLANE = 11
    LOGITS = 12


class Field(IntEnum):
    """The registers of a stage: field_t of sv/post_package.sv."""

    KIND = 0
    SHIFT = 1
    LOW = 2
    HIGH = 3
    SIGNED = 4
    IMAGE_STRIDE = 5
    ROW_STRIDE = 6
    COLUMN_STRIDE = 7
    DEPTH = 8
    SHARED = 9
    BASE = 10
    SIGN_MAGNITUDE = 11
    LOW_BITS = 12
    MAXIMUM = 13


EVERY_PORT = 65535
MAX_VALUE_BITS = 62  # a threshold takes one more and has to be an int64 of the host's

WRITE = np.dtype([("select", "u1"), ("stage", "u1"), ("port", "u2"), ("address", "u4"), ("data", "i8")])
"""One host write: the host port of sv/post_unit.sv, a cycle each."""


@dataclass(frozen=True)
class PostUnit:
    """The unit's sizes, each a parameter of sv/post_unit.sv of the same name in capitals.

    `stages` says which kinds of step each stage can do. The memories' sizes are words; `tiles` is the number of
    channels of a port, `pool_words` the windows of a bank, `pool_axis` the rows and columns of a map that is pooled,
    `pool_count` the bits that count a window's values, `tree_words` the thresholds of a level of the search.
    """

    columns: int
    stages: tuple[frozenset[Kind], ...]
    psum_bits: int = 24
    value_bits: int = 40
    factor_bits: int = 24
    bias_bits: int = 40
    images: int = 1
    segments: int = 1024
    map_bits: int = 8
    tiles: int = 64
    shortcut_bits: int = 16
    code_bits: int = 8
    levels: int = 8
    tree_words: int = 256
    pool_overlap: int = 2
    pool_words: int = 64
    pool_axis: int = 64
    pool_count: int = 10
    pool_queue: int = 64
    shortcut_words: int = 1024
    code_words: int = 1024
    logit_words: int = 64

    def __post_init__(self) -> None:
        if not self.psum_bits <= self.value_bits <= MAX_VALUE_BITS:
            raise ValueError(
                f"value_bits must be psum_bits = {self.psum_bits} .. {MAX_VALUE_BITS}, not {self.value_bits}"
            )
        if self.pool_count > 16:
            raise ValueError(f"pool_count must be at most 16, not {self.pool_count}")
        if not self.shortcut_bits < self.value_bits:
            raise ValueError(f"shortcut_bits must be below value_bits = {self.value_bits}, not {self.shortcut_bits}")

    @property
    def latency(self) -> int:
        """Cycles that the unit is busy after the one in which it takes a result: the longest way through it.

        A register before the stages, one a stage, the search's levels. Windows of pools that overlap may wait longer.
        """
        searches = [s + self.levels for s, kinds in enumerate(self.stages) if Kind.REQUANTISE in kinds]
        return 1 + max([len(self.stages), *searches])

    def parameters(self) -> dict[str, str]:
        """Return the unit's parameters as SystemVerilog writes them."""
        bits = sum(1 << (8 * stage + kind) for stage, kinds in enumerate(self.stages) for kind in kinds)
        count = len(self.stages)
        sizes = {f.name.upper(): str(getattr(self, f.name)) for f in fields(self) if f.name != "stages"}
        return sizes | {"STAGES": str(count), "UNITS": f"{8 * count}'h{bits:0{2 * count}x}"}
