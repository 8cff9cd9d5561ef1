"""pgsim where nothing beside its files can be written, and with other work on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgsim.io.trace import write_trace
from tests.build_trace import build_trace

ROOT = Path(__file__).parents[1]


def test_kernels_are_cached_elsewhere_where_the_package_cannot_be_written(tmp_path: Path) -> None:
    package, home = tmp_path / "site" / "pgsim", tmp_path / "home"
    shutil.copytree(ROOT / "pgsim", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "arith" / "__pycache__").touch()  # a file where numba wants its folder: refused for every user
    home.mkdir()
    code = """
import numpy as np
from pgsim.arith import sddmm
from pgsim.workload.layer import Geometry, LayerKind
assert sddmm.__file__.startswith({site!r}), sddmm.__file__
codes, weight, mask = np.ones((1, 4, 1, 1), np.int16), np.ones((4, 4, 1, 1), np.int16), np.ones((1, 4, 1, 1), bool)
print(sddmm.update_sums(codes, weight, Geometry(LayerKind.CONV, 4, 4), mask).ravel().tolist())
""".format(site=str(tmp_path / "site"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "NUMBA_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[4, 4, 4, 4]\n", 0), done.stderr
    assert [path.name.split(".")[0] for path in home.rglob("*.nbi")] == ["sddmm"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir() or os.cpu_count() == 1, reason="counts threads as Linux does")
@pytest.mark.parametrize(("asked", "alone"), [(None, True), ("2", False)])
def test_a_run_takes_one_thread_unless_told_otherwise(tmp_path: Path, asked: str | None, alone: bool) -> None:
    write_trace(tmp_path / "t.npz", build_trace())
    code = (
        "import os, sys; from pgsim.cli.main import main\n"
        f"assert main(['run', {str(tmp_path / 't.npz')!r}, '--hw', 'dense_int8', '--show', 'nothing']) == 0\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"OPENBLAS_NUM_THREADS": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (int(done.stdout) == 1) is alone
