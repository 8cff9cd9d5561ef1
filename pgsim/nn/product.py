"""The sums under a layer, on integer codes in float tensors: convolution and matrix product, with their gradients.

Exactness: every partial sum is an integer of at most sum|weight code| * max|activation code|. Below 2^24 float32 holds
it, below 2^53 float64 does. On a CPU direct and GEMM algorithms keep them; NNPACK (Winograd) and autocast are switched
off around the sums, and float32 serves only where torch has not been told to compute it with fewer bits. Unsigned codes
of at most 8 bits are convolved by 8-bit dot products there, where these are exact and sums are below 2^24. An
accelerator's library may choose Winograd or TF32: there sums run in float64 and are rounded to the nearest integer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.nn import eight_bit

FLOAT32_EXACT = 2**24
FLOAT64_EXACT = 2**53


@dataclass(frozen=True)
class Convolution:
    """Input [N, C, H, W] with weight [K, C/G, R, S] to [N, K, P, Q]; zero padding, code 0."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def of(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution; of codes in uint8 and one group the sums in float32."""
        if x.dtype == torch.uint8:
            return eight_bit.convolve(x, weight, self.stride, self.padding, self.dilation)
        with direct_convolutions(x):
            return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, need_x: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of input and weight for the output's gradient; None for one that is not needed."""
        if not (need_x or need_weight):
            return None, None
        with direct_convolutions(x):
            grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, self.stride, self.padding, self.dilation, False, [0, 0], self.groups,
                [need_x, need_weight, False],
            )  # fmt: skip
        return grad_x, grad_weight

    def along(self, channels: Tensor) -> Tensor:
        """Shape a vector [K] or [1] so that it broadcasts over the output's channels."""
        return channels.view(-1, 1, 1)

    def over(self, output: Tensor) -> Tensor:
        """Sum an output-shaped tensor to [K]."""
        return output.sum((0, 2, 3))

    def by_channel(self, output: Tensor) -> Tensor:
        """Lay an output-shaped tensor out as [K, M], a row for each channel."""
        return output.transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class Matrix:
    """Input [..., C] with weight [K, C] to [..., K]: linear and matmul layers."""

    def of(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the product."""
        return F.linear(x, weight)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, need_x: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of input and weight for the output's gradient; None for one that is not needed."""
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            grad @ weight if need_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if need_weight else None,
        )

    def along(self, channels: Tensor) -> Tensor:
        """Shape a vector [K] or [1] so that it broadcasts over the output's channels."""
        return channels

    def over(self, output: Tensor) -> Tensor:
        """Sum an output-shaped tensor to [K]."""
        return output.reshape(-1, output.shape[-1]).sum(0)

    def by_channel(self, output: Tensor) -> Tensor:
        """Lay an output-shaped tensor out as [K, M], a row for each channel."""
        return output.reshape(-1, output.shape[-1]).t()


Product = Convolution | Matrix


def exact_dtype(weight: Tensor, max_code: int) -> torch.dtype:
    """Return the float type in which sums of weight codes [K, ...] and codes of at most `max_code` are exact.

    float32 on a CPU where no partial sum can reach 2^24 (and torch computes float32 with all its bits), else float64.
    Raises ValueError where one could reach 2^53.
    """
    reach = float(weight.abs().flatten(1).sum(1, dtype=torch.float64).max()) * max_code
    if reach >= FLOAT64_EXACT:
        raise ValueError(f"sums of a layer must stay below 2^53, not reach {reach:.0f}")
    plain = weight.device.type == "cpu" and reach < FLOAT32_EXACT and _float32_is_whole()
    return torch.float32 if plain else torch.float64


def _float32_is_whole() -> bool:
    """Tell whether torch computes float32 on a CPU with all its bits, not with those of bfloat16 or TF32."""
    try:
        if torch.get_float32_matmul_precision() != "highest":
            return False
    except RuntimeError:  # asked for fewer bits by torch.backends' newer settings, maybe of another device
        return False
    parts = (getattr(torch.backends.mkldnn, name, None) for name in ("conv", "matmul"))
    return all(getattr(part, "fp32_precision", "none") in ("none", "ieee") for part in parts)


def narrowed(product: Product, codes: Tensor, dtype: torch.dtype, act: NumberFormat, weights: NumberFormat) -> Tensor:
    """Return the codes of a layer whose `exact_dtype` is `dtype` as uint8 where `exact_sum` is faster so.

    Else as they are. `act` and `weights` are the formats of both operands' codes.
    """
    bytes_hold = act.encoding is Encoding.UNSIGNED and act.max_code <= eight_bit.CODE_MAX
    bytes_hold = bytes_hold and weights.max_code <= eight_bit.WEIGHT_MAX
    one_group = isinstance(product, Convolution) and product.groups == 1
    return eight_bit.as_bytes(codes) if bytes_hold and one_group and dtype == torch.float32 else codes


def exact_sum(product: Product, codes: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the layer's sums of codes and weight codes, exact integers in `dtype` (see `exact_dtype`, `narrowed`)."""
    with torch.autocast(codes.device.type, enabled=False):
        sums = product.of(codes if codes.dtype == torch.uint8 else codes.to(dtype), weight.to(dtype))
    return sums if codes.device.type == "cpu" else sums.round_()


def direct_convolutions(x: Tensor) -> AbstractContextManager[Any]:
    """Keep convolutions of `x` from Winograd on a CPU (NNPACK), and from TF32 and changing bits on CUDA (cuDNN)."""
    if x.is_cuda:
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return torch.backends.nnpack.flags(enabled=False)
