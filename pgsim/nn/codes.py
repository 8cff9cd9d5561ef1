"""Real tensors to integer codes and back: quantisers of activations and weights, and the split into planes.

Codes are integers held in float tensors, so that convolutions and products over them run through the vendor's
libraries (pgsim.nn.product keeps them exact). Rounding is to nearest, ties to even. A code of format f stands for
`code * clip / f.max_code` (arithmetic: docs/trace-format.md, and Precision Gating, section 3.1).

Convention of every autograd function here and in pgsim.nn.functional: the gradient in a code tensor's slot is that of
the *real* value `code * step`, so that rounding is straight-through and no step enters the chain rule twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pgsim.arith.formats import Encoding, NumberFormat, check_integer, check_member
from pgsim.nn import kernels
from pgsim.nn.rows import dense_rows, in_parts


@dataclass(frozen=True)
class WeightFormat:
    """How a layer's weights become codes.

    Attributes:
        bits: weight_bits; 2 .. 16 for twos_complement, 1 .. 15 for sign_magnitude.
        encoding: TWOS_COMPLEMENT emits codes in [-(2^(bits-1) - 1), 2^(bits-1) - 1], SIGN_MAGNITUDE (the authors' code)
            in [-(2^bits - 1), 2^bits - 1].
        per_channel: one scale an output channel instead of one a tensor.

    Raises ValueError for another width or for unsigned weights, TypeError for bits that are no int and for an encoding
    that is no Encoding.
    """

    bits: int = 8
    encoding: Encoding = Encoding.TWOS_COMPLEMENT
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_member("encoding", self.encoding, Encoding)
        check_integer("bits", self.bits)
        if self.encoding is Encoding.UNSIGNED:
            raise ValueError("encoding of weights must be twos_complement or sign_magnitude, not unsigned")
        low, high = (2, 16) if self.encoding is Encoding.TWOS_COMPLEMENT else (1, 15)
        if not low <= self.bits <= high:
            raise ValueError(f"bits of {self.encoding.value} weights must be {low} .. {high}, not {self.bits}")

    @property
    def format(self) -> NumberFormat:
        """The codes' number format."""
        return NumberFormat(self.encoding, self.bits)


SMALL = 2.0**-64
"""Weights whose clip is below it are multiplied by its inverse, exactly, before a number of codes is divided by it: of
float32 the quotient would be infinite at 4e-37."""


def max_magnitude(form: NumberFormat) -> int:
    """Return the largest |code| that a reader of `form` accepts."""
    return max(form.max_code, -form.min_code)


def weight_codes(weight: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """Quantise weights [K, ...] symmetrically to codes.

    Returns `codes`, integers in weight's dtype and shape, and `step`, float64 [1] or [K], the real value of code 1:
    max|weight| / Q over the tensor or over the channel (1 / Q where all weights are zero). No gradient.
    """
    weight = weight.detach()
    clip = weight.abs().flatten(1).amax(1) if form.per_channel else weight.abs().max().reshape(1)
    clip = torch.where(clip > 0, clip, torch.ones_like(clip))
    largest = form.format.max_code
    lift = torch.where(clip < SMALL, 1.0 / SMALL, 1.0).to(clip.dtype)
    lift, factor = (x.view(-1, *[1] * (weight.dim() - 1)) for x in (lift, largest / (clip * lift)))
    return torch.round(weight * lift * factor).clamp_(-largest, largest), clip.double() / largest


def split_codes(codes: Tensor, encoding: Encoding, update_bits: int) -> tuple[Tensor, Tensor]:
    """Split codes into planes: `codes == high * 2**update_bits + low`, exactly (equation 1).

    unsigned and twos_complement truncate toward -inf, so that `low` is in [0, 2^update_bits - 1]; sign_magnitude
    truncates toward zero, and both planes carry the sign. `codes` has any shape and a float dtype; update_bits >= 1.
    Unsigned codes may be uint8.
    """
    if codes.dtype == torch.uint8:
        return codes >> update_bits, codes & (2**update_bits - 1)
    if (data := dense_rows(codes)) is not None:
        planes = torch.empty_like(codes), torch.empty_like(codes)
        toward_zero = encoding is Encoding.SIGN_MAGNITUDE
        in_parts(kernels.split, data, 2.0**update_bits, toward_zero, *(dense_rows(plane) for plane in planes))
        return planes
    high = torch.mul(codes, 2.0**-update_bits)
    high = high.trunc_() if encoding is Encoding.SIGN_MAGNITUDE else high.floor_()
    return high, torch.sub(codes, high, alpha=2.0**update_bits)


def _clipped_codes(x: Tensor, factor: float, lowest: int, largest: int) -> Tensor:
    """Return rne(x * factor) within [lowest, largest]; NaN stays NaN."""
    if (data := dense_rows(x)) is None:
        return torch.mul(x, factor).round_().clamp_(lowest, largest)
    codes = torch.empty_like(x)
    in_parts(kernels.clipped_codes, data, factor, lowest, largest, dense_rows(codes))
    return codes


def _clip_gradient(grad: Tensor, x: Tensor, low: float, high: float, *, closed: bool) -> tuple[Tensor, Tensor | None]:
    """Return the gradient where low < x < high, or at a bound if `closed`, else 0.

    And its sum where x >= high, None if `closed`: such bounds are not learned.
    """
    data, rows = dense_rows(x), dense_rows(grad, like=x)
    if data is None or rows is None:
        if closed:
            return grad * ((x >= low) & (x <= high)), None
        return grad * ((x > low) & (x < high)), (grad * (x >= high)).sum()
    found = torch.empty_like(x)
    above = in_parts(kernels.clip_codes_backward, rows, data, low, high, closed, dense_rows(found))
    return found, None if closed else torch.tensor(sum(above), dtype=grad.dtype)


class PactCodes(torch.autograd.Function):
    """Clip to [0, alpha], a learned bound, and quantise to unsigned codes (PACT, Choi et al. 2018).

    Forward takes `x` (real, any shape), `alpha` (scalar tensor, > 0) and `levels` = 2^act_bits - 1, and returns codes
    rne(min(max(x, 0), alpha) * levels / alpha). The gradient reaches x where 0 < x < alpha, and alpha where x >= alpha.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, levels: int) -> Tensor:
        bound = float(alpha)
        if not bound > 0:
            raise ValueError(f"alpha of PACT must be > 0, not {bound}")
        ctx.save_for_backward(x)
        ctx.bound = bound
        return _clipped_codes(x, levels / bound, 0, levels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        inside, above = _clip_gradient(grad, x, 0.0, ctx.bound, closed=False)
        return inside, above, None


class StaticCodes(torch.autograd.Function):
    """Quantise by a fixed bound: code = sign(x) * min(Q, rne(|x| / clip * Q)), and 0 for x < 0 of an unsigned format.

    Forward takes `x` (real, any shape), `clip` (a float, > 0) and the format's `lowest` and `largest` code; the
    gradient reaches x where the bound does not cut it off.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: float, lowest: int, largest: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = 0.0 if lowest == 0 else -clip, clip
        return _clipped_codes(x, largest / clip, 0 if lowest == 0 else -largest, largest)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return _clip_gradient(grad, x, ctx.low, ctx.high, closed=True)[0], None, None, None


class RealOfCodes(torch.autograd.Function):
    """Multiply codes by `step`; the gradient passes on times `share`, 1 where the slot's real value is code * step."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, step: float, share: float) -> Tensor:
        ctx.share = share
        return codes * step

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.share, None, None


def pact_codes(x: Tensor, alpha: Tensor, act_bits: int) -> Tensor:
    """Return unsigned codes of `x` clipped to [0, alpha], differentiable in both (see PactCodes)."""
    return cast(Tensor, PactCodes.apply(x, alpha, 2**act_bits - 1))


def static_codes(x: Tensor, clip: float, form: NumberFormat) -> Tensor:
    """Return the codes of `x` in `form` by the fixed bound `clip`, differentiable in x (see StaticCodes)."""
    if not clip > 0:
        raise ValueError(f"clip must be > 0, not {clip}")
    return cast(Tensor, StaticCodes.apply(x, clip, form.min_code, form.max_code))
