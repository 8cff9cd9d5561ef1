"""Draw what follows a layer, its values and the order in which they come; say what the unit must then hold.

Everything that a memory holds afterwards is compared, so that a word written anywhere else shows, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import post
from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.arith.split import split
from pgsim.rtl.post import compile_post
from pgsim.rtl.post_regions import Lanes, Region, lanes_of, segment_writes
from pgsim.rtl.post_unit import Kind, PostUnit, Select
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Geometry,
    Layer,
    LayerKind,
    Logits,
    MaxPool,
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)
from tests.rtl.post_harness import Machine, Report

Ints = NDArray[np.int64]

ANY = PostUnit(
    columns=3,
    stages=(frozenset(Kind) - {Kind.PASS},) * 5,
    psum_bits=20,
    value_bits=48,
    factor_bits=14,
    bias_bits=24,
    images=6,
    segments=36,
    map_bits=3,
    tiles=3,
    shortcut_bits=20,
    code_bits=8,
    levels=8,
    tree_words=256,
    pool_words=54,
    pool_axis=8,
    pool_count=4,
    pool_queue=216,
    shortcut_words=4096,
    code_words=4096,
    logit_words=4096,
)
"""A small unit whose every stage does every step."""

MEMORIES = (Select.SHORTCUTS, Select.HIGH_PLANE, Select.LOW_PLANE, Select.LOGITS)
UNTOUCHED = 5


@dataclass(frozen=True)
class Case:
    """A layer's steps over an accumulator, int64 [N, K, P, Q], and what lies where.

    `shortcuts` are there before; `kept` are the tensors that steps keep, but where `fault` says that one does not fit.
    """

    layer: Layer
    accumulator: Ints
    shortcuts: Mapping[str, Ints]
    kept: Mapping[str, Ints]
    regions: Mapping[str, Region]
    fault: bool = False


def layer_of(shape: tuple[int, int, int], steps: list[PostStep], name: str = "drawn") -> Layer:
    """A layer that gives [K, P, Q] and goes on with these steps."""
    geometry = Geometry(LayerKind.CONV, 1, *shape)
    code = NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
    return Layer(
        name, geometry, code, code, np.zeros(geometry.weight_shape, np.int16), 1.0, np.ones(1), post=tuple(steps)
    )


def after(step: PostStep, v: Ints, shortcuts: Mapping[str, Ints]) -> Ints:
    """What v becomes, by the integer reference."""
    match step:
        case Bias():
            return post.add_bias(v, step.bias)
        case FixedPoint():
            return post.fixed_point(v, step.multiplier, step.bias, step.shift)
        case AddShortcut():
            return post.add_shortcut(v, shortcuts[step.source], step.stride, step.pad_before, step.pad_after)
        case Clamp():
            return post.clamp(v, step.low, step.high)
        case SumPool():
            return post.sum_pool(v, step.kernel, step.stride)
        case MaxPool():
            return post.max_pool(v, step.kernel, step.stride, step.padding)
    return v


def kept_by(step: PostStep, v: Ints) -> Ints | None:
    """What the step keeps, by the integer reference."""
    if isinstance(step, Requantise):
        return post.requantise(v, step.threshold, step.direction, step.base)
    return v if isinstance(step, SaveShortcut | Logits) else None


def draw_case(random: Random, unit: PostUnit = ANY) -> Case:
    """Draw up to a step a stage over one or two images of up to 7 channels and 5 x 5 pixels."""
    bulk = np.random.default_rng(random.randrange(2**32))
    images = random.choice([1, 1, 2, 2, unit.images])
    shape = (random.randint(1, 7 if images < 3 else 3), random.randint(1, 5), random.randint(1, 5))
    end = 2 ** (unit.psum_bits - 1) if random.random() < 0.3 else 300
    v = bulk.integers(-end, end, (images, *shape))
    accumulator, fault = v, False
    steps: list[PostStep] = []
    shortcuts: dict[str, Ints] = {}
    kept: dict[str, Ints] = {}
    regions: dict[str, Region] = {}
    room = dict.fromkeys(MEMORIES, 0)
    for number in range(random.randint(1, len(unit.stages))):
        step = _draw_step(random, bulk, f"step{number}", v, shortcuts, last=number == len(unit.stages) - 1)
        steps.append(step)
        if isinstance(step, SaveShortcut):
            low = -(2 ** (step.bits - 1)) if step.signed else 0
            fault |= int(v.min()) < low or int(v.max()) >= low + 2**step.bits
        found = kept_by(step, v)
        if isinstance(step, AddShortcut):
            low, high = int(shortcuts[step.source].min()), int(shortcuts[step.source].max())
            bits, signed = max(16 if low < 0 else 1, high.bit_length()), low < 0
            regions[step.source] = _region(random, Select.SHORTCUTS, shortcuts[step.source], room, bits, signed)
        elif found is not None:
            assert isinstance(step, SaveShortcut | Requantise | Logits)
            kept[step.name] = found
            memory = {SaveShortcut: Select.SHORTCUTS, Requantise: Select.HIGH_PLANE, Logits: Select.LOGITS}[type(step)]
            low_bits = random.randrange(step.format.bits) if isinstance(step, Requantise) else 0
            regions[step.name] = _region(random, memory, found, room, low_bits=low_bits)
        v = after(step, v, shortcuts)
    return Case(layer_of(shape, steps), accumulator, shortcuts, kept, regions, fault)


def _region(
    random: Random,
    memory: Select,
    values: Ints,
    room: dict[Select, int],
    bits: int = 0,
    signed: bool = False,
    low_bits: int = 0,
) -> Region:
    """Lay a tensor out in a drawn order of its axes, a few words after the one before."""
    base = room[memory] + random.randint(0, 3)
    order = random.sample(range(3), 3)
    strides, step = [0, 0, 0], 1
    for axis in order:
        strides[axis] = step
        step *= values.shape[1 + axis]
    room[memory] = base + step * len(values)
    shape = (values.shape[1], values.shape[2], values.shape[3])
    return Region(memory, base, shape, (step, strides[0], strides[1], strides[2]), bits, signed, low_bits)


def _draw_step(
    random: Random, bulk: np.random.Generator, name: str, v: Ints, shortcuts: dict[str, Ints], *, last: bool
) -> PostStep:
    channels, height, width = v.shape[1:]
    some = random.choice([1, channels])
    kinds = ["bias", "fixed", "add", "clamp", "save", "sum", "max", "requantise", "logits"]
    match random.choice(["requantise", "logits"] if last else kinds):
        case "bias":
            return Bias(bulk.integers(-(2**20), 2**20, some))
        case "fixed":
            shift = random.randint(0, 24)
            return FixedPoint(bulk.integers(-(2**12), 2**12, some), bulk.integers(-(2**23), 2**23, some), shift)
        case "add":
            before, stride = random.randrange(channels), random.randint(1, 2)
            behind = random.randrange(channels - before)
            extra = random.randrange(stride)
            shape = (len(v), channels - before - behind, height * stride - extra, width * stride - extra)
            low, high = random.choice([(0, 2**16), (-(2**15), 2**15), (0, 2**7)])
            shortcuts[name] = bulk.integers(low, high, shape)
            return AddShortcut(name, stride, before, behind)
        case "clamp":
            low = random.choice([0, random.randint(-50000, 1000)])
            return Clamp(low, low + random.choice([2**15, random.randint(0, 3000)]))
        case "save":
            return SaveShortcut(name, random.choice([16, 16, random.randint(1, 16)]), random.random() < 0.5)
        case "sum":
            kernel = (random.randint(1, min(3, height)), random.randint(1, min(3, width)))
            return SumPool(kernel, _stride(random, kernel))
        case "max":
            kernel = (random.randint(1, 3), random.randint(1, 3))
            pads = [random.randrange(kernel[axis]) for axis in (0, 0, 1, 1)]
            for axis, size in ((0, height), (1, width)):
                if size + pads[2 * axis] + pads[2 * axis + 1] < kernel[axis]:
                    kernel = (1, kernel[1]) if axis == 0 else (kernel[0], 1)
                    pads[2 * axis] = pads[2 * axis + 1] = 0
            return MaxPool(kernel, _stride(random, kernel), (pads[0], pads[1], pads[2], pads[3]))
        case "logits":
            return Logits(name, 1.0)
    form = NumberFormat(random.choice(list(Encoding)), random.randint(2, 5))
    base = form.min_code + random.randrange(2)
    return requantise_near(bulk, name, form, v, base, some, random.choice([1, channels]))


def _stride(random: Random, kernel: tuple[int, int]) -> tuple[int, int]:
    """Any that two windows overlap at most: kernel <= 2 * stride."""
    rows, columns = (random.randint((k + 1) // 2, 3) for k in kernel)
    return rows, columns


def requantise_near(
    bulk: np.random.Generator, name: str, form: NumberFormat, v: Ints, base: int, rows: int, directions: int
) -> Requantise:
    """Thresholds on the very values, beside them, anywhere between, and out of reach."""
    levels = form.max_code - base
    direction = bulk.choice(np.array([-1, 1], np.int8), directions)
    near = bulk.choice(v.ravel(), (rows, levels)) + bulk.integers(-1, 2, (rows, levels))
    near *= bulk.choice(np.array([-1, 1]), (rows, 1))
    anywhere = bulk.integers(-int(abs(v).max()) - 2, int(abs(v).max()) + 2, (rows, levels), endpoint=True)
    far = bulk.choice(np.array([-(2**63), 2**63 - 1, 2**40, -(2**47), 2**47]), (rows, levels))
    chosen = bulk.choice(3, (rows, levels), p=[0.6, 0.3, 0.1])
    threshold = np.sort(np.choose(chosen, [near, anywhere, far]), axis=1)
    return Requantise(name, form, threshold, direction, base)


def fed_in_order(
    accumulator: Ints, lanes: Lanes, columns: int, rank: NDArray[np.float64], gap: float, bulk: np.random.Generator
) -> tuple[NDArray[np.bool_], dict[str, Ints]]:
    """Return the results of each cycle and column: each column's by `rank`, [N, K, P, Q], and a share of `gap` idle."""
    image, channel, row, column = np.indices(accumulator.shape)
    tiles = int(lanes.tile.max()) + 1
    facts = {
        "segment": 2 * (image * tiles + lanes.tile[channel]) + 1,
        "row": row,
        "column": column,
        "value": accumulator,
    }
    port = lanes.port[channel].ravel()
    queues = []
    for number in range(columns):
        mine = np.flatnonzero(port == number)
        queues.append(mine[np.argsort(rank.ravel()[mine], kind="stable")])
    longest = max(len(queue) for queue in queues)
    cycles = int(longest / (1 - gap)) + 1 if gap else longest
    valid = np.zeros((cycles, columns), bool)
    fed = {name: bulk.integers(0, 2, (cycles, columns)) for name in facts}
    fed["segment"] *= 0
    partial = (
        bulk.random((cycles, columns)) < 0.5
    )  # of cycles without a result: partial sums, of a segment of an even number
    for number, queue in enumerate(queues):
        when = np.sort(bulk.permutation(cycles)[: len(queue)])
        valid[when, number] = True
        for name, fact in facts.items():
            fed[name][when, number] = fact.ravel()[queue]
    return valid | partial, fed


def two_parts(unit: PostUnit, lanes: Lanes, images: int) -> NDArray[np.void]:
    """Tell of the segments of K split in two: image after image, tile after tile, the first part and the last."""
    _, first = np.unique(lanes.tile, return_index=True)
    number = np.arange(images * len(first) * 2)
    return segment_writes(unit, lanes, number // (2 * len(first)), first[number // 2 % len(first)], number % 2 == 1)


def check_case(machine: Machine, case: Case, random: Random, *, in_order: bool = False, gap: float = 0.0) -> Report:
    """Run a case on a machine; an AssertionError says what differs from the integer reference."""
    unit, images = machine.unit, len(case.accumulator)
    bulk = np.random.default_rng(random.randrange(2**32))
    lanes = lanes_of(case.layer.geometry, unit.columns)
    expected = machine.holds or {memory: machine.fill(memory, UNTOUCHED) for memory in MEMORIES}
    machine.holds = {}  # until the check has passed nobody knows
    machine.reset()
    for name, values in case.shortcuts.items():
        region = case.regions[name]
        machine.load(region.load(values))
        expected[Select.SHORTCUTS][region.addresses(images)] = values & (2**unit.shortcut_bits - 1)
    for step in case.layer.post:
        if isinstance(step, SaveShortcut | Requantise | Logits):
            _expect(expected, case.regions[step.name], case.kept[step.name], step, unit)
    machine.load(compile_post(case.layer, unit, case.regions, lanes, images).writes)
    machine.load(two_parts(unit, lanes, images))
    image = np.arange(images)[:, None, None, None]  # two at a time, as the machine's segments are
    rank = image + 1.9 * bulk.random(case.accumulator.shape) * (not in_order)
    report = machine.run(*fed_in_order(case.accumulator, lanes, unit.columns, rank, gap, bulk))
    assert report.idle
    assert report.fault == case.fault
    for memory in MEMORIES:
        found, wanted = machine.read(memory), expected[memory]
        assert np.array_equal(found, wanted), f"{memory.name}: {np.flatnonzero(found != wanted)[:5]} differ"
    sizes = [sum(case.kept[s.name].size for s in case.layer.post if isinstance(s, kind)) for kind in KEEPERS]
    assert [report.shortcuts, report.codes, report.logits] == sizes
    machine.holds = expected
    return report


KEEPERS = (SaveShortcut, Requantise, Logits)


def _expect(
    expected: dict[Select, Ints], region: Region, values: Ints, step: SaveShortcut | Requantise | Logits, unit: PostUnit
) -> None:
    where = region.addresses(len(values))
    if isinstance(step, SaveShortcut):
        expected[Select.SHORTCUTS][where] = values & (2**unit.shortcut_bits - 1)
    elif isinstance(step, Logits):
        expected[Select.LOGITS][where] = values
    else:
        form, low = step.format, region.low_bits
        planes = split(values, form.encoding, form.bits, form.bits - low) if low else (values, np.zeros_like(values))
        expected[Select.HIGH_PLANE][where], expected[Select.LOW_PLANE][where] = planes
