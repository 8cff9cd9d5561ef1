"""Quantised and precision-gated layers that stand in for torch's Conv2d and Linear.

    x (real) --input quantiser--> codes --dense or gated sum (pgsim.nn.functional)--> k * A --+ bias--> real output

They take and return ordinary real tensors, quantise their own input, and keep float master weights. A layer without
`gating` is a dense B-bit layer: with `Pact` in front the PACT baseline, with a fixed scale uniform quantisation (UQ).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgsim.nn.codes import WeightFormat
from pgsim.nn.functional import Gating, dense_product, gated_product
from pgsim.nn.product import Convolution, Matrix, Product
from pgsim.nn.quantisers import Quantiser

Watch = Callable[["CodedLayer", Tensor, Tensor, float, Product], None]
"""Called with (layer, codes, weight, act_step, product) before a layer runs: calibration and traces look through it."""


class CodedLayer(nn.Module):
    """What all layers share: gate, counts of outputs, and the step from codes to real outputs.

    Attributes:
        weights: how master weights become codes.
        gating: None where the layer is dense.
        delta: Parameter [K], thresholds on the real output before the bias; None where dense. For fixed thresholds,
            `layer.delta.requires_grad_(False)`.
        outputs, updated: outputs seen and those whose mask was 1, since `reset_counts`; all are updated where dense.
        reduction: MACs of one output, padding taps included.
    """

    def __init__(
        self,
        out_channels: int,
        reduction: int,
        act_bits: int,
        weights: WeightFormat,
        gating: Gating | None,
        delta: float,
    ) -> None:
        super().__init__()
        self.weights, self.gating, self.reduction, self.act_bits = weights, gating, reduction, act_bits
        self.delta: nn.Parameter | None = None
        if gating is not None:
            gating.update_bits(act_bits)
            self.delta = nn.Parameter(torch.full((out_channels,), float(delta)))
        self.outputs = self.updated = 0
        self.watch: Watch | None = None

    @property
    def recurrent(self) -> bool:
        """Whether successive calls are the steps of a sequence."""
        return False

    def quantiser(self) -> Quantiser:
        """Return the quantiser whose format the layer's codes have."""
        raise NotImplementedError

    def reset_counts(self) -> None:
        """Forget the outputs counted so far."""
        self.outputs = self.updated = 0

    def run(self, codes: Tensor, weight: Tensor, act_step: float, product: Product) -> Tensor:
        """Return the real output of `codes`, before the bias, and count its outputs."""
        if self.watch is not None:
            self.watch(self, codes.detach(), weight.detach(), act_step, product)
        act = self.quantiser().format
        if self.gating is None or self.delta is None:
            out = dense_product(codes, weight, act_step, product, act, self.weights)
            self.updated += out.numel()
        else:
            out, mask = gated_product(codes, weight, self.delta, act_step, product, act, self.gating, self.weights)
            self.updated += int(torch.count_nonzero(mask))
        self.outputs += out.numel()
        return out

    def extra_repr(self) -> str:
        """Bits, as print(model) shows them."""
        gate = "" if self.gating is None else f", pred_bits={self.gating.pred_bits}, policy={self.gating.policy.value}"
        return f"act_bits={self.act_bits}, weight_bits={self.weights.bits}{gate}"


class QuantConv2d(CodedLayer):
    """A dense convolution of B-bit codes: x [N, C, H, W] to [N, K, P, Q], as torch.nn.Conv2d with zero padding.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in torch.nn.Conv2d;
            padding also "same" and "valid".
        input: the quantiser of the layer's input (Pact or QuantiseInput); its bits are act_bits.
        weights: bits, encoding and scales of the weights.

    Parameters: weight [K, C/G, R, S], bias [K] or None; bias is added to the real output, after the gate of a
    GatedConv2d. Raises ValueError for an input that is not [N, C, H, W].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        input: Quantiser,
        weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
        gating: Gating | None = None,
        delta: float = 0.0,
    ) -> None:
        kernel = _pair(kernel_size)
        reduction = in_channels // groups * kernel[0] * kernel[1]
        super().__init__(out_channels, reduction, input.format.bits, weights, gating, delta)
        plain = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        self.in_channels, self.out_channels, self.kernel_size, self.groups = in_channels, out_channels, kernel, groups
        self.stride, self.dilation = _pair(stride), _pair(dilation)
        self.padding = _borders(padding, kernel, self.dilation)
        self.weight, self.bias, self.input = plain.weight, plain.bias, input

    def quantiser(self) -> Quantiser:
        return self.input

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4:
            raise ValueError(f"input of a convolution must be [N, C, H, W], not {list(input.shape)}")
        codes = self.input.codes(input)
        top, bottom, left, right = self.padding
        padding = (top, left)
        if top != bottom or left != right:
            codes, padding = F.pad(codes, (left, right, top, bottom)), (0, 0)
        out = self.run(
            codes, self.weight, self.input.step, Convolution(self.stride, padding, self.dilation, self.groups)
        )
        return out if self.bias is None else out + self.bias.view(-1, 1, 1)


class GatedConv2d(QuantConv2d):
    """A precision-gated convolution: as QuantConv2d, with `gating` and thresholds `delta` [K], all at `delta` first."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        input: Quantiser,
        gating: Gating,
        weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
        delta: float = 0.0,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            input=input, weights=weights, gating=gating, delta=delta,
        )  # fmt: skip


class QuantLinear(CodedLayer):
    """A dense product of B-bit codes: x [..., C] to [..., K], as torch.nn.Linear.

    `input` is the quantiser of its input, `weights` the format of its weights [K, C]; the bias is added to the real
    output.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        input: Quantiser,
        weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
        gating: Gating | None = None,
        delta: float = 0.0,
    ) -> None:
        super().__init__(out_features, in_features, input.format.bits, weights, gating, delta)
        plain = nn.Linear(in_features, out_features, bias)
        self.in_features, self.out_features = in_features, out_features
        self.weight, self.bias, self.input = plain.weight, cast(nn.Parameter | None, plain.bias), input

    def quantiser(self) -> Quantiser:
        return self.input

    def forward(self, input: Tensor) -> Tensor:
        out = self.run(self.input.codes(input), self.weight, self.input.step, Matrix())
        return out if self.bias is None else out + self.bias


class GatedLinear(QuantLinear):
    """A precision-gated linear layer: as QuantLinear, with `gating` and thresholds `delta` [K]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        input: Quantiser,
        gating: Gating,
        weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
        delta: float = 0.0,
    ) -> None:
        super().__init__(
            in_features, out_features, bias, input=input, weights=weights, gating=gating, delta=delta
        )  # fmt: skip


def coded_layers(model: nn.Module) -> dict[str, CodedLayer]:
    """Return every quantised or gated layer of `model` by its module path, each once."""
    return {
        path or type(layer).__name__: layer for path, layer in model.named_modules() if isinstance(layer, CodedLayer)
    }


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _borders(
    padding: int | tuple[int, int] | str, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right); "same" as torch has it: the odd pixel at the bottom and on the right."""
    if padding == "same":
        high, wide = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return (high // 2, math.ceil(high / 2), wide // 2, math.ceil(wide / 2))
    if isinstance(padding, str):
        return (0, 0, 0, 0)
    rows, columns = _pair(padding)
    return (rows, rows, columns, columns)
