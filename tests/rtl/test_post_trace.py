"""A traced network goes through one compiled post-processing unit, layer by layer, on its own shortcuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pgsim.api import load_trace
from pgsim.arith.split import split
from pgsim.rtl.post import compile_post
from pgsim.rtl.post_regions import lanes_of, plan_regions
from pgsim.rtl.post_size import unit_for
from pgsim.rtl.post_unit import PostUnit, Select
from pgsim.workload.layer import AddShortcut, Layer, Logits, Requantise, SaveShortcut
from pgsim.workload.trace import Trace
from tests.build_boundary_trace import build_boundary_trace
from tests.build_trace import build_trace
from tests.rtl.post_drawn import ANY, Ints, after, fed_in_order, kept_by, two_parts
from tests.rtl.post_harness import Machine

TRACES = Path(__file__).parents[2] / "traces"
RESNET20 = TRACES / "resnet20_3-2_release.npz"


def arrival(layer: Layer, mask: NDArray[np.bool_] | None, shape: tuple[int, ...], bulk: np.random.Generator) -> Ints:
    """Rank results as a machine gives them: segments and pixels in order, updates later, two segments at a time."""
    image, channel, row, column = np.indices(shape)
    pixels = shape[2] * shape[3]
    rank = (image * layer.geometry.out_channels + channel) * pixels + row * shape[3] + column
    return rank if mask is None else rank + mask * bulk.integers(0, pixels, shape)


def check_network(trace: Trace, images: int, unit: PostUnit, *, extreme: bool = False) -> list[str]:
    """Feed each layer's recorded outputs; return the names of the tensors found equal, in the order of the layers.

    Codes must be the recorded activations that they feed, shortcuts and logits those of the integer reference; the
    shortcuts that a layer adds are those that the unit itself kept. `extreme`: feed anything that psum_bits hold, the
    ends often, and compare codes to the reference, too.
    """
    regions, _ = plan_regions(trace.layers, images, trace.boundaries)
    machine, bulk = Machine(unit), np.random.default_rng(0)
    shortcuts = {b.name: trace.boundary(i)[:images] for i, b in enumerate(trace.boundaries)}
    fed_by = {layer.input_name: (number, layer) for number, layer in enumerate(trace.layers) if layer.input_name}
    equal: list[str] = []
    for index, layer in enumerate(trace.layers):
        tensors = trace.tensors(index)
        for step in layer.post:
            if isinstance(step, AddShortcut) and step.source in [b.name for b in trace.boundaries]:
                machine.load(regions[step.source].load(shortcuts[step.source]))
        lanes = lanes_of(layer.geometry, unit.columns)
        machine.load(compile_post(layer, unit, regions, lanes, images).writes)
        machine.load(two_parts(unit, lanes, images))
        output = _anything(bulk, tensors.output[:images], unit.psum_bits) if extreme else tensors.output[:images]
        mask = None if tensors.mask is None else tensors.mask[:images]
        order = arrival(layer, mask, output.shape, bulk).astype(np.float64)
        report = machine.run(*fed_in_order(output, lanes, unit.columns, order, 0.0, bulk))
        assert report.idle
        assert not report.fault
        value = output
        for step in layer.post:
            value, wanted = after(step, value, shortcuts), kept_by(step, value)
            if wanted is None:
                continue
            assert isinstance(step, SaveShortcut | Requantise | Logits)
            found = machine.tensor(regions[step.name], images)
            if isinstance(step, SaveShortcut):
                shortcuts[step.name] = wanted
                found = np.where(
                    found >= 2 ** (unit.shortcut_bits - 1), found - step.signed * 2**unit.shortcut_bits, found
                )
            elif step.name in fed_by and not extreme:
                number, reader = fed_by[step.name]
                wanted = trace.tensors(number).activation[:images].astype(np.int64).reshape(found.shape)
                if reader.gate:
                    _check_planes(machine, reader, wanted, regions[step.name].addresses(images))
            assert np.array_equal(found, wanted), step.name
            equal.append(step.name)
    return equal


def _anything(bulk: np.random.Generator, like: Ints, bits: int) -> Ints:
    end = 2 ** (bits - 1)
    some = bulk.integers(-end, end, like.shape)
    return np.where(bulk.random(like.shape) < 0.5, some, np.where(some < 0, -end, end - 1))


def _check_planes(machine: Machine, reader: Layer, codes: Ints, where: Ints) -> None:
    planes = split(codes, reader.act.encoding, reader.act.bits, reader.pred_bits)
    for memory, plane in zip((Select.HIGH_PLANE, Select.LOW_PLANE), planes, strict=True):
        assert np.array_equal(machine.read(memory)[where], plane), f"{memory.name} of {reader.input_name}"


@pytest.mark.slow
def test_what_follows_every_layer_of_resnet20_equals_the_recording() -> None:
    if not RESNET20.exists():
        pytest.skip(f"{RESNET20.name} is not in traces/")
    trace = load_trace(RESNET20)
    equal = check_network(trace, 1, unit_for(trace.layers, columns=4, psum_bits=24, segments=32))
    kept = [step.name for layer in trace.layers for step in layer.post if hasattr(step, "name")]
    assert equal == kept
    assert len(equal) == 29


@pytest.mark.slow
def test_the_smallest_unit_for_resnet20_holds_whatever_psum_bits_hold() -> None:
    if not RESNET20.exists():
        pytest.skip(f"{RESNET20.name} is not in traces/")
    trace = load_trace(RESNET20)
    unit = unit_for(trace.layers, columns=4, psum_bits=24, segments=32)
    assert unit.value_bits < 40
    assert len(check_network(trace, 1, unit, extreme=True)) == 29


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_every_encoding_group_pool_and_boundary_goes_through(seed: int) -> None:
    assert len(check_network(build_trace(seed), 2, ANY)) == 10
    assert check_network(build_boundary_trace(seed), 2, ANY)[-1] == "scores"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(TRACES.glob("resnet*.npz")), ids=lambda path: path.stem)
def test_what_follows_every_layer_equals_the_recording_for_all_images(path: Path) -> None:
    trace = load_trace(path)
    unit = unit_for(trace.layers, columns=16, psum_bits=24, images=trace.images, segments=8 * trace.images)
    assert len(check_network(trace, trace.images, unit)) == 29
