"""Plots show the run's numbers: bars as long as what they stand for, each with a label and a colour of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pgsim import plotting
from pgsim.model.job import ArrayCause
from tests.results.made import made_run


def bars(figure: Figure, place: int = 0) -> list[Rectangle]:
    return [patch for container in figure.axes[place].containers for patch in container.patches]


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_every_cause_of_the_array_has_a_label_and_a_colour_of_its_own() -> None:
    assert set(plotting.CAUSES) == {cause.name.lower() for cause in ArrayCause}
    for table in (plotting.CAUSES, plotting.COMPONENTS):
        assert len({colour for _, colour in table.values()}) == len(table)


def test_bars_of_a_layer_add_up_to_its_cycles_an_image() -> None:
    run = made_run(cycles=80)
    figure = plotting.cycles_by_cause(run)
    for row, layer in enumerate(run.layers):
        length = sum(bar.get_width() for bar in bars(figure) if round(bar.get_y() + bar.get_height() / 2) == row)
        assert length * 1e3 * run.images == pytest.approx(layer.counts.cycles)
    assert "thousands" in figure.axes[0].get_xlabel()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["G  a", "b"]
    assert labels(figure) == ["busy", "drain, or LSB parts at work", "no tile left"]


def test_bars_of_a_layer_add_up_to_its_energy_an_image() -> None:
    run = made_run()
    layer = run.layers[0]
    energy = replace(layer.energy, dynamic_pj={**layer.energy.dynamic_pj, "queue": 5.0, "comparator": 2.0})
    run = replace(run, layers=(replace(layer, energy=energy), run.layers[1]))
    figure = plotting.energy_by_component(run)
    total = sum(bar.get_width() for bar in bars(figure))
    assert total * 1e6 * run.images == pytest.approx(run.totals().energy.total_pj)
    assert labels(figure) == ["PE array", "off chip", "other (comparator, queue)", "leakage, all components"]
    assert "uJ" in figure.axes[0].get_xlabel()


def test_a_comparison_shows_three_speedups_and_the_energy_for_network_and_gated_layers() -> None:
    slow, fast = made_run("slow", clock_mhz=100.0), replace(made_run("fast"), area_um2={"array": 8e6})
    figure = plotting.against_baseline([slow, fast], slow)
    assert [len(bars(figure, place)) for place in range(4)] == [6, 2, 6, 2]
    assert [bar.get_width() for bar in bars(figure, 0)] == [1.0, 2.0, 1.0, 2.0, 1.0, 0.5]
    assert labels(figure) == list(plotting.SPEEDUPS)
    assert "gated layers alone" in figure.axes[2].get_title(loc="left")
    plain = replace(slow, layers=slow.layers[1:])
    assert len(plotting.against_baseline([plain], plain).axes) == 2


def test_no_text_of_a_comparison_lies_on_another(tmp_path: Path) -> None:
    runs = [made_run(f"machine_{number}", clock_mhz=100.0 + 13 * number) for number in range(8)]
    figure = plotting.against_baseline(runs, runs[3])
    figure.savefig(tmp_path / "plot.png")
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        assert len(boxes) in (8, 24)
        overlaps = [(one, two) for i, one in enumerate(boxes) for two in boxes[i + 1 :] if one.overlaps(two)]
        assert overlaps == []
        edge = axes.get_window_extent()
        assert all(box.x1 <= edge.x1 + 1 for box in boxes)


def test_plots_need_no_pyplot() -> None:
    code = "import pgsim.plotting, sys; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
