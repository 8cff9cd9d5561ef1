"""Runs of one trace held against a baseline: raw, at equal multiplier bits, at equal area.

At equal bits (area) means: as many copies side by side, fractions included, as have the baseline's multiplier bits
(area), buffers and off-chip channel with them, and all of them kept busy. n copies take 1/n of the time at n times the
leakage power, so the energy of an image stays what it is and has no normalised form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgsim.results.run import RunResult

GROUPS = {"network": None, "gated": True, "not_gated": False}
"""Which layers are compared -> LayerShape.gated; None takes all."""


@dataclass(frozen=True)
class Comparison:
    """One run over its baseline, for all layers, the gated ones or the others; every ratio is own / baseline's.

    But the speedup, which is the baseline's time / own time.
    """

    accelerator: str
    baseline: str
    layers: str  # network, gated or not_gated
    speedup: float
    multiplier_bits_ratio: float
    area_ratio: float
    energy_ratio: float

    @property
    def speedup_at_equal_multiplier_bits(self) -> float:
        """Speedup of as many copies as have the baseline's multiplier bits."""
        return self.speedup / self.multiplier_bits_ratio

    @property
    def speedup_at_equal_area(self) -> float:
        """Speedup of as many copies as have the baseline's area, buffers included."""
        return self.speedup / self.area_ratio


def compare(results: Iterable[RunResult], baseline: RunResult) -> list[Comparison]:
    """Return for each run its comparisons over all layers, the gated ones and the others, where there are any.

    Raises ValueError for a run of another trace than the baseline's.
    """
    found = []
    for result in results:
        if result.provenance.trace_sha256 != baseline.provenance.trace_sha256 or result.images != baseline.images:
            own, others = result.provenance, baseline.provenance
            raise ValueError(f"{own.accelerator} must have run the trace of {others.accelerator}, not another")
        for name, gated in GROUPS.items():
            ours, theirs = result.totals(gated), baseline.totals(gated)
            if theirs.layers:
                found.append(
                    Comparison(
                        accelerator=result.provenance.accelerator,
                        baseline=baseline.provenance.accelerator,
                        layers=name,
                        speedup=(theirs.cycles / baseline.clock_mhz) / (ours.cycles / result.clock_mhz),
                        multiplier_bits_ratio=result.multiplier_bits / baseline.multiplier_bits,
                        area_ratio=sum(result.area_um2.values()) / sum(baseline.area_um2.values()),
                        energy_ratio=ours.energy.total_pj / theirs.energy.total_pj,
                    )
                )
    return found
