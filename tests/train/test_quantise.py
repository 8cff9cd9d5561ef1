"""The quantisers' codes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.train.gating import integer_threshold  # noqa: E402
from pgsim.train.quantise import PactQuantise, split_codes, weight_codes  # noqa: E402


def test_weight_codes_are_symmetric_and_round_half_to_even() -> None:
    codes, clip = weight_codes(torch.tensor([[127.0, -127.0, 0.5], [1.5, 2.5, -0.5]]))
    assert clip.item() == 127.0
    assert codes.tolist() == [[127, -127, 0], [2, 2, 0]]


def test_an_all_zero_tensor_has_codes_zero_and_a_scale() -> None:
    codes, clip = weight_codes(torch.zeros(2, 3))
    assert codes.abs().sum() == 0
    assert clip.item() == 1.0


@pytest.mark.parametrize("exponent", [-126, -64, -63, 100])
def test_weights_of_any_size_have_the_codes_of_their_ratios(exponent: int) -> None:
    codes, clip = weight_codes(torch.tensor([4.0, 0.0, -1.0, 3.0]) * 2.0**exponent)
    assert codes.tolist() == [127, 0, -32, 95]
    assert clip == 4 * 2.0**exponent


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_planes_join_to_the_code_for_every_code(bits: int) -> None:
    codes = torch.arange(2.0**bits)
    for low_bits in range(1, bits):
        high, low = split_codes(codes, low_bits)
        assert torch.equal(high * 2**low_bits + low, codes)
        np.testing.assert_array_equal(high.numpy().astype(int), np.arange(2**bits) >> low_bits)
        assert low.min() == 0
        assert low.max() == 2**low_bits - 1


def test_pact_codes_round_half_to_even_and_stay_in_range() -> None:
    y = torch.tensor([-5.0, 0.5, 1.5, 2.5, 6.9, 7.0, 100.0])
    clipped, codes = PactQuantise.apply(y, torch.tensor(7.0), 7)
    assert codes.tolist() == [0, 0, 2, 2, 7, 7, 7]
    assert clipped.tolist() == pytest.approx([0, 0.5, 1.5, 2.5, 6.9, 7.0, 7.0])


def test_the_integer_threshold_decides_as_the_real_one() -> None:
    delta = torch.tensor([0.75, -0.75, 0.0, 1.0])
    threshold = integer_threshold(delta, 0.25, 1)
    assert threshold.dtype == torch.float64
    assert threshold.tolist() == [1.0, -2.0, 0.0, 2.0]
    high = torch.arange(-6, 7).double()
    for d, t in zip(delta.tolist(), threshold.tolist(), strict=True):
        assert torch.equal(high > t, high * 2 * 0.25 > d)
