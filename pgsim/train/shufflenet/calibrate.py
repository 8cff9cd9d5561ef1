"""What a quantised ShuffleNet starts from: clips, and thresholds at a sparsity of the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pgsim.nn import calibrate, reset_counts, sparsity
from pgsim.nn.calibrate import looking
from pgsim.train.shufflenet.network import ShuffleNetV2

SHARE_STEPS = 6


def start_clips(
    net: ShuffleNetV2,
    batches: Sequence[Tensor],
    static: Literal["least_squares", "max"] = "least_squares",
    *,
    learned: bool = True,
) -> None:
    """Set every clip from images [N, 3, H, W], BGR in [0, 1]; the image's own stays 1.

    Fixed clips become, by `static`, those of least squared error or the largest value; learned ones stay without
    `learned`.
    """
    calibrate(net, batches, pact=learned, static=static)


def place_thresholds(net: ShuffleNetV2, batches: Sequence[Tensor], target: float, steps: int = SHARE_STEPS) -> float:
    """Set the thresholds so that about `target` (0 .. 1) of all gated outputs are not updated; return what was reached.

    Every layer gets one threshold and the same share. Prediction outputs are integers of few values, so that a layer
    may keep more than its share: `steps` halvings look for the share whose whole comes closest. Clips stay.
    """
    low, high, best = 0.0, target, (1.0, target)
    for step in range(steps + 1):
        share = high if step == 0 else (low + high) / 2
        reached = _reached(net, batches, share)
        best = min(best, (abs(reached - target), share))
        low, high = (low, share) if reached > target else (share, high)
    if low == 0.0 < high:  # every share so far was too large
        best = min(best, (abs(_reached(net, batches, low) - target), low))
    return _reached(net, batches, best[1])


def _reached(net: ShuffleNetV2, batches: Sequence[Tensor], share: float) -> float:
    calibrate(net, batches, sparsity=share, pact=False, static="keep")
    with looking(net), torch.no_grad():
        reset_counts(net)
        for batch in batches:
            net(batch)
        return sparsity(net).by_output
