"""What one layer did on one accelerator: integers that add over batches of images, and their energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from pgsim.results.actions import Actions


@dataclass(frozen=True)
class LayerShape:
    """What a layer is, in the words of the table. Never differs between two results that are added."""

    index: int
    name: str
    kind: str  # conv, depthwise conv, grouped conv, linear, matmul
    shape: str  # "16x32x32 -> 32x16x16, 3x3/2"
    gated: bool  # by the trace
    gate_applied: bool  # by the accelerator too; False on one that has no gate
    act_bits: int  # B
    pred_bits: int  # h; B where not gated
    weight_bits: int
    passes: str  # cycles of a reduction step: "1 + 1" (predict + update)
    tiling: str  # "1 band of 32 rows, 4 channel tiles of 16, 512 pixel tiles of 8"
    placement: str  # where input, shortcut and output are: "input on chip, output off chip"
    lanes: int  # multiplier lanes of the PE array
    update_lanes: int  # of the LSB array or LSB parts; 0 where there are none
    groups: int  # of the LSB array; 0 where there is none


@dataclass(frozen=True)
class LayerCounts:
    """Integers of one layer; adding two (of two batches) gives those of both. All over `images` images.

    macs_issued: every MAC of the layer, padding taps included; macs_useful: without padding; macs_updated: of the
    update phase, updated outputs x reduction. array_causes: cycles of the PE array by cause (ArrayCause names, lower
    case), summing to `cycles`. group_causes: group-cycles of the LSB array, summing to groups * cycles.
    outputs_checked: outputs compared with the recorded ones; outputs_differing: of these, how many this accelerator's
    own arithmetic leaves different (0 unless its gate is not the trace's).
    """

    images: int
    outputs: int
    outputs_updated: int
    macs_issued: int
    macs_useful: int
    macs_updated: int
    lane_cycles_busy: int  # PE array lanes that worked on an operand
    update_lane_cycles_busy: int
    cycles: int
    array_causes: Mapping[str, int]
    group_causes: Mapping[str, int]
    queue_histogram: tuple[int, ...]  # FIFO-cycles at each occupancy
    channel_read_cycles: int
    channel_write_cycles: int
    outputs_checked: int
    outputs_differing: int
    actions: Actions

    def __add__(self, other: LayerCounts) -> LayerCounts:
        return LayerCounts(**{f.name: _add(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})

    @property
    def queue_peak(self) -> int:
        """Largest occupancy that any FIFO reached."""
        return max((level for level, count in enumerate(self.queue_histogram) if count), default=0)


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    if isinstance(one, tuple) and isinstance(other, tuple):
        return tuple(a + b for a, b in zip(one, other, strict=True))
    return one + other


@dataclass(frozen=True)
class Energy:
    """Energy of a layer, pJ, by component; `assumed` names the components with a price that no source states."""

    dynamic_pj: Mapping[str, float]
    leakage_pj: Mapping[str, float]
    assumed: frozenset[str] = frozenset()

    @property
    def total_pj(self) -> float:
        """All components, dynamic and leakage."""
        return sum(self.dynamic_pj.values()) + sum(self.leakage_pj.values())

    def __add__(self, other: Energy) -> Energy:
        return Energy(
            _add(self.dynamic_pj, other.dynamic_pj),
            _add(self.leakage_pj, other.leakage_pj),
            self.assumed | other.assumed,
        )


NO_ENERGY = Energy(MappingProxyType({}), MappingProxyType({}))


@dataclass(frozen=True)
class LayerResult:
    """One row of the table."""

    shape: LayerShape
    counts: LayerCounts
    energy: Energy

    @property
    def sparsity_outputs(self) -> float | None:
        """Sp: share of outputs that are not updated (what the paper prints); None where no gate is applied."""
        if not self.shape.gate_applied:
            return None
        return 1 - self.counts.outputs_updated / self.counts.outputs

    @property
    def b_avg(self) -> float:
        """Mean activation bits: h + (1 - Sp) * (B - h) (equation 8); B where no gate is applied."""
        if not self.shape.gate_applied:
            return float(self.shape.act_bits)
        updated = self.counts.outputs_updated / self.counts.outputs
        return self.shape.pred_bits + updated * (self.shape.act_bits - self.shape.pred_bits)

    @property
    def utilisation(self) -> float:
        """Share of the PE array's lane-cycles that worked on an operand."""
        return self.counts.lane_cycles_busy / max(1, self.shape.lanes * self.counts.cycles)

    @property
    def update_utilisation(self) -> float | None:
        """Share of the LSB lanes' cycles that worked on an operand; None where there are no such lanes."""
        if not self.shape.update_lanes:
            return None
        return self.counts.update_lane_cycles_busy / max(1, self.shape.update_lanes * self.counts.cycles)
