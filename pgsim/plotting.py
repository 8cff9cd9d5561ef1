"""Plots of runs: cycles by cause, energy by component, machines held against a baseline.

The package's only importer of matplotlib (pip install pgsim[plot]). Every function returns a new Figure that belongs
to no window and changes no global setting; `figure.savefig` writes it. Colours are those of Okabe and Ito, which the
common kinds of colour blindness keep apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pgsim.results.compare import Comparison, compare
from pgsim.results.run import RunResult

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, BLACK, GREY = "#56B4E9", "#D55E00", "#F0E442", "#000000", "#BBBBBB"

CAUSES: dict[str, tuple[str, str]] = {
    "busy": ("busy", BLUE),
    "off_chip": ("operands not on chip yet", ORANGE),
    "queue_full": ("update queue full", RED),
    "output_port": ("output port taken by an update", YELLOW),
    "drain": ("drain, or LSB parts at work", GREEN),
    "update_wait": ("updates of the segment two back", PURPLE),
    "bank_conflict": ("waiting for activation words", "#8c6d31"),
    "recurrence": ("the sequence's step before", "#7b4173"),
    "k_split": ("fetching partial sums", BLACK),
    "tail": ("no tile left", GREY),
}
"""Cause of the PE array (timing contract, section 6) -> (label, colour)."""

COMPONENTS: dict[str, tuple[str, str]] = {
    "array": ("PE array", BLUE),
    "update_array": ("LSB array", SKY),
    "activation": ("activation buffer", GREEN),
    "activation_lsb": ("activation buffer, LSB", YELLOW),
    "weight": ("weight buffer", PURPLE),
    "output": ("output buffer", BLACK),
    "off_chip": ("off chip", ORANGE),
    "other": ("other", RED),
    "leakage": ("leakage, all components", GREY),
}
"""Component of the energy -> (label, colour); those that are not here are shown together as other."""

GATED_MARK, GATED_NOTE = "G", "G: gated by the trace"
SMALL = 8  # points

Measure = tuple[Callable[[Comparison], float], str]  # what a bar shows, and its colour
SPEEDUPS: dict[str, Measure] = {
    "as it is": (lambda one: one.speedup, BLUE),
    "at equal multiplier bits": (lambda one: one.speedup_at_equal_multiplier_bits, ORANGE),
    "at equal area": (lambda one: one.speedup_at_equal_area, GREEN),
}
ENERGY: dict[str, Measure] = {"energy": (lambda one: one.energy_ratio, PURPLE)}


def cycles_by_cause(result: RunResult) -> Figure:
    """Return a bar a layer, cycles an image in thousands, stacked by what the PE array's cycles went to.

    A layer that the trace gates has a G before its name. Causes that no layer has are left out.
    """
    parts = [
        {cause: cycles / result.images / 1e3 for cause, cycles in layer.counts.array_causes.items()}
        for layer in result.layers
    ]
    figure = _layer_bars(result, parts, CAUSES)
    figure.axes[0].set_xlabel("cycles of the PE array an image, thousands")
    return _titled(figure, f"Cycles by cause on {result.provenance.accelerator} ({GATED_NOTE})")


def energy_by_component(result: RunResult) -> Figure:
    """Return a bar a layer, energy an image in uJ, stacked by component: dynamic energies, and all leakage in one.

    A layer that the trace gates has a G before its name.
    """
    parts, others = [], set()
    for layer in result.layers:
        amounts: dict[str, float] = {"leakage": sum(layer.energy.leakage_pj.values())}
        for component, energy in layer.energy.dynamic_pj.items():
            shown = component if component in COMPONENTS else "other"
            amounts[shown] = amounts.get(shown, 0.0) + energy
            if shown == "other":
                others.add(component)
        parts.append({name: energy / result.images * 1e-6 for name, energy in amounts.items()})
    other = {"other": (f"other ({', '.join(sorted(others))})", COMPONENTS["other"][1])}
    figure = _layer_bars(result, parts, COMPONENTS | other)
    figure.axes[0].set_xlabel("energy an image, uJ")
    return _titled(figure, f"Energy by component on {result.provenance.accelerator} ({GATED_NOTE})")


def against_baseline(results: Sequence[RunResult], baseline: RunResult) -> Figure:
    """Return speedup (raw, at equal multiplier bits, at equal area) and energy of each run relative to `baseline`.

    One row for the whole network and one for the gated layers alone, where there are any. `results` are runs of the
    baseline's trace; ValueError where one is not. What "at equal" assumes is in pgsim.results.compare.
    """
    compared = compare(results, baseline)
    groups = [name for name in ("network", "gated") if any(one.layers == name for one in compared)]
    bars = 0.72 * len(results) + 1.2
    figure = Figure(figsize=(10, bars * len(groups) + 0.7), layout="constrained")
    axes = figure.subplots(len(groups), 2, squeeze=False, width_ratios=(3, 2), sharey=True, sharex="col")
    title = {"network": "whole network", "gated": "gated layers alone"}
    ends = []
    for (left, right), group in zip(axes, groups, strict=True):
        rows = [one for one in compared if one.layers == group]
        ends.append((_grouped(left, rows, SPEEDUPS), _grouped(right, rows, ENERGY)))
        left.set_title(f"Speedup, {title[group]} (more is better)", fontsize=10, loc="left")
        right.set_title(f"Energy, {title[group]} (less is better)", fontsize=10, loc="left")
    for column, end in enumerate(zip(*ends, strict=True)):
        axes[0][column].set_xlim(0, max(end))  # shared by the column
    name = baseline.provenance.accelerator
    axes[-1][0].set_xlabel(f"time of {name} / own time")
    axes[-1][1].set_xlabel(f"own energy / energy of {name}")
    keys = [
        Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=label)
        for label, (_, colour) in SPEEDUPS.items()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _titled(figure, f"Relative to {name}")


def _layer_bars(
    result: RunResult, parts: Sequence[Mapping[str, float]], names: Mapping[str, tuple[str, str]]
) -> Figure:
    """Draw one stacked bar a layer, first layer on top; `names` gives order, labels and colours."""
    figure = Figure(figsize=(10, 0.27 * len(parts) + 1.9), layout="constrained")
    axes = figure.subplots()
    starts = [0.0] * len(parts)
    places = range(len(parts))
    for name, (label, colour) in names.items():
        widths = [amounts.get(name, 0.0) for amounts in parts]
        if any(widths):
            axes.barh(
                places, widths, left=starts, height=0.78, color=colour, label=label, edgecolor="white", linewidth=0.3
            )
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    labels = [f"{GATED_MARK}  {one.shape.name}" if one.shape.gated else one.shape.name for one in result.layers]
    axes.set_yticks(places, labels, fontsize=SMALL)
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.set_xlim(0, 1.02 * max(starts))
    _bare(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _grouped(axes: Axes, rows: Sequence[Comparison], measures: Mapping[str, Measure]) -> float:
    """Draw for each row a bar a measure, its value beside it, and a line at 1; return where the axis may end."""
    height = 0.82 / len(measures)
    largest = 1.0
    for position, (pick, colour) in enumerate(measures.values()):
        places = [row + (position - (len(measures) - 1) / 2) * height for row in range(len(rows))]
        values = [pick(one) for one in rows]
        bars = axes.barh(places, values, height=0.92 * height, color=colour, edgecolor="black", linewidth=0.5)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # so that no line crosses a number
        axes.bar_label(bars, labels=[f"{value:.2f}" for value in values], padding=3, fontsize=SMALL, bbox=paper)
        largest = max(largest, *values)
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), [one.accelerator for one in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    _bare(axes)
    return 1.14 * largest


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _titled(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure
