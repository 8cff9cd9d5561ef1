"""Shipped hardware files, the way back to a file, and the JSON Schema that says what the loader reads."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pgsim.arith.formats import Encoding
from pgsim.cli.hw import widths_for
from pgsim.hw.accelerator import (
    Accelerator,
    DepthwisePort,
    FeatureMaps,
    GateSource,
    Organisation,
    OverflowMode,
)
from pgsim.io import shipped
from pgsim.io.energy import load_prices, load_prices_beside
from pgsim.io.hardware import (
    accelerator_yaml,
    file_values,
    hardware_schema,
    load_accelerator,
    load_with_defaults,
    shipped_accelerators,
)
from pgsim.io.yaml_file import read_yaml
from pgsim.model.lanes import multiplier_bits
from tests.io.test_hardware_refused import DECOUPLED, DENSE

FOLDER = shipped.shipped_folder()
NAMES = shipped_accelerators()
KIB = 8192


def load_text(folder: Path, text: str) -> Accelerator:
    path = folder / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return load_accelerator(path)


def test_eight_machines_are_shipped() -> None:
    assert NAMES == [
        "dense_int16",
        "dense_int8",
        "dense_uniform",
        "fracbnn_two_pass",
        "gated_fused",
        "predictivenet",
        "predictivenet_cooperative",
        "predictivenet_zero",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_loads_by_name_with_its_prices(name: str) -> None:
    accelerator = load_accelerator(name)
    assert accelerator.name == name
    assert load_accelerator(f"{name}.yaml") == accelerator
    assert load_accelerator(FOLDER / f"{name}.yaml") == accelerator
    assert load_prices(accelerator).node_nm == 45


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_has_the_multiplier_bits_of_the_others(name: str) -> None:
    accelerator = load_accelerator(name)
    assert multiplier_bits(accelerator, widths_for(accelerator, act_bits=3, pred_bits=2)) == 18432


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_has_the_memory_clock_and_node_of_the_others(name: str) -> None:
    accelerator = load_accelerator(name)
    sizes = {part: buffer.size_bits for part, buffer in accelerator.memory.buffers.items()}
    planes = sizes.pop("activation") + sizes.pop("activation_lsb", 0)
    assert planes == 48 * KIB
    assert sizes == {"weight": 64 * KIB, "output": 64 * KIB}
    assert (accelerator.memory.off_chip.width_bits, accelerator.memory.off_chip.latency_cycles) == (128, 50)
    assert (accelerator.clock_mhz, accelerator.node_nm, accelerator.voltage_v) == (500, 45, 1.0)
    assert accelerator.array.psum_bits == (32 if name == "dense_int16" else 24)


def test_the_flagship_loads_as_its_file_says() -> None:
    machine = load_accelerator("predictivenet")
    array, update = machine.array, machine.update
    assert machine.organisation is Organisation.DECOUPLED
    assert (array.rows, array.columns, array.multipliers, array.lanes) == (8, 16, 8, 1024)
    assert (array.act_bits, array.weight_bits, array.weight_encoding) == (None, 8, Encoding.TWOS_COMPLEMENT)
    assert array.overflow is OverflowMode.ERROR
    assert update is not None
    assert (update.groups * update.lanes * array.multipliers, update.act_bits, update.queue_depth) == (256, None, 32)
    assert machine.memory.activation_lsb is not None
    assert machine.memory.activation_lsb.size_bits == 16 * KIB
    assert machine.memory.feature_maps is FeatureMaps.ON_CHIP
    assert machine.depthwise is DepthwisePort.OWN_PORT
    assert machine.gate is GateSource.TRACE
    assert machine.clock_gating
    assert not machine.cooperative


def test_the_variants_of_the_flagship_differ_in_one_thing() -> None:
    flagship = load_accelerator("predictivenet")
    words = {"name": flagship.name, "description": flagship.description}
    zero = dataclasses.replace(load_accelerator("predictivenet_zero"), **words)
    cooperative = dataclasses.replace(load_accelerator("predictivenet_cooperative"), **words)
    assert dataclasses.replace(zero, gate=GateSource.TRACE) == flagship
    assert dataclasses.replace(cooperative, cooperative=False) == flagship


def test_every_shipped_file_says_what_it_assumes_and_where_its_schema_is() -> None:
    for name in NAMES:
        first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=pgsim-hw.schema.json"
        assert len(load_accelerator(name).assumed) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_written_as_a_file_loads_as_itself(name: str, tmp_path: Path) -> None:
    machine = load_accelerator(name)
    again = load_text(tmp_path, accelerator_yaml(machine))
    assert again == machine
    assert again.sha256 == machine.sha256


@pytest.mark.parametrize(
    "name", ["no", "1e-9", "010", "a: b", "# x", "0x1F", "null", "äöü", "'", "{}", "5 MHz", "a, b"]
)
def test_a_name_that_yaml_could_misread_survives_the_way_to_a_file_and_back(name: str, tmp_path: Path) -> None:
    machine = dataclasses.replace(load_accelerator("dense_int8"), name=name)
    assert load_text(tmp_path, accelerator_yaml(machine)) == machine


def test_defaults_are_those_that_the_table_names(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(DENSE)
    loaded = load_with_defaults(tmp_path / "some.yaml")
    assert loaded.defaulted == {
        "description",
        "assumed",
        "gate",
        "technology.beside",
        "batch",
        "cooperative",
        "depthwise",
        "clock_gating",
        "array.weight_encoding",
        "array.overflow",
        "memory.feature_maps",
        "memory.activation.ports",
        "memory.weight.ports",
        "memory.weight.row_steps",
        "memory.activation.banks",
        "memory.weight.banks",
        "memory.output.banks",
    }
    machine = loaded.accelerator
    assert (machine.batch, machine.cooperative, machine.clock_gating) == (1, False, False)
    assert machine.memory.weight.banks == 1


@pytest.mark.parametrize(
    ("old", "new", "bits"),
    [
        ("8 KiB", "8192 B", 65536),
        ("8 KiB", "65536 bit", 65536),
        ("8 KiB", "1.5 KiB", 12288),
        ("8 KiB", "2 MiB", 1 << 24),
    ],
)
def test_sizes_take_their_units(old: str, new: str, bits: int, tmp_path: Path) -> None:
    text = DENSE.replace(f"weight: {{size: {old}", f"weight: {{size: {new}")
    assert load_text(tmp_path, text).memory.weight.size_bits == bits


@pytest.mark.parametrize(
    ("text", "mhz"),
    [("500 MHz", 500.0), ("0.5 GHz", 500.0), ("5e2 MHz", 500.0), ("32768 Hz", 0.032768), ("800kHz", 0.8)],
)
def test_clocks_take_their_units(text: str, mhz: float, tmp_path: Path) -> None:
    assert load_text(tmp_path, DENSE.replace("500 MHz", text)).clock_mhz == mhz


def test_a_file_in_the_way_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dense_int8").write_text(DENSE)
    assert load_accelerator("dense_int8").name == "small"
    Path("dense_int8").unlink()
    Path("dense_int8").mkdir()
    assert load_accelerator("dense_int8").name == "dense_int8"


def test_a_wheel_finds_its_files_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pgsim"
    (package / "hwconfigs").mkdir(parents=True)
    (package / "hwconfigs" / "mine.yaml").write_text(DENSE)
    monkeypatch.setattr(shipped.pgsim, "__file__", str(package / "__init__.py"))
    assert shipped_accelerators() == ["mine"]
    assert load_accelerator("mine").name == "small"


def test_an_energy_table_is_looked_up_beside_the_hardware_file(tmp_path: Path) -> None:
    table = (FOLDER / "energy" / "45nm.yaml").read_text(encoding="utf-8").replace("name: 45nm", "name: mine")
    (tmp_path / "mine.yaml").write_text(table, encoding="utf-8")
    machine = load_text(tmp_path, DENSE.replace("energy_table: 45nm", "energy_table: mine.yaml"))
    assert load_prices(machine).name == "mine"


def test_tables_beside_are_looked_up_like_the_first(tmp_path: Path) -> None:
    table = (FOLDER / "energy" / "45nm.yaml").read_text(encoding="utf-8").replace("name: 45nm", "name: mine")
    (tmp_path / "mine.yaml").write_text(table, encoding="utf-8")
    machine = load_text(tmp_path, DENSE.replace("table: 45nm", "table: 45nm\n  beside: [mine.yaml, 7nm]"))
    assert [table.name for table in load_prices_beside(machine)] == ["mine", "7nm"]


# The digest


def test_the_digest_changes_with_what_affects_results_and_with_nothing_else(tmp_path: Path) -> None:
    machine = load_text(tmp_path, DENSE)
    words = dataclasses.replace(
        machine, name="other", description="words", assumed=("all",), energy_tables_beside=("7nm",)
    )
    assert words.sha256 == machine.sha256
    assert load_text(tmp_path, DENSE.replace("500 MHz", "0.5 GHz")).sha256 == machine.sha256
    changes: list[dict[str, Any]] = [
        {"clock_mhz": 400.0},
        {"batch": 2},
        {"clock_gating": True},
        {"energy_table": "7nm"},
        {"array": dataclasses.replace(machine.array, rows=5)},
        {"array": dataclasses.replace(machine.array, overflow=OverflowMode.WRAP)},
    ]
    digests = {machine.sha256} | {dataclasses.replace(machine, **change).sha256 for change in changes}
    assert len(digests) == len(changes) + 1


# The schema


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_valid_under_the_schema(name: str) -> None:
    jsonschema.validate(read_yaml(FOLDER / f"{name}.yaml", "file").data, hardware_schema())


def test_the_shipped_schema_is_the_one_that_the_loader_states() -> None:
    stored = json.loads((FOLDER / "pgsim-hw.schema.json").read_text(encoding="utf-8"))
    assert stored == hardware_schema()
    jsonschema.Draft202012Validator.check_schema(stored)


def test_the_schema_refuses_what_the_loader_refuses(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(hardware_schema())
    (tmp_path / "dense.yaml").write_text(DENSE)
    (tmp_path / "decoupled.yaml").write_text(DECOUPLED)
    dense = read_yaml(tmp_path / "dense.yaml", "file").data
    decoupled = read_yaml(tmp_path / "decoupled.yaml", "file").data
    assert validator.is_valid(dense)
    assert validator.is_valid(decoupled)

    def edited(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
        copied = copy.deepcopy(values)
        at = copied
        *sections, last = path.split(".")
        for section in sections:
            at = at[section]
        if value is None:
            del at[last]
        else:
            at[last] = value
        return copied

    wrong = [
        edited(dense, "pgsim_hw", 2),
        edited(dense, "clok", 1),
        edited(dense, "clock", None),
        edited(dense, "clock", 500),
        edited(dense, "clock", "500 mW"),
        edited(dense, "organisation", "decoupld"),
        edited(dense, "organisation", "decoupled"),
        edited(decoupled, "organisation", "dense"),
        edited(decoupled, "update_array", None),
        edited(decoupled, "memory.activation_lsb", None),
        edited(dense, "memory.activation_lsb", {"size": "1 KiB"}),
        edited(dense, "array.rows", 0),
        edited(dense, "array.rows", "4"),
        edited(dense, "array.rows", 1.5),
        edited(dense, "array.rows", True),
        edited(dense, "array.act_bits", "auto"),
        edited(dense, "memory.weight.size", "8 KB"),
        edited(dense, "memory.weight.size", "-8 KiB"),
        edited(dense, "clock_gating", 1),
    ]
    assert [index for index, values in enumerate(wrong) if validator.is_valid(values)] == []


def test_every_value_that_is_written_is_valid_under_the_schema() -> None:
    for name in NAMES:
        jsonschema.validate(file_values(load_accelerator(name)), hardware_schema())
