"""Measure the function that a trace of the network computes: top-1, sparsity and average bits over a set of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pgsim.nn.functional import Policy
from pgsim.nn.integers import IntegerRun, LayerSums
from pgsim.nn.layers import CodedLayer, QuantConv2d
from pgsim.train.data import Images
from pgsim.train.evaluate import LayerSparsity, gating_info, sparsity_of
from pgsim.train.shufflenet.network import ShuffleNetV2, network_images

STEM = "first_conv.0"
BATCH = 100


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

    def counted(self, gated: bool) -> list[LayerSparsity]:
        """Return the counts of the gated layers, or of the dense ones."""
        return [
            LayerSparsity(path, self.outputs[path], self.updated[path], layer.reduction)
            for path, layer in self.layers.items()
            if (layer.gating is not None) == gated
        ]

    def sparsity(self) -> float:
        """Return the share of the gated layers' outputs that were not updated, 0 .. 1."""
        return sparsity_of(self.counted(True))

    def as_info(self) -> dict[str, Any]:
        """Return plain values for a trace's metadata, in percent and bits; nothing where no layer is gated."""
        gated = [layer.gating for layer in self.layers.values() if layer.gating is not None]
        if not gated:
            return {}
        act_bits = next(iter(self.layers.values())).act_bits
        anew = gated[0].policy is Policy.SEERNET
        return gating_info(self.counted(True), self.counted(False), act_bits, gated[0].pred_bits, anew)


@dataclass(frozen=True)
class ShuffleNetReport:
    """What was measured on a set: labels right, of the integer function and of torch's float32, and where they differ.

    Between recorded boundaries the integer function is the trace's; concatenations, shuffles and the mean are torch's.
    """

    images: int
    right: int
    float_right: int
    differing: tuple[int, ...]
    counts: GateCounts

    @property
    def top1(self) -> float:
        """Accuracy of the integer function in percent."""
        return 100.0 * self.right / self.images

    def as_info(self, whole_set: bool) -> dict[str, Any]:
        """Return plain values for a trace's metadata; `top1` stands for the full test set alone."""
        return {
            "top1" if whole_set else "top1_of_evaluated": round(self.top1, 4),
            **self.counts.as_info(),
            "evaluated_images": self.images,
            "float32_top1": round(100.0 * self.float_right / self.images, 4),
            "float32_label_differences": {"count": len(self.differing), "images": list(self.differing)},
        }


def measure_shufflenet(
    net: ShuffleNetV2, images: Images, report: Callable[[int], None] = lambda _: None
) -> ShuffleNetReport:
    """Run every image through the integer function and through torch's; `report` takes the number of images done."""
    counts = GateCounts()
    run = IntegerRun(net.eval(), counts)
    exact, floats = [], []
    for start in range(0, len(images), BATCH):
        part = images.take(slice(start, start + BATCH))
        x = network_images(part.pixels)
        exact.append(run(x).argmax(1).numpy())
        with torch.no_grad():
            floats.append(net(x).argmax(1).numpy())
        report(start + len(part))
    labels, float_labels = np.concatenate(exact), np.concatenate(floats)
    return ShuffleNetReport(
        len(images),
        int((labels == images.labels).sum()),
        int((float_labels == images.labels).sum()),
        tuple(np.flatnonzero(labels != float_labels).tolist()),
        counts,
    )
