"""A refusal that a hardware file causes names that file as the user gave it, in every command that takes one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pgsim.cli.hardware_file import naming_file
from pgsim.cli.main import main
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator
from pgsim.io.hardware import accelerator_yaml, load_accelerator
from pgsim.io.trace import write_trace
from tests.build_trace import build_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("traces") / "small.npz"
    write_trace(path, build_trace())
    return str(path)


def small_weights(machine: Accelerator) -> Accelerator:
    """No channel of any layer fits."""
    weight = replace(machine.memory.weight, size_bits=64, banks=1)
    return replace(machine, memory=replace(machine.memory, weight=weight))


def other_node(machine: Accelerator) -> Accelerator:
    """A node that its energy table is not for."""
    return replace(machine, node_nm=7)


def one_bit(machine: Accelerator) -> Accelerator:
    """Lanes too narrow to be split."""
    return replace(machine, array=replace(machine.array, act_bits=1))


WEIGHT = r"memory\.weight\.size must hold one .* of layer \S+ twice \(\d+ bits\), not 64 bits"
NODE = r"technology\.node must be that of energy table \S+, 45 nm, not 7 nm"
LANES = r"array\.act_bits must be at least 2 in gated_fused, a bit for each part, not 1"


@pytest.mark.parametrize(
    ("words", "name", "change", "line"),
    [
        ("run {trace} --hw {file}", "predictivenet", small_weights, WEIGHT),
        ("run {trace} --hw {file}", "predictivenet", other_node, NODE),
        ("run {trace} --hw dense_int8 --hw {file}", "gated_fused", one_bit, LANES),
        ("verify {trace} --engine simulator --hw {file}", "predictivenet", small_weights, WEIGHT),
        ("verify {trace} --engine clocked --hw {file}", "predictivenet", small_weights, WEIGHT),
        ("validate {file}", "dense_int8", other_node, NODE),
        ("info {file}", "dense_int8", other_node, NODE),
        ("hw show {file} --bits 3/2", "gated_fused", one_bit, LANES),
    ],
)
def test_a_refusal_names_the_hardware_file_that_was_given(
    words: str,
    name: str,
    change: Callable[[Accelerator], Accelerator],
    line: str,
    trace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(accelerator_yaml(change(load_accelerator(name))), encoding="utf-8")
    assert main(words.format(trace=trace, file=mine).split()) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(f"pgsim: error: {re.escape(str(mine))}: {line}\n", err), err


def test_an_overflow_names_the_trace_and_the_machine_it_ran_on(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = load_accelerator("predictivenet")
    mine = tmp_path / "mine.yaml"
    mine.write_text(accelerator_yaml(replace(machine, array=replace(machine.array, psum_bits=8))), encoding="utf-8")
    assert main(["run", trace, "--hw", "dense_int8", "--hw", str(mine)]) == 2
    assert capsys.readouterr().err.startswith(
        f"pgsim: error: {trace} on {mine}: stem, channel 0: psum_bits must be at least "
    )


def test_a_refusal_that_names_the_trace_stays_as_it_is() -> None:
    with (
        pytest.raises(InputError, match=r"^t\.npz: 000\.output must be a \.npy array$"),
        naming_file("mine.yaml", load_accelerator("dense_int8")),
    ):
        raise InputError("t.npz: 000.output must be a .npy array")


@pytest.mark.parametrize(("given", "shown"), [("predictivenet", "predictivenet"), ("a\nb.yaml", r"'a\\nb\.yaml'")])
def test_a_shipped_name_stays_and_a_path_is_shown_on_one_line(given: str, shown: str) -> None:
    with (
        pytest.raises(InputError, match=rf"^{shown}: batch must be 1, not 2$"),
        naming_file(given, load_accelerator("predictivenet")),
    ):
        raise InputError("predictivenet: batch must be 1, not 2")
