"""Measure the release's network as the release does: float32, in batches of 128 images, each with its own scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgsim.train.data import Images
from pgsim.train.evaluate import LayerSparsity, sparsity_of
from pgsim.train.release.forward import Widths, release_images, run_float
from pgsim.train.release.state import ReleaseNet

BATCH = 128


@dataclass(frozen=True)
class FloatReport:
    """Images of the set, labels that the float network gets right, and each gated layer's counts."""

    images: int
    right: int
    layers: tuple[LayerSparsity, ...]

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100.0 * self.right / self.images

    @property
    def sparsity(self) -> float:
        """Share of the gated layers' outputs with mask 0."""
        return sparsity_of(self.layers)

    def as_info(self, whole_set: bool) -> dict[str, Any]:
        """Return plain values for a trace's metadata, in percent; `top1` stands for the full test set alone."""
        return {
            "top1" if whole_set else "top1_of_evaluated": round(self.top1, 4),
            "sparsity_percent": round(100 * self.sparsity, 3),
            "mac_sparsity_percent": round(100 * sparsity_of(self.layers, by_macs=True), 3),
            "layer_sparsity_percent": {x.name: round(100 * x.sparsity, 3) for x in self.layers},
            "evaluated_images": self.images,
        }


def measure_release(
    net: ReleaseNet, widths: Widths, images: Images, report: Callable[[int], None] = lambda _: None
) -> FloatReport:
    """Run every image through the float network; `report` takes the number of images done."""
    right = 0
    updated, outputs = np.zeros(len(net.blocks), np.int64), np.zeros(len(net.blocks), np.int64)
    for start in range(0, len(images), BATCH):
        part = images.take(slice(start, start + BATCH))
        run = run_float(net, release_images(part.pixels), widths)
        right += int((run.logits.argmax(dim=1).numpy() == part.labels).sum())
        masks = [conv.mask for conv in run.convs if conv.mask is not None]
        updated += [int(mask.sum()) for mask in masks]
        outputs += [mask.numel() for mask in masks]
        report(start + len(part))
    layers = (
        LayerSparsity(f"{block.name}.conv1", int(n), int(u), block.weight1[0].numel())
        for block, n, u in zip(net.blocks, outputs, updated, strict=True)
    )
    return FloatReport(len(images), right, tuple(layers))
