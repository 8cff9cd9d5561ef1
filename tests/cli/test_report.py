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


def test_each_component_has_a_column_while_they_fit() -> None:
    title, header, *_ = energy_table(made_run())
    assert title == "Energy, pJ: leakage of all parts, and each component's dynamic energy"
    assert header.split() == ["#", "layer", "all", "of", "all", "leakage", "array", "off", "chip"]


def test_the_smallest_components_share_a_column_where_the_table_would_be_too_wide() -> None:
    names = [f"component_{letter}" for letter in "abcdefgh"]
    result = with_components(made_run(), {name: 1000.0 + place for place, name in enumerate(names)})
    lines = energy_table(result)
    assert max(map(len, lines)) <= WIDTH
    # In the network off chip spends 1050 pJ, components a, b, c 2000, 2002, 2004, and all others more.
    assert (
        " ".join(lines)
        .replace("   ", " ")
        .startswith(
            "Energy, nJ: leakage of all parts, and each component's dynamic energy "
            "(others: component c, component b, component a, off chip)"
        )
    )
    header, first = lines[2:4]
    assert header.split()[-2:] == ["h", "others"]
    assert first.split()[-1] == "4.003"  # 1000 + 1000 + 1001 + 1002 pJ
