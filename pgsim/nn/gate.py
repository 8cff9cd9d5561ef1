"""The gate of a convolution on the kernels of `pgsim.nn.kernels`: float32 accumulators that lie channels last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pgsim.nn import kernels
from pgsim.nn.rows import along_rows, by_channel, in_parts, new_like, rows, runs_kernels


@dataclass(frozen=True)
class GateRule:
    """What `kernels.gate` is told beside its columns.

    Attributes:
        update_bits: bits of the low plane.
        slope, factor: of the surrogate, and of its derivative.
        sparse: only updated outputs move their thresholds.
        keep: an output that is not updated keeps its prediction; else it is 0.
    """

    update_bits: int
    slope: float
    factor: float
    sparse: bool
    keep: bool


def kernels_take(accumulators: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether `gate_rows` takes accumulators of outputs that are `dtype` as they lie: float32, channels last."""
    if accumulators.dim() != 4 or not accumulators.numel() or not runs_kernels(accumulators):
        return False
    whole = accumulators.dtype == dtype == torch.float32
    return whole and accumulators.is_contiguous(memory_format=torch.channels_last)


def gate_rows(
    high: Tensor, low: Tensor, threshold: Tensor, delta: Tensor, unit: Tensor, rule: GateRule
) -> tuple[Tensor, Tensor, Tensor]:
    """Combine both phases' accumulators [N, K, P, Q] by `kernels.gate`, which says what from what; they are used up.

    `threshold`, `delta` and `unit` are [K]. Returns the output, the mask (uint8), and what each output moves its
    threshold by, all channels last.
    """
    high, low = (each.contiguous(memory_format=torch.channels_last) for each in (high, low))
    mask = new_like(high, torch.uint8)
    columns = (along_rows(each.detach().float().numpy(), high) for each in (threshold, delta, unit))
    numbers = (2.0**rule.update_bits, rule.slope, rule.factor, rule.sparse, rule.keep)
    in_parts(kernels.gate, rows(high), rows(low), *columns, *numbers, rows(mask))
    return high, mask, low


def gate_backward_rows(grad: Tensor, mask: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Return mask * grad, and the thresholds' gradient sum(grad * moved), float32 [K], by `kernels.gate_backward`."""
    masked = new_like(grad)
    found = in_parts(kernels.gate_backward, rows(grad), rows(mask), rows(moved), rows(masked))
    return masked, torch.from_numpy(by_channel(found, grad).astype(np.float32))
