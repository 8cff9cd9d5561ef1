"""What benchmarks/run.py measures in a process of its own; prints JSON.

measure.py stages TRACE HW         CPU seconds of each stage of `pgsim run TRACE --hw HW`
measure.py tile TRACE IMAGES OUT   write a trace of IMAGES images, those of TRACE over and over
measure.py macs HW                 CPU seconds of one gated layer, wider and wider
measure.py engines TRACE           CPU seconds and cycles of each engine on each shipped accelerator
measure.py backward                CPU seconds of the update phase's weight gradient, masked and dense (needs torch)
measure.py layers                  CPU seconds of a training step of gated, dense and float layers (needs torch)
"""

from __future__ import annotations

import sys
from time import process_time

START = process_time()  # what the interpreter took to get here

import io  # noqa: E402 - after the first look at the clock
import json  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import ExitStack, redirect_stdout  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from pgsim.model.job import Job, Timing
    from pgsim.workload.trace import Trace


class Stopwatch:
    """CPU seconds spent inside a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += process_time() - start

        return timed


def stages(path: str, hw: str) -> dict[str, float]:
    """Return the seconds of each stage: the command's own parts, one after the other."""
    taken = {"interpreter": START}
    mark = process_time()
    from pgsim.cli import report, run  # noqa: F401 - what the command imports
    from pgsim.io.energy import load_prices
    from pgsim.io.hardware import load_accelerator
    from pgsim.io.trace import TraceFile, load_trace
    from pgsim.model import simulate as model

    taken["imports"], mark = process_time() - mark, process_time()
    accelerator = load_accelerator(hw)
    prices = load_prices(accelerator)
    trace = load_trace(path)
    reading = process_time() - mark

    tensors, values, engine = Stopwatch(), Stopwatch(), Stopwatch()
    first = process_time()
    model.simulate(trace, accelerator, prices)
    first = process_time() - first
    TraceFile.tensors = tensors.around(TraceFile.tensors)  # type: ignore[method-assign]
    model.layer_values = values.around(model.layer_values)
    model.run_fast = engine.around(model.run_fast)
    mark = process_time()
    result = model.simulate(trace, accelerator, prices)
    again = process_time() - mark
    taken["loading compiled kernels"] = max(0.0, first - again)
    taken["reading"] = reading + tensors.seconds
    taken["values"], taken["cycles"] = values.seconds, engine.seconds
    taken["counting, prices, audit"] = again - tensors.seconds - values.seconds - engine.seconds
    mark = process_time()
    with redirect_stdout(io.StringIO()):
        print(report.title(result), report.layer_tables(result), report.summary(result), report.audit_lines(result))
    taken["tables"] = process_time() - mark
    return taken


def tile(path: str, images: int, out: str) -> int:
    """Write a trace of `images` images, those of the trace at `path` over and over; return how many."""
    import numpy as np

    from pgsim.io.trace import load_trace, write_trace
    from pgsim.workload.trace import InMemory, LayerTensors

    trace = load_trace(path)
    chosen = np.arange(images) % trace.images
    items = []
    for index in range(len(trace.layers)):
        one = trace.tensors(index)
        mask = one.mask[chosen] if one.mask is not None else None
        items.append(LayerTensors(one.activation[chosen], one.output[chosen], mask))
    info = {key: value for key, value in trace.info.items() if key not in ("samples", "labels", "predictions")}
    boundaries = tuple(trace.boundary(index)[chosen] for index in range(len(trace.boundaries)))
    write_trace(out, replace(trace, images=images, source=InMemory(tuple(items), boundaries), info=info, sha256=""))
    return images


def wide_layer(channels: int, pixels: int = 32) -> Trace:
    """Return a trace of one gated 3/2-bit layer, 3 x 3, on one image; about one output in six is updated."""
    import numpy as np

    from pgsim.arith.fast import dense_layer, gated_layer
    from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
    from pgsim.arith.split import split
    from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
    from pgsim.workload.trace import InMemory, LayerTensors, Trace

    random = np.random.default_rng(channels)
    act, weights = NumberFormat(Encoding.UNSIGNED, 3), NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
    geometry = Geometry(LayerKind.CONV, channels, channels, pixels, pixels, kernel=(3, 3), padding=(1, 1, 1, 1))
    codes = random.integers(0, 8, (1, channels, pixels, pixels)).astype(np.int16)
    weight = random.integers(-128, 128, (channels, channels, 3, 3)).astype(np.int16)
    high, _ = split(codes, act.encoding, act.bits, 2)
    threshold = np.quantile(dense_layer(high, weight, geometry), 5 / 6, axis=(0, 2, 3)).astype(np.int64)
    gate = Gate(2, threshold, GatePolicy.KEEP)
    layer = Layer("wide", geometry, act, weights, weight, 1.0, np.ones(1), gate=gate)
    values = gated_layer(codes, weight, geometry, act.encoding, act.bits, 2, threshold, gate.policy)
    return Trace((layer,), 1, InMemory((LayerTensors(codes, values.a, values.mask),)))


def macs(hw: str) -> list[dict[str, float]]:
    """Return channels, MACs and seconds of `simulate` for layers of 16 to 128 channels, the smallest of three."""
    import pgsim

    accelerator = pgsim.load_accelerator(hw)
    prices = pgsim.load_prices(accelerator)
    found = []
    for channels in (16, 32, 64, 128):
        trace = wide_layer(channels)
        seconds = smallest(partial(pgsim.simulate, trace, accelerator, prices=prices))
        found.append({"channels": channels, "macs": trace.layers[0].geometry.macs, "cpu_s": seconds})
    return found


def engines(path: str) -> list[dict[str, Any]]:
    """Return cycles and seconds of the fast engine on the trace, and of the clocked one on a small layer."""
    import pgsim
    from pgsim.model import simulate as model

    trace, small = pgsim.load_trace(path), wide_layer(16, 8)
    fast, found, clocked = model.run_fast, [], []
    for name in pgsim.shipped_accelerators():
        accelerator = pgsim.load_accelerator(name)
        jobs: list[Job] = []
        model.run_fast = partial(_noting, jobs, fast)
        pgsim.simulate(trace, accelerator)
        model.run_fast = fast
        cycles = sum(fast(job).cycles for job in jobs)
        seconds = smallest(partial(_each, fast, jobs))
        found.append({"engine": "fast", "accelerator": name, "cycles": cycles, "cpu_s": seconds})
        start = process_time()
        result = pgsim.simulate(small, accelerator, engine="clocked")
        seconds = process_time() - start
        clocked.append({"engine": "clocked", "accelerator": name, "cycles": result.totals().cycles, "cpu_s": seconds})
    return found + clocked


def _noting(jobs: list[Job], engine: Callable[[Job], Timing], job: Job) -> Timing:
    """Keep what the engine is given."""
    jobs.append(job)
    return engine(job)


def _each(engine: Callable[[Job], Timing], jobs: list[Job]) -> None:
    for job in jobs:
        engine(job)


def backward(images: int = 4) -> list[dict[str, float]]:
    """Return seconds of a gated 3 x 3 layer's weight gradient from its updated outputs, at several sparsities.

    `masked_cpu_s` is that of the masked kernel, `all_cpu_s` the same kernel with every output updated, `dense_cpu_s`
    torch's dense product on one thread; layers are ResNet-20's, on `images` images.
    """
    import numpy as np
    import torch

    from pgsim.nn.backward import masked_weight_gradient
    from pgsim.workload.layer import Geometry, LayerKind

    torch.set_num_threads(1)
    found = []
    for channels, pixels in ((16, 32), (32, 16), (64, 8)):
        random = np.random.default_rng(channels)
        geometry = Geometry(LayerKind.CONV, channels, channels, pixels, pixels, (3, 3), padding=(1, 1, 1, 1))
        codes = random.integers(0, 2, (images, channels, pixels, pixels)).astype(np.float32)
        grad = random.normal(size=codes.shape).astype(np.float32)
        real = (torch.from_numpy(grad), torch.from_numpy(codes), torch.zeros(geometry.weight_shape))
        window = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])
        dense = smallest(partial(torch.ops.aten.convolution_backward, *real, *window))
        every = np.ones(codes.shape, np.bool_)
        whole = smallest(partial(masked_weight_gradient, grad, every, codes, geometry))
        for sparsity in (0.0, 0.5, 0.8, 0.9, 0.95, 0.99):
            mask = random.random(codes.shape) >= sparsity
            seconds = smallest(partial(masked_weight_gradient, grad, mask, codes, geometry))
            found.append(
                {
                    "channels": channels,
                    "sparsity": sparsity,
                    "macs": int(mask.sum()) * geometry.reduction,
                    "masked_cpu_s": seconds,
                    "all_cpu_s": whole,
                    "dense_cpu_s": dense,
                }
            )
    return found


def layers(images: int = 32) -> list[dict[str, float]]:
    """Return seconds of forward and backward pass of a convolution of channels-last maps, behind a ReLU, one thread.

    `float_cpu_s` is torch's own layer, `dense_cpu_s` the 6-bit one, `gated_cpu_s` the 6/4-bit one, and
    `gated_torch_cpu_s` that without the compiled kernels of pgsim.nn.
    """
    from unittest.mock import patch

    import torch

    from pgsim import nn as pg
    from pgsim.train.loop import prepare_process

    prepare_process(1)
    found = []
    for channels, pixels, kernel in ((48, 16, 1), (96, 8, 1), (16, 32, 3), (64, 8, 3)):
        torch.manual_seed(channels)
        shape = (channels, channels, kernel, 1, kernel // 2)
        x = torch.randn(images, channels, pixels, pixels).to(memory_format=torch.channels_last).requires_grad_()
        step = {
            "float": torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(*shape)),
            "dense": pg.QuantConv2d(*shape, input=pg.Pact(6, 2.0)),
            "gated": pg.GatedConv2d(*shape, input=pg.Pact(6, 2.0), gating=pg.Gating(4)),
        }
        taken = {f"{name}_cpu_s": smallest(partial(_step, layer, x), 5) for name, layer in step.items()}
        with ExitStack() as plain:
            for module in ("rows", "gate", "eight_bit"):
                plain.enter_context(patch(f"pgsim.nn.{module}.runs_kernels", _never))
            taken["gated_torch_cpu_s"] = smallest(partial(_step, step["gated"], x), 5)
        found.append({"channels": channels, "pixels": pixels, "kernel": kernel, **taken})
    return found


def _step(layer: Any, x: Any) -> None:
    out = layer(x)
    out.backward(out.detach())


def _never(_tensor: object) -> bool:
    return False


def smallest(work: Callable[[], object], times: int = 3) -> float:
    """Return the CPU seconds of the quickest of several calls, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        start = process_time()
        work()
        taken.append(process_time() - start)
    return min(taken)


def main(words: list[str]) -> None:
    """Measure what is asked for and print it."""
    what, *rest = words
    if what == "tile":
        path, images, out = rest
        print(json.dumps(tile(path, int(images), out)))
    else:
        measure: dict[str, Callable[..., object]] = {
            "stages": stages,
            "macs": macs,
            "engines": engines,
            "backward": backward,
            "layers": layers,
        }
        print(json.dumps(measure[what](*rest)))


if __name__ == "__main__":
    main(sys.argv[1:])
