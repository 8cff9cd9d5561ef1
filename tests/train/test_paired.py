"""Two networks on the same images: McNemar's test and the interval of their difference."""

from __future__ import annotations

import pytest

from pgsim.train.paired import Paired


def paired(b: int, c: int, images: int = 100) -> Paired:
    return Paired(images, right=images - c, other_right=images - b, only_first=b, only_second=c, changed=b + c)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [  # two-sided binomial, by hand: 2 (1 + 6) / 64, 2 / 32, 2 (1 + 3) / 8
        (1, 5, 14 / 64),
        (5, 1, 14 / 64),
        (0, 5, 2 / 32),
        (1, 2, 1.0),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_the_exact_test_worked_by_hand(b: int, c: int, p: float) -> None:
    assert paired(b, c).p_value == p


def test_the_interval_is_that_of_a_textbook() -> None:
    # Agresti, Categorical Data Analysis, 10.1: 794, 150, 86, 570 of 1600; 944 approve first, 880 then; se 0.0095.
    approval = Paired(1600, 944, 880, 150, 86, 236)
    assert approval.difference_points == -4.0
    low, high = approval.interval_points
    assert (round(low / 100, 2), round(high / 100, 2)) == (-0.06, -0.02)
    assert (high - low) / 2 / 1.96 / 100 == pytest.approx(0.0095, abs=5e-5)
    assert approval.p_value < 1e-4


def test_many_disagreements_do_not_overflow() -> None:
    assert paired(5000, 4000, 10000).p_value < 1e-20
    assert paired(0, 5000, 10000).p_value == 0.0  # 2^-4999 is no float
