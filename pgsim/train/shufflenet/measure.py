"""Count what the gates of a traced function did: sparsity and average bits, by outputs and by MACs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from pgsim.nn.integers import LayerSums
from pgsim.nn.layers import CodedLayer, QuantConv2d
from pgsim.train.evaluate import LayerSparsity, sparsity_of

STEM = "first_conv.0"


@dataclass
class GateCounts:
    """Outputs and updates of every convolution but the stem, in the integer network; called as layers run."""

    layers: dict[str, CodedLayer] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)

    def __call__(self, path: str, sums: LayerSums) -> None:
        if path == STEM or not isinstance(sums.layer, QuantConv2d):
            return
        count = sums.output.numel()
        self.layers[path] = sums.layer
        self.outputs[path] = self.outputs.get(path, 0) + count
        updated = count if sums.mask is None else int(torch.count_nonzero(sums.mask))
        self.updated[path] = self.updated.get(path, 0) + updated

    def counted(self, gated_only: bool) -> list[LayerSparsity]:
        """Return the counts of the gated layers, or of all."""
        return [
            LayerSparsity(path, self.outputs[path], self.updated[path], layer.reduction)
            for path, layer in self.layers.items()
            if layer.gating is not None or not gated_only
        ]

    def sparsity(self, *, by_macs: bool = False) -> float:
        """Return the share of the gated layers' outputs that were not updated, 0 .. 1."""
        return sparsity_of(self.counted(True), by_macs)

    def as_info(self) -> dict[str, Any]:
        """Return plain values for a trace's metadata, in percent and bits; nothing where no layer is gated."""
        gated = [layer.gating for layer in self.layers.values() if layer.gating is not None]
        if not gated:
            return {}
        act_bits, pred_bits = next(iter(self.layers.values())).act_bits, gated[0].pred_bits
        return {
            "sparsity_percent": round(100 * self.sparsity(), 3),
            "mac_sparsity_percent": round(100 * self.sparsity(by_macs=True), 3),
            "layer_sparsity_percent": {x.name: round(100 * x.sparsity, 3) for x in self.counted(True)},
            "b_avg_bits": {
                f"{'gated' if only else 'all'}_by_{'macs' if macs else 'outputs'}": round(
                    pred_bits + (1.0 - sparsity_of(self.counted(only), macs)) * (act_bits - pred_bits), 4
                )
                for only in (True, False)
                for macs in (False, True)
            },
        }
