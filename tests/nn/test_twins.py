"""The trainer's numba functions and the plain ones of pgsim.nn: one test body over both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from pgsim.nn.codes import pact_codes  # noqa: E402
from pgsim.train.fused import norm_pact  # noqa: E402
from pgsim.train.quantise import PactQuantise  # noqa: E402


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def run(function: Callable[..., Any], *operands: Tensor) -> list[Tensor]:
    """Return the output of a function and the gradients of its operands."""
    leaves = [x.clone().requires_grad_() for x in operands]
    found = [function(*leaves)]
    found[0].backward(channels_last(normal(*found[0].shape, seed=9)))
    for leaf in leaves:
        assert leaf.grad is not None
        found.append(leaf.grad)
    return found


def agree(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_pact_codes_and_their_gradients_are_twins() -> None:
    y, alpha = normal(2, 3, 5, 5, seed=3) * 2, torch.tensor(1.3)
    y[0, 0, 0], y[0, 0, 1] = alpha, 0.0
    fast = run(lambda x, a: PactQuantise.apply(x, a, 7)[1], y, alpha)
    plain = run(lambda x, a: pact_codes(x, a, 3), y, alpha)
    agree(fast, plain)


def test_batch_norm_with_pact_and_the_fused_kernel_are_twins() -> None:
    x, alpha, gamma, beta = normal(4, 16, 5, 5, seed=4), torch.tensor(1.3), normal(16, seed=5), normal(16, seed=6)

    def fused(x: Tensor, alpha: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        norm = nn.BatchNorm2d(16)
        norm.weight, norm.bias = nn.Parameter(gamma), nn.Parameter(beta)
        found = norm_pact(channels_last(x), norm, alpha, None, 7)[1]
        norms.append(norm)
        return found

    def plain(x: Tensor, alpha: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return pact_codes(nn.functional.batch_norm(x, None, None, gamma, beta, training=True), alpha, 3)

    norms: list[nn.BatchNorm2d] = []
    leaves = [t.clone().requires_grad_() for t in (x, alpha)]
    out = fused(*leaves, gamma, beta)
    out.backward(channels_last(normal(*out.shape, seed=9)))
    expected = run(plain, x, alpha, gamma, beta)
    found = [out, *(leaf.grad for leaf in leaves), norms[0].weight.grad, norms[0].bias.grad]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
