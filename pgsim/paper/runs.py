"""Runs of one recipe that differ in the seed alone: their mean, and how far they spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgsim.paper.claims import Method
from pgsim.paper.stored import Result


@dataclass(frozen=True)
class Runs:
    """One or more results of the same recipe, sorted by seed; figures are their means, spreads sample deviations."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """Any of the results, for what they have in common: network, data set, method, bits, gating, epochs."""
        return self.results[0]

    @property
    def count(self) -> int:
        """Number of runs, n."""
        return len(self.results)

    @property
    def method(self) -> Method:
        """How the activations are quantised."""
        return self.first.method

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run, ascending; none of weights that came from elsewhere."""
        return tuple(one.seed for one in self.results if one.seed is not None)

    def reason(self, reasons: Mapping[str, str]) -> str:
        """Return the sentence that a recipe's name has there, empty where none of these has one."""
        return next((reasons[one.recipe] for one in self.results if one.recipe in reasons), "")

    @property
    def score(self) -> float:
        """Mean top-1 in percent, or mean perplexity."""
        return statistics.fmean(one.score for one in self.results)

    @property
    def score_spread(self) -> float | None:
        """Sample standard deviation (n - 1) of the score; None of a single run."""
        return _spread([one.score for one in self.results])

    @property
    def sparsity(self) -> float | None:
        """Mean sparsity by outputs, percent; None where nothing is gated."""
        return _mean([one.sparsity for one in self.results])

    @property
    def sparsity_spread(self) -> float | None:
        """Sample standard deviation of the sparsity, points; None of a single run or where nothing is gated."""
        known = [one.sparsity for one in self.results if one.sparsity is not None]
        return _spread(known) if len(known) == self.count else None

    @property
    def mac_sparsity(self) -> float | None:
        """Mean sparsity by MACs, percent; None where nothing is gated."""
        return _mean([one.mac_sparsity for one in self.results])

    @property
    def b_avg(self) -> Mapping[str, float]:
        """Mean B_avg by weighting, of the weightings that every run has."""
        means = {name: _mean([one.b_avg.get(name) for one in self.results]) for name in self.first.b_avg}
        return {name: mean for name, mean in means.items() if mean is not None}


def group_runs(results: Sequence[Result]) -> list[Runs]:
    """Return the runs of each recipe together, in the order in which recipes come first."""
    found: dict[object, list[Result]] = {}
    for one in results:
        key = (
            one.network, one.dataset, one.method, one.bits, one.gating, one.threshold, one.policy, one.epochs,
            one.finished, one.setting,
        )  # fmt: skip
        found.setdefault(key, []).append(one)
    return [Runs(tuple(sorted(group, key=lambda one: one.seed or 0))) for group in found.values()]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
