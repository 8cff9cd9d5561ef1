"""The quantiser of residual streams."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.train.quantise import PactQuantise  # noqa: E402


def test_pact_codes_round_half_to_even_and_stay_in_range() -> None:
    y = torch.tensor([-5.0, 0.5, 1.5, 2.5, 6.9, 7.0, 100.0])
    clipped, codes = PactQuantise.apply(y, torch.tensor(7.0), 7)
    assert codes.tolist() == [0, 0, 2, 2, 7, 7, 7]
    assert clipped.tolist() == pytest.approx([0, 0.5, 1.5, 2.5, 6.9, 7.0, 7.0])
