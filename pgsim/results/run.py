"""A whole run: the layers' results, what they came from, and the totals that a network's figures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

from pgsim.results.layer import NO_ENERGY, Energy, LayerResult


@dataclass(frozen=True)
class Provenance:
    """What a row traces back to: the same three hashes and version give the same integers."""

    version: str
    trace: str  # model and data set, for people
    trace_sha256: str
    accelerator: str
    accelerator_sha256: str
    energy_table: str
    energy_table_sha256: str


@dataclass(frozen=True)
class Check:
    """One comparison of the run's audit of itself: two integers (or energies, pJ) that must be equal.

    `name` is the rule in words; `layer` says where it was applied ("" for the whole run).
    """

    name: str
    expected: float
    found: float
    layer: str = ""

    @property
    def holds(self) -> bool:
        """Integers exactly; energies to 1 part in 10^9 (they are sums of floats in another order)."""
        if isinstance(self.expected, int) and isinstance(self.found, int):
            return self.expected == self.found
        return abs(self.expected - self.found) <= 1e-9 * max(abs(self.expected), abs(self.found))


@dataclass(frozen=True)
class Totals:
    """Sums over some of the layers."""

    layers: int
    macs_issued: int
    macs_updated: int
    macs_gated: int  # issued MACs of outputs that went through a gate of the accelerator
    outputs: int
    outputs_gated: int  # outputs that went through a gate of the accelerator
    outputs_updated: int
    cycles: int
    energy: Energy


@dataclass(frozen=True)
class RunResult:
    """All layers of one trace on one accelerator."""

    provenance: Provenance
    organisation: str
    images: int
    clock_mhz: float
    multiplier_bits: int  # sum over lanes of activation bits x weight bits
    area_um2: dict[str, float]  # by component
    layers: tuple[LayerResult, ...]
    audit: tuple[Check, ...]
    assumed: tuple[str, ...]
    beside: tuple[RunResult, ...] = ()  # the same counts at the prices of other energy tables

    def totals(self, gated: bool | None = None) -> Totals:
        """Add up all layers, or only those that are (not) gated."""
        chosen = [layer for layer in self.layers if gated is None or layer.shape.gated is gated]
        of_gated = [layer.counts for layer in chosen if layer.shape.gate_applied]
        return Totals(
            layers=len(chosen),
            macs_issued=sum(layer.counts.macs_issued for layer in chosen),
            macs_updated=sum(layer.counts.macs_updated for layer in chosen),
            macs_gated=sum(counts.macs_issued for counts in of_gated),
            outputs=sum(layer.counts.outputs for layer in chosen),
            outputs_gated=sum(counts.outputs for counts in of_gated),
            outputs_updated=sum(counts.outputs_updated for counts in of_gated),
            cycles=sum(layer.counts.cycles for layer in chosen),
            energy=reduce(add, (layer.energy for layer in chosen), NO_ENERGY),
        )

    @property
    def seconds(self) -> float:
        """Time of the whole run at the accelerator's clock."""
        return self.totals().cycles / (self.clock_mhz * 1e6)

    @property
    def images_per_second(self) -> float:
        """Throughput; images follow one another."""
        return self.images / self.seconds

    @property
    def average_power_mw(self) -> float:
        """Energy over time."""
        return self.totals().energy.total_pj * 1e-9 / self.seconds

    @property
    def peak_layer_power_mw(self) -> float:
        """Average power of the layer where it is highest; within a layer, cycles are not told apart."""
        spent = [(layer.energy.total_pj, layer.counts.cycles) for layer in self.layers if layer.counts.cycles]
        return max((energy / cycles for energy, cycles in spent), default=0.0) * self.clock_mhz * 1e-3

    @property
    def energy_delay_pj_s(self) -> float:
        """Energy-delay product of one image: pJ an image times seconds an image."""
        return self.totals().energy.total_pj / self.images * self.seconds / self.images
