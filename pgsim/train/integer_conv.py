"""Convolve unsigned codes on a CPU's 8-bit dot products, to the very integers that float32 gives, only faster."""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pgsim.nn.product import direct_convolutions

CODE_MAX = 255


def convolve_codes(codes: Tensor, w_codes: Tensor, stride: int, padding: int) -> Tensor:
    """Return the sums of codes [N, C, H, W] with int8 weight codes [K, C, R, S] (in float32), float32 [N, K, P, Q].

    Codes of dtype uint8 (see `narrowed`) go through oneDNN's 8-bit convolution, which sums in int32; others through
    float32. Both are exact while every partial sum is below 2**24. On an accelerator, whose library may choose
    Winograd, float32's sums are rounded to the nearest integer: exact while they are less than a half off.
    """
    if codes.dtype != torch.uint8:
        with direct_convolutions(codes):
            sums = F.conv2d(codes, w_codes, None, stride, padding)
        return sums if codes.device.type == "cpu" else sums.round_()
    ones, zeros = torch.ones(len(w_codes)), torch.zeros(len(w_codes), dtype=torch.int32)
    shape = ([stride] * 2, [padding] * 2, [1, 1], 1)
    packed = torch.ops.onednn.qconv_prepack(w_codes.to(torch.int8), ones, 1.0, 0, *shape, list(codes.shape))
    given = (codes, 1.0, 0, packed, ones, zeros, None)
    return cast(Tensor, torch.ops.onednn.qconv2d_pointwise(*given, *shape, 1.0, 0, torch.float32, "none", [], ""))


def narrowed(codes: Tensor) -> Tensor:
    """Return codes (integers in [0, 255], float32) as uint8 where `convolve_codes` is faster so, else as they are."""
    return codes.to(torch.uint8) if codes.device.type == "cpu" and sums_are_exact() else codes


@cache
def sums_are_exact() -> bool:
    """Tell whether this CPU's 8-bit convolutions are there and exact; without dot products to 32 bits they saturate."""
    codes = torch.full((2, 32, 5, 5), float(CODE_MAX)).to(memory_format=torch.channels_last)
    w_codes = torch.full((16, 32, 3, 3), 127.0)
    w_codes[1::2] = -127.0
    try:
        sums = convolve_codes(codes.to(torch.uint8), w_codes, 1, 1)
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(sums, convolve_codes(codes, w_codes, 1, 1))
