"""The benchmarks measure what they say, on small traces; what they find is not judged here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import pgsim
from pgsim.io.trace import write_trace
from tests.build_trace import build_trace

FOLDER = Path(__file__).parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """Return a script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measured(*words: str) -> Any:
    command = [sys.executable, str(FOLDER / "measure.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.npz"
    write_trace(path, build_trace())
    return str(path)


ONE_BIG_ONE_SMALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import run
small = run.take([sys.executable, "-c", "pass"])
big = run.take([sys.executable, "-c", "import time; x = bytearray(200_000_000); time.sleep(0.3)"])
print(json.dumps([small.peak_mb, big.peak_mb, small.cpu_s, big.wall_s, run.best([small, big]).peak_mb]))
"""


def test_a_process_is_measured_by_itself() -> None:
    # From a process of its own, as on the command line: a child's peak memory starts at its parent's.
    command = [sys.executable, "-c", ONE_BIG_ONE_SMALL, str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small_mb, big_mb, small_cpu_s, big_wall_s, best_mb = json.loads(done.stdout)
    assert big_mb > 200 > small_mb == best_mb
    assert small_cpu_s > 0
    assert big_wall_s > 0.3


def test_a_process_that_fails_is_an_error_with_its_words() -> None:
    run = loaded("run")
    with pytest.raises(RuntimeError, match=r"ended with 3: no luck$"):
        run.take([sys.executable, "-c", "import sys; sys.stderr.write('no luck'); sys.exit(3)"])
    with pytest.raises(RuntimeError, match=r"measure.py stages nothing.npz dense_int8 ended with 1"):
        run.ask("stages", "nothing.npz", "dense_int8")


def test_stages_of_a_run_each_take_their_time(trace: str) -> None:
    found = measured("stages", trace, "predictivenet")
    assert list(found) == [
        "interpreter",
        "imports",
        "loading compiled kernels",
        "reading",
        "values",
        "cycles",
        "counting, prices, audit",
        "tables",
    ]
    assert all(seconds > 0 for seconds in found.values())
    assert found["imports"] > found["cycles"]


@pytest.mark.parametrize("images", [1, 5])
def test_a_tiled_trace_is_a_trace_of_the_same_images_again(trace: str, tmp_path: Path, images: int) -> None:
    assert measured("tile", trace, str(images), str(tmp_path / "tiled.npz")) == images
    few, many = pgsim.load_trace(trace), pgsim.load_trace(tmp_path / "tiled.npz")
    assert many.images == images
    assert pgsim.verify(many, engine="fast").equal
    for index in range(len(few.layers)):
        for image in range(images):
            once, again = few.tensors(index).output[image % few.images], many.tensors(index).output[image]
            assert np.array_equal(once, again)


def test_wider_layers_have_four_times_the_macs() -> None:
    found = measured("macs", "predictivenet")
    assert [one["macs"] for one in found] == [16 * 16 * 9 * 1024 * 4**step for step in range(4)]
    assert all(one["cpu_s"] > 0 for one in found)


def test_both_engines_are_measured_on_every_shipped_accelerator(trace: str) -> None:
    found = measured("engines", trace)
    names = pgsim.shipped_accelerators()
    assert [(one["engine"], one["accelerator"]) for one in found] == [
        (engine, name) for engine in ("fast", "clocked") for name in names
    ]
    cycles = pgsim.simulate(pgsim.load_trace(trace), pgsim.load_accelerator(names[0])).totals().cycles
    assert found[0]["cycles"] == cycles
    assert all(one["cpu_s"] > 0 for one in found)


def test_the_masked_backward_product_is_measured_beside_the_dense_one() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    found = measured("backward")
    assert [(one["channels"], one["sparsity"]) for one in found][:2] == [(16, 0.0), (16, 0.5)]
    assert [one["channels"] for one in found[::6]] == [16, 32, 64]
    assert found[0]["macs"] == 4 * 16 * 32 * 32 * 16 * 9
    assert all(one["masked_cpu_s"] > 0 and one["dense_cpu_s"] > 0 for one in found)
    assert all(one["masked_cpu_s"] < one["all_cpu_s"] for one in found if one["sparsity"] > 0.9)


def test_gated_layers_are_measured_beside_dense_and_float_ones() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    found = measured("layers")
    assert [(one["channels"], one["kernel"]) for one in found] == [(48, 1), (96, 1), (16, 3), (64, 3)]
    names = ("float_cpu_s", "dense_cpu_s", "gated_cpu_s", "gated_torch_cpu_s")
    assert all(one[name] > 0 for one in found for name in names)
    assert len({one[name] for one in found for name in names}) == 16


def test_the_table_shows_goals_beside_what_is_measured() -> None:
    run = loaded("run")
    lines = [run.Line("warm", "1.1", "< 2", True), run.Line("cold", "30", "< 20", False), run.Line("layers", "3")]
    text = run.show([("Times", lines)]).splitlines()
    assert text[0] == "Times"
    assert text[1].split() == ["warm", "1.1", "<", "2", "met"]
    assert text[2].split() == ["cold", "30", "<", "20", "NOT", "MET"]
    assert text[3].split() == ["layers", "3"]


@pytest.mark.slow
def test_one_command_measures_everything_and_writes_only_what_is_asked_for(trace: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "--trace", trace, "--repeats", "1", "--json", "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    assert "first run, empty cache, wall s" in done.stdout
    assert set(json.loads((tmp_path / "figures.json").read_text())) >= {"warm", "cold", "growth", "macs", "engines"}
    assert sorted(os.listdir(tmp_path)) == ["figures.json", "trace.npz"]
