"""Codes, planes and gates by compiled kernels and by torch's own operations: one test body over both."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from pgsim.arith.formats import Encoding, NumberFormat  # noqa: E402
from pgsim.nn import eight_bit, gate, rows  # noqa: E402
from pgsim.nn.codes import WeightFormat, pact_codes, split_codes, static_codes  # noqa: E402
from pgsim.nn.functional import Gating, MaskGradient, Policy, gated_conv2d  # noqa: E402
from pgsim.nn.kernels import sigmoid_slope  # noqa: E402

SHAPE = (4, 16, 24, 24)
"""36,864 values, enough for kernels: rows of 1024 pixels and channels, one part."""
LAYOUTS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(monkeypatch: pytest.MonkeyPatch, function: Any) -> tuple[Any, Any]:
    """Return what a function gives on kernels, and without; the first must have called one."""
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args[0])
        return in_parts(*args)

    in_parts = rows.in_parts
    for module in ("codes", "gate"):
        monkeypatch.setattr(f"pgsim.nn.{module}.in_parts", counted)
    fast = function()
    assert calls
    count = len(calls)
    for module in (rows, gate, eight_bit):
        monkeypatch.setattr(module, "runs_kernels", lambda _: False)
    plain = function()
    assert len(calls) == count
    return fast, plain


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["pact", "unsigned", "signed"])
def test_codes_and_their_gradients_are_the_same_bits(kind: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = 1.25
    x = drawn(*SHAPE, seed=1).contiguous(memory_format=LAYOUTS[layout])
    edges = torch.tensor([0.0, -0.0, clip, -clip, 9e9, -9e9, 1e-45, float("inf"), -float("inf"), clip / 15 * 2.5])
    x[0, 0, 0, : len(edges)] = edges
    grad = drawn(*SHAPE, seed=2)

    def codes() -> list[Tensor]:
        leaf, alpha = x.clone().requires_grad_(), torch.tensor(clip, requires_grad=True)
        form = NumberFormat(Encoding.UNSIGNED if kind == "unsigned" else Encoding.SIGN_MAGNITUDE, 4)
        found = pact_codes(leaf, alpha, 4) if kind == "pact" else static_codes(leaf, clip, form)
        found.backward(grad)
        assert leaf.grad is not None
        return [found.detach(), leaf.grad, *([] if alpha.grad is None else [alpha.grad])]

    fast, plain = both(monkeypatch, codes)
    assert fast[0].stride() == plain[0].stride()
    assert torch.equal(fast[0], plain[0])
    assert torch.equal(fast[1], plain[1])
    for one, other in zip(fast[2:], plain[2:], strict=True):  # the clip's gradient is a sum
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_what_is_no_number_stays_none(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(*SHAPE, seed=1)
    x[1, 2, 3, 4] = float("nan")
    for codes in both(monkeypatch, lambda: pact_codes(x, torch.tensor(1.0), 4)):
        assert codes.isnan().sum() == 1
        assert codes[1, 2, 3, 4].isnan()


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("update_bits", [1, 3, 7])
def test_planes_are_the_same_bits(encoding: Encoding, update_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.arange(-(2.0**15), 2.0**15).clamp_min(-(2.0**15) if encoding is not Encoding.UNSIGNED else 0)
    fast, plain = both(monkeypatch, lambda: split_codes(codes, encoding, update_bits))
    for one, other in zip(fast, plain, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(fast[0] * 2**update_bits + fast[1], codes)


@pytest.mark.parametrize("gradient", list(MaskGradient))
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("policy", list(Policy))
def test_gated_convolutions_are_twins(
    policy: Policy, sparse: bool, gradient: MaskGradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gating = Gating(4, policy, sparse, gradient, slope=3.0)
    codes = torch.randint(0, 64, SHAPE, generator=torch.Generator().manual_seed(1)).float()
    codes = codes.contiguous(memory_format=torch.channels_last)
    weight, delta, grad = drawn(24, 16, 3, 3, seed=2), drawn(24, seed=3), drawn(4, 24, 22, 22, seed=4)

    def run() -> list[Tensor]:
        leaves = [leaf.clone().requires_grad_() for leaf in (codes, weight, delta)]
        weights = WeightFormat(per_channel=True)
        out, mask = gated_conv2d(*leaves, 0.02, act_bits=6, gating=gating, weights=weights)
        out.backward(grad)
        assert 0 < int(mask.sum()) < mask.numel()
        assert mask.dtype == torch.bool
        return [out.detach(), mask, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    fast, plain = both(monkeypatch, run)
    assert len(fast) == 5
    assert fast[0].stride() == plain[0].stride()
    assert torch.equal(fast[0], plain[0])
    assert torch.equal(fast[1], plain[1])
    for one, other in zip(fast[2:], plain[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_network_that_lies_in_rows_stays_in_rows() -> None:
    """Whose `x.view(len(x), -1)` would not be possible channels last."""
    codes = torch.randint(0, 16, SHAPE, generator=torch.Generator().manual_seed(1)).float()
    weight, delta = drawn(8, 16, 3, 3, seed=2), torch.zeros(8)
    out, _ = gated_conv2d(codes, weight, delta, 0.1, act_bits=4, gating=Gating(2))
    assert out.is_contiguous()
    last = codes.contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, gated_conv2d(last, weight, delta, 0.1, act_bits=4, gating=Gating(2))[0])
    assert pact_codes(drawn(*SHAPE, seed=1), torch.tensor(1.0), 4).is_contiguous()


def test_accumulators_in_rows_are_gated_as_those_that_lie_channels_last() -> None:
    sums = [torch.randint(-99, 99, SHAPE, generator=torch.Generator().manual_seed(seed)).float() for seed in (1, 2)]
    columns = [drawn(16, seed=seed) for seed in (3, 4)]
    found = []
    for layout in LAYOUTS.values():
        operands = [each.clone().contiguous(memory_format=layout) for each in sums]
        found.append(
            gate.gate_rows(*operands, *columns, torch.ones(16), gate.GateRule(2, 5.0, 1.0, sparse=True, keep=True))
        )
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(found[0][0], 4 * sums[0] + sums[1] * (sums[0] > columns[0][:, None, None]))


def test_no_images_have_no_outputs_and_move_nothing() -> None:
    codes = torch.zeros(0, 16, 8, 8).to(memory_format=torch.channels_last)
    leaves = [codes.requires_grad_(), drawn(8, 16, 3, 3, seed=2).requires_grad_(), torch.zeros(8, requires_grad=True)]
    out, mask = gated_conv2d(*leaves, 0.1, act_bits=4, gating=Gating(2))
    assert out.shape == mask.shape == (0, 8, 6, 6)
    out.sum().backward()
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_threshold_beyond_float32_in_accumulator_units_updates_nothing(layout: str) -> None:
    codes = torch.full(SHAPE, 15.0).contiguous(memory_format=LAYOUTS[layout])
    delta = torch.tensor([3e38, -3e38])
    _, mask = gated_conv2d(codes, torch.ones(2, 16, 3, 3), delta, 1e-3, act_bits=4, gating=Gating(2))
    assert not mask[:, 0].any()
    assert mask[:, 1].all()


def test_every_second_channel_of_a_map_has_its_codes() -> None:
    whole = drawn(4, 32, 24, 24, seed=1).contiguous(memory_format=torch.channels_last)
    leaf = whole.clone().requires_grad_()
    found = pact_codes(leaf[:, 1::2], torch.tensor(1.0), 4)
    assert torch.equal(found, pact_codes(whole[:, 1::2].contiguous(), torch.tensor(1.0), 4))
    found.sum().backward()
    assert leaf.grad is not None
    inside = (whole > 0) & (whole < 1)
    inside[:, 0::2] = False
    assert torch.equal(leaf.grad, inside.float())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_has_threads_of_its_own() -> None:
    """Those of its parent are not there, and work given to them would never end."""
    threads = torch.get_num_threads()
    x = drawn(8, 64, 32, 32, seed=1)  # four parts
    try:
        torch.set_num_threads(2)
        pact_codes(x, torch.tensor(1.0), 4)
        child = os.fork()
        if not child:
            import faulthandler

            faulthandler.dump_traceback_later(20, exit=True)
            data = rows.dense_rows(x)
            found = rows.in_parts(lambda part: len(part), data)
            os._exit(0 if sum(found) == 512 else 3)
        _, status = os.waitpid(child, 0)
    finally:
        torch.set_num_threads(threads)
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_slope_is_that_of_the_sigmoid() -> None:
    z = np.linspace(-40, 40, 4001)
    s = 1 / (1 + np.exp(-z))
    found = np.array([sigmoid_slope(np.float32(x)) for x in z], np.float64)
    np.testing.assert_allclose(found, s * (1 - s), rtol=0, atol=2e-7)
