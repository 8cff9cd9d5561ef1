"""What is written down of the paper agrees with itself and with its own formulas."""

from __future__ import annotations

import pytest

from pgsim.paper.claims import CIFAR, CLAIMS, RESNET20, TABLES, Claim, Method

GATED = [claim for claim in CLAIMS if claim.sparsity is not None]


@pytest.mark.parametrize("claim", GATED, ids=lambda claim: f"{claim.table} {claim.network} {claim.method.value}")
def test_the_papers_b_avg_follows_from_its_sparsity(claim: Claim) -> None:
    assert claim.bits is not None
    assert claim.sparsity is not None
    act_bits, pred_bits = claim.bits
    more = act_bits if claim.method is Method.SEERNET else act_bits - pred_bits
    exact = pred_bits + (1 - claim.sparsity / 100) * more
    assert claim.b_avg == pytest.approx(exact, abs=0.1)


def test_every_table_has_as_many_entries_as_the_paper() -> None:
    counts = {table: sum(claim.table == table for claim in CLAIMS) for table in TABLES}
    assert counts == {1: 3 + 18 + 18, 2: 3, 3: 7, 4: 12, 5: 1 + 3 + 3, 7: 2 + 10 + 8}


@pytest.mark.parametrize(
    ("method", "bits", "sparsity", "score"),
    [
        (Method.PG, (3, 2), 90.1, 91.2),
        (Method.PG, (2, 1), 71.5, 90.6),
        (Method.FIX_THRESHOLD, (3, 2), 71.0, 74.2),
        (Method.PACT, (2, 2), None, 90.1),
        (Method.UQ, (2, 2), None, 84.0),
        (Method.FLOAT, None, None, 91.7),
    ],
)
def test_resnet_20_in_table_1(
    method: Method, bits: tuple[int, int] | None, sparsity: float | None, score: float
) -> None:
    (found,) = (c for c in CLAIMS if (c.table, c.network, c.method, c.bits) == (1, RESNET20, method, bits))
    assert (found.dataset, found.sparsity, found.score) == (CIFAR, sparsity, score)


def test_the_fixed_threshold_of_1_stands_in_table_1_too() -> None:
    (swept,) = (claim for claim in CLAIMS if (claim.table, claim.threshold) == (3, 1))
    (other,) = (c for c in CLAIMS if (c.table, c.network, c.bits, c.method) == (1, RESNET20, (3, 2), swept.method))
    assert (swept.sparsity, swept.score) == (other.sparsity, other.score)
