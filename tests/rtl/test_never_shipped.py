"""Configurations and traces unlike any that is shipped, through the RTL layer by layer and layer into layer.

machines: one lane of everything, or odd sizes, of every organisation
traces:   what a network may hold and ResNets do not; integers by plain numpy (tests.build_trace)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.cli.main import main
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, FeatureMaps, GateSource, Organisation, OverflowMode
from pgsim.io.hardware import accelerator_yaml
from pgsim.io.trace import write_trace
from pgsim.rtl.bench import Bench
from pgsim.rtl.build import lint
from pgsim.rtl.generate import sources, write_sources
from pgsim.rtl.layer_into_layer import run_network
from pgsim.rtl.network import Network, compiled, cosimulate, make_network
from pgsim.rtl.post_unit import Select
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Geometry,
    LayerKind,
    Logits,
    MaxPool,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import Trace
from tests.build_trace import Builder, Ints, requantise, step
from tests.model.random_machines import make_accelerator
from tests.rtl.machine_cases import needs_compiler

SLOW = pytest.mark.slow
CONV, LINEAR, MATMUL = LayerKind.CONV, LayerKind.LINEAR, LayerKind.MATMUL
UNSIGNED, SIGNED, TWOS = Encoding.UNSIGNED, Encoding.SIGN_MAGNITUDE, Encoding.TWOS_COMPLEMENT
SAME = (1, 1, 1, 1)
LOGITS = step(Logits("scores", 1.0))

SIZES = {
    "tiny": dict.fromkeys(
        ("rows", "columns", "multipliers", "groups", "lanes", "queue_depth", "banks", "activation_ports"), 1
    ) | {"weight_ports": 1},
    "odd": {
        "rows": 3, "columns": 2, "multipliers": 3, "groups": 2, "lanes": 3, "queue_depth": 1, "banks": 3,
        "activation_banks": 5, "activation_ports": 1, "weight_banks": 2, "weight_ports": 1, "row_steps": 3,
    },
}  # fmt: skip


def machine(name: str, **others: object) -> Accelerator:
    """A machine by organisation and size, as in "dense tiny"; `cooperative` is decoupled."""
    kind, size = name.split()
    organisation = Organisation.DECOUPLED if kind == "cooperative" else Organisation(kind)
    keys = SIZES[size] | {"cooperative": kind == "cooperative", "psum_bits": 32} | others
    made = make_accelerator(organisation, **keys)  # type: ignore[arg-type]
    channel = replace(made.memory.off_chip, kind="lpddr4")
    memory = replace(made.memory, off_chip=channel, feature_maps=FeatureMaps.ON_CHIP)
    return replace(made, memory=memory, batch=2 if size == "odd" else 1)


def _fixed_point(builder: Builder, v: Ints) -> FixedPoint:
    return FixedPoint(builder.integers(2**8, v.shape[1]), builder.integers(2**10, v.shape[1]), 5)


def _bias(builder: Builder, v: Ints) -> Bias:
    return Bias(builder.integers(100, v.shape[1]))


def all_of_them(a_h: Ints) -> Ints:
    return np.full(a_h.shape[1], -(2**40), np.int64)


def none_of_them(a_h: Ints) -> Ints:
    return -all_of_them(a_h)


def reached_exactly(a_h: Ints) -> Ints:
    return a_h[0, :, 0, 0].copy()


def two_splits(b: Builder) -> None:
    """Codes of 5 bits and a sign that gates split 3/2 and 2/3, and a layer without a gate reads."""
    codes = NumberFormat(SIGNED, 5)
    b.add("first", Geometry(CONV, 1, 2, 2, 3), NumberFormat(UNSIGNED, 2), post=[requantise("codes", codes)])
    for bits in (3, 2):
        b.add(f"of{bits}", Geometry(CONV, 2, 1, 2, 3), codes, pred_bits=bits, input_name="codes")
    b.add("plain", Geometry(CONV, 2, 1, 2, 3), codes, input_name="codes", post=[step(Logits("map", 1.0))])


def tight_shortcut(b: Builder) -> None:
    """A shortcut of a bit that is 0 as recorded, where nothing is updated, and more on a machine without a gate."""
    codes, gate = NumberFormat(UNSIGNED, 3), {"pred_bits": 1, "policy": GatePolicy.ZERO}
    post = [step(SaveShortcut("narrow", 1)), requantise("few", codes)]
    b.add("narrow", Geometry(CONV, 1, 2, 2, 3), codes, post=post, thresholds=none_of_them, **gate)  # type: ignore[arg-type]
    b.add("after", Geometry(CONV, 2, 2, 2, 3), codes, input_name="few", post=[step(AddShortcut("narrow")), LOGITS])


def every_split(b: Builder) -> None:
    """Splits 5/3, 6/4, 2/1, 4/2 and 8/4 over weights of 2, 4 and 8 bits; 3 x 5 x 7; steps beyond one lane."""
    splits = [(UNSIGNED, 5, 3), (UNSIGNED, 6, 4), (UNSIGNED, 2, 1), (TWOS, 4, 2), (SIGNED, 8, 4), (UNSIGNED, 8, 4)]
    weights = [NumberFormat(TWOS, 2), NumberFormat(SIGNED, 4), NumberFormat(SIGNED, 8), NumberFormat(TWOS, 4)]
    thresholds = [None, all_of_them, none_of_them, reached_exactly]
    shape, fed = (3, 5, 7), None
    for number, (encoding, bits, pred_bits) in enumerate(splits):
        after = NumberFormat(*splits[(number + 1) % len(splits)][:2])
        keep = [requantise(f"codes{number}", after, reversed_channels=1), step(Logits(f"map{number}", 1.0))]
        b.add(
            f"layer{number}",
            Geometry(CONV, *(shape[0], 3 + number % 2), *shape[1:], (3, 1 + number % 3), padding=(1, 1, 0, number % 3)),
            NumberFormat(encoding, bits),
            pred_bits=pred_bits,
            policy=list(GatePolicy)[number % 2],
            weight_format=weights[number % 4],
            input_name=fed,
            thresholds=thresholds[number % 4],
            post=keep,
        )
        shape, fed = b.layers[-1].geometry.output_shape, f"codes{number}"


def kinds_of_layers(b: Builder) -> None:
    """Depthwise, grouped, dilated, stride 3, padding on some sides, matmul, recurrent linear layers."""
    b.add(
        "depthwise",
        Geometry(CONV, 5, 5, 7, 5, (3, 2), (3, 1), (2, 0, 0, 3), (1, 2), 5),
        NumberFormat(UNSIGNED, 6),
        pred_bits=4,
        post=[_bias, requantise("codes", NumberFormat(TWOS, 4))],
    )
    shape = b.layers[-1].geometry.output_shape
    groups = Geometry(CONV, 5, 10, *shape[1:], (1, 2), (1, 3), (0, 0, 1, 0), groups=5)
    b.add("grouped", groups, NumberFormat(TWOS, 4), pred_bits=1, input_name="codes", post=[step(Logits("map", 1.0))])
    matmul = [_fixed_point, requantise("rows", NumberFormat(UNSIGNED, 2))]
    b.add("matmul", Geometry(MATMUL, 7, 3, 5), NumberFormat(SIGNED, 3), pred_bits=2, post=matmul)
    b.add("linear", Geometry(LINEAR, 15, 3), NumberFormat(UNSIGNED, 2), pred_bits=1, input_name="rows", post=[LOGITS])
    b.add("steps", Geometry(LINEAR, 7, 5), NumberFormat(TWOS, 6), pred_bits=4, recurrent=True)
    b.add("plain", Geometry(LINEAR, 7, 5), NumberFormat(UNSIGNED, 8), recurrent=True, post=[step(Logits("p", 1.0))])


def steps_in_any_order(b: Builder) -> None:
    """Poolings that overlap or take the whole map, a shortcut that its own layer adds, one with projection, and steps
    in opposite orders."""
    codes, small = NumberFormat(UNSIGNED, 3), NumberFormat(UNSIGNED, 2)
    kept = [step(Clamp(-3000, 3000)), step(SaveShortcut("stream", 13, True)), step(MaxPool((3, 3), (1, 1), SAME))]
    kept += [step(AddShortcut("stream")), requantise("codes", codes), requantise("other", small, per_channel=False)]
    b.add("stem", Geometry(CONV, 3, 4, 5, 7, (3, 3), padding=SAME), codes, post=[_fixed_point, *kept])
    projected = [_fixed_point, step(Clamp(0, 255)), step(SaveShortcut("projected", 8))]
    b.add("projection", Geometry(CONV, 4, 6, 5, 7, stride=(2, 2)), codes, input_name="codes", post=projected)
    joined = [_fixed_point, step(AddShortcut("projected")), step(AddShortcut("stream", 2, 1, 1))]
    joined += [step(Logits("joined", 1.0)), step(SumPool((3, 4), (3, 4))), step(MaxPool((1, 1), (1, 1)))]
    main_path = Geometry(CONV, 4, 6, 5, 7, (3, 3), (2, 2), SAME)
    b.add("join", main_path, small, pred_bits=1, input_name="other", post=[*joined, requantise("last", codes)])
    b.add("scores", Geometry(LINEAR, 6, 4), codes, pred_bits=2, input_name="last", post=[LOGITS, _bias])


def small(b: Builder) -> None:
    """Both of the above, on the smallest machine of each organisation: what the default run compiles once."""
    two_splits(b)
    tight_shortcut(b)


def built(make: Callable[[Builder], None], images: int) -> Trace:
    builder = Builder(21, images)
    make(builder)
    return builder.trace({})


ORGANISATIONS = ["decoupled", "cooperative", "dense", "gated_fused", "two_pass"]


@cache
def smallest(organisation: str) -> tuple[Network, Bench]:
    """A machine of one lane whose gate is not the trace's, and `small` on it: the shortcut is too wide."""
    others = {} if organisation == "dense" else {"gate": GateSource.ZERO_PREDICTION}
    network = make_network(built(small, 1), machine(f"{organisation} tiny", **others), 1)
    return network, compiled(network, optimise=0)


EACH_ORGANISATION = pytest.mark.parametrize(
    "organisation", [pytest.param(name, marks=() if name == "decoupled" else SLOW) for name in ORGANISATIONS]
)


@needs_compiler
@EACH_ORGANISATION
def test_codes_that_two_gates_split_differently_stand_whole_in_the_high_plane(organisation: str) -> None:
    network, bench = smallest(organisation)
    assert network.post is not None, network.no_post
    found = list(cosimulate(network, range(4), 1, benches=[bench], engine="clocked"))
    assert [str(one.comparison.first) for one in found] == ["None"] * 4
    assert found[0].comparison.kept == 2 * 12
    codes = network.trace.tensors(1).activation.astype(np.int64)
    found = list(cosimulate(network, [0], 1, benches=[bench]))
    where = network.post.addresses("codes", 0, 1)
    np.testing.assert_array_equal(bench.read(Select.HIGH_PLANE, where), codes)
    assert not bench.read(Select.LOW_PLANE, where).any()


@needs_compiler
@EACH_ORGANISATION
def test_a_shortcut_that_does_not_fit_is_a_fault_of_its_layer_alone(organisation: str) -> None:
    network, bench = smallest(organisation)
    narrow, after = cosimulate(network, [4, 5], 1, benches=[bench])
    assert narrow.comparison.equal, str(narrow.comparison.first)
    assert narrow.unfit.startswith("shortcut narrow must fit 1 unsigned bits, 0 .. 1, not ")
    assert 24 <= narrow.comparison.kept < 36  # both planes of codes, and the shortcuts that fit
    assert after.comparison.equal, str(after.comparison.first)
    assert not after.unfit
    (run,) = run_network(network, 1, bench=bench)
    assert [str(one.comparison.first) for one in run.layers] == ["None"] * 5
    assert run.unfit == narrow.unfit


@needs_compiler
def test_a_fault_that_no_shortcut_explains_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    network, bench = smallest("decoupled")
    monkeypatch.setattr("pgsim.rtl.post_cosim.unfit", lambda layer, kept: "")
    (one,) = cosimulate(network, [4], 1, benches=[bench])
    assert str(one.comparison.first) == "faults of the post-processing unit is 1 in the RTL, 0 in the integer reference"


def test_values_past_62_bits_go_through_no_unit() -> None:
    """As values of that many bits can come of an accumulator of 32 and a multiplier of 41, whatever comes here."""
    many = FixedPoint(np.array([2**40]), np.zeros(1, np.int64), 0)
    b = Builder(21, 1)
    b.add("wide", Geometry(CONV, 1, 1, 1, 1), NumberFormat(UNSIGNED, 2), post=[step(many), LOGITS])
    network = make_network(b.trace({}), machine("dense tiny"), 1)
    assert network.post is None
    with pytest.raises(InputError, match=r"no post-processing unit .*: layer wide, post\[0\]: the bits .* at most 62"):
        next(run_network(network, 1))


def test_a_map_of_more_pixels_than_an_address_holds_is_refused() -> None:
    b = Builder(21, 1)
    b.add("map", Geometry(CONV, 1, 1, 1025, 1024, (1, 1), (255, 255)), NumberFormat(UNSIGNED, 2), post=[LOGITS])
    with pytest.raises(
        InputError, match=r"^layer map: the RTL must count the pixels of its input in 20 bits, not 1049600$"
    ):
        make_network(b.trace({}), machine("dense tiny"), 1)


@SLOW
@needs_compiler
def test_the_longest_queue_and_a_channel_that_is_late_are_built() -> None:
    made = machine("decoupled tiny", queue_depth=1 << 16, latency=70_000)
    network = make_network(built(two_splits, 1), made, 1)
    with compiled(network, optimise=0) as bench:
        for one in cosimulate(network, range(4), 1, benches=[bench]):
            assert one.comparison.equal, f"{one.name}: {one.comparison.first}"
            assert one.comparison.cycles > 70_000


CASES = [
    pytest.param(f"{organisation} {size}", make, id=f"{organisation}-{size}-{make.__name__}")
    for size in SIZES
    for organisation in ORGANISATIONS
    for make in (every_split, kinds_of_layers, steps_in_any_order)
]


@SLOW
@needs_compiler
@pytest.mark.parametrize(("name", "make"), CASES)
def test_rtl_agrees_layer_by_layer_and_layer_into_layer(
    name: str, make: Callable[[Builder], None], tmp_path: Path
) -> None:
    network = make_network(built(make, 3), machine(name), 3)
    assert network.unit is not None, network.no_post
    texts = sources(network.accelerator, network.widths, network.capacity, network.unit, bench=False)
    write_sources(tmp_path, texts)
    assert not lint(tmp_path, list(texts), "accelerator")
    with compiled(network, optimise=0) as bench:
        for one in cosimulate(network, range(len(network.trace.layers)), 3, benches=[bench], engine="clocked"):
            assert one.comparison.equal, f"{one.name}: {one.comparison.first}"
        runs = list(run_network(network, 3, bench=bench))
    assert all(run.equal and not run.unfit for run in runs)
    assert sum(run.images for run in runs) == 3


@SLOW
@needs_compiler
@pytest.mark.parametrize("mode", [OverflowMode.SATURATE, OverflowMode.WRAP])
@pytest.mark.parametrize("organisation", ORGANISATIONS)
def test_accumulators_too_narrow_for_their_sums_saturate_or_wrap(organisation: str, mode: OverflowMode) -> None:
    accelerator = machine(f"{organisation} tiny", psum_bits=11, overflow=mode)
    network = make_network(built(every_split, 1), accelerator, 1)
    with compiled(network, optimise=0) as bench:
        for one in cosimulate(network, range(len(network.trace.layers)), 1, benches=[bench], engine="clocked"):
            assert one.comparison.equal, f"{one.name}: {one.comparison.first}"


@SLOW
@needs_compiler
def test_a_network_that_ends_with_a_shortcut_too_wide_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trace(tmp_path / "t.npz", built(tight_shortcut, 2))
    (tmp_path / "hw.yaml").write_text(accelerator_yaml(machine("dense tiny")))
    words = ["cosim", "--hw", str(tmp_path / "hw.yaml"), str(tmp_path / "t.npz"), "--images", "2"]
    assert main(words) == 0
    assert "layer narrow: shortcut narrow must fit 1 unsigned bits" in capsys.readouterr().out
    assert main([*words, "--network"]) == 2
    said = capsys.readouterr()
    assert "layer into layer: ended there, in image 0\n" in said.out
    assert said.err.startswith(
        "pgsim: error: the network must run to its logits on this machine, not end: layer narrow"
    )
    wrong = Builder(21, 1)
    wrong.add("a", Geometry(CONV, 1, 1, 2, 3), NumberFormat(UNSIGNED, 8), post=[step(SaveShortcut("s", 1)), LOGITS])
    write_trace(tmp_path / "wrong.npz", wrong.trace({}))  # as recorded it does not fit
    assert main([*words[:3], str(tmp_path / "wrong.npz")]) == 2
    assert f"error: {tmp_path}/wrong.npz: layers[0].post[0]: s must fit 1 unsigned bits" in capsys.readouterr().err
