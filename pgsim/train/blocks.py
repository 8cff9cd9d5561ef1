"""The parts of precision-gated CIFAR networks, fake-quantised: clip, convolution, block, classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.nn.codes import WeightFormat, weight_codes
from pgsim.nn.functional import Gating, Policy, dense_product, gated_product
from pgsim.nn.product import Convolution
from pgsim.nn.rows import runs_kernels
from pgsim.train.fused import norm_pact
from pgsim.train.quantise import PactQuantise

IMAGE_CLIP = 2.64
"""Largest magnitude of a normalised pixel; codes are rne(x / 2.64 * 127), so that zero padding is code 0."""
IMAGE_CODE_MAX = 127
IMAGE_FORMAT = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
WEIGHTS = WeightFormat()
"""Of every layer: int8 codes, one scale a tensor."""
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
    """A convolution of codes of format `act`, dense or gated, with R // 2 pixels of padding.

    Its master weights are float32 [K, C, R, R]. See `pgsim.nn.functional` for what comes out and for the gradients.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, act: NumberFormat, gating: Gating | None = None, kernel: int = 3
    ) -> None:
        super().__init__()
        self.stride, self.act, self.gating = stride, act, gating
        self.product = Convolution((stride, stride), (kernel // 2, kernel // 2))
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.delta = nn.Parameter(torch.zeros(c_out)) if gating else None
        self.updated, self.outputs = 0, 0

    @property
    def gated(self) -> bool:
        return self.gating is not None

    @property
    def update_bits(self) -> int:
        """Bits of the low plane, 0 where nothing is gated."""
        return self.gating.update_bits(self.act.bits) if self.gating else 0

    def forward(self, codes: Tensor, act_step: float) -> Tensor:
        if self.delta is None:
            return dense_product(codes, self.weight, act_step, self.product, self.act, WEIGHTS)
        out, mask = self._gate(codes, self.delta, act_step, self.gating)
        self.updated += int(torch.count_nonzero(mask))
        self.outputs += mask.numel()
        return out

    def predicted(self, codes: Tensor, act_step: float) -> Tensor:
        """Return the real output of a gated convolution's prediction phase, whatever its policy."""
        none = torch.full((len(self.weight),), torch.inf, device=self.weight.device)
        out, _ = self._gate(codes, none, act_step, self.gating and replace(self.gating, policy=Policy.KEEP))
        return out

    def _gate(self, codes: Tensor, delta: Tensor, act_step: float, gating: Gating | None) -> tuple[Tensor, Tensor]:
        assert gating is not None
        return gated_product(codes, self.weight, delta, act_step, self.product, self.act, gating, WEIGHTS)


@dataclass(frozen=True)
class Options:
    """What every block is told: bits (equal where nothing is gated), gating, gradients, policy, kind of clip."""

    act_bits: int
    pred_bits: int
    gating: str
    sparse: bool = True
    keep: bool = True
    learned_clip: bool = True

    @property
    def act(self) -> NumberFormat:
        """Format of activation codes."""
        return NumberFormat(Encoding.UNSIGNED, self.act_bits)

    @property
    def gates(self) -> tuple[Gating | None, Gating | None]:
        """How a block's two convolutions are gated."""
        gating = Gating(self.pred_bits, Policy.KEEP if self.keep else Policy.ZERO, self.sparse)
        return gating if self.gating != "none" else None, gating if self.gating == "all" else None


class Block(nn.Module):
    """A basic block, or a shift block; takes and returns the clipped residual stream and its codes."""

    def __init__(self, c_in: int, c_out: int, stride: int, options: Options, *, shifts: bool = False) -> None:
        super().__init__()
        self.stride, self.widen = stride, c_out - c_in
        levels = options.act.max_code
        first, second = options.gates
        middle = EXPANSION * c_out if shifts else c_out
        kernel = 1 if shifts else 3
        strides = (1, stride) if shifts else (stride, 1)
        self.offsets = shift_offsets(middle) if shifts else None
        self.conv1 = Conv(c_in, middle, strides[0], options.act, first, kernel)
        self.bn1 = nn.BatchNorm2d(middle)
        self.pact1 = Pact(levels, options.learned_clip)
        self.conv2 = Conv(middle, c_out, strides[1], options.act, second, kernel)
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
        codes, step = weight_codes(self.weight, WEIGHTS)
        quantised = self.weight + (codes * step.to(codes.dtype) - self.weight).detach()
        return F.linear(real, quantised, self.bias)
