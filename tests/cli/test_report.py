"""The tables that a run prints, for runs made by hand."""

from __future__ import annotations

from dataclasses import replace

from pgsim.cli.report import WIDTH, layer_tables
from pgsim.results.layer import Energy, LayerResult
from pgsim.results.run import RunResult
from tests.results.made import made_run


def with_components(result: RunResult, more: dict[str, float]) -> RunResult:
    """The run with more components in every layer's dynamic energy, pJ."""

    def grown(layer: LayerResult) -> LayerResult:
        energy = layer.energy
        return replace(layer, energy=Energy({**energy.dynamic_pj, **more}, energy.leakage_pj, energy.assumed))

    return replace(result, layers=tuple(grown(layer) for layer in result.layers))


def energy_table(result: RunResult) -> list[str]:
    return next(part for part in layer_tables(result).split("\n\n") if part.startswith("Energy")).split("\n")


def headings(lines: list[str]) -> list[str]:
    """Words of the lines above the first layer's, but the title's."""
    first = next(place for place, line in enumerate(lines) if line.startswith("0 "))
    last = next(place for place, line in enumerate(lines) if line.startswith("#"))
    assert last == first - 1
    return " ".join(line for line in lines[:first] if not line.startswith("Energy")).split()


def test_each_component_has_a_column_while_they_fit() -> None:
    lines = energy_table(made_run())
    assert lines[0] == "Energy, pJ: leakage of all parts, and each component's dynamic energy"
    assert {"leakage", "array", "off", "chip"} < set(headings(lines))
    assert "others" not in headings(lines)


def test_the_smallest_components_share_a_column_where_the_table_would_be_too_wide() -> None:
    names = [f"part{'x' * 6}{letter}" for letter in "abcdefgh"]
    result = with_components(made_run(), {name: 1000.0 + place for place, name in enumerate(names)})
    lines = energy_table(result)
    assert max(map(len, lines)) <= WIDTH
    # In the network off chip spends 1050 pJ, the parts a, b, c 2000, 2002, 2004, and all others more.
    title = "Energy, nJ: leakage of all parts, and each component's dynamic energy (others: "
    shared = ", ".join([*reversed(names[:3]), "off chip)"])
    assert " ".join(" ".join(lines).split()).startswith(title + shared)
    assert headings(lines)[-2:] == [names[-1], "others"]
    first = next(line for line in lines if line.startswith("0 "))
    assert first.split()[-1] == "4.003"  # 1000 + 1000 + 1001 + 1002 pJ
