"""How the learning rate runs over a training: up linearly, then down along a cosine, or in steps."""

from __future__ import annotations

import math
from collections.abc import Sequence


def warm_cosine(rate: float, warmup_steps: int, step: int, steps: int) -> float:
    """Return the rate of `step`, 0 .. steps - 1: linear up to `rate` over `warmup_steps`, then a cosine to zero."""
    if step < warmup_steps:
        return rate * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    return rate * 0.5 * (1.0 + math.cos(math.pi * share))


def warm_steps(rate: float, warmup_steps: int, step: int, drops: Sequence[int]) -> float:
    """Return the rate of `step`: linear up to `rate` over `warmup_steps`, and a tenth from each step of `drops` on."""
    return rate * min(1.0, (step + 1) / max(1, warmup_steps)) * 0.1 ** sum(step >= drop for drop in drops)
