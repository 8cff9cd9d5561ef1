"""Gradients of clips, batch norms and blocks against plain twins (those of convolutions: tests/nn)."""

from __future__ import annotations

from typing import cast

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from pgsim.nn import eight_bit, gate  # noqa: E402
from pgsim.nn.rows import pixels_a_row  # noqa: E402
from pgsim.train import blocks  # noqa: E402
from pgsim.train.blocks import Block, Options  # noqa: E402
from pgsim.train.fused import norm_pact  # noqa: E402
from pgsim.train.quantise import PactQuantise  # noqa: E402


def codes_of(shape: tuple[int, ...], levels: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, levels + 1, shape, generator=generator).float()
    return codes.to(memory_format=torch.channels_last)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


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
            rule = gate.GateRule(2, 5.0, 2.0, sparse=True, keep=True)
            out, mask, moved = gate.gate_rows(*planes, delta.floor(), delta, unit, rule)
            learned = [leaf.grad, norm.weight.grad, norm.bias.grad, alpha.grad, norm.running_mean, norm.running_var]
            passed = gate.gate_backward_rows(grad, mask, moved)
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
        for module in (gate, eight_bit, blocks):
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
