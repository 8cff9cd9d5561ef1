"""What a quantised language model starts training from: clips of [x, h], and thresholds at a quantile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgsim.nn import CodedLayer, QuantLSTMCell
from pgsim.nn.calibrate import best_clip
from pgsim.nn.codes import split_codes, weight_codes
from pgsim.nn.product import Product, exact_dtype, exact_sum
from pgsim.train.language.model import LanguageModel

PLACINGS = 3
"""Thresholds change the hidden states that they were placed by: they are placed so many times."""


def start_clips(model: LanguageModel, windows: Sequence[Tensor], clip: str) -> None:
    """Set the clips of x and h from what they are over `windows` of ids [T, N] in float arithmetic.

    `clip` is "max", the largest magnitude, or "least_squares", the bound with the least squared error of the codes:
    with a few bits a finer step for the many small values outweighs a clipped large one.
    """
    cell = model.cell
    if not isinstance(cell, QuantLSTMCell):
        return
    h, c = model.zero_state(windows[0].shape[1])
    inputs, hidden = [], []
    with torch.no_grad():
        for ids in windows:
            for x in model.embedding(ids):
                h, c = torch.lstm_cell(x, (h, c), cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
                inputs.append(x)
                hidden.append(h)
    for quantiser, seen in ((cell.input, inputs), (cell.hidden, hidden)):
        values = torch.stack(seen).abs()
        best = float(values.max()) if clip == "max" else best_clip(values, quantiser.format.max_code)
        quantiser.set_clip(best or 1.0)


def place_thresholds(model: LanguageModel, windows: Sequence[Tensor], sparsity: float, scope: str) -> None:
    """Set the thresholds so that at least `sparsity` of the prediction outputs over `windows` are not updated.

    `scope` is "layer", one threshold for all, or "channel". Counts of outputs are left as they were.
    """
    cell = model.cell
    if not isinstance(cell, QuantLSTMCell) or cell.delta is None:
        return
    counts = cell.outputs, cell.updated
    with torch.no_grad():
        for _ in range(PLACINGS):
            seen: list[Tensor] = []
            unit = _collect(model, cell, windows, seen)
            channels = torch.cat(seen).t()
            ranked = (channels.reshape(1, -1) if scope == "layer" else channels).sort(1).values
            rank = int(-(-sparsity * ranked.shape[1] // 1))
            # Half a unit beside an integer: no rounding of Delta moves an output to the other side.
            edge = ranked[:, rank - 1] + 0.5 if rank else ranked[:, 0] - 0.5
            cell.delta.copy_((edge.double() * unit).expand(len(cell.delta)))
    cell.outputs, cell.updated = counts


def _collect(model: LanguageModel, cell: QuantLSTMCell, windows: Sequence[Tensor], seen: list[Tensor]) -> Tensor:
    """Append A_h [N, 4H] of every step to `seen`; return the real value of one, float64 [1]."""
    assert cell.gating is not None
    act = cell.input.format
    update_bits = cell.gating.update_bits(act.bits)
    coded: list[tuple[Tensor, Tensor]] = []

    def watch(_layer: CodedLayer, codes: Tensor, weight: Tensor, _act_step: float, product: Product) -> None:
        if not coded:
            coded.append(weight_codes(weight, cell.weights))
        w_codes, _ = coded[0]
        high, _ = split_codes(codes, act.encoding, update_bits)
        seen.append(exact_sum(product, high, w_codes, exact_dtype(w_codes, act.max_code)))

    cell.watch = watch
    try:
        state = model.zero_state(windows[0].shape[1])
        for ids in windows:
            _, state = model.recur(model.embedding(ids), state)
    finally:
        cell.watch = None
    return coded[0][1] / act.max_code * 2.0**update_bits
