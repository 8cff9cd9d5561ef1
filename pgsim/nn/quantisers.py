"""Quantisers as modules: a learned clip for what a ReLU would leave, a fixed scale for signed data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.nn.codes import RealOfCodes, pact_codes, static_codes


class Quantiser(nn.Module):
    """Real tensors to codes of `format`; called as a module it returns the quantised real tensor.

    `watch`, where it is set, is called with (quantiser, input) before the input is quantised: pgsim.nn.calibrate does,
    and leaves the scale of a `fixed` quantiser alone.
    """

    fixed = False

    def __init__(self, form: NumberFormat) -> None:
        super().__init__()
        self.format = form
        self.watch: Callable[[Quantiser, Tensor], None] | None = None

    @property
    def clip(self) -> float:
        """S_a, the real value of the largest code."""
        raise NotImplementedError

    def set_clip(self, clip: float) -> None:
        """Set S_a; raises ValueError unless > 0."""
        raise NotImplementedError

    @property
    def step(self) -> float:
        """Real value of code 1, S_a / Q_a, in float64."""
        return self.clip / self.format.max_code

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x` (any shape, float32 or float64), integers in x's dtype; the gradient is x's.

        Raises TypeError for another dtype.
        """
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"input of a quantised layer must be float32 or float64, not {x.dtype}")
        if self.watch is not None:
            self.watch(self, x.detach())
        return self._codes(x)

    def _codes(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return `codes(x) * step`."""
        codes = self.codes(x)
        return cast(Tensor, RealOfCodes.apply(codes, self.step, 1.0))

    def extra_repr(self) -> str:
        """Format and clip, as print(model) shows them."""
        return f"{self.format.bits}-bit {self.format.encoding.value}, clip {self.clip:.4g}"


class Pact(Quantiser):
    """Clip to [0, alpha], alpha learned, and quantise to unsigned codes of `act_bits` bits (PACT, Choi et al. 2018).

    It does what a ReLU in front of it would do. Raises ValueError for act_bits outside 1 .. 15 or alpha <= 0.
    """

    def __init__(self, act_bits: int, alpha: float = 6.0) -> None:
        if not 1 <= act_bits <= 15:
            raise ValueError(f"act_bits must be 1 .. 15, not {act_bits}")
        super().__init__(NumberFormat(Encoding.UNSIGNED, act_bits))
        self.alpha = nn.Parameter(torch.tensor(1.0))
        self.set_clip(alpha)

    @property
    def clip(self) -> float:
        return float(self.alpha.detach())

    def set_clip(self, clip: float) -> None:
        with torch.no_grad():
            self.alpha.fill_(_positive(clip))

    def _codes(self, x: Tensor) -> Tensor:
        return pact_codes(x, self.alpha, self.format.bits)


class QuantiseInput(Quantiser):
    """Quantise by a fixed scale: code = sign(x) * min(Q, rne(|x| / clip * Q)).

    For signed data, sign_magnitude or twos_complement; `unsigned` cuts off x < 0. `clip` None waits for
    `pgsim.nn.calibrate`, and codes are refused until then; a `fixed` one stays as it is. Raises ValueError for a clip
    <= 0, and for act_bits outside 1 .. 15 (2 .. 16 for twos_complement).
    """

    def __init__(
        self,
        act_bits: int,
        encoding: Encoding = Encoding.SIGN_MAGNITUDE,
        clip: float | None = None,
        *,
        fixed: bool = False,
    ) -> None:
        low, high = (2, 16) if encoding is Encoding.TWOS_COMPLEMENT else (1, 15)
        if not low <= act_bits <= high:
            raise ValueError(f"act_bits of {encoding.value} codes must be {low} .. {high}, not {act_bits}")
        super().__init__(NumberFormat(encoding, act_bits))
        self.fixed = fixed
        start = float("nan") if clip is None else _positive(clip)
        self.bound: Tensor
        self.register_buffer("bound", torch.tensor(start, dtype=torch.float64))

    @property
    def clip(self) -> float:
        return float(self.bound)

    def set_clip(self, clip: float) -> None:
        self.bound.fill_(_positive(clip))

    def _codes(self, x: Tensor) -> Tensor:
        clip = self.clip
        if not clip > 0:
            raise ValueError("clip must be set before codes are taken: pgsim.nn.calibrate(model, batches) sets it")
        return static_codes(x, clip, self.format)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move with the model, but stay float64: `model.float()` must not round the scale of a trace."""
        bound = self.bound
        super()._apply(fn, recurse)
        self.bound = bound.to(self.bound.device)
        return self


def _positive(clip: float) -> float:
    if not (clip > 0 and clip != float("inf")):
        raise ValueError(f"clip must be finite and > 0, not {clip}")
    return float(clip)
