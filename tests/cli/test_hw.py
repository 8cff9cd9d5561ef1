"""`pgsim hw`: what it prints, and that it does without anything heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pgsim.cli.main import main
from pgsim.io.hardware import hardware_schema, load_accelerator, shipped_accelerators


def out_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["hw", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_list_gives_every_machine_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out_of(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines[1:]] == shipped_accelerators()
    update = load_accelerator("predictivenet").update
    assert update is not None
    assert sum(f" 8 x 16 x 8 + {update.groups} x {update.lanes} x 8 " in line for line in lines) == 3


def test_show_prints_values_with_units_and_marks_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split(maxsplit=1) for line in out_of(capsys, "show", "dense_int8").splitlines() if line]
    values = {words[0]: words[1] for words in lines if len(words) > 1}
    assert values["clock"] == "500 MHz"
    assert values["memory.weight.size"] == "64 KiB"
    assert values["gate"] == "trace  (default)"
    assert values["clock_gating"] == "true"
    assert values["multiplier"] == "bits  18,432"
    assert values["sha256"] == load_accelerator("dense_int8").sha256


def test_show_resolves_what_the_trace_decides_when_told_its_bits(capsys: pytest.CaptureFixture[str]) -> None:
    without = out_of(capsys, "show", "predictivenet")
    assert "multiplier bits  depend on the trace; --bits B/H (as in 3/2) resolves them\n" in without
    resolved = out_of(capsys, "show", "predictivenet", "--bits", "3/2")
    assert "lanes            1,280 (1,024 MSB + 256 LSB), as many MACs a cycle at peak\n" in resolved
    assert "multiplier bits  18,432\n" in resolved
    assert "mm2 without control and wiring; in a run `post` is what its trace needs\n" in resolved
    assert "PG thresholds on separately wired MSB and LSB planes" in resolved


def test_show_sums_the_area_of_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys, "show", "dense_int8")
    by_hand = {
        "array": 288 * 443.5,
        "shadow": 36 * 24 * 5.98,
        "crossbar": 9 * 8 * 8 * 31 * 1.794,  # nine pixels' words of 8 x 8 bits, each from one of 32 banks
        # multiplier of 24 bits, adders of 24 and 40, two comparators of 24, two sets of a factor and a bias
        "post": 4 * (2072.9 + 103.8 + 171.3 + 2 * 53.25 + 2 * (16 + 40) * 5.98),
        "activation": 32 * 8823.62 * (15132 / 8823.62) ** 0.5849625,  # 1.5 KiB lies log2(1.5) between 1 and 2 KiB
        "weight": 16 * 30060.7,
        "output": 16 * 30060.7,
    }
    for name, um2 in by_hand.items():
        assert f"\n  {name:<10}  {um2 / 1e6:.4f} mm2" in text
    assert f"area             {sum(by_hand.values()) / 1e6:.3f} mm2 without" in text


@pytest.mark.parametrize(
    ("name", "shown", "total"),
    [
        ("predictivenet", "3 + 2", 1024 * 3 * 8 + 256 * 2 * 8),
        ("dense_int8", "8", 18432),
        ("dense_int16", "16", 18432),
        ("dense_uniform", "5", 768 * 5 * 8),
        ("gated_fused", "3 + 2", 768 * 5 * 8),
        ("fracbnn_two_pass", "3", 1152 * 3 * 8),
    ],
)
def test_widths_follow_a_5_3_trace_unless_the_file_fixes_them(
    name: str, shown: str, total: int, capsys: pytest.CaptureFixture[str]
) -> None:
    text = out_of(capsys, "show", name, "--bits", "5/3")
    assert f"lane operands    {shown} x {16 if name == 'dense_int16' else 8} bits\n" in text
    assert f"multiplier bits  {total:,}\n" in text


def test_show_yaml_prints_a_file_that_loads_as_the_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text(out_of(capsys, "show", "gated_fused", "--yaml"), encoding="utf-8")
    assert load_accelerator(tmp_path / "copy.yaml") == load_accelerator("gated_fused")


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(out_of(capsys, "schema")) == hardware_schema()
    assert json.loads(out_of(capsys, "schema", "--energy"))["$id"] == "urn:pgsim:energy:1"


def test_prices_lists_figures_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys, "prices", "45nm")
    lines = text.splitlines()
    assert lines[0].startswith("45nm: 45 nm, 1.0 V, sha256 ")
    dram = next(line for line in lines if line.startswith("dram lpddr4"))
    *words, number = dram.split()
    assert words == ["dram", "lpddr4", "8", "pJ/bit"]
    assert any(line.startswith(f"{number} Accelergy's DRAM plug-in") for line in lines)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["show", "predictivnet"],
            "predictivnet: the hardware file must be a file or a shipped name, not missing; "
            "did you mean 'predictivenet'?",
        ),
        (["show", "predictivenet", "--bits", "3"], "--bits must be B/H with 0 < H < B <= 16, as in 3/2, not '3'"),
        (
            ["show", "predictivenet", "--bits", "3/2", "--yaml"],
            "argument --yaml: not allowed with argument --bits (see pgsim hw show --help)",
        ),
        (["show", "predictivenet", "--bits", "2/3"], "--bits must be B/H with 0 < H < B <= 16, as in 3/2, not '2/3'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hw", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"pgsim: error: {expected}\n"


def test_it_needs_nothing_heavy() -> None:
    code = (
        "import sys; from pgsim.cli.main import main; main(['hw', 'list'])\n"
        "print([m for m in ('torch', 'numba', 'pandas', 'matplotlib', 'pyarrow') if m in sys.modules], "
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
