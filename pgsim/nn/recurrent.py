"""LSTM cells on codes: one dense or gated product over [x, h] gives the pre-activations of all four gates.

    x / S_x --codes--.
                      +-- [x, h] codes [N, I+H] --(*) [S_x * W_ih, S_h * W_hh] [4H, I+H]--> i, f, g, o --> h', c'
    h / S_h --codes--'

Input and hidden state have scales of their own (an embedding is often ten times smaller than a hidden state), yet one
integer sum: codes are those of x / S_x and h / S_h, both within [-1, 1], and the weights carry S_x and S_h before they
are quantised. One threshold and one mask a pre-activation. Element-wise functions and the cell state stay real.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pgsim.arith.formats import Encoding
from pgsim.nn.codes import RealOfCodes, WeightFormat
from pgsim.nn.functional import Gating
from pgsim.nn.layers import CodedLayer
from pgsim.nn.product import Matrix
from pgsim.nn.quantisers import QuantiseInput, Quantiser

State = tuple[Tensor, Tensor]


class QuantLSTMCell(CodedLayer):
    """A dense B-bit LSTM cell, called as torch.nn.LSTMCell: (x [N, I], (h, c) [N, H] each or None) to (h', c').

    Args:
        input_size, hidden_size, bias: as in torch.nn.LSTMCell.
        input, hidden: quantisers of x and h, QuantiseInput of one signed format; h stays within [-1, 1], so that
            clip=1.0 is never exceeded.
        weights: format of the weights; per_channel gives each pre-activation its own scale.

    Parameters as in torch.nn.LSTMCell: weight_ih [4H, I], weight_hh [4H, H], bias_ih and bias_hh [4H] or None; gates
    in the order i, f, g, o. Raises ValueError where the two quantisers differ in format or are not signed.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        input: QuantiseInput,
        hidden: QuantiseInput,
        weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
        gating: Gating | None = None,
        delta: float = 0.0,
    ) -> None:
        if input.format != hidden.format or input.format.encoding is Encoding.UNSIGNED:
            raise ValueError(f"input and hidden must have one signed format, not {input.format} and {hidden.format}")
        super().__init__(4 * hidden_size, input_size + hidden_size, input.format.bits, weights, gating, delta)
        plain = nn.LSTMCell(input_size, hidden_size, bias)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih, self.weight_hh = plain.weight_ih, plain.weight_hh
        self.bias_ih: nn.Parameter | None = plain.bias_ih if bias else None
        self.bias_hh: nn.Parameter | None = plain.bias_hh if bias else None
        self.input, self.hidden = input, hidden

    @property
    def recurrent(self) -> bool:
        return True

    def quantiser(self) -> Quantiser:
        return self.input

    def forward(self, input: Tensor, hx: State | None = None) -> State:
        if input.dim() != 2:
            raise ValueError(f"input of an LSTM cell must be [N, {self.input_size}], not {list(input.shape)}")
        h, c = (input.new_zeros(len(input), self.hidden_size),) * 2 if hx is None else hx
        parts, clips = [], []
        for quantiser, real in ((self.input, input), (self.hidden, h)):
            codes = quantiser.codes(real)
            clips.append(quantiser.clip)
            # The sum is over x / clip, whose gradient is clip times that of x.
            parts.append(RealOfCodes.apply(codes, 1.0, 1.0 / clips[-1]))
        weight = torch.cat([self.weight_ih * clips[0], self.weight_hh * clips[1]], 1)
        out = self.run(torch.cat(parts, -1), weight, 1.0 / self.input.format.max_code, Matrix())
        if self.bias_ih is not None and self.bias_hh is not None:
            out = out + self.bias_ih + self.bias_hh
        i, f, g, o = out.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GatedLSTMCell(QuantLSTMCell):
    """A precision-gated LSTM cell: as QuantLSTMCell, with `gating` and thresholds `delta` [4H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        input: QuantiseInput,
        hidden: QuantiseInput,
        gating: Gating,
        weights: WeightFormat = WeightFormat(),  # noqa: B008 - frozen
        delta: float = 0.0,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, input=input, hidden=hidden, weights=weights, gating=gating, delta=delta
        )  # fmt: skip
