"""The fast twin of a quantised LSTM cell does what the cell does, step by step, forward and backward."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.arith.formats import Encoding  # noqa: E402
from pgsim.nn import (  # noqa: E402
    GatedLSTMCell,
    Gating,
    MaskGradient,
    Policy,
    QuantiseInput,
    QuantLSTMCell,
)
from pgsim.train.language.sequence import run_sequence, run_steps  # noqa: E402

STEPS, STREAMS, INPUTS, UNITS = 7, 3, 10, 6


def make_cell(kind: str, encoding: Encoding, gating: Gating) -> QuantLSTMCell:
    torch.manual_seed(2)
    quantisers = {"input": QuantiseInput(4, encoding, 0.8), "hidden": QuantiseInput(4, encoding, 0.05)}
    if kind == "dense":
        return QuantLSTMCell(INPUTS, UNITS, **quantisers)
    cell = GatedLSTMCell(INPUTS, UNITS, gating=gating, **quantisers)
    assert cell.delta is not None
    with torch.no_grad():
        cell.delta.copy_(torch.randn(4 * UNITS) * 0.1)
    return cell


@pytest.mark.parametrize("encoding", [Encoding.SIGN_MAGNITUDE, Encoding.TWOS_COMPLEMENT])
@pytest.mark.parametrize(("kind", "sparse"), [("dense", True), ("gated", True), ("gated", False)])
def test_the_fast_sequence_is_the_cell_step_by_step(kind: str, sparse: bool, encoding: Encoding) -> None:
    cell = make_cell(kind, encoding, Gating(2, sparse=sparse)).double()
    x0 = torch.randn(STEPS, STREAMS, INPUTS, dtype=torch.float64)
    start = tuple(torch.randn(STREAMS, UNITS, dtype=torch.float64) * 0.05 for _ in range(2))
    weight = torch.randn(STEPS, STREAMS, UNITS, dtype=torch.float64)
    seen = []
    for run in (run_steps, run_sequence):
        cell.zero_grad()
        cell.reset_counts()
        x = x0.clone().requires_grad_()
        h, (last_h, last_c) = run(cell, x, start)
        (h * weight).sum().backward()
        gradients = {name: p.grad for name, p in cell.named_parameters()}
        seen.append((h.detach(), last_h.detach(), last_c.detach(), x.grad, gradients, cell.outputs, cell.updated))
    slow, fast = seen
    for mine, theirs in zip(slow[:3], fast[:3], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(slow[3], fast[3], rtol=1e-9, atol=1e-12)
    assert slow[4].keys() == fast[4].keys()
    for name in slow[4]:
        torch.testing.assert_close(slow[4][name], fast[4][name], rtol=1e-5, atol=1e-9, msg=name)
    assert slow[5:] == fast[5:]
    assert slow[5] == STEPS * STREAMS * 4 * UNITS
    assert (0 < slow[6] < slow[5]) == (kind == "gated")
    # Some values are cut off by the clips, and some are not: both sides of every gradient's rule were used.
    for values, clip in ((x0, 0.8), (slow[0], 0.05)):
        assert 0 < int((values.abs() > clip).sum()) < values.numel()


def test_states_carry_no_gradient_from_one_window_to_the_next() -> None:
    cell = make_cell("gated", Encoding.SIGN_MAGNITUDE, Gating(2))
    x = torch.randn(STEPS, STREAMS, INPUTS)
    zeros = torch.zeros(STREAMS, UNITS)
    _, (h, c) = run_sequence(cell, x, (zeros, zeros))
    assert not h.requires_grad
    assert not c.requires_grad


@pytest.mark.parametrize("gating", [Gating(2, policy=Policy.ZERO), Gating(2, gradient=MaskGradient.RELEASE)])
def test_other_rules_than_the_papers_are_refused(gating: Gating) -> None:
    cell = make_cell("gated", Encoding.SIGN_MAGNITUDE, gating)
    zeros = torch.zeros(STREAMS, UNITS)
    with pytest.raises(ValueError, match="gating must keep predictions and have the paper's gradient, not Gating"):
        run_sequence(cell, torch.zeros(1, STREAMS, INPUTS), (zeros, zeros))
