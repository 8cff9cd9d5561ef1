"""`pgsim paper` as its user meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pgsim.cli.main import main
from pgsim.paper.stored import write_result

TRACES = str(Path(__file__).parents[2] / "traces")


def test_tables_stand_beside_the_paper_and_fit_a_wide_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", TRACES, "--table", "1"]) == 0
    out = capsys.readouterr().out
    assert "Table 3" not in out
    (line,) = (line for line in out.splitlines() if "release" in line and "3/2" in line)
    cells = line.split()
    assert cells[:7] == ["resnet20", "PG", "3/2", "90.1", "91.0", "2.1", "2.09"]
    assert cells[7:12] == ["2.57", "91.2", "90.83", "-0.37", "yes"]
    assert max(map(len, out.splitlines())) <= 150


def test_three_seeds_of_a_recipe_in_one_folder_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for seed, score in ((1, 84.0), (2, 85.0), (10, 83.0)):
        text = f"name: x_seed{seed}\nact_bits: 2\npred_bits: 2\ngating: none\nclip: max\nseed: {seed}\n"
        write_result(
            tmp_path / f"x_seed{seed}.json",
            {
                "model": "resnet20",
                "dataset": "CIFAR-10 test",
                "recipe": text,
                "top1": score,
                "epochs": 14,
                "seed": seed,
            },
        )
    assert main(["paper", str(tmp_path), "--table", "1", "-o", str(tmp_path / "out")]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "±" in line and "resnet20" in line)
    assert line.split()[-9:] == ["84.0", "84.00±1.00", "+0.00", "yes", "-7.7", "none", "14", "3", "1,2,10"]
    with open(tmp_path / "out" / "table_1.csv", newline="") as stream:
        (row,) = (row for row in csv.DictReader(stream) if row["score"])
    assert (row["score"], row["score_deviation"], row["runs"], row["seeds"]) == ("84.0", "1.0", "3", "1;2;10")
    assert row["sources"] == ";".join(str(tmp_path / f"x_seed{seed}.json") for seed in (1, 2, 10))


def test_runs_that_would_look_alike_have_their_recipes_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = {"model": "resnet20", "dataset": "CIFAR-10 test", "epochs": 4, "seed": 1}
    for name, rate, score in (("slow", 0.01, 90.0), ("fast", 0.1, 89.0), ("long", 0.1, 91.0)):
        text = f"name: {name}\nact_bits: 2\npred_bits: 2\ngating: none\nlearning_rate: {rate}\n"
        epochs = 9 if name == "long" else 4
        result = {**info, "epochs": epochs, "recipe": f"{text}epochs: {epochs}\n", "top1": score}
        write_result(tmp_path / f"{name}.json", result)
    assert main(["paper", str(tmp_path), "--table", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("resnet20")]
    ends = {line[-1] for line in lines if len(line) > 1 and line[1] == "PACT" and "none" in line}
    assert ends == {"slow", "fast", "1"}


@pytest.mark.parametrize(
    ("more", "epochs", "began_at"),
    [
        ("float_weights: ''\n", "4", ""),
        ("float_weights: resnet20_cifar10.npz\n", "4+", "resnet20_cifar10.npz"),
        ("float_weights: shiftnet20_8\n", "4+", "shiftnet20_8"),
        ("task: shufflenet_cifar\nstart_from: x\n", "4+", "x"),
    ],
)
def test_epochs_on_top_of_others_are_told_from_a_whole_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, epochs: str, began_at: str
) -> None:
    pytest.importorskip("matplotlib")
    text = f"name: x\nact_bits: 2\npred_bits: 2\ngating: none\n{more}"
    info = {"model": "resnet20", "dataset": "CIFAR-10 test", "epochs": 4, "seed": 1, "recipe": text, "top1": 80.0}
    write_result(tmp_path / "x.json", info)
    assert main(["paper", str(tmp_path), "--table", "1", "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    (line,) = (line.split() for line in out.splitlines() if line.startswith("resnet20 ") and " none " in line)
    assert line[-3:] == [epochs, "1", "1"]
    assert "none, x, 4 epochs, seed 1" in out.replace("\n    ", " ")
    with (tmp_path / "out" / "table_1.csv").open(newline="") as stream:
        (row,) = (row for row in csv.DictReader(stream) if row["recipe"] == "x")
    assert (row["epochs"], row["began_at"]) == ("4", began_at)


def test_a_damaged_trace_loses_no_figure_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    content = bytearray((Path(TRACES) / "resnet20_3-2_release.npz").read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        last = max(name for name in archive.namelist() if name.endswith(".mask.npy"))
        member = archive.getinfo(last)
    content[member.header_offset + 30 + len(last) + member.compress_size // 2] ^= 1
    (tmp_path / "broken.npz").write_bytes(content)
    assert main(["paper", str(tmp_path), "--table", "1", "-o", str(tmp_path / "out")]) == 2
    assert "broken.npz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_stands_in_no_table_is_listed_below_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = {"model": "resnet18", "dataset": "CIFAR-10 test", "top1": 90.0, "epochs": 14}
    for seed in (1, 2):
        text = f"name: x\nnetwork: resnet18\nact_bits: 3\npred_bits: 3\ngating: none\nseed: {seed}\n"
        write_result(tmp_path / f"{seed}.json", {**info, "recipe": text, "seed": seed})
    write_result(tmp_path / "3.json", {**info, "frozen_batch": [0, 8]})
    assert main(["paper", str(tmp_path), "--table", "5"]) == 0
    out = capsys.readouterr().out
    assert out[out.index("In no table:") :].replace("\n    ", " ").splitlines() == [
        "In no table:",
        f"{tmp_path}/1.json, {tmp_path}/2.json: the paper does not have resnet18 PACT 3 on CIFAR-10"
        " (score 90.00±0.00, 14 epochs, seed 1,2)",
        f"{tmp_path}/3.json: a state dict of the authors' release, which does not tell its recipe, epochs and seed"
        " (top-1 90.00 %)",
    ]
    assert main(["paper", str(Path(TRACES) / "resnet20_3-2_all.npz")]) == 0
    assert "In no table" not in capsys.readouterr().out


def test_deviations_are_computed_and_said_with_epochs_and_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "act_bits: 4\npred_bits: 3\ngating: release\nthresholds: fixed\ndelta_target: 0\npolicy: zero\n"
    info = {"model": "resnet20", "dataset": "CIFAR-10 test", "top1": 89.3, "epochs": 14, "seed": 3, "recipe": text}
    info |= {"sparsity_percent": 50.0, "mac_sparsity_percent": 51.0, "training": {"finished": False}}
    write_result(tmp_path / "r.json", info)
    assert main(["paper", str(tmp_path), "--table", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = (
        "Deviates: resnet20 Fix-Threshold 4/3, release, at 0, zeroed, mine, <14 epochs, seed 3: score +1.00, Sp -8.7. "
    )
    assert wanted.replace("mine, ", "") + "no reason given" in " ".join(lines).replace("  ", " ").replace("   ", " ")
    (tmp_path / "reasons.yaml").write_text("mine: Its training was stopped.\nother: Another one.\n")
    write_result(tmp_path / "r.json", {**info, "recipe": text + "name: mine_seed3\n"})
    assert main(["paper", str(tmp_path), "--table", "1", "-o", str(tmp_path / "out")]) == 0
    assert wanted + "Its training was stopped." in " ".join(capsys.readouterr().out.split())
    with open(tmp_path / "out" / "table_1.csv", newline="") as stream:
        assert [row["reason"] for row in csv.DictReader(stream) if row["sources"]] == ["Its training was stopped."]
    assert sum("not run" in line for line in lines) == 38


def test_files_hold_the_tables_and_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    trace = str(Path(TRACES) / "resnet20_4-3_release.npz")
    assert main(["paper", trace, "-o", str(tmp_path / "out")]) == 0
    assert "wrote 6 tables and 8 figures to" in capsys.readouterr().out
    with open(tmp_path / "out" / "table_1.csv", newline="") as stream:
        (row,) = (row for row in csv.DictReader(stream) if row["sources"])
    assert (row["paper_score"], row["score"], row["within_bounds"], row["sources"]) == ("91.7", "91.6", "True", trace)
    assert [row[f"b_avg_{name}"] for name in ("by_macs_bits", "all_convolutions_bits")] == ["3.2078", "3.6035"]
    for name in ("figure_3", "figure_4_resnet20", "figure_5_resnet20_4-3_release"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_two_traces_of_one_name_do_not_lose_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for folder, name in (("a", "resnet20_4-3_release"), ("b", "resnet20_3-2_release")):
        (tmp_path / folder).mkdir()
        shutil.copy(Path(TRACES) / f"{name}.npz", tmp_path / folder / "t.npz")
    assert main(["paper", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out")]) == 2
    assert "b/t.npz must have another file name than" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_are_written_before_a_reader_has_seen_enough(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trace = str(Path(TRACES) / "resnet20_4-3_release.npz")
    code = "import sys; from pgsim.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "paper", trace, "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert len(list((tmp_path / "out").iterdir())) == 14


def test_what_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", str(tmp_path / "missing.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["paper", TRACES, "-o", str(Path(TRACES) / "README.md" / "x")]) == 2
    assert "must be a folder that can be written" in capsys.readouterr().err
    if hasattr(os, "mkfifo"):
        for name in ("x.json", "x.npz"):
            folder = tmp_path / name[2:]
            folder.mkdir()
            os.mkfifo(folder / name)
            assert main(["paper", str(folder)]) == 2
            assert capsys.readouterr().err.endswith(" a regular file, not a device or pipe\n")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("perplexity", 1.7e308, "perplexity (1.7e+308; it must be a number within 1 .. 1e+09)"),
        ("evaluated_images", "\x1b[31m", "evaluated_images ("),
        ("recipe", 'gating: "\\e[31mX"', "gating ("),
        ("recipe", "gating: " + "x" * 101, "it must be text on one line, of at most 100 characters"),
    ],
)
def test_what_would_garble_a_table_is_refused(
    key: str, value: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "ptb_lstm_8" if key == "perplexity" else "resnet20_4-3_short"
    stored = json.loads((Path(TRACES) / "results" / f"{name}.json").read_text())
    lines = [line for line in stored["recipe"].splitlines() if not line.startswith("gating")]
    stored[key] = "\n".join([*lines, str(value)]) if key == "recipe" else value
    (tmp_path / "r.json").write_text(json.dumps(stored))
    assert main(["paper", str(tmp_path / "r.json")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.isprintable() or captured.err[:-1].isprintable()
