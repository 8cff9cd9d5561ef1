"""The Python face: what it returns, what it refuses, and that importing it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pgsim
from pgsim.errors import InputError, MismatchError
from pgsim.io.trace import write_trace
from pgsim.workload.trace import InMemory, Trace
from tests.build_trace import build_trace
from tests.results.made import made_run

HEAVY = ("numpy", "numba", "pandas", "pyarrow", "yaml", "torch", "matplotlib", "rich")


def modules_after(code: str) -> list[str]:
    """Return which heavy modules `code` leaves imported in a fresh interpreter."""
    code = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [name for name in HEAVY if f"'{name}'" in done.stderr.splitlines()[-1]]


def test_importing_pgsim_imports_nothing_heavy() -> None:
    assert modules_after("import pgsim; pgsim.simulate, pgsim.frame, pgsim.load_trace") == []


def test_help_imports_nothing_heavy() -> None:
    assert modules_after("from pgsim.cli.main import main\nassert main(['--help']) == 0") == []


def test_help_of_run_imports_nothing_heavy() -> None:
    assert modules_after("from pgsim.cli.main import main\nassert main(['run', '--help']) == 0") == []


def test_simulating_imports_no_table_or_plot_library(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", build_trace())
    code = f"""
import pgsim
trace = pgsim.load_trace({str(tmp_path / "t.npz")!r})
machine = pgsim.load_accelerator("dense_int8")
assert "numba" not in sys.modules
pgsim.simulate(trace, machine)
"""
    assert modules_after(code) == ["numpy", "numba", "yaml"]


def test_every_call_is_handed_on_and_nothing_else() -> None:
    assert {name for name in dir(pgsim) if callable(getattr(pgsim, name)) and not name.startswith("_")} >= {
        name for name in pgsim.__all__ if name != "__version__"
    }
    with pytest.raises(AttributeError, match="module 'pgsim' has no attribute 'simulat'"):
        _ = pgsim.simulat


def test_a_run_from_files_equals_one_from_memory(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.npz", build_trace())
    machine = pgsim.load_accelerator("predictivenet")
    of_file = pgsim.simulate(pgsim.load_trace(tmp_path / "t.npz"), machine)
    of_memory = pgsim.simulate(build_trace(), machine, prices=pgsim.load_energy_table(machine.energy_table))
    assert of_file.layers == of_memory.layers
    assert of_file.provenance.energy_table == machine.energy_table
    assert all(check.holds for check in of_file.audit)


def test_prices_that_are_given_replace_the_accelerators() -> None:
    machine = pgsim.load_accelerator("dense_int8")
    cheap = pgsim.simulate(build_trace(), machine, prices=pgsim.load_energy_table("7nm"))
    own = pgsim.simulate(build_trace(), machine)
    assert cheap.provenance.energy_table == "7nm"
    assert [layer.counts for layer in cheap.layers] == [layer.counts for layer in own.layers]
    assert cheap.totals().energy.total_pj < own.totals().energy.total_pj


def one_bit_off() -> Trace:
    trace = build_trace()
    assert isinstance(trace.source, InMemory)
    trace.source.items[0].output[0, 0, 0, 0] += 1
    return trace


def test_a_wrong_integer_is_found_by_simulate_and_verify_unless_told_not_to_look() -> None:
    machine = pgsim.load_accelerator("dense_int8")
    with pytest.raises(MismatchError, match="layer stem: recorded output"):
        pgsim.simulate(one_bit_off(), machine)
    assert pgsim.simulate(one_bit_off(), machine, verify=False).totals().outputs > 0
    verification = pgsim.verify(one_bit_off(), engine="fast")
    assert not verification.equal
    assert verification.first is not None
    assert verification.first.layer == "stem"
    assert pgsim.verify(build_trace()).layers[0].engines == ("reference", "fast")
    assert pgsim.verify(build_trace(), engine="reference", layers=["keep"]).layers[0].engines == ("reference",)


def test_paths_and_unknown_engines_are_wrong_calls() -> None:
    trace, machine = build_trace(), pgsim.load_accelerator("dense_int8")
    with pytest.raises(TypeError, match=r"^trace must be a Trace \(pgsim.load_trace returns one\), not str$"):
        pgsim.simulate("t.npz", machine)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"^accelerator must be an Accelerator \(pgsim.load_accelerator returns one\), not str$"
    ):
        pgsim.simulate(trace, "dense_int8")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^trace must be a Trace"):
        pgsim.verify("t.npz")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^engine must be one of reference, fast, all, not 'slow'$"):
        pgsim.verify(trace, engine="slow")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'dense_int8'"):
        pgsim.load_accelerator("dense_int88")


def test_frames_split_into_layers_and_totals() -> None:
    run = made_run()
    assert list(pgsim.layers_frame(run)["layer"]) == ["a", "b"]
    assert list(pgsim.totals_frame([run, made_run("other")])["row"]) == ["network", "gated", "not_gated"] * 2
    assert len(pgsim.frame(run)) == 5
    assert list(pgsim.totals_frame(run).index) == [0, 1, 2]


def test_results_are_written_one_or_many(tmp_path: Path) -> None:
    pgsim.write_results(tmp_path / "one.csv", made_run())
    pgsim.write_results(tmp_path / "two.csv", iter([made_run(), made_run("other")]))
    assert len((tmp_path / "one.csv").read_text().splitlines()) == 6
    assert len((tmp_path / "two.csv").read_text().splitlines()) == 11


def test_a_comparison_as_a_table() -> None:
    table = pgsim.comparison_frame([made_run("fast", cycles=80)], made_run("slow", cycles=180))
    assert list(table["layers"]) == ["network", "gated", "not_gated"]
    assert list(table["speedup"]) == [2.0, 2.25, 1.0]
    assert list(table["speedup_at_equal_area"]) == [2.0, 2.25, 1.0]
