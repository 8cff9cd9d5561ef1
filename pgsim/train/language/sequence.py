"""A quantised LSTM over a sequence: the cell step by step, and a fast twin that quantises the weights once.

    x codes [T, N, I] --(*) W_x, all steps at once--+
    h codes [N, H] -----(*) W_h, step by step ------+--> A_h, A_l --> mask --> i, f, g, o --> h', c'

Sums are exact integers, so that splitting them into the shares of x and h changes nothing: both ways give the same
codes, masks and pre-activations. Backward is back-propagation through time by hand, with the rules of
pgsim.nn.functional; the weights' gradient is one product over all steps instead of one a step.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from pgsim.nn.codes import RealOfCodes, max_magnitude, split_codes, static_codes, weight_codes
from pgsim.nn.functional import MaskGradient, Policy, integer_threshold, threshold_share
from pgsim.nn.product import Matrix, exact_dtype, exact_sum
from pgsim.nn.recurrent import QuantLSTMCell

State = tuple[Tensor, Tensor]


def run_steps(cell: QuantLSTMCell, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Run the cell over x [T, N, I], one step after the other; return h [T, N, H] of all steps and the last state."""
    every = []
    for step in x:
        state = cell(step, state)
        every.append(state[0])
    return torch.stack(every), state


def run_sequence(cell: QuantLSTMCell, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Do what `run_steps` does, faster; the states given and returned carry no gradient (truncated back-propagation).

    Raises ValueError for a policy other than KEEP or a mask gradient other than PAPER.
    """
    gating = cell.gating
    if gating is not None and (gating.policy is not Policy.KEEP or gating.gradient is not MaskGradient.PAPER):
        raise ValueError(f"gating must keep predictions and have the paper's gradient, not {gating}")
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    clip_x, clip_h = cell.input.clip, cell.hidden.clip
    codes = RealOfCodes.apply(cell.input.codes(x), 1.0, 1.0 / clip_x)
    weight = torch.cat([cell.weight_ih * clip_x, cell.weight_hh * clip_h], 1)
    h, c, updated = cast(
        tuple[Tensor, Tensor, Tensor],
        CodedSequence.apply(codes, weight, cell.bias_ih, cell.bias_hh, cell.delta, *state, cell),
    )
    outputs = x.shape[0] * x.shape[1] * len(weight)
    cell.outputs += outputs
    cell.updated += outputs if gating is None else int(updated)
    return h, (h[-1].detach(), c)


class CodedSequence(torch.autograd.Function):
    """All steps of a dense or gated LSTM cell on codes: h [T, N, H], the last c [N, H], and how many were updated.

    Forward takes codes of x [T, N, I], weights [4H, I+H] (those of `QuantLSTMCell`, scales included), the biases
    [4H], delta [4H] or None, the state before the first step, [N, H] each, and the cell, for its formats.
    """

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        weight: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        delta: Tensor | None,
        h: Tensor,
        c: Tensor,
        cell: QuantLSTMCell,
    ) -> tuple[Tensor, Tensor, Tensor]:
        act, inputs = cell.input.format, codes.shape[-1]
        w_codes, w_step = weight_codes(weight, cell.weights)
        dtype = exact_dtype(w_codes, max_magnitude(act))
        wide = torch.promote_types(dtype, codes.dtype)
        w_x, w_h = w_codes[:, :inputs], w_codes[:, inputs:]
        unit = w_step / act.max_code
        planes = _planes(codes, cell)
        from_x = [exact_sum(Matrix(), plane, w_x, dtype) for plane in planes]
        threshold = None
        if cell.gating is not None and delta is not None:
            update_bits = cell.gating.update_bits(act.bits)
            threshold = integer_threshold(delta, unit, update_bits).to(dtype)
        states, cells, gates, h_planes, sums = [h], [c], [], [], []
        for t in range(len(codes)):
            h_codes = _planes(static_codes(h, cell.hidden.clip, act), cell)
            from_h = exact_sum(Matrix(), torch.cat(h_codes), w_h, dtype).chunk(len(h_codes))
            a = [x[t] + share for x, share in zip(from_x, from_h, strict=True)]
            total = a[0]
            if threshold is not None:
                predicted = a[0] * 2.0**update_bits
                total = torch.where(a[0] > threshold, predicted + a[1], predicted)
            pre = (total.to(wide) * unit.to(wide)).to(codes.dtype) + bias_ih + bias_hh
            i, f, g, o = pre.chunk(4, -1)
            i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
            c = f * c + i * g
            h = o * torch.tanh(c)
            states.append(h)
            cells.append(c)
            gates.append((i, f, g, o))
            h_planes.append(h_codes)
            sums.append(a)
        updated = torch.zeros(())
        masks = moved = None
        if threshold is not None:
            masks = torch.stack([a[0] for a in sums]) > threshold
            updated = torch.count_nonzero(masks)
        if any(ctx.needs_input_grad):
            if masks is not None:
                moved = _threshold_share(sums, masks, delta, unit.to(wide), update_bits, cell).to(codes.dtype)
            ctx.planes = [
                torch.cat([plane, torch.stack([step[k] for step in h_planes])], -1) for k, plane in enumerate(planes)
            ]
            ctx.states, ctx.cells, ctx.gates, ctx.masks, ctx.moved = states, cells, gates, masks, moved
            ctx.real = w_codes.to(codes.dtype) * w_step.to(codes.dtype).view(-1, 1)
            ctx.step, ctx.clip_h, ctx.inputs = 1.0 / act.max_code, cell.hidden.clip, inputs
            # A trace of one plane is scaled by 1, of two by 2^l and 1.
            ctx.factors = [1.0] if masks is None else [2.0**update_bits, 1.0]
        out = torch.stack(states[1:])
        last = c.clone()
        ctx.mark_non_differentiable(last, updated)
        return out, last, updated

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _grad_c: Any, _grad_updated: Any) -> Any:
        steps = len(grad)
        w_x, w_h = ctx.real[:, : ctx.inputs], ctx.real[:, ctx.inputs :]
        pre: list[Tensor] = [grad] * steps
        on_h = torch.zeros_like(grad[0])
        on_c = torch.zeros_like(grad[0])
        for t in range(steps - 1, -1, -1):
            i, f, g, o = ctx.gates[t]
            squashed = torch.tanh(ctx.cells[t + 1])
            dh = grad[t] + on_h
            dc = on_c + dh * o * (1 - squashed * squashed)
            pre[t] = torch.cat(
                [
                    dc * g * i * (1 - i),
                    dc * ctx.cells[t] * f * (1 - f),
                    dc * i * (1 - g * g),
                    dh * squashed * o * (1 - o),
                ],
                -1,
            )
            on_c = dc * f
            inside = ctx.states[t].abs() <= ctx.clip_h
            on_h = (pre[t] @ w_h) * (inside / ctx.clip_h)
        on_pre = torch.stack(pre)
        rows = on_pre.flatten(0, 1)
        shares = [rows] if ctx.masks is None else [rows, rows * ctx.masks.flatten(0, 1)]
        grad_w = torch.zeros_like(ctx.real)
        for share, plane, factor in zip(shares, ctx.planes, ctx.factors, strict=True):
            grad_w.add_(share.t() @ plane.flatten(0, 1), alpha=factor)
        grad_delta = None if ctx.moved is None else (on_pre * ctx.moved).sum((0, 1))
        bias = rows.sum(0)
        return on_pre @ w_x, grad_w.mul_(ctx.step), bias, bias.clone(), grad_delta, None, None, None


def _planes(codes: Tensor, cell: QuantLSTMCell) -> tuple[Tensor, ...]:
    """Return the codes as one plane of a dense cell, as high and low plane of a gated one."""
    if cell.gating is None:
        return (codes,)
    act = cell.input.format
    return split_codes(codes, act.encoding, cell.gating.update_bits(act.bits))


def _threshold_share(
    sums: list[list[Tensor]], masks: Tensor, delta: Any, unit: Tensor, update_bits: int, cell: QuantLSTMCell
) -> Tensor:
    """Return dO/dDelta of every pre-activation [T, N, 4H], as pgsim.nn.functional has it for KEEP and PAPER."""
    assert cell.gating is not None
    o_hb = torch.stack([a[0] for a in sums]).to(unit.dtype) * (unit * 2.0**update_bits)
    o_lb = torch.stack([a[1] for a in sums]).to(unit.dtype) * unit
    return threshold_share(o_hb - delta.detach(), o_lb, masks, cell.gating)
