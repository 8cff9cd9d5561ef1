"""How the learning rate runs over a training: up linearly, then down along a cosine."""

from __future__ import annotations

import math


def warm_cosine(rate: float, warmup_steps: int, step: int, steps: int) -> float:
    """Return the rate of `step`, 0 .. steps - 1: linear up to `rate` over `warmup_steps`, then a cosine to zero."""
    if step < warmup_steps:
        return rate * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    return rate * 0.5 * (1.0 + math.cos(math.pi * share))
