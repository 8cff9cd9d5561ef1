"""Write an accelerator's SystemVerilog into a folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pgsim.cli.trace_options import DEFAULT_MAX_BYTES, positive_integer

if TYPE_CHECKING:
    from pgsim.hw.accelerator import Accelerator
    from pgsim.model.lanes import LaneWidths
    from pgsim.rtl.generate import Capacity
    from pgsim.rtl.network import Network
    from pgsim.rtl.post_unit import PostUnit


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--hw", metavar="HW", required=True, help="a hardware file, or the name of a shipped one")
    widths = parser.add_mutually_exclusive_group(required=True)
    widths.add_argument(
        "--trace", metavar="FILE", help="lane widths, memories and what follows layers are this trace's"
    )
    widths.add_argument("--bits", metavar="B/H", help="lane widths follow layers of these bits, as in 3/2")
    parser.add_argument(
        "--layer", metavar="NAME", help="layer of the trace that the test bench runs (default: the first)"
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="folder to write to; made if it is not there"
    )
    parser.add_argument(
        "--max-bytes",
        metavar="N",
        type=positive_integer,
        default=DEFAULT_MAX_BYTES,
        help="refuse a trace that expands past N bytes (default: 4 GiB)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the sources and a list of them in the order in which tools must read them; return 0.

    Raises InputError for a folder that holds anything else.
    """
    from pgsim.cli.hardware_file import naming_file
    from pgsim.io.hardware import load_accelerator
    from pgsim.io.strict import show_path
    from pgsim.rtl.generate import sources, write_sources
    from pgsim.rtl.simulation import layer_text, makefile

    accelerator = load_accelerator(args.hw)
    folder = Path(args.output)
    _check_folder(folder)
    with naming_file(args.hw, accelerator):
        widths, capacity, unit, network, layer = _sizes(args, accelerator)
    texts = sources(accelerator, widths, capacity, unit)
    modules = [name for name in texts if name.endswith(".sv") and name != "testbench.sv"]
    texts["layer.txt"] = layer_text(network, layer, capacity, unit)
    texts["Makefile"] = makefile(accelerator, unit)
    texts["files.f"] = "".join(f"{name}\n" for name in modules)
    folder.mkdir(parents=True, exist_ok=True)
    write_sources(folder, texts)
    array, update = accelerator.array, accelerator.update
    shape = f"{array.rows} x {array.columns} x {array.multipliers}"
    print(f"{len(texts)} files in {show_path(args.output)}; top module accelerator, files.f lists the modules in order")
    print(
        f"make runs layer {network.trace.layers[layer].name} there with Verilator; make waves.vcd writes its waveform"
    )
    print(f"organisation   {accelerator.organisation.value}")
    print(f"PE array       {shape} lanes of {widths.msb} x {array.weight_bits} bits")
    if update is not None:
        shape = f"{update.groups} x {update.lanes} x {array.multipliers}"
        queue = f"queue of {array.columns} x {update.queue_depth} entries"
        print(f"LSB array      {shape} lanes of {widths.lsb} x {array.weight_bits} bits, {queue}")
    steps = ", ".join(" or ".join(sorted(kind.name.lower() for kind in stage)) for stage in unit.stages)
    print(f"behind a port  {steps}; {unit.value_bits} bits")
    return 0


def _sizes(args: argparse.Namespace, accelerator: Accelerator) -> tuple[LaneWidths, Capacity, PostUnit, Network, int]:
    """Return what sizes the machine, and the network and the index of its layer that its test bench runs.

    Raises InputError for a trace that no post-processing unit goes with, and for a layer that it has not.
    """
    from pgsim.cli.hw import read_bits
    from pgsim.errors import InputError
    from pgsim.io.strict import show, show_path
    from pgsim.rtl.generate import Capacity
    from pgsim.rtl.network import make_network
    from pgsim.rtl.post_wrapper import general_unit
    from pgsim.rtl.simulation import drawn_trace

    if args.trace is None:
        if args.layer is not None:
            raise InputError("--layer needs --trace: it names a layer of the trace")
        array = accelerator.array
        network = make_network(drawn_trace(accelerator, *read_bits(args.bits)), accelerator, 1)
        unit = general_unit(array.columns, array.psum_bits)
        return network.widths, Capacity().joined(network.capacity), unit, network, 0
    from pgsim.io.trace import load_trace

    trace = load_trace(args.trace, max_bytes=args.max_bytes)
    names = [layer.name for layer in trace.layers]
    if args.layer is not None and args.layer not in names:
        listed = f"; list them with pgsim info {show_path(args.trace)}"
        raise InputError(f"--layer must name a layer of the trace, not {show(args.layer)}{listed}")
    network = make_network(trace, accelerator, trace.images)
    if network.unit is None:
        raise InputError(f"no post-processing unit runs what follows these layers: {network.no_post}")
    index = names.index(args.layer) if args.layer is not None else 0
    return network.widths, network.capacity, network.unit, network, index


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds what this command did not write."""
    from pgsim.errors import InputError
    from pgsim.io.strict import show_path

    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"{show_path(str(folder))}: -o must be a folder, not a file")
    if any(folder.iterdir()) and not (folder / "accelerator_parameters.sv").exists():
        raise InputError(f"{show_path(str(folder))}: -o must be an empty folder, or one that pgsim rtl wrote before")
