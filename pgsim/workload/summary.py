"""How sparse a traced network is, by layer and over all, in both weightings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pgsim.workload.layer import Layer
from pgsim.workload.trace import Trace


@dataclass(frozen=True)
class LayerSparsity:
    """Outputs of one layer over all images, and how many of them were updated (all, where there is no gate)."""

    layer: Layer
    outputs: int
    updated: int

    @property
    def sparsity(self) -> Fraction | None:
        """Sp: the share of outputs whose mask is 0; None for a layer that is not gated."""
        return 1 - Fraction(self.updated, self.outputs) if self.layer.gate else None


def layer_sparsity(trace: Trace) -> tuple[LayerSparsity, ...]:
    """Count the updated outputs of every layer. Reads each gated layer's tensors once; InputError as they do."""
    counts = []
    for index, layer in enumerate(trace.layers):
        outputs = trace.images * layer.geometry.outputs
        mask = trace.tensors(index).mask if layer.gate else None
        counts.append(LayerSparsity(layer, outputs, outputs if mask is None else int(np.count_nonzero(mask))))
    return tuple(counts)


@dataclass(frozen=True)
class GatedAverages:
    """Means over the gated layers of a network, exact: by output feature (as the paper prints) and by MAC (as hardware
    pays). B_avg = h + (1 - Sp) * (B - h), equation 8 of the paper, averaged over layers by the same weights.
    """

    sparsity_by_output: Fraction
    sparsity_by_mac: Fraction
    bits_by_output: Fraction
    bits_by_mac: Fraction


def gated_averages(counts: Sequence[LayerSparsity]) -> GatedAverages | None:
    """Return the means over the gated layers of `counts`; None where no layer is gated."""
    gated = [count for count in counts if count.layer.gate]
    if not gated:
        return None
    by_output = [count.outputs for count in gated]
    by_mac = [count.outputs * count.layer.geometry.reduction for count in gated]
    share = [Fraction(count.updated, count.outputs) for count in gated]
    bits = [c.layer.pred_bits + s * c.layer.update_bits for c, s in zip(gated, share, strict=True)]
    return GatedAverages(
        1 - _mean(share, by_output), 1 - _mean(share, by_mac), _mean(bits, by_output), _mean(bits, by_mac)
    )


def _mean(values: Sequence[Fraction], weights: Sequence[int]) -> Fraction:
    return sum((v * w for v, w in zip(values, weights, strict=True)), Fraction(0)) / sum(weights)
