"""Energy tables that are not what they must be, each with its whole message; and tables that do not fit a machine."""

import dataclasses
from pathlib import Path

import jsonschema
import pytest

from pgsim.errors import InputError
from pgsim.hw.prices import Stimulus
from pgsim.io.energy import energy_schema, load_energy_table, load_prices, load_prices_beside, table_rows
from pgsim.io.hardware import load_accelerator
from pgsim.io.shipped import shipped_folder, shipped_names
from pgsim.io.yaml_file import read_yaml

AT = "node: 45 nm, voltage: 1.0 V, source: book"
SMALL = f"""\
pgsim_energy: 1
name: small
node: 45 nm
voltage: 1.0 V
sources:
  - {{name: book, text: a book}}
lanes:
  - {{act_bits: 8, weight_bits: 8, stimulus: dense, value: 5 pJ, {AT}}}
  - {{act_bits: 8, weight_bits: 8, stimulus: msb, value: 4 pJ, {AT}}}
  - {{act_bits: 8, weight_bits: 8, stimulus: lsb, value: 4.5 pJ, {AT}}}
  - {{act_bits: 8, weight_bits: 8, stimulus: idle, value: 1 pJ, {AT}}}
  - {{act_bits: 8, weight_bits: 8, stimulus: gated, value: 100 fJ, {AT}}}
lane_areas:
  - {{act_bits: 8, weight_bits: 8, value: 400 um2, {AT}}}
lane_energy_fit:
  - {{term: product, value: 0.1 pJ, {AT}}}
  - {{term: mean, value: 0 pJ, {AT}}}
  - {{term: constant, value: 1 pJ, {AT}}}
lane_area_fit:
  - {{term: product, value: 1 um2, {AT}}}
  - {{term: mean, value: 0 um2, {AT}}}
  - {{term: constant, value: 1 um2, {AT}}}
logic_leakage: {{value: 35 nW/um2, {AT}}}
actions:
  - {{action: add, bits: 8, value: 0.03 pJ, {AT}}}
  - {{action: multiply, bits: 8, value: 0.2 pJ, {AT}}}
  - {{action: compare, bits: 8, value: 0.02 pJ, {AT}}}
  - {{action: register_write, bits: 1, value: 0.01 pJ, {AT}}}
  - {{action: fifo_push, bits: 1, value: 0.01 pJ, {AT}}}
  - {{action: fifo_pop, bits: 1, value: 0.01 pJ, {AT}}}
areas:
  - {{component: adder, bits: 8, value: 36 um2, {AT}}}
  - {{component: multiplier, bits: 8, value: 282 um2, {AT}}}
  - {{component: comparator, bits: 8, value: 18 um2, {AT}}}
  - {{component: register, bits: 1, value: 6 um2, {AT}}}
  - {{component: fifo, bits: 1, value: 8 um2, {AT}}}
sram:
  word: 32 bit
  rows:
    - {{size: 1 KiB, read: 1 pJ, write: 3 pJ, leakage: 2 mW, area: 0.01 mm2, {AT}}}
dram:
  - {{kind: lpddr4, value: 8 pJ/bit, source: book}}
"""

ADD = "action: add, bits: 8, value: 0.03 pJ"
ADD_ROW = f"  - {{{ADD}, {AT}}}\n"
SRAM_ROW = f"    - {{size: 1 KiB, read: 1 pJ, write: 3 pJ, leakage: 2 mW, area: 0.01 mm2, {AT}}}\n"
LPDDR4 = "{kind: lpddr4, value: 8 pJ/bit, source: book}"

REFUSED = {
    "unknown action": (
        "action: add",
        "action: divide",
        "bad.yaml:25: actions[0].action must be add, multiply, compare, register_write, fifo_push, fifo_pop or select, "
        "not 'divide'",
    ),
    "misspelt action": (
        "action: register_write",
        "action: register_wrote",
        "bad.yaml:28: actions[3].action must be add, multiply, compare, register_write, fifo_push, fifo_pop or select "
        "(did you mean 'register_write'?), not 'register_wrote'",
    ),
    "unknown stimulus": (
        "stimulus: idle",
        "stimulus: sleepy",
        "bad.yaml:11: lanes[3].stimulus must be dense, msb, lsb, idle or gated, not 'sleepy'",
    ),
    "wrong energy unit": (
        "value: 0.03 pJ",
        "value: 0.03 mW",
        "bad.yaml:25: actions[0].value must be an energy in fJ or pJ, not '0.03 mW'",
    ),
    "energy without unit": (
        "value: 0.03 pJ",
        "value: 0.03",
        "bad.yaml:25: actions[0].value must be an energy in fJ or pJ, not 0.03",
    ),
    "DRAM energy without bit": (
        "value: 8 pJ/bit",
        "value: 8 pJ",
        "bad.yaml:42: dram[0].value must be an energy a bit in pJ/bit, not '8 pJ'",
    ),
    "NaN": (
        "value: 0.03 pJ",
        "value: .nan",
        "bad.yaml:25: actions[0].value must be an energy in fJ or pJ, not nan",
    ),
    "NaN with a unit": (
        "value: 0.03 pJ",
        "value: nan pJ",
        "bad.yaml:25: actions[0].value must be an energy in fJ or pJ, not 'nan pJ'",
    ),
    "infinite": (
        "value: 0.03 pJ",
        "value: -.inf",
        "bad.yaml:25: actions[0].value must be an energy in fJ or pJ, not -inf",
    ),
    "too large": (
        "value: 0.03 pJ",
        "value: 1e99 pJ",
        "bad.yaml:25: actions[0].value must be a number from 0 to 1000000000 pJ, not '1e99 pJ'",
    ),
    "negative": (
        "value: 0.03 pJ",
        "value: -0.03 pJ",
        "bad.yaml:25: actions[0].value must be a number from 0 to 1000000000 pJ, not '-0.03 pJ'",
    ),
    "no source": (
        f"{ADD}, {AT}",
        f"{ADD}, node: 45 nm, voltage: 1.0 V",
        "bad.yaml:25: actions[0].source must be given, or assumed: true with a reason",
    ),
    "no reason": (
        f"{ADD}, {AT}",
        f"{ADD}, node: 45 nm, voltage: 1.0 V, assumed: true",
        "bad.yaml:25: actions[0].reason must be given for a figure that is assumed",
    ),
    "unknown source": (
        f"{ADD}, {AT}",
        f"{ADD}, node: 45 nm, voltage: 1.0 V, source: bok",
        "bad.yaml:25: actions[0].source must be a name under sources, not 'bok'; did you mean 'book'?",
    ),
    "source twice": (
        "  - {name: book, text: a book}\n",
        "  - {name: book, text: a book}\n  - {name: book, text: another}\n",
        "bad.yaml:7: sources[1].name must be given once, not again: 'book'",
    ),
    "no node": (
        f"{ADD}, {AT}",
        f"{ADD}, voltage: 1.0 V, source: book",
        "bad.yaml:25: actions[0].node must be given (logic node of the figure)",
    ),
    "other voltage": (
        f"{ADD}, {AT}",
        f"{ADD}, node: 45 nm, voltage: 0.9 V, source: book",
        "bad.yaml:25: actions[0].voltage must be that of the table, 1.0 V, not 0.9 V "
        "(convert the figure and say how in derivation)",
    ),
    "other node": (
        "area: 0.01 mm2, node: 45 nm",
        "area: 0.01 mm2, node: 40 nm",
        "bad.yaml:40: sram.rows[0].node must be that of the table, 45 nm, not 40 nm "
        "(convert the figure and say how in derivation)",
    ),
    "price twice": (
        ADD_ROW,
        ADD_ROW * 2,
        "bad.yaml:26: actions[1] must not price again what an earlier row prices",
    ),
    "DRAM kind twice": (
        f"  - {LPDDR4}\n",
        f"  - {LPDDR4}\n" * 2,
        "bad.yaml:43: dram[1] must not price again what an earlier row prices",
    ),
    "SRAM size twice": (
        SRAM_ROW,
        SRAM_ROW * 2,
        "bad.yaml:41: sram.rows[1] must not price again what an earlier row prices",
    ),
    "action without a price": (ADD_ROW, "", "bad.yaml:24: actions must price add, which no row does"),
    "stimulus without a price": (
        f"  - {{act_bits: 8, weight_bits: 8, stimulus: gated, value: 100 fJ, {AT}}}\n",
        "",
        "bad.yaml:7: lanes must price gated, which no row does",
    ),
    "lane without dense": (
        "{act_bits: 8, weight_bits: 8, stimulus: msb",
        "{act_bits: 4, weight_bits: 8, stimulus: msb",
        "bad.yaml:7: lanes must price dense for a lane of 4 x 8 bits, which no row does",
    ),
    "fit without a term": (
        f"  - {{term: mean, value: 0 um2, {AT}}}\n",
        "",
        "bad.yaml:19: lane_area_fit must give mean, which no row does",
    ),
    "rows that are none": (
        f"dram:\n  - {LPDDR4}\n",
        "dram: lpddr4\n",
        "bad.yaml:41: dram must be a list of mappings, not 'lpddr4'",
    ),
    "row that is text": (LPDDR4, "lpddr4", "bad.yaml:42: dram[0] must be a mapping of keys, not 'lpddr4'"),
    "unknown key": (
        "{kind: lpddr4, value",
        "{kind: lpddr4, valu",
        "bad.yaml:42: dram[0] must have no key 'valu'; did you mean 'value'?",
    ),
    "version": (
        "pgsim_energy: 1",
        "pgsim_energy: true",
        "bad.yaml:1: pgsim_energy must be 1, the version of the format that this pgsim reads, not true",
    ),
    "a hardware file": (
        "pgsim_energy: 1",
        "pgsim_hw: 1",
        "bad.yaml:1: pgsim_energy must be given as the version of the format, 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_table_is_refused_in_these_words(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, expected = REFUSED[case]
    assert SMALL.count(old) == 1
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(SMALL.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_energy_table("bad.yaml")
    assert str(caught.value) == expected


def test_the_table_that_the_wrong_ones_are_made_from_loads(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SMALL)
    table = load_energy_table(tmp_path / "good.yaml")
    assert table.sram_read_pj_per_bit(8192).value == 1 / 32
    assert table.action_pj("add", 8).value == 0.03
    assert table.action_pj("add", 8).source == "a book"
    assert table.mac_energy_pj(8, 8, Stimulus.GATED).value == 0.1  # 100 fJ
    assert table.sram_area_um2(8192).value == 10_000  # 0.01 mm2


def test_an_assumed_figure_needs_no_source(tmp_path: Path) -> None:
    why = 'node: 45 nm, voltage: 1.0 V, assumed: true, reason: "a guess"'
    (tmp_path / "some.yaml").write_text(SMALL.replace(f"{ADD}, {AT}", f"{ADD}, {why}"))
    price = load_energy_table(tmp_path / "some.yaml").action_pj("add", 8)
    assert (price.assumed, price.source, price.note) == (True, "assumed", "a guess")


def test_a_table_that_is_not_there_is_refused_with_the_closest() -> None:
    with pytest.raises(InputError) as caught:
        load_energy_table("17nm")
    assert str(caught.value) in {
        f"17nm: the energy table must be a file or a shipped name, not missing; did you mean {name!r}?"
        for name in ("16nm", "7nm")
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"energy_table": "7nm"},
            "dense_int8: technology.node must be that of energy table 7nm, 7 nm, not 45 nm",
        ),
        (
            {"voltage_v": 0.9, "energy_table": "45nm"},
            "dense_int8: technology.voltage must be that of energy table 45nm, 1.0 V, not 0.9 V",
        ),
    ],
)
def test_a_machine_of_another_node_or_voltage_is_refused(change: dict[str, object], expected: str) -> None:
    machine = dataclasses.replace(load_accelerator("dense_int8"), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        load_prices(machine)
    assert str(caught.value) == expected


def test_tables_beside_may_be_of_any_node_but_must_have_the_dram() -> None:
    machine = dataclasses.replace(load_accelerator("dense_int8"), energy_tables_beside=("7nm", "sky130_calibrated"))
    assert [table.node_nm for table in load_prices_beside(machine)] == [7, 130]
    off_chip = dataclasses.replace(machine.memory.off_chip, kind="ddr9")
    machine = dataclasses.replace(machine, memory=dataclasses.replace(machine.memory, off_chip=off_chip))
    with pytest.raises(InputError, match=r"dense_int8: memory\.off_chip\.kind must be a DRAM kind of energy table 7nm"):
        load_prices_beside(machine)


def test_a_machine_with_an_unknown_dram_is_refused_with_the_known_kinds() -> None:
    machine = load_accelerator("dense_int8")
    off_chip = dataclasses.replace(machine.memory.off_chip, kind="ddr9")
    memory = dataclasses.replace(machine.memory, off_chip=off_chip)
    machine = dataclasses.replace(machine, memory=memory, energy_table="45nm")
    with pytest.raises(InputError) as caught:
        load_prices(machine)
    assert str(caught.value) == (
        "dense_int8: memory.off_chip.kind must be a DRAM kind of energy table 45nm "
        "(ddr3, ddr4, gddr5, hbm2, hmc, lpddr, lpddr4), not 'ddr9'"
    )


@pytest.mark.parametrize("name", shipped_names("energy"))
def test_a_shipped_table_gives_every_figure_a_source_and_every_assumption_a_reason(name: str) -> None:
    rows = table_rows(load_energy_table(name))
    assert len(rows) > 80
    for what, price in rows:
        assert len(price.source) > 20, what
        assert price.note or not price.assumed, what


@pytest.mark.parametrize("name", shipped_names("energy"))
def test_a_shipped_table_is_valid_under_the_schema(name: str) -> None:
    schema = energy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    data = read_yaml(shipped_folder() / "energy" / f"{name}.yaml", "file").data
    jsonschema.validate(data, schema)
    data["actions"][0]["value"] = "0.03 mW"
    assert not jsonschema.Draft202012Validator(schema).is_valid(data)
