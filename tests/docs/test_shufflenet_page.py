"""docs/shufflenet.md: its commands run, its table holds the trunk's options."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pytest

from pgsim.cli.main import main
from pgsim.cli.trace_trunk import OPTIONS, add_trunk_options

PAGE = (Path(__file__).parents[2] / "docs" / "shufflenet.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    pgsim (.*)$", PAGE, flags=re.MULTILINE)


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from pgsim.train.recipe import find_recipe
    from pgsim.train.shufflenet import trunk
    from tests.train.synthetic import residual
    from tests.train.test_shufflenet import drawn, write_trunk

    torch.set_num_threads(1)
    monkeypatch.setattr(trunk, "IMAGE_SIZE", 32)
    monkeypatch.setattr(trunk, "CALIBRATION_IMAGES", 1)
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "DATA"
    data.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    np.savez(data / trunk.SAMPLE_FILE, residual=residual(pixels), labels=np.zeros(1, np.int16))
    write_trunk(data / "shufflenetv2_x0.5_trunk.npz", drawn())
    assert [line.split()[0] for line in COMMANDS] == ["trace", "verify", "run", "train", "train", "trace"]
    for line in COMMANDS[:3]:  # tests/train/test_shufflenet_training.py trains and traces
        assert main(line.split()) == 0
    assert all(find_recipe(line.split()[1]) for line in COMMANDS[3:5])


def test_the_table_names_every_option_of_the_trunk() -> None:
    named = {name.split()[0] for name in re.findall(r"^\| `(--[^`]+)`", PAGE, flags=re.MULTILINE)}
    parser = argparse.ArgumentParser(add_help=False)
    add_trunk_options(parser)
    assert set(parser._option_string_actions) == {f"--{name}" for name in OPTIONS}
    assert named == {*parser._option_string_actions, "--bits", "--images"}


def test_every_recipe_is_named() -> None:
    from pgsim.train.recipe import shipped_recipes

    named = set(re.findall(r"\b(shufflenetv2_\S+?_cifar)(?!\w)", PAGE))
    named.remove("shufflenetv2_x0.5_cifar")  # the network
    assert named == {name for name in shipped_recipes() if name.startswith("shufflenetv2_")}


def test_what_came_out_is_what_the_stored_results_say() -> None:
    from tests.docs.test_training_page import measured_rows

    expected = measured_rows("shufflenetv2_x0.5_cifar", 3)
    assert len(expected) > 2
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", PAGE, flags=re.MULTILINE)]
    assert [row for row in rows if len(row) == 6][1:] == expected
