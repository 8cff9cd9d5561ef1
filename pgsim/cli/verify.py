"""Recompute a trace: every recorded output and mask by scalar reference, fast kernels and simulated machine."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgsim.cli.trace_options import add_trace_options

if TYPE_CHECKING:
    from pgsim.hw.accelerator import Accelerator
    from pgsim.model.verify import LayerCheck, Verification
    from pgsim.workload.trace import Trace


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_trace_options(parser, "a trace (.npz), or several", several=True)
    parser.add_argument("--no-digest", action="store_true", help="leave seal and SHA-256 digests unchecked")
    parser.add_argument(
        "--engine",
        choices=("reference", "fast", "simulator", "clocked", "all"),
        default="all",
        help="what recomputes: the scalar reference, the fast kernels, the simulated machine, the machine clocked "
        "cycle by cycle with its operands (minutes an image), or the first three (default: all)",
    )
    parser.add_argument(
        "--hw", default="predictivenet", help="the decoupled machine that is simulated (default: predictivenet)"
    )
    parser.add_argument("--layers", metavar="NAME", nargs="+", help="verify these layers only (default: all)")


def run(args: argparse.Namespace) -> int:
    """Report container, digests and recomputation of each trace; return 0 where all are right, 1 where one is not.

    Raises InputError for a file that is no trace or cannot be read.
    """
    machine = _machine(args) if args.engine in ("simulator", "clocked", "all") else None
    right = True
    for place, file in enumerate(args.file):
        if place:
            print()
        right &= _verify(file, args, machine)
    return 0 if right else 1


def _verify(file: str, args: argparse.Namespace, machine: Accelerator | None) -> bool:
    from pgsim.errors import InputError
    from pgsim.io.strict import show, show_path
    from pgsim.io.trace import check_seal, digest_faults, load_trace, trace_file

    trace = load_trace(file, max_bytes=args.max_bytes, digests=False)
    unknown = sorted(set(args.layers or ()) - {layer.name for layer in trace.layers})
    if unknown:
        listed = f"; list them with pgsim info {show_path(file)}"
        raise InputError(f"--layers must name layers of the trace, not {show(unknown[0])}{listed}")
    npz = trace_file(trace).npz
    print(npz.shown)
    seal = None
    if trace_file(trace).sealed and not args.no_digest:
        try:
            check_seal(trace)
        except InputError as error:
            seal = str(error)
    state = ("seal not checked" if args.no_digest else "sealed") if trace_file(trace).sealed else "no seal"
    print(f"container      {seal or f'ok: {len(npz.members)} members, {npz.file_bytes:,} bytes, {state}'}")
    faults = [] if args.no_digest else digest_faults(trace)
    print(f"digests        {_digest_words(faults, len(npz.members) - 1, args.no_digest)}")
    for fault in faults[1:]:
        print(f"               {fault}")
    verification = _recompute(trace, args, machine, npz.shown)
    print(f"recomputation  {_recomputation_words(verification)}")
    return seal is None and not faults and verification.equal


def _digest_words(faults: list[str], arrays: int, skipped: bool) -> str:
    if skipped:
        return "not checked"
    return faults[0] if faults else f"ok: {arrays} arrays have their SHA-256"


def _recompute(trace: Trace, args: argparse.Namespace, machine: Accelerator | None, shown: str) -> Verification:
    from pgsim.cli.hardware_file import naming_file
    from pgsim.cli.progress import steps
    from pgsim.errors import InputError
    from pgsim.io.strict import show_path
    from pgsim.model.inference import ENGINES
    from pgsim.model.simulated import clocked_engine, simulator_engine
    from pgsim.model.verify import verify_trace

    engines = {name: engine for name, engine in ENGINES.items() if args.engine in (name, "all")}
    if machine is not None and args.engine == "clocked":
        engines["clocked"] = clocked_engine(machine)
    elif machine is not None:
        engines["simulator"] = simulator_engine(machine)
    with steps("verify", len(args.layers or trace.layers)) as advance:
        done: Callable[[LayerCheck], None] = lambda check: advance(check.layer)  # noqa: E731 - typed
        try:
            with naming_file(args.hw, machine) if machine else contextlib.nullcontext():
                return verify_trace(trace, engines=engines, layers=args.layers, done=done)
        except InputError as error:  # the model knows no file
            if str(error).startswith((f"{shown}: ", f"{show_path(args.hw)}: ")):
                raise
            raise InputError(f"{shown}: {error}") from error


def _machine(args: argparse.Namespace) -> Accelerator:
    """Return the machine that is simulated. Raises InputError for any but a decoupled one."""
    from pgsim.errors import InputError
    from pgsim.hw.accelerator import Organisation
    from pgsim.io.hardware import load_accelerator

    accelerator = load_accelerator(args.hw)
    if accelerator.organisation is not Organisation.DECOUPLED:
        raise InputError(f"--hw must be a decoupled machine, not {accelerator.organisation.value} ({args.hw})")
    return accelerator


def _recomputation_words(verification: Verification) -> str:
    layers = verification.layers
    if not verification.equal:
        wrong = sum(layer.wrong for layer in layers) + (verification.predictions is not None)
        places = sum(layer.wrong > 0 for layer in layers) + (verification.predictions is not None)
        return f"{wrong:,} integers differ in {places} of {len(layers)} layers; the first:\n{verification.first}"
    outputs, masks = sum(layer.outputs for layer in layers), sum(layer.masks for layer in layers)
    engines = ", ".join(layers[0].engines)
    words = f"ok: {len(layers)} layers, {outputs:,} outputs and {masks:,} mask bits equal by {engines}"
    if not verification.chained:
        return f"{words}; post steps not followed (--layers)"
    words += f"; {sum(layer.codes for layer in layers):,} codes by the post steps"
    thresholds = sum(layer.thresholds for layer in layers)
    words += f"; {thresholds} thresholds by delta" if thresholds else ""
    if verification.correct is not None:
        words += f"; {verification.correct} of {verification.images} images classified right"
    return words
