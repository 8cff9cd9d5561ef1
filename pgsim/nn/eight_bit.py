"""Convolve unsigned codes on a CPU's 8-bit dot products, to the very integers that float32 gives, only faster."""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pgsim.nn import kernels
from pgsim.nn.rows import in_parts, new_like, rows, runs_kernels

CODE_MAX, WEIGHT_MAX = 255, 127
"""Largest code, and largest magnitude of a weight code, that 8-bit convolutions take."""


def as_bytes(codes: Tensor) -> Tensor:
    """Return codes [N, C, H, W] as uint8 where `convolve` takes them, else as they are.

    It takes float32 codes on a CPU whose 8-bit sums are exact that lie channels last and are integers in
    [0, CODE_MAX], every one.
    """
    lies = codes.is_contiguous(memory_format=torch.channels_last) and not codes.is_contiguous()
    if not lies or codes.dtype != torch.float32 or not runs_kernels(codes) or not sums_are_exact():
        return codes
    narrow = new_like(codes, torch.uint8)
    return narrow if all(in_parts(kernels.narrow, rows(codes), rows(narrow))) else codes


def convolve(
    codes: Tensor, w_codes: Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """Return the sums of codes uint8 [N, C, H, W] with weight codes [K, C, R, S], float32 [N, K, P, Q], channels last.

    Weight codes are integers of at most WEIGHT_MAX in a float dtype. oneDNN sums in int32: exact where every sum is
    below 2^24.
    """
    ones, zeros = torch.ones(len(w_codes)), torch.zeros(len(w_codes), dtype=torch.int32)
    shape = (list(stride), list(padding), list(dilation), 1)
    packed = torch.ops.onednn.qconv_prepack(w_codes.to(torch.int8), ones, 1.0, 0, *shape, list(codes.shape))
    given = (codes, 1.0, 0, packed, ones, zeros, None)
    return cast(Tensor, torch.ops.onednn.qconv2d_pointwise(*given, *shape, 1.0, 0, torch.float32, "none", [], ""))


@cache
def sums_are_exact() -> bool:
    """Tell whether this CPU's 8-bit convolutions are there and exact; without dot products to 32 bits they saturate."""
    codes = torch.full((2, 32, 5, 5), CODE_MAX, dtype=torch.uint8).to(memory_format=torch.channels_last)
    w_codes = torch.full((16, 32, 3, 3), float(WEIGHT_MAX))
    w_codes[1::2] = -float(WEIGHT_MAX)
    try:
        sums = convolve(codes, w_codes, (1, 1), (1, 1), (1, 1))
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(sums.double(), F.conv2d(codes.double(), w_codes.double(), padding=1))
