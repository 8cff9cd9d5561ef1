"""Gradients of the training functions against closed forms and against autograd on plain twins."""

from __future__ import annotations

from typing import cast

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pgsim.nn.gate import GateRule  # noqa: E402
from pgsim.nn.rows import pixels_a_row  # noqa: E402
from pgsim.train import blocks, gating  # noqa: E402
from pgsim.train.blocks import Block, Options  # noqa: E402
from pgsim.train.fused import norm_pact  # noqa: E402
from pgsim.train.gating import SURROGATE_SLOPE, DenseConv, GatedConv  # noqa: E402
from pgsim.train.quantise import PactQuantise, weight_codes  # noqa: E402


def codes_of(shape: tuple[int, ...], levels: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, levels + 1, shape, generator=generator).float()
    return codes.to(memory_format=torch.channels_last)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_dense_convolution_passes_the_gradient_of_its_real_operands(stride: int) -> None:
    codes, weight, step = codes_of((2, 5, 6, 6), 7, 0).requires_grad_(), normal((4, 5, 3, 3), 1).requires_grad_(), 0.3
    out = DenseConv.apply(codes, weight, step, stride, 1)
    grad = channels_last(normal(tuple(out.shape), 2))
    out.backward(grad)
    w_codes, clip = weight_codes(weight)
    real_x = (codes.detach() * step).requires_grad_()
    real_w = (w_codes * (clip / 127)).requires_grad_()
    expected = F.conv2d(real_x, real_w, None, stride, 1)
    expected.backward(grad)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(codes.grad, real_x.grad)
    torch.testing.assert_close(weight.grad, real_w.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("on_kernels", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("act_bits", "pred_bits"), [(3, 2), (4, 3), (2, 1), (4, 2)])
def test_a_gated_convolution_follows_equations_5_to_7(
    act_bits: int, pred_bits: int, sparse: bool, keep: bool, on_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gating, "runs_kernels", lambda _: on_kernels)
    low_bits, step, stride = act_bits - pred_bits, 0.2, 1
    codes = codes_of((2, 3, 5, 5), 2**act_bits - 1, 3).requires_grad_()
    weight = normal((4, 3, 3, 3), 4).requires_grad_()
    delta = torch.tensor([-0.5, 0.0, 0.4, 1.0]).requires_grad_()
    out, mask = cast(
        tuple[Tensor, Tensor], GatedConv.apply(codes, weight, delta, step, stride, 1, low_bits, sparse, keep)
    )
    grad = channels_last(normal(tuple(out.shape), 5))
    out.backward(grad)

    w_codes, clip = weight_codes(weight)
    real_w = w_codes.double() * (float(clip) / 127)
    high = torch.floor(codes.detach() / 2**low_bits).double() * 2**low_bits * step
    low = codes.detach().double() * step - high
    o_high, o_low = F.conv2d(high, real_w, None, stride, 1), F.conv2d(low, real_w, None, stride, 1)
    threshold = delta.detach().double().view(1, -1, 1, 1)
    expected_mask = o_high > threshold
    assert torch.equal(mask.bool(), expected_mask)
    predicted = o_high if keep else expected_mask * o_high
    torch.testing.assert_close(out.double(), predicted + expected_mask * o_low, rtol=1e-5, atol=1e-6)

    g = grad.double()
    s = torch.sigmoid(SURROGATE_SLOPE * (o_high - threshold))
    slope = SURROGATE_SLOPE * s * (1 - s) * (o_low if keep else o_high + o_low)
    share = -2 * expected_mask * slope if sparse else -slope
    torch.testing.assert_close(delta.grad, (g * share).sum((0, 2, 3)).float(), rtol=1e-4, atol=1e-5)
    g_high = g if keep else g * expected_mask
    grad_x, _, _ = torch.ops.aten.convolution_backward(
        g_high, high, real_w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
    )
    torch.testing.assert_close(codes.grad, grad_x.float(), rtol=1e-4, atol=1e-5)
    leaf = real_w.clone().requires_grad_()
    (F.conv2d(high, leaf, None, 1, 1) * g_high + expected_mask * F.conv2d(low, leaf, None, 1, 1) * g).sum().backward()
    torch.testing.assert_close(weight.grad, leaf.grad.float(), rtol=1e-4, atol=1e-5)


def test_pact_sends_the_gradient_inside_to_its_input_and_above_to_its_clip() -> None:
    y = torch.tensor([-1.0, 0.2, 1.9, 2.5, 7.0, 2.0, 0.0], requires_grad=True)
    alpha = torch.tensor(2.0, requires_grad=True)
    clipped, codes = cast(tuple[Tensor, Tensor], PactQuantise.apply(y, alpha, 7))
    assert codes.tolist() == [0, 1, 7, 7, 7, 7, 0]
    assert clipped.tolist() == pytest.approx([0.0, 0.2, 1.9, 2.0, 2.0, 2.0, 0.0])
    torch.autograd.backward([clipped, codes], [torch.full((7,), 10.0), torch.arange(7.0)])
    assert y.grad is not None
    assert y.grad.tolist() == [0.0, 11.0, 12.0, 0.0, 0.0, 0.0, 0.0]
    assert alpha.grad is not None
    assert alpha.grad.item() == 13.0 + 14.0 + 15.0  # 1 from alpha on, as PACT has it


@pytest.mark.parametrize(("shape", "pixels"), [((4, 16, 5, 5), 4), ((1, 24, 3, 3), 1), ((4, 16, 40, 40), 64)])
@pytest.mark.parametrize("with_shortcut", [False, True])
def test_the_fused_batch_norm_and_pact_equals_its_plain_twin(
    with_shortcut: bool, shape: tuple[int, int, int, int], pixels: int
) -> None:
    x = channels_last(normal(shape, 6) * 2 + 1)
    assert pixels_a_row(x) == pixels
    short = channels_last(normal(shape, 7).abs()) if with_shortcut else None
    grads = [channels_last(normal(shape, 8)), channels_last(normal(shape, 9))]
    results = []
    for fused in (True, False):
        norm = nn.BatchNorm2d(shape[1])
        with torch.no_grad():
            norm.weight.copy_(normal(shape[1:2], 10))
            norm.bias.copy_(normal(shape[1:2], 11))
            norm.weight[3], norm.bias[3] = 0.0, 1.3  # all of this channel lies on the clip
        leaf, alpha = x.clone().requires_grad_(), torch.tensor(1.3, requires_grad=True)
        add = None if short is None else short.clone().requires_grad_()
        if fused:
            outputs = norm_pact(leaf, norm, alpha, add, 7)
        else:
            y = norm(leaf) if add is None else norm(leaf) + add
            outputs = cast(tuple[Tensor, Tensor], PactQuantise.apply(y, alpha, 7))
        torch.autograd.backward(list(outputs), grads)
        found = [*outputs, leaf.grad, norm.weight.grad, norm.bias.grad, alpha.grad, norm.running_mean, norm.running_var]
        results.append(found if add is None else [*found, add.grad])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_kernels_give_the_same_bits_on_any_number_of_threads() -> None:
    """Of 25,600 pixels: 400 rows, in four parts, of which the last is short."""
    x, short, grad = (channels_last(normal((4, 16, 80, 80), seed)) for seed in (6, 7, 8))
    delta, before = normal((16,), 9), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            norm, leaf, alpha = nn.BatchNorm2d(16), x.clone().requires_grad_(), torch.tensor(1.3, requires_grad=True)
            clipped, codes = norm_pact(leaf, norm, alpha, short, 7)
            torch.autograd.backward([clipped, codes], [grad, short])
            planes, unit = (codes.clone(), short.round()), torch.full((16,), 0.5)
            rule = GateRule(2, 5.0, 2.0, sparse=True, keep=True)
            out, mask, moved = gating.gate_rows(*planes, delta.floor(), delta, unit, rule)
            learned = [leaf.grad, norm.weight.grad, norm.bias.grad, alpha.grad, norm.running_mean, norm.running_var]
            passed = gating.gate_backward_rows(grad, mask, moved)
            results.append([clipped, codes, *learned, out, mask, moved, *passed])
    finally:
        torch.set_num_threads(before)
    for found in results[1:]:
        for got, expected in zip(found, results[0], strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize(("shifts", "stride", "keep"), [(False, 1, True), (False, 2, False), (True, 2, True)])
def test_a_block_on_torch_s_own_operations_equals_the_one_on_kernels(
    shifts: bool, stride: int, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    block = Block(8, 8 * stride, stride, Options(4, 2, "all", keep=keep), shifts=shifts)
    with torch.no_grad():
        for conv in (block.conv1, block.conv2):
            cast(Tensor, conv.delta).normal_(0.2, 0.2)
        for pact in (block.pact1, block.pact2):
            pact.alpha.fill_(2.0)
    block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    results = []
    for on_kernels in (True, False):
        for module in (gating, blocks):
            monkeypatch.setattr(module, "runs_kernels", lambda _, on_kernels=on_kernels: on_kernels)
        block.zero_grad()
        stream, codes = normal((4, 8, 6, 6), 2).abs().requires_grad_(), codes_of((4, 8, 6, 6), 15, 3).requires_grad_()
        out, after = block(channels_last(stream), codes, 0.1)
        (out * normal(tuple(out.shape), 4) + after * normal(tuple(out.shape), 5) * 0.1).sum().backward()
        results.append([out, after, stream.grad, codes.grad, *(p.grad for p in block.parameters())])
    for mine, other in zip(*results, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    assert not all(torch.equal(mine, other) for mine, other in zip(*results, strict=True))  # two ways were taken
