"""Trace the float trunk of ShuffleNet V2 0.5x on ImageNet images: quantised, thresholds calibrated, nothing learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgsim.nn import Gating, trace
from pgsim.nn.integers import IntegerRun
from pgsim.train.data import Images, read_images
from pgsim.train.shufflenet.calibrate import place_thresholds, start_clips
from pgsim.train.shufflenet.measure import GateCounts
from pgsim.train.shufflenet.network import ShuffleNetV2, network_images, quantised
from pgsim.train.shufflenet.weights import read_trunk
from pgsim.workload.trace import Trace

SAMPLE_FILE = "imagenet_sample_1.npz"
IMAGE_SIZE = 224
CALIBRATION_IMAGES = 8
MODEL = "shufflenetv2_x0.5_trunk"


def read_samples(folder: Path) -> Images:
    """Read the ImageNet sample images of a data folder."""
    return read_images(folder / SAMPLE_FILE, IMAGE_SIZE)


def calibrated_trunk(
    weights: Path, images: Images, act_bits: int, pred_bits: int, scope: str, sparsity: float
) -> tuple[ShuffleNetV2, float]:
    """Return the trunk with clips and thresholds from `images`, and the sparsity that they have on them, 0 .. 1."""
    float_trunk = ShuffleNetV2().eval()
    read_trunk(float_trunk, weights)
    net = quantised(float_trunk, act_bits, Gating(pred_bits), scope).eval()
    batches = [network_images(images.pixels[k : k + 1]) for k in range(len(images))]
    start_clips(net, batches)
    return net, place_thresholds(net, batches, sparsity)


def trunk_trace(net: ShuffleNetV2, images: Images, info: Mapping[str, Any]) -> Trace:
    """Return the trace of `images`; `info` is joined by the sparsity and average bits that they have."""
    x = network_images(images.pixels)
    counts = GateCounts()
    IntegerRun(net, counts)(x)
    recorded = trace(net, x, info=info)
    return replace(recorded, info={**recorded.info, **counts.as_info()})
