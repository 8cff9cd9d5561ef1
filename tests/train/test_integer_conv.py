"""The 8-bit convolution of codes against float32 and against sums in float64, and the CPUs that lack it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from pgsim.nn.kernels import sigmoid_slope  # noqa: E402
from pgsim.train import integer_conv  # noqa: E402
from pgsim.train.integer_conv import convolve_codes, narrowed, sums_are_exact  # noqa: E402


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    sums_are_exact.cache_clear()
    yield
    sums_are_exact.cache_clear()


@given(
    channels=st.integers(1, 70),
    filters=st.integers(1, 40),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    bits=st.integers(1, 8),
    extreme=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_sums_are_the_integers_of_float64(
    channels: int, filters: int, kernel: int, stride: int, bits: int, extreme: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = 2**bits - 1 if extreme else 0
    codes = torch.randint(low, 2**bits, (2, channels, 6, 6), generator=generator).float()
    codes = codes.to(memory_format=torch.channels_last)
    w_codes = torch.randint(-127, 128, (filters, channels, kernel, kernel), generator=generator).float()
    if extreme:
        w_codes = torch.where(w_codes < 0, -127.0, 127.0)
    padding = kernel // 2
    exact = F.conv2d(codes.double(), w_codes.double(), None, stride, padding)
    for given_codes in (codes, narrowed(codes)):
        sums = convolve_codes(given_codes, w_codes, stride, padding)
        assert sums.dtype == torch.float32
        assert torch.equal(sums.double(), exact)


def test_a_cpu_that_saturates_or_lacks_the_operation_goes_through_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.full((1, 3, 4, 4), 7.0)

    def lacking(*_: object) -> Tensor:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(integer_conv, "convolve_codes", lacking)
    assert not sums_are_exact()
    assert narrowed(codes) is codes
    sums_are_exact.cache_clear()

    def saturating(codes: Tensor, w_codes: Tensor, stride: int, padding: int) -> Tensor:
        sums = convolve_codes(codes.float(), w_codes, stride, padding)
        return sums.clamp(-32768, 32767) if codes.dtype == torch.uint8 else sums

    monkeypatch.setattr(integer_conv, "convolve_codes", saturating)
    assert not sums_are_exact()
    assert narrowed(codes) is codes


def test_the_slope_is_that_of_the_sigmoid() -> None:
    z = np.linspace(-40, 40, 4001)
    s = 1 / (1 + np.exp(-z))
    found = np.array([sigmoid_slope(np.float32(x)) for x in z], np.float64)
    np.testing.assert_allclose(found, s * (1 - s), rtol=0, atol=2e-7)
