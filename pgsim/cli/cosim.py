"""Run a trace through the compiled RTL of an accelerator, and compare every bit and cycle with an engine."""

from __future__ import annotations

import argparse
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from pgsim.cli.trace_options import add_trace_options, positive_integer

if TYPE_CHECKING:
    from pgsim.rtl.layer_into_layer import NetworkRun
    from pgsim.rtl.network import LayerComparison
    from pgsim.workload.trace import Trace


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--hw", metavar="HW", required=True, help="a hardware file, or the name of a shipped one")
    add_trace_options(parser)
    layers = parser.add_mutually_exclusive_group()
    layers.add_argument("--layers", metavar="NAME", nargs="+", help="run these layers only (default: all)")
    layers.add_argument(
        "--network",
        action="store_true",
        help="run layer into layer, from the network's input to its logits: each layer's codes and shortcuts are those "
        "that the RTL wrote (default: each layer's are those of the trace)",
    )
    parser.add_argument(
        "--images", metavar="N", type=positive_integer, default=1, help="first N images of the trace (default: 1)"
    )
    parser.add_argument(
        "--engine",
        choices=("fast", "clocked"),
        default="fast",
        help="what the RTL is compared with; clocked takes every cycle in Python (default: fast)",
    )
    parser.add_argument(
        "--vcd", metavar="OUT.vcd", help="write a waveform of the whole run: for a small layer, as it is large"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder of compiled machines (default: PGSIM_RTL_CACHE, else pgsim/rtl in the user's cache folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Print a line a layer; return 0 where nothing differs, else 1.

    Raises InputError for files and options that are refused, and where the compiler is missing.
    """
    from pgsim.cli.hardware_file import naming_file
    from pgsim.cli.progress import amounts
    from pgsim.errors import InputError, OverflowDetected
    from pgsim.io.atomic import check_writable
    from pgsim.io.hardware import load_accelerator
    from pgsim.io.strict import show, show_path
    from pgsim.io.trace import load_trace
    from pgsim.rtl.build import compiler, verilator_root

    accelerator = load_accelerator(args.hw)
    if args.vcd is not None:
        check_writable(args.vcd)
    compiler()
    verilator_root()
    trace = load_trace(args.file, max_bytes=args.max_bytes)
    names = [layer.name for layer in trace.layers]
    unknown = sorted(set(args.layers or ()) - set(names))
    if unknown:
        listed = f"; list them with pgsim info {show_path(args.file)}"
        raise InputError(f"--layers must name layers of the trace, not {show(unknown[0])}{listed}")
    if args.images > trace.images:
        raise InputError(f"--images must be 1 .. {trace.images}, the trace's images, not {args.images}")
    from pgsim.rtl.layer_into_layer import run_network
    from pgsim.rtl.network import cosimulate, make_network

    chosen = [index for index, name in enumerate(names) if args.layers is None or name in args.layers]
    found: list[LayerComparison] = []
    runs: list[NetworkRun] = []
    wave, cache = Path(args.vcd) if args.vcd is not None else None, Path(args.cache) if args.cache is not None else None
    with naming_file(args.hw, accelerator), amounts(accelerator.name) as progress:
        network = make_network(trace, accelerator, args.images)
        try:
            if args.network:
                runs += run_network(network, args.images, engine=args.engine, wave=wave, cache=cache, started=progress)
            else:
                found += cosimulate(
                    network, chosen, args.images, engine=args.engine, wave=wave, cache=cache, started=progress
                )
        except OverflowDetected as error:  # the model knows no file
            raise OverflowDetected(f"{show_path(args.file)} on {show_path(args.hw)}: {error}") from error
    found += _by_layer(runs)
    print(_table(found))
    print()
    if network.no_post:
        print(f"what follows the layers is not compared: {network.no_post}")
    print(_verdict(found, args.engine))
    if args.network:
        print(_ends(runs, trace))
    return 0 if all(one.comparison.equal for one in found) else 1


def _by_layer(runs: list[NetworkRun]) -> list[LayerComparison]:
    layers: dict[int, LayerComparison] = {}
    for run in runs:
        for one in run.layers:
            layers[one.index] = layers[one.index] + one if one.index in layers else one
    return [layers[index] for index in sorted(layers)]


def _ends(runs: list[NetworkRun], trace: Trace) -> str:
    """Say with what the network ended."""
    if not all(run.equal for run in runs):
        first, last = runs[-1].first, runs[-1].first + runs[-1].images - 1
        return f"layer into layer: ended there, in image {first}" + (f" .. {last}" if last > first else "")
    images = sum(run.images for run in runs)
    lines = [f"layer into layer: logits of {images} image{'s' * (images > 1)} equal those of the integer inference"]
    name, last_logits = list(runs[-1].logits.items())[-1] if runs[-1].logits else ("", None)
    if last_logits is not None and last_logits.shape[2:] == (1, 1):
        predicted = [int(one) for run in runs for one in run.logits[name][:, :, 0, 0].argmax(axis=1)]
        for what in ("predictions", "labels"):
            recorded = trace.info.get(what)
            if recorded is not None:
                equal = sum(one == other for one, other in zip(predicted, recorded, strict=False))
                lines.append(f"predictions: {equal} of {images} are the recorded {what}")
    return "\n".join(lines)


def _table(found: list[LayerComparison]) -> str:
    from pgsim.cli.table import aligned

    rows = []
    for name, one in [*((one.name, one) for one in found), ("all", reduce(add, found))]:
        c = one.comparison
        rate = one.lane_operations / one.seconds / 1e6 if one.seconds else 0.0
        rows.append(
            (name, *(f"{n:,}" for n in (c.cycles, c.outputs, c.kept, c.bits, c.compared, c.events)), f"{rate:,.1f}")
        )
    header = (
        "layer",
        "cycles",
        "outputs",
        "codes, shortcuts,\nlogits",
        "differing\nbits",
        "events",
        "differing\nevents",
        "RTL, million lane\noperations a second",
    )
    return aligned(header, rows, left=("layer",))


def _verdict(found: list[LayerComparison], engine: str) -> str:
    wrong = [one for one in found if not one.comparison.equal]
    total = reduce(add, found).comparison
    if not wrong:
        return (
            f"RTL and {engine} engine are equal: {total.outputs:,} outputs, {total.kept:,} words that layers keep and "
            f"{total.compared:,} figures of {total.cycles:,} cycles, 0 differing"
        )
    first = wrong[0]
    return f"{len(wrong)} of {len(found)} layers differ; the first: layer {first.name}: {first.comparison.first}"
