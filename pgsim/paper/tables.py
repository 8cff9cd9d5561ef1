"""The paper's tables with our runs below each row: who compares what, and within which bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgsim.paper.claims import CLAIMS, FORMS, Claim, Method
from pgsim.paper.runs import Runs, group_runs
from pgsim.paper.stored import Result

POINTS = 0.5  # top-1, points
PERPLEXITY_SHARE = 0.02
SPARSITY_POINTS = 6.0


@dataclass(frozen=True)
class Row:
    """A claim of the paper and our runs of one recipe, or None where there is none.

    `paper_float` and `our_float` are the scores of the same network in float32, None where there is none.
    """

    claim: Claim
    ours: Runs | None
    paper_float: float | None = None
    our_float: float | None = None

    @property
    def b_avg(self) -> float | None:
        """B_avg of our runs by outputs, over what the paper counts; None where a run does not tell."""
        return self.ours.b_avg.get("gated_by_outputs") if self.ours else None

    @property
    def score_difference(self) -> float | None:
        """Our score less the paper's: points of top-1 (more is better), perplexity in percent (less is better)."""
        return self._difference(self.ours.score if self.ours else None, self.claim.score)

    @property
    def paper_change(self) -> float | None:
        """The paper's score less that of its float network, in the same units; None of a float network itself."""
        return None if self.claim.method is Method.FLOAT else self._difference(self.claim.score, self.paper_float)

    @property
    def our_change(self) -> float | None:
        """Our score less that of our float network, likewise."""
        if self.claim.method is Method.FLOAT or self.ours is None:
            return None
        return self._difference(self.ours.score, self.our_float)

    def _difference(self, score: float | None, other: float | None) -> float | None:
        if score is None or other is None:
            return None
        return round(100 * (score / other - 1) if self.perplexity else score - other, 9)

    @property
    def perplexity(self) -> bool:
        """The score is a perplexity."""
        return self.claim.table == 5

    @property
    def sparsity_difference(self) -> float | None:
        """Our sparsity less the paper's, points."""
        if self.ours is None or self.ours.sparsity is None or self.claim.sparsity is None:
            return None
        return round(self.ours.sparsity - self.claim.sparsity, 9)

    @property
    def reached(self) -> bool | None:
        """Whether our score is within 0.5 points (2 % of a perplexity) of the paper's at a sparsity within 6 points.

        Of Precision Gating a better score or a higher sparsity is within, too; of what it is compared with neither is:
        a better baseline makes another comparison. None where there is nothing to compare.
        """
        difference = self.score_difference
        if difference is None:
            return None
        if self.claim.method is not Method.PG:
            return not self.deviations
        good = difference <= 100 * PERPLEXITY_SHARE if self.perplexity else difference >= -POINTS
        sparser = self.sparsity_difference
        return good and (sparser is None or sparser >= -SPARSITY_POINTS)

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is further from the paper than 0.5 points (2 % of a perplexity) or 6 points of sparsity, either way."""
        bound, unit = (100 * PERPLEXITY_SHARE, " %") if self.perplexity else (POINTS, "")
        found = [
            ("score", self.score_difference, bound, "+.2f", unit),
            ("Sp", self.sparsity_difference, SPARSITY_POINTS, "+.1f", ""),
        ]
        return tuple(
            f"{name} {by:{form}}{mark}" for name, by, most, form, mark in found if by is not None and abs(by) > most
        )


def rows(results: Sequence[Result], table: int) -> list[Row]:
    """Return a table's rows network by network, uniform ones last, one for each recipe of the claim.

    Runs that differ in the seed alone stand together. A run is one of the claim where network, data set, method and
    bits (and a fixed threshold) are the same. Where the paper has two rows of the same bits (two sparsities), runs
    stand at the one whose sparsity is nearer to their mean. Runs of a network of the paper that no table has a row for
    (other bits) get one of their own, without figures of the paper, in the table that has the float network; so do
    all runs of a form of it for another data set (`FORMS`), behind the network's own.
    """
    groups, found = group_runs(results), []
    claims = [claim for claim in CLAIMS if claim.table == table]
    order = {name: (place, "") for place, name in enumerate(dict.fromkeys(claim.network for claim in claims))}
    order |= {form: (order[name][0], form) for (form, _), name in FORMS.items() if name in order}
    claims += dict.fromkeys(claim for runs in groups if (claim := _own_claim(runs.first)) and claim.table == table)
    claims.sort(key=lambda claim: (*order[claim.network], *_uniform_last(claim)))
    for claim in claims:
        same: list[Runs | None] = [
            runs for runs in groups if _matches(runs.first, claim) and _nearest(runs, claims) is claim
        ]
        floats = _float_score(claim), _float_score_of(groups, claim)
        found += [Row(claim, runs, *floats) for runs in same or [None]]
    return found


def _uniform_last(claim: Claim) -> tuple[int, int, bool]:
    """Sort the float network first, gated rows as they stand, uniform ones by bits, the most first, UQ before PACT."""
    uniform = claim.method in (Method.UQ, Method.PACT)
    kind = 2 if uniform else int(claim.method is not Method.FLOAT)
    return kind, -claim.bits[0] if uniform and claim.bits else 0, claim.method is Method.PACT


def _own_claim(ours: Result) -> Claim | None:
    """Return a claim without figures for a run whose network the paper has, but not with this method and these bits."""
    if any(_matches(ours, claim) for claim in CLAIMS):
        return None
    table = _home_table(ours)
    if table is None:
        return None
    return Claim(table, ours.network, ours.dataset, ours.method, ours.bits, threshold=ours.threshold)


def _home_table(ours: Result) -> int | None:
    """Return the table that has the float network of a run's network and data set, or of what it is a form of."""
    form_of = FORMS.get((ours.network, ours.dataset))
    floats = [one for one in CLAIMS if one.method is Method.FLOAT]
    sought = (ours.network, ours.dataset)
    return next((one.table for one in floats if one.network == form_of or (one.network, one.dataset) == sought), None)


def _float_score(claim: Claim) -> float | None:
    same = (one.score for one in CLAIMS if (one.network, one.method) == (claim.network, Method.FLOAT))
    return next(same, None)


def _float_score_of(groups: Sequence[Runs], claim: Claim) -> float | None:
    """Return the score of our float network, the first where there are several."""
    sought = (claim.network, claim.dataset, Method.FLOAT)
    return next(
        (runs.score for runs in groups if (runs.first.network, runs.first.dataset, runs.method) == sought), None
    )


def unplaced(results: Sequence[Result]) -> list[Runs]:
    """Return the runs that no row of any table takes: the paper does not have their network on their data set."""
    return [runs for runs in group_runs(results) if _home_table(runs.first) is None]


def _matches(ours: Result, claim: Claim) -> bool:
    return (
        (ours.network, ours.dataset, ours.method, ours.bits) == (claim.network, claim.dataset, claim.method, claim.bits)
        and (claim.threshold is None or claim.threshold == ours.threshold)
    )  # fmt: skip


def _nearest(ours: Runs, claims: Sequence[Claim]) -> Claim:
    return min(
        (claim for claim in claims if _matches(ours.first, claim)),
        key=lambda claim: abs((ours.sparsity or 0.0) - (claim.sparsity or 0.0)),
    )
