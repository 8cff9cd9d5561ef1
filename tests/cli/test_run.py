"""`pgsim run` as its user meets it: tables, comparison, files, refusals, and Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pgsim.model.simulate
from pgsim.cli.main import main
from pgsim.cli.report import audit_lines, comparison, layer_tables, plain, shorten, summary, title
from pgsim.io.hardware import load_accelerator
from pgsim.io.shipped import shipped_folder
from pgsim.io.trace import load_trace, write_trace
from pgsim.results.run import Check, RunResult
from pgsim.workload.trace import InMemory, Trace
from tests.build_trace import build_trace
from tests.results.made import made_run


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("traces") / "small.npz"
    write_trace(path, build_trace())
    return str(path)


def pgsim_hw(name: str) -> str:
    """The text of a shipped hardware file."""
    return (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def run_quietly(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["run", *words]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_a_run_prints_every_table_and_that_its_audit_holds(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_quietly(capsys, "--hw", "predictivenet", trace)
    assert out.startswith(
        "small random, 2 images (figures are for all 2 together), on predictivenet (decoupled, 500 MHz)\n\nWork "
    )
    for heading in ("PE array, ", "LSB array in ", "Energy, ", "Traffic, ", "Mapping", "Network", "Assumed"):
        assert f"\n\n{heading}" in out
    sha = load_accelerator("predictivenet").sha256[:12]
    assert (
        f"\npgsim {pgsim.__version__}, trace {load_trace(trace).sha256[:12]}, predictivenet {sha}, energy table" in out
    )
    assert "\naudit: 60 checks hold (" in out


def test_a_run_prints_its_energy_by_every_table_that_the_file_names(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_quietly(capsys, "--hw", "predictivenet", "-o", str(tmp_path / "out.csv"), trace)
    (part,) = (part for part in out.split("\n\n") if part.startswith("The same counts at other prices"))
    shown = {line.split()[0]: line.split()[1:] for line in part.splitlines() if line.startswith("45nm")}
    assert list(shown) == ["45nm_low_leakage", "45nm_calibrated_codes"]
    with open(tmp_path / "out.csv", newline="") as stream:
        network = {row["energy_table"]: row for row in csv.DictReader(stream) if row["row"] == "network"}
    assert list(network) == list(shown)
    energies = [float(row["energy_per_image_pj"]) * 1e-6 for row in network.values()]
    for (energy, ratio, *parts, area), row, whole in zip(shown.values(), network.values(), energies, strict=True):
        assert float(energy) == pytest.approx(whole, abs=0.0051)
        assert float(ratio) == pytest.approx(whole / energies[0], abs=0.00051)
        assert sum(map(float, parts)) == pytest.approx(whole, abs=0.0251)  # five parts, each rounded
        assert float(area) == pytest.approx(float(row["area_um2"]) * 1e-6, abs=0.00051)
    assert len({row["cycles"] for row in network.values()}) == 1


def test_a_comparison_is_made_by_every_table_that_all_files_name(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = run_quietly(capsys, "--hw", "predictivenet", "--hw", "dense_int8", trace).split("\n\n")
    tables = [part.splitlines()[0].split("energy table ")[1] for part in both if part.startswith("Comparison")]
    assert tables == ["45nm_low_leakage", "45nm_calibrated_codes"]
    alone = tmp_path / "alone.yaml"
    text = pgsim_hw("dense_int8")
    alone.write_text("\n".join(line for line in text.splitlines() if "beside:" not in line))
    one = run_quietly(capsys, "--hw", "predictivenet", "--hw", str(alone), trace)
    assert one.count("Comparison, ") == 1


def test_an_audit_that_fails_at_other_prices_is_printed_and_fails_the_run(
    trace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = pgsim.model.simulate._audit

    def wrong(trace: Any, machine: Any, result: RunResult, facts: Any) -> tuple[Check, ...]:
        checks = audit(trace, machine, result, facts)
        return checks if machine.prices.name == "45nm_low_leakage" else (*checks, Check("one is two", 1, 2))

    monkeypatch.setattr(pgsim.model.simulate, "_audit", wrong)
    assert "one is two: must be 1, not 2" in run_quietly(capsys, "--hw", "predictivenet", trace, code=1)


@pytest.mark.parametrize("name", ["predictivenet_cooperative", "gated_fused", "fracbnn_two_pass", "dense_int16"])
def test_tables_fit_in_120_columns_of_plain_text(name: str, trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_quietly(capsys, "--hw", name, trace)
    assert max(map(len, out.splitlines())) <= 120
    assert out.replace("\n", "").isprintable()
    assert out.isascii()


def numbers(out: str, table: str, line: str) -> list[str]:
    """The cells of one line of one table."""
    after = out[out.index(f"\n{table}") :]
    found = next(text for text in after.splitlines() if text.lstrip().startswith(line))
    return found.removeprefix(line).split()


def test_the_work_table_says_what_the_trace_holds(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_quietly(capsys, "--hw", "predictivenet", trace)
    small = build_trace()
    mask = small.tensors(1).mask
    assert mask is not None
    share = mask.mean()
    row = numbers(out, "Work", "1  keep")
    assert row[:4] == ["conv", "4x8x8", "->", "4x8x8,"]
    assert row[4:] == [
        "3x3/1", "3/2", "x", "8", f"{2 * 256 * 36:,}", f"{int(mask.sum()) * 36:,}", f"{100 * (1 - share):.1f}", "%",
        f"{2 + share:.3f}",
    ]  # fmt: skip
    head = numbers(out, "Work", "7  head")
    assert head[-5:] == ["8", f"{2 * 3 * 12}", "-", "-", "4.000"]


def test_a_machine_without_a_gate_has_no_sparsity_and_spends_all_bits(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_quietly(capsys, "--hw", "dense_int8", trace)
    assert numbers(out, "Work", "1  keep")[-3:] == ["-", "-", "3.000"]
    assert "Sp by outputs" not in out
    assert "LSB" not in out


def test_several_machines_are_compared_to_the_first(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_quietly(capsys, "--hw", "dense_int8", "--hw", "predictivenet", "--hw", "dense_uniform", trace)
    assert "\nWork" not in out
    assert out.count("\naudit: ") == 3
    table = out[out.index("Comparison, ratios to dense_int8") :].split("\n\n")[0].splitlines()
    rows = [line.split() for line in table[3:]]
    assert [row[0] for row in rows] == ["dense_int8", "predictivenet", "dense_uniform"]
    assert rows[0][5:7] == ["1.000", "1.000"]
    assert rows[0][10] == "18,432"


def test_the_comparison_divides_time_not_cycles() -> None:
    slow, quick = made_run(), replace(made_run("twice", clock_mhz=400.0), multiplier_bits=768)
    cells = comparison([slow, quick]).splitlines()[-1].split()
    assert cells == [
        "twice", "decoupled", "400", "100", "0.1", "2.000", "2.000", "0.00", "1.000", "0.500", "768", "1.000",
        "2.000", "2.000",
    ]  # fmt: skip


def test_totals_alone_leave_out_the_layers(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_quietly(capsys, "--hw", "predictivenet", trace, "--show", "totals")
    assert "\nWork" not in out
    assert "\nNetwork" in out
    assert "\nAssumed" in out


def test_show_nothing_prints_nothing_and_writes_files(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("csv", "json", "parquet")]
    words = [word for path in outputs for word in ("-o", str(path))]
    timeline = tmp_path / "timeline.json"
    out = run_quietly(capsys, "--hw", "predictivenet", trace, "--show", "nothing", *words, "--timeline", str(timeline))
    assert out == ""
    assert sorted(tmp_path.iterdir()) == sorted([*outputs, timeline])
    with open(outputs[0], newline="") as stream:
        rows = list(csv.DictReader(stream))
    network = json.loads(outputs[1].read_text())["runs"][0]["totals"]["network"]
    assert int(rows[-3]["cycles"]) == network["cycles"]
    layers = [e for e in json.loads(timeline.read_text())["traceEvents"] if e["ph"] == "X" and e["tid"] == 1]
    assert sum(event["args"]["cycles"] for event in layers) == network["cycles"]


def test_both_engines_print_the_same(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    fast = run_quietly(capsys, "--hw", "predictivenet", trace)
    assert run_quietly(capsys, "--hw", "predictivenet", trace, "--engine", "clocked") == fast


def failing(*arguments: Any, **options: Any) -> RunResult:
    run = made_run()
    return replace(run, audit=(*run.audit, Check("bits from off chip: the schedule's", 320, 319, "a")))


@pytest.mark.parametrize("show", ["layers", "nothing"])
def test_a_failing_audit_says_what_and_exits_with_1(
    show: str, trace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pgsim.model.simulate, "simulate", failing)
    assert main(["run", "--hw", "dense_int8", trace, "--show", show]) == 1
    captured = capsys.readouterr()
    text = captured.out if show == "layers" else captured.err
    assert (
        "audit: 1 of 3 comparisons do not hold\n  a: bits from off chip: the schedule's: must be 320, not 319\n" in text
    )


def test_a_trace_whose_outputs_are_not_its_own_is_a_mismatch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = build_trace()
    items = [honest.tensors(index) for index in range(len(honest.layers))]
    wrong = items[1].output.copy()
    wrong[1, 2, 3, 4] += 1
    items[1] = replace(items[1], output=wrong)
    path = tmp_path / "wrong.npz"
    write_trace(path, Trace(honest.layers, honest.images, InMemory(tuple(items)), honest.info))
    assert main(["run", "--hw", "dense_int8", str(path)]) == 0  # its own gate leaves other outputs anyway
    capsys.readouterr()
    assert main(["run", "--hw", "predictivenet", str(path)]) == 1
    captured = capsys.readouterr()
    was = int(wrong[1, 2, 3, 4])
    assert captured.out == ""
    assert captured.err.startswith(
        f"pgsim: error: {path} on predictivenet: layer keep: recorded output[1, 2, 3, 4] must be {was - 1}, not {was} "
        "(1 of 512 differ"
    )
    assert main(["run", "--hw", "predictivenet", str(path), "--no-verify"]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-o", "{folder}/out.xls"], "{folder}/out.xls: the output must end in .csv, .json, .parquet, not '.xls'"),
        (["-o", "{folder}/no/out.csv"], "{folder}/no/out.csv: the output's folder must be there, not missing"),
        (["--timeline", "{folder}"], "{folder}: the output must be a file, not a folder"),
        (
            ["-o", "{folder}/a.json", "--timeline", "{folder}/./a.json"],
            "{folder}/./a.json: an output must be named once",
        ),
        (["--timeline", "{folder}/t.csv"], "{folder}/t.csv: the timeline must end in .json, not '.csv'"),
        (["--timeline", "{folder}/t.json.gz"], "{folder}/t.json.gz: the timeline must end in .json, not '.gz'"),
        (["--timeline", "{folder}/json"], "{folder}/json: the timeline must end in .json, not without a suffix"),
        (["--timeline", "{trace}"], "{trace}: an output must not be an input"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    words: list[str],
    line: str,
    trace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the work must not begin")

    monkeypatch.setattr(pgsim.model.simulate, "simulate", never)
    names = {"folder": str(tmp_path), "trace": trace}
    assert main(["run", "--hw", "dense_int8", trace, *(word.format(**names) for word in words)]) == 2
    assert capsys.readouterr().err == f"pgsim: error: {line.format(**names)}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--hw", "predictivent", "x.npz"],
            "predictivent: the hardware file must be a file or a shipped name, not missing; "
            "did you mean 'predictivenet'?",
        ),
        (["--hw", "dense_int8", "x.npz"], "x.npz: the trace must be there, not missing"),
    ],
)
def test_an_input_that_is_missing_gets_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"pgsim: error: {line}\n")


def test_the_summary_states_rates_of_the_run_made_by_hand() -> None:
    text = " ".join(summary(made_run()).split())
    assert (
        "8,000,000.0 images/s, 0.1 us and 1.25 nJ an image, 10.0 mW on average, 11.2 mW in the hungriest layer, "
        in text
    )
    assert "product 1.562e-16 J s an image" in text
    assert "area 2.000 mm2 (array 1.500, weight 0.500), 384 multiplier bits" in text
    assert "Assumed - the clock - the array's size" in text
    assert "Sp by outputs 70.00 % 70.00 %" in text
    assert title(made_run()) == "made by hand, 4 images (figures are for all 4 together), on paper (decoupled, 200 MHz)"
    assert audit_lines(made_run()) == "audit: 2 checks hold (2 comparisons in 2 layers)"


def test_stalls_that_never_happen_take_no_column() -> None:
    text = layer_tables(made_run())
    table = text[text.index("PE array") :].splitlines()
    assert [line.split() for line in table[1:5]] == [
        ["lanes"],
        ["#", "layer", "cycles", "of", "all", "busy", "tail", "drain", "used"],
        ["0", "a", "80", "80.0", "75.0", "25.0", "-", "56.2", "%"],
        ["1", "b", "20", "20.0", "80.0", "5.0", "15.0", "80.0", "%"],
    ]


def test_text_from_files_cannot_move_the_cursor() -> None:
    assert plain("a\x1b[2Jb\r") == "a\\x1b[2Jb\\r"
    assert shorten("features.denseblock4.denselayer16") == "features...selayer16"
    assert len(shorten("x" * 200)) <= 20
    evil = replace(made_run(), provenance=replace(made_run().provenance, trace="\x1b[31mred", accelerator="a\x07b"))
    assert "\x1b" not in title(evil) + summary(evil) + comparison([evil])


def test_ctrl_c_ends_a_run_with_130_and_leaves_nothing(trace: str, tmp_path: Path) -> None:
    big = tmp_path / "big.npz"
    write_trace(big, build_trace(images=60))
    out = tmp_path / "out"
    out.mkdir()
    words = ["--hw", "predictivenet", str(big), "--engine", "clocked", "--timeline", "t.json", "-o", "r.csv"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgsim", "run", *words],
        cwd=out, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(pgsim.__file__).parents[1])},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size > 50_000 for path in out.iterdir()):  # the timeline grows: it simulates
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stdout, stderr) == (130, "", "pgsim: interrupted\n")
    assert list(out.iterdir()) == []
