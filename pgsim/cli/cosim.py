"""Run a trace through the compiled RTL of an accelerator, and compare every bit and cycle with an engine."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from pgsim.cli.trace_options import add_trace_options, natural_number, positive_integer

if TYPE_CHECKING:
    from pgsim.rtl.layer_into_layer import NetworkRun
    from pgsim.rtl.network import LayerComparison, Network
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
        "--jobs",
        metavar="N",
        type=positive_integer,
        help="run N layers or batches at once, each on a machine of its own (default: one for each processor; one with "
        "--network, whose layers wait for each other, and with --vcd and --fst)",
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
        "--fst", metavar="OUT.fst", help="the same, compressed (needs pylibfst: pip install 'pgsim[fst]')"
    )
    parser.add_argument(
        "--window",
        metavar="N",
        type=natural_number,
        default=16,
        help="where RTL and engine differ, run the layer again and write a waveform of N cycles before and after the "
        "first event that differs, as cosim_LAYER_CYCLE.vcd beside --vcd or --fst, else in the current folder; "
        "0: none (default: 16)",
    )
    parser.add_argument(
        "--assert",
        dest="assertions",
        action="store_true",
        help="build in the RTL's assertions, of partial sums that fit psum_bits where overflow is an error; slower",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder of compiled machines (default: PGSIM_RTL_CACHE, else pgsim/rtl in the user's cache folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Print a line a layer; return 0 where nothing differs, else 1, with a waveform of the first event that differs.

    Raises InputError for files and options that are refused, and where the compiler is missing.
    """
    from pgsim.cli.hardware_file import naming_file
    from pgsim.cli.progress import amounts
    from pgsim.errors import InputError, OverflowDetected
    from pgsim.io.hardware import load_accelerator
    from pgsim.io.strict import show, show_path
    from pgsim.io.trace import load_trace
    from pgsim.rtl.build import compiler, verilator_root

    accelerator = load_accelerator(args.hw)
    _check_outputs(args)
    jobs = _jobs(args)
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
    cache = Path(args.cache) if args.cache is not None else None
    with naming_file(args.hw, accelerator), _waveform(args) as wave, amounts(accelerator.name) as progress:
        network = make_network(trace, accelerator, args.images)
        try:
            if args.network:
                runs += run_network(
                    network, args.images, engine=args.engine, wave=wave, assertions=args.assertions, cache=cache,
                    started=progress,
                )  # fmt: skip
            else:
                found += cosimulate(
                    network, chosen, args.images, engine=args.engine, jobs=jobs, wave=wave, assertions=args.assertions,
                    cache=cache, started=progress,
                )  # fmt: skip
        except OverflowDetected as error:  # the model knows no file
            raise OverflowDetected(f"{show_path(args.file)} on {show_path(args.hw)}: {error}") from error
        except InputError as error:
            if not str(error).startswith(("layers[", "boundaries[")):  # key paths of the trace
                raise
            raise InputError(f"{show_path(args.file)}: {error}") from error
    found += _by_layer(runs)
    print(_table(found))
    print()
    if jobs > 1:
        print(f"{jobs} machines ran at once: a layer's rate is that of those it was on, the last that of all together")
    if network.no_post:
        print(f"what follows the layers is not compared: {network.no_post}")
    unfit = [f"layer {one.name}: {one.unfit}" for one in found if one.unfit]
    for line in unfit:
        print(f"{line}; outputs of this machine are not the recorded ones")
    print(_verdict(found, args.engine))
    if args.network:
        print(_ends(runs, trace))
    wrong = [one for one in found if not one.comparison.equal]
    if wrong and args.window:
        _show_window(network, wrong[0], args)
    if args.network and unfit and not wrong:
        raise InputError(f"the network must run to its logits on this machine, not end: {unfit[0]}")
    return 1 if wrong else 0


def _jobs(args: argparse.Namespace) -> int:
    """Machines that run at once."""
    from pgsim.errors import InputError

    alone = [name for name in ("network", "vcd", "fst") if getattr(args, name)]
    if not alone:
        return args.jobs or len(os.sched_getaffinity(0))
    if args.jobs not in (None, 1):
        raise InputError(f"--jobs must be 1 with --{alone[0]}, not {args.jobs}")
    return 1


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse now what could not be written later."""
    from pgsim.errors import InputError
    from pgsim.io.atomic import check_writable

    for path in (args.vcd, args.fst):
        if path is not None:
            check_writable(path)
    if args.vcd is not None and args.fst is not None and Path(args.vcd).resolve() == Path(args.fst).resolve():
        raise InputError(f"--vcd and --fst must be two files, not {args.vcd} twice")
    if args.fst is not None:
        from pgsim.rtl.fst import require_writer

        require_writer()


@contextlib.contextmanager
def _waveform(args: argparse.Namespace) -> Iterator[Path | None]:
    """Hand out the VCD file to write to, if there is to be one; it becomes what is asked for when the block ends."""
    from pgsim.io.atomic import replacing_file
    from pgsim.rtl.fst import convert

    with contextlib.ExitStack() as files:
        vcd = None
        if args.vcd is not None:
            vcd = files.enter_context(replacing_file(args.vcd))
        elif args.fst is not None:
            vcd = files.enter_context(replacing_file(args.fst, keep=False))
        yield vcd
        if args.fst is not None and vcd is not None:
            with replacing_file(args.fst) as fst:
                convert(vcd, fst)


def _show_window(network: Network, layer: LayerComparison, args: argparse.Namespace) -> None:
    """Run the batch that differs once more and print what the machine signalled around the first difference."""
    from pgsim.cli.progress import amounts
    from pgsim.cli.table import aligned
    from pgsim.io.atomic import replacing_file
    from pgsim.io.strict import show_path
    from pgsim.rtl.network import compiled
    from pgsim.rtl.waves import key_signals

    repeat = layer.repeat
    assert repeat is not None, "a batch that differs can be run once more"
    folder = Path(args.vcd or args.fst or "file").parent
    path = folder / f"cosim_{re.sub(r'[^A-Za-z0-9_.-]', '_', layer.name)}_{repeat.cycle}.vcd"
    cache = Path(args.cache) if args.cache is not None else None
    print(f"pgsim: running layer {layer.name} again, compiled with waves", file=sys.stderr, flush=True)
    with replacing_file(path) as vcd:
        with amounts(network.accelerator.name) as progress:
            progress("compiling the RTL with waves", 0, repeat.cycle)
            with compiled(network, waves=True, cache=cache) as bench:
                first, last = repeat.run(bench, vcd, args.window, lambda: progress(layer.name, 0, repeat.cycle))
        header, rows = key_signals(vcd, network.accelerator, repeat.cycle)
    which = "the first difference" if repeat.exact else "the layer's last, as no cycle belongs to the first difference"
    print()
    print(f"cycles {first} .. {last} of layer {layer.name}, around {which}: {show_path(str(path))}")
    middle = next((index for index, row in enumerate(rows) if row[0].startswith(">")), len(rows))
    print(aligned(header, rows[max(0, middle - _ROWS) : middle + _ROWS + 1], left=header[1:]))


_ROWS = 16  # of the table before and after the first difference, at most


def _by_layer(runs: list[NetworkRun]) -> list[LayerComparison]:
    layers: dict[int, LayerComparison] = {}
    for run in runs:
        for one in run.layers:
            layers[one.index] = layers[one.index] + one if one.index in layers else one
    return [layers[index] for index in sorted(layers)]


def _ends(runs: list[NetworkRun], trace: Trace) -> str:
    """Say with what the network ended."""
    if not runs[-1].equal or runs[-1].unfit:
        first, last = runs[-1].first, runs[-1].first + runs[-1].images - 1
        return f"layer into layer: ended there, in image {first}" + (f" .. {last}" if last > first else "")
    images = sum(run.images for run in runs)
    what = "logits" if runs[-1].logits else "outputs and codes"
    lines = [f"layer into layer: {what} of {images} image{'s' * (images > 1)} equal those of the integer inference"]
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
