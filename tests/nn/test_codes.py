"""Codes of weights and planes of codes, against values written out here."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.arith.formats import Encoding  # noqa: E402
from pgsim.nn.codes import WeightFormat, split_codes, weight_codes  # noqa: E402


def test_weight_codes_are_symmetric_and_round_half_to_even() -> None:
    codes, step = weight_codes(torch.tensor([[127.0, -127.0, 0.5], [1.5, 2.5, -0.5]]), WeightFormat())
    assert codes.tolist() == [[127, -127, 0], [2, 2, 0]]
    assert step.tolist() == [1.0]
    assert step.dtype == torch.float64


def test_an_all_zero_tensor_has_codes_zero_and_a_scale() -> None:
    codes, step = weight_codes(torch.zeros(2, 3), WeightFormat())
    assert codes.abs().sum() == 0
    assert step.tolist() == [1 / 127]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_planes_join_to_the_code_for_every_code(bits: int, dtype: torch.dtype) -> None:
    codes = torch.arange(2**bits).to(dtype)
    for low_bits in range(1, bits):
        high, low = split_codes(codes, Encoding.UNSIGNED, low_bits)
        assert high.dtype == low.dtype == dtype
        np.testing.assert_array_equal(high.numpy().astype(int), np.arange(2**bits) >> low_bits)
        np.testing.assert_array_equal(low.numpy().astype(int), np.arange(2**bits) % 2**low_bits)
