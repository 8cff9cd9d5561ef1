"""The parts of precision-gated CIFAR networks, fake-quantised: clip, convolution, block, classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgsim.nn.rows import runs_kernels
from pgsim.train.fused import norm_pact
from pgsim.train.gating import DenseConv, GatedConv
from pgsim.train.quantise import WEIGHT_CODE_MAX, PactQuantise, weight_codes

IMAGE_CLIP = 2.64
"""Largest magnitude of a normalised pixel; codes are rne(x / 2.64 * 127), so that zero padding is code 0."""
IMAGE_CODE_MAX = 127
FEATURE_CODE_MAX = 255
STAGES = (16, 32, 64)
EXPANSION = 6
"""Of a shift block's channels between its two convolutions."""
MAX_MOMENTUM = 0.1
"""Of the running maximum that clips where nothing is learned; as batch norm's."""


class Pact(nn.Module):
    """A clip `alpha` (real units) and the unsigned quantiser behind it.

    `learned`: PACT. Otherwise alpha is the running maximum of what comes in training mode, and takes no gradient.
    """

    def __init__(self, levels: int, learned: bool = True) -> None:
        super().__init__()
        self.levels, self.learned = levels, learned
        self.alpha = nn.Parameter(torch.tensor(6.0), requires_grad=learned)

    @property
    def step(self) -> float:
        """Real value of one code."""
        return float(self.alpha.detach()) / self.levels

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.learned:
            with torch.no_grad():
                self.alpha.lerp_(y.max().clamp_min(1e-2), MAX_MOMENTUM)
        return cast(tuple[Tensor, Tensor], PactQuantise.apply(y, self.alpha, self.levels))

    def after_norm(self, x: Tensor, norm: nn.BatchNorm2d, shortcut: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return clip and codes of norm(x) + shortcut; on a CPU fused in training mode where the clip is learned."""
        if norm.training and self.learned and runs_kernels(x):
            return norm_pact(x, norm, self.alpha, shortcut, self.levels)
        y = norm(x)
        return cast(tuple[Tensor, Tensor], self(y if shortcut is None else y + shortcut))


class Conv(nn.Module):
    """A convolution of codes, dense or gated, with float32 master weights [K, C, R, R] and R // 2 pixels of padding."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, update_bits: int, sparse: bool, keep: bool = True, kernel: int = 3
    ) -> None:
        super().__init__()
        self.signed = False
        self.stride, self.update_bits, self.sparse, self.keep = stride, update_bits, sparse, keep
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.delta = nn.Parameter(torch.zeros(c_out)) if update_bits else None
        self.updated, self.outputs = 0, 0

    @property
    def gated(self) -> bool:
        return self.delta is not None

    @property
    def gate_options(self) -> tuple[int, bool, bool]:
        """What GatedConv takes last: bits of the low plane, sparse back-propagation, outputs keep a prediction."""
        return self.update_bits, self.sparse, self.keep

    def forward(self, codes: Tensor, act_step: float) -> Tensor:
        if self.delta is None:
            return cast(Tensor, DenseConv.apply(codes, self.weight, act_step, self.stride, self.padding, self.signed))
        out, mask = cast(
            tuple[Tensor, Tensor],
            GatedConv.apply(codes, self.weight, self.delta, act_step, self.stride, self.padding, *self.gate_options),
        )
        self.updated += int(torch.count_nonzero(mask))
        self.outputs += mask.numel()
        return out


@dataclass(frozen=True)
class Options:
    """What every block is told: bits (equal where nothing is gated), gating, gradients, policy, kind of clip."""

    act_bits: int
    pred_bits: int
    gating: str
    sparse: bool = True
    keep: bool = True
    learned_clip: bool = True


class Block(nn.Module):
    """A basic block, or a shift block; takes and returns the clipped residual stream and its codes."""

    def __init__(self, c_in: int, c_out: int, stride: int, options: Options, *, shifts: bool = False) -> None:
        super().__init__()
        self.stride, self.widen = stride, c_out - c_in
        low, levels = options.act_bits - options.pred_bits, 2**options.act_bits - 1
        both = options.gating == "all"
        middle = EXPANSION * c_out if shifts else c_out
        kernel = 1 if shifts else 3
        strides = (1, stride) if shifts else (stride, 1)
        self.offsets = shift_offsets(middle) if shifts else None
        self.conv1 = Conv(c_in, middle, strides[0], low, options.sparse, options.keep, kernel)
        self.bn1 = nn.BatchNorm2d(middle)
        self.pact1 = Pact(levels, options.learned_clip)
        self.conv2 = Conv(middle, c_out, strides[1], low if both else 0, options.sparse, options.keep, kernel)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.pact2 = Pact(levels, options.learned_clip)

    def shortcut(self, stream: Tensor) -> Tensor:
        """Subsample and pad with zero channels on both sides (option A); the identity inside a stage."""
        if self.widen == 0:
            return stream
        return F.pad(stream[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.widen // 2, self.widen // 2))

    def forward(self, stream: Tensor, codes: Tensor, step: float) -> tuple[Tensor, Tensor]:
        _, inner = self.pact1.after_norm(self.conv1(codes, step), self.bn1)
        if self.offsets is not None:
            inner = cast(Tensor, Shift.apply(inner, self.offsets))
        return self.pact2.after_norm(self.conv2(inner, self.pact1.step), self.bn2, self.shortcut(stream))


def shift_offsets(channels: int) -> tuple[tuple[int, int], ...]:
    """Return each channel's shift in rows and columns: equal groups in all nine directions, the rest stays."""
    directions = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    each = channels // len(directions)
    moved = [direction for direction in directions for _ in range(each)]
    return (*moved, *[(0, 0)] * (channels - len(moved)))


class Shift(torch.autograd.Function):
    """Move each channel of [N, C, H, W] by its offset; what leaves the map is dropped, what enters is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: tuple[tuple[int, int], ...]) -> Tensor:
        ctx.offsets = offsets
        return moved(x, offsets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return moved(grad, tuple((-down, -right) for down, right in ctx.offsets)), None


def moved(x: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Return finite [N, C, H, W] with each channel moved by at most one pixel: a depthwise convolution with ones.

    Several times as fast as slices, whose few channels at a time are no contiguous memory.
    """
    kernels = torch.zeros(len(offsets), 1, 3, 3, dtype=x.dtype, device=x.device)
    down, right = torch.tensor(offsets).T
    kernels[torch.arange(len(offsets)), 0, 1 - down, 1 - right] = 1
    return F.conv2d(x, kernels, padding=1, groups=len(offsets))


class Classifier(nn.Module):
    """The linear layer over 8-bit feature codes, int8 weights [10, 64], float bias."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, real: Tensor) -> Tensor:
        codes, clip = weight_codes(self.weight)
        quantised = self.weight + (codes * (clip / WEIGHT_CODE_MAX) - self.weight).detach()
        return F.linear(real, quantised, self.bias)


class RealOfCodes(torch.autograd.Function):
    """Multiply codes by their step; the gradient passes as that of the real value."""

    @staticmethod
    def forward(ctx: object, codes: Tensor, step: float) -> Tensor:
        return codes * step

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
