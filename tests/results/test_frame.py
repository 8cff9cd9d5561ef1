"""Rows and DataFrames against figures worked out on paper for a run made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgsim.results.frame import COLUMNS, FAMILIES, Row, columns, frame, rows
from tests.results.made import BIG, made_run


def row(kind: str) -> Row:
    found = rows(made_run())
    return found[0] if kind == "a" else found[1] if kind == "b" else next(r for r in found if r["row"] == kind)


def test_there_is_a_row_for_each_layer_and_three_of_totals() -> None:
    assert [(r["row"], r["layer"]) for r in rows(made_run())] == [
        ("layer", "a"), ("layer", "b"), ("network", None), ("gated", None), ("not_gated", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("a", "sparsity_outputs", 0.7),
        ("a", "b_avg_outputs_bits", 2.3),  # 2 + 0.3 * 1
        ("b", "b_avg_outputs_bits", 8.0),
        ("b", "sparsity_outputs", None),
        ("network", "sparsity_outputs", 0.7),  # of gated outputs alone
        ("not_gated", "sparsity_outputs", None),
        ("network", "b_avg_outputs_bits", (100 * 2 + 30 + 20 * 8) / 120),
        ("network", "b_avg_macs_bits", (900 * 2 + 270 + 320 * 8) / 1220),
        ("network", "utilisation", 1220 / 2000),
        ("a", "update_utilisation", 270 / 640),
        ("network", "time_us", 0.5),  # 100 cycles at 200 MHz
        ("network", "images_per_second", 8e6),  # 4 images in 0.5 us
        ("network", "average_power_mw", 10.0),  # 5000 pJ in 0.5 us
        ("network", "energy_per_image_pj", 1250.0),
        ("network", "energy_delay_pj_s", 1250.0 * 0.125e-6),
        ("network", "area_um2", 2e6),
        ("gated", "time_us", 0.4),
        ("a", "images_per_second", None),
    ],
)
def test_ratios_are_those_of_the_sums(kind: str, column: str, value: float | None) -> None:
    got = row(kind)[column]
    assert got == (pytest.approx(value, rel=1e-12) if value is not None else None)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("network", "layers", 2),
        ("network", "outputs", 120),
        ("network", "outputs_gated", 100),
        ("network", "macs_issued", 1220),
        ("network", "macs_gated", 900),
        ("network", "cycles", 100),
        ("network", "lane_cycles", 2000),
        ("network", "array_busy_cycles", 76),
        ("network", "array_drain_cycles", 3),
        ("network", "group_starved_cycles", 100),
        ("network", "queue_peak_entries", 2),
        ("b", "queue_peak_entries", 0),
        ("network", "off_chip_read_bits", 320),
        ("network", "off_chip_write_bits", 128),
        ("network", "sram_write_bits", BIG),
        ("a", "weight_write_bits", BIG),
        ("not_gated", "weight_write_bits", 0),
        ("network", "channel_write_cycles", 2),
        ("gated", "cycles", 80),
        ("a", "index", 0),
        ("network", "index", None),
        ("a", "gated", True),
        ("network", "gated", None),
        ("not_gated", "gated", False),
    ],
)
def test_counts_are_exact_integers_and_add_up(kind: str, column: str, value: int | None) -> None:
    got = row(kind)[column]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("a", "energy_pj", 4500.0),
        ("network", "energy_pj", 5000.0),
        ("network", "energy_array_pj", 3250.0),
        ("network", "leakage_weight_pj", 150.0),
        ("not_gated", "energy_off_chip_pj", 50.0),
    ],
)
def test_energies_add_up(kind: str, column: str, value: float) -> None:
    assert row(kind)[column] == pytest.approx(value, rel=1e-12)


def test_components_and_causes_sum_to_their_totals_in_every_row() -> None:
    for r in rows(made_run()):
        parts = [name for name in r if name.startswith(("energy_", "leakage_")) and name.endswith("_pj")]
        components = [name for name in parts if name not in ("energy_pj", "energy_per_image_pj")]
        assert len(components) == 4
        assert sum(r[name] for name in components) == pytest.approx(r["energy_pj"])
        assert sum(r[name] for name in r if name.startswith("array_") and name.endswith("_cycles")) == r["cycles"]


def test_every_row_traces_to_version_and_digests() -> None:
    for r in rows(made_run()):
        digests = (r["pgsim_version"], r["trace_sha256"], r["accelerator_sha256"], r["energy_table_sha256"])
        assert digests == ("0.1.0", "t" * 64, "p" * 64, "e" * 64)


def test_every_column_is_declared_and_has_values_of_its_type() -> None:
    types = {"int64": int, "float64": float, "string": str, "bool": bool}
    table = rows(made_run())
    assert [column.name for column in columns(table)][: len(COLUMNS)] == [column.name for column in COLUMNS]
    for column in columns(table):
        for r in table:
            assert r[column.name] is None or type(r[column.name]) is types[column.type], column.name


def test_columns_that_add_are_sums_over_the_layers() -> None:
    first, second, network, gated, other = rows(made_run())
    adding = [column.name for column in columns(rows(made_run())) if column.adds]
    assert len(adding) > 30
    for name in adding:
        assert network[name] == pytest.approx(first[name] + second[name]), name
        assert (gated[name], other[name]) == (first[name], second[name]), name


def test_a_frame_of_two_runs_holds_integers_exactly_and_leaves_out_what_a_run_has_not() -> None:
    one, other = made_run(), made_run("quick", cycles=60)
    table = frame([one, other])
    assert table["accelerator"].unique().tolist() == ["paper", "quick"]
    assert int(table["sram_write_bits"].iloc[2]) == BIG
    assert str(table["sram_write_bits"].dtype) == "Int64"
    assert table["index"].isna().tolist() == [False, False, True, True, True] * 2
    layers = table[table["row"] == "layer"]
    assert layers.groupby("accelerator")["cycles"].sum().to_dict() == {"paper": 100, "quick": 80}


def test_rows_do_without_pandas() -> None:
    code = (
        "import sys; from tests.results.made import made_run; from pgsim.results.frame import rows; "
        "from pgsim.results.document import document; rows(made_run()); document([made_run()]); "
        "print([m for m in ('pandas', 'pyarrow', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_on_results_has_every_column_with_its_type_and_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "results-format.md").read_text().splitlines()
    for column in (*COLUMNS, *FAMILIES):
        total = "sum" if column.adds else ""
        assert f"| `{column.name}` | {column.type} | {total} | {column.about} |" in page


def test_the_peak_is_the_power_of_the_hungriest_layer() -> None:
    result = made_run()
    powers = [
        row.energy.total_pj * 1e-12 / (row.counts.cycles / (result.clock_mhz * 1e6)) * 1e3 for row in result.layers
    ]
    assert result.peak_layer_power_mw == pytest.approx(max(powers))
    assert result.peak_layer_power_mw > result.average_power_mw
