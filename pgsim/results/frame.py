"""A run as flat rows: one a layer, and three of totals (all layers, the gated ones, the others).

Every column is declared once, here, with its type and meaning; rows, DataFrames, CSV, Parquet and the page
docs/results-format.md follow. Counted columns are exact integers, totals are sums of them, ratios come from the sums.

pandas is imported by `frame` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgsim.results.actions import ActionKind
from pgsim.results.layer import LayerResult
from pgsim.results.run import RunResult

if TYPE_CHECKING:
    import pandas as pd

Value = str | int | float | bool | None
Row = dict[str, Value]

INT, FLOAT, TEXT, BOOL = "int64", "float64", "string", "bool"


@dataclass(frozen=True)
class Column:
    """A column: its type, what it holds, and whether totals are sums over layers."""

    name: str
    type: str
    about: str
    adds: bool = False


def _of(type_: str, adds: bool, **columns: str) -> list[Column]:
    return [Column(name, type_, about, adds) for name, about in columns.items()]


COLUMNS: tuple[Column, ...] = (
    *_of(
        TEXT,
        False,
        accelerator="name in the hardware file",
        organisation="decoupled, dense, gated_fused or two_pass",
        row="layer; or network, gated, not_gated: totals over all layers, the gated ones, the others",
    ),
    *_of(INT, False, index="position of the layer, from 0; empty in totals"),
    *_of(
        TEXT,
        False,
        layer="name of the layer; empty in totals",
        kind="conv, grouped conv, depthwise conv, linear or matmul",
        shape="input -> output of one image, kernel/stride",
    ),
    *_of(BOOL, False, gated="the trace gates the layer"),
    *_of(
        INT,
        False,
        act_bits="B, bits of an activation",
        pred_bits="h, bits of the prediction phase; B where the layer is not gated",
        weight_bits="bits of a weight",
    ),
    *_of(
        TEXT,
        False,
        passes="cycles of a reduction step: predict + update",
        tiling="bands, channel tiles and pixel tiles",
        placement="where input, output and shortcut are",
    ),
    *_of(INT, False, images="images run"),
    *_of(
        INT,
        True,
        layers="layers in the row",
        outputs="outputs, all images",
        outputs_gated="outputs that went through a gate",
        outputs_updated="of these, updated",
        macs_issued="MACs, padding taps included",
        macs_useful="MACs whose tap is not padding",
        macs_gated="issued MACs of outputs that went through a gate",
        macs_updated="MACs of the update phase",
        bit_macs="issued MACs x activation bits spent on each: h, and l more where updated; B where there is no gate",
        bit_outputs="outputs x activation bits spent on each",
    ),
    *_of(
        FLOAT,
        False,
        sparsity_outputs="Sp: share of gated outputs that are not updated",
        sparsity_macs="the same, each output weighted by its MACs",
        b_avg_outputs_bits="mean activation bits over outputs (equation 8 of the paper)",
        b_avg_macs_bits="mean activation bits over MACs",
    ),
    *_of(
        INT,
        True,
        cycles="cycles",
        lane_cycles="lane-cycles of the PE array: lanes x cycles",
        lane_cycles_busy="of these, with an operand",
        update_lane_cycles="lane-cycles of the LSB array or LSB parts; 0 where there are none",
        update_lane_cycles_busy="of these, with an operand",
    ),
    *_of(
        FLOAT,
        False,
        utilisation="lane_cycles_busy / lane_cycles",
        update_utilisation="update_lane_cycles_busy / update_lane_cycles; empty where there are none",
        time_us="cycles at the clock, microseconds",
    ),
    *_of(INT, False, queue_peak_entries="largest occupancy of any FIFO; empty where there is none"),
    *_of(
        INT,
        True,
        channel_read_cycles="cycles of the off-chip channel spent reading",
        channel_write_cycles="cycles of the off-chip channel spent writing",
        off_chip_read_bits="bits read from off chip",
        off_chip_write_bits="bits written off chip",
        sram_read_bits="bits read from all on-chip SRAMs",
        sram_write_bits="bits written to all on-chip SRAMs",
        outputs_checked="outputs compared with the trace's",
        outputs_differing="of these, left different by the accelerator's own gate",
    ),
    *_of(FLOAT, True, energy_pj="energy, all components, dynamic and leakage"),
    *_of(TEXT, False, energy_assumed="components with a price that no source states"),
    *_of(
        FLOAT,
        False,
        average_power_mw="energy over time",
        energy_per_image_pj="energy / images",
        images_per_second="images / time; network row only",
        energy_delay_pj_s="energy an image x time an image; network row only",
    ),
    *_of(FLOAT, False, clock_mhz="clock", area_um2="area of the whole accelerator"),
    *_of(INT, False, multiplier_bits="sum over lanes of activation bits x weight bits"),
    *_of(
        TEXT,
        False,
        pgsim_version="version of pgsim",
        trace="model and data set",
        trace_sha256="digest of the trace",
        accelerator_sha256="digest of the accelerator",
        energy_table="name of the energy table",
        energy_table_sha256="digest of the energy table",
    ),
)
"""Columns that every run has, in order."""

FAMILIES: tuple[Column, ...] = (
    Column(
        "array_*_cycles", INT, "cycles of the PE array by cause (timing contract, section 6); they sum to cycles", True
    ),
    Column("group_*_cycles", INT, "group-cycles of the LSB array by cause; they sum to groups x cycles", True),
    Column("*_read_bits", INT, "bits read from one SRAM", True),
    Column("*_write_bits", INT, "bits written to one SRAM", True),
    Column("energy_*_pj", FLOAT, "dynamic energy of one component", True),
    Column("leakage_*_pj", FLOAT, "leakage of one component over the cycles", True),
)
"""Columns with one member a cause, SRAM or component; they stand after all others."""


def rows(result: RunResult) -> list[Row]:
    """Return a row for each layer, then those of all layers, the gated and the others, all with the same keys."""
    sums = [_counted(layer) for layer in result.layers]
    names = list(dict.fromkeys(name for counted in sums for name in counted))
    found = [_row(result, counted, names, layer) for layer, counted in zip(result.layers, sums, strict=True)]
    for kind, gated in (("network", None), ("gated", True), ("not_gated", False)):
        chosen = [s for layer, s in zip(result.layers, sums, strict=True) if gated in (None, layer.shape.gated)]
        total: Counter[str] = Counter()
        for counted in chosen:
            total.update(counted)
        found.append(_row(result, total, names, kind=kind, gated=gated))
    return found


def columns(all_rows: Sequence[Row]) -> list[Column]:
    """Return the columns of `all_rows` (of one run or more), the declared ones first, in order."""
    known = {column.name: column for column in COLUMNS}
    present = dict.fromkeys(name for row in all_rows for name in row)
    return [known.get(name) or _family(name) for name in [*known, *(name for name in present if name not in known)]]


def frame(results: RunResult | Iterable[RunResult]) -> pd.DataFrame:
    """Return the rows of one run or more as a DataFrame with nullable types; a column that a run has not is missing."""
    import pandas as pd

    runs = [results] if isinstance(results, RunResult) else list(results)
    table = [row for run in runs for row in rows(run)]
    types = {TEXT: "string", INT: "Int64", FLOAT: "Float64", BOOL: "boolean"}
    return pd.DataFrame(
        {
            column.name: pd.Series([row.get(column.name) for row in table], dtype=types[column.type])
            for column in columns(table)
        }
    )


def _family(name: str) -> Column:
    for family in FAMILIES:
        before, after = family.name.split("*")
        if name.startswith(before) and name.endswith(after):
            return Column(name, family.type, family.about, True)
    raise AssertionError(f"column {name} is not declared")


def _counted(layer: LayerResult) -> dict[str, int | float]:
    """Everything about a layer that adds up over layers."""
    shape, counts, energy = layer.shape, layer.counts, layer.energy
    gated, low = shape.gate_applied, shape.act_bits - shape.pred_bits
    bits = shape.pred_bits if gated else shape.act_bits
    actions = counts.actions
    counted: dict[str, int | float] = {
        "layers": 1,
        "outputs": counts.outputs,
        "outputs_gated": counts.outputs if gated else 0,
        "outputs_updated": counts.outputs_updated,
        "macs_issued": counts.macs_issued,
        "macs_useful": counts.macs_useful,
        "macs_gated": counts.macs_issued if gated else 0,
        "macs_updated": counts.macs_updated,
        "bit_macs": counts.macs_issued * bits + counts.macs_updated * low,
        "bit_outputs": counts.outputs * bits + counts.outputs_updated * low,
        "cycles": counts.cycles,
        "lane_cycles": shape.lanes * counts.cycles,
        "lane_cycles_busy": counts.lane_cycles_busy,
        "update_lane_cycles": shape.update_lanes * counts.cycles,
        "update_lane_cycles_busy": counts.update_lane_cycles_busy,
        "channel_read_cycles": counts.channel_read_cycles,
        "channel_write_cycles": counts.channel_write_cycles,
        "off_chip_read_bits": actions.count(ActionKind.DRAM_READ),
        "off_chip_write_bits": actions.count(ActionKind.DRAM_WRITE),
        "sram_read_bits": actions.count(ActionKind.SRAM_READ),
        "sram_write_bits": actions.count(ActionKind.SRAM_WRITE),
        "outputs_checked": counts.outputs_checked,
        "outputs_differing": counts.outputs_differing,
        "energy_pj": energy.total_pj,
    }
    counted |= {f"array_{cause}_cycles": cycles for cause, cycles in counts.array_causes.items()}
    counted |= {f"group_{cause}_cycles": cycles for cause, cycles in counts.group_causes.items()}
    for kind, word in ((ActionKind.SRAM_READ, "read"), (ActionKind.SRAM_WRITE, "write")):
        for component in sorted({action.component for action in actions.counts if action.kind is kind}):
            counted[f"{component}_{word}_bits"] = actions.count(kind, component)
    counted |= {f"energy_{component}_pj": value for component, value in energy.dynamic_pj.items()}
    counted |= {f"leakage_{component}_pj": value for component, value in energy.leakage_pj.items()}
    return counted


def _row(
    result: RunResult,
    counted: Mapping[str, int | float],
    names: Sequence[str],
    layer: LayerResult | None = None,
    kind: str = "layer",
    gated: bool | None = None,
) -> Row:
    chosen = [layer] if layer else [one for one in result.layers if gated in (None, one.shape.gated)]
    shape = layer.shape if layer else None
    seconds = counted.get("cycles", 0) / (result.clock_mhz * 1e6)
    energy = counted.get("energy_pj", 0.0)
    queues = [one.counts.queue_peak for one in chosen if one.counts.queue_histogram]
    whole = kind == "network"
    values: Row = {
        "accelerator": result.provenance.accelerator,
        "organisation": result.organisation,
        "row": kind,
        "index": shape.index if shape else None,
        "layer": shape.name if shape else None,
        "kind": shape.kind if shape else None,
        "shape": shape.shape if shape else None,
        "gated": shape.gated if shape else gated,
        "act_bits": shape.act_bits if shape else None,
        "pred_bits": shape.pred_bits if shape else None,
        "weight_bits": shape.weight_bits if shape else None,
        "passes": shape.passes if shape else None,
        "tiling": shape.tiling if shape else None,
        "placement": shape.placement if shape else None,
        "images": result.images,
        "sparsity_outputs": _skipped(counted, "outputs_updated", "outputs_gated"),
        "sparsity_macs": _skipped(counted, "macs_updated", "macs_gated"),
        "b_avg_outputs_bits": _ratio(counted, "bit_outputs", "outputs"),
        "b_avg_macs_bits": _ratio(counted, "bit_macs", "macs_issued"),
        "utilisation": _ratio(counted, "lane_cycles_busy", "lane_cycles"),
        "update_utilisation": _ratio(counted, "update_lane_cycles_busy", "update_lane_cycles"),
        "time_us": seconds * 1e6,
        "queue_peak_entries": max(queues, default=None),
        "energy_assumed": ", ".join(sorted(frozenset().union(*(one.energy.assumed for one in chosen)))),
        "average_power_mw": energy * 1e-9 / seconds if seconds else None,
        "energy_per_image_pj": energy / result.images,
        "images_per_second": result.images / seconds if whole and seconds else None,
        "energy_delay_pj_s": energy * seconds / result.images**2 if whole else None,
        "clock_mhz": float(result.clock_mhz),
        "area_um2": sum(result.area_um2.values()),
        "multiplier_bits": result.multiplier_bits,
        "pgsim_version": result.provenance.version,
        "trace": result.provenance.trace,
        "trace_sha256": result.provenance.trace_sha256,
        "accelerator_sha256": result.provenance.accelerator_sha256,
        "energy_table": result.provenance.energy_table,
        "energy_table_sha256": result.provenance.energy_table_sha256,
    }
    values |= {name: counted.get(name, 0) for name in names}
    return {column.name: values[column.name] for column in columns([values])}


def _ratio(counted: Mapping[str, int | float], part: str, whole: str) -> float | None:
    total = counted.get(whole, 0)
    return counted.get(part, 0) / total if total else None


def _skipped(counted: Mapping[str, int | float], updated: str, gated: str) -> float | None:
    share = _ratio(counted, updated, gated)
    return None if share is None else 1 - share
