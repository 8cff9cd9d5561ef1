"""Check that a trace is whole (container, metadata, shapes, ranges, digests, seal), or a hardware file."""

from __future__ import annotations

import argparse

from pgsim.cli.trace_options import add_trace_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_trace_options(parser, "a trace (.npz), a hardware file (.yaml) or the name of a shipped one")


def run(args: argparse.Namespace) -> int:
    """Read all of the trace, or the hardware file and its prices, once; return 0. Raises InputError."""
    from pgsim.io.shipped import is_hardware

    if is_hardware(args.file):
        return _validate_hardware(args.file)
    from pgsim.io.trace import check_seal, load_trace, trace_file

    trace = load_trace(args.file, max_bytes=args.max_bytes)
    check_seal(trace)
    for index in range(len(trace.boundaries)):
        trace.boundary(index)
    for index in range(len(trace.layers)):
        trace.tensors(index)
    file = trace_file(trace)
    sealed = "sealed" if file.sealed else "not sealed"
    counts = f"{len(trace.layers)} layers, {trace.images} images, {len(file.npz.members)} members"
    print(f"{file.npz.shown}: valid ({counts}, {file.npz.expanded_bytes:,} bytes expanded, {sealed})")
    return 0


def _validate_hardware(path_or_name: str) -> int:
    from pgsim.cli.hardware_file import naming_file
    from pgsim.io.energy import load_prices, load_prices_beside
    from pgsim.io.hardware import load_accelerator
    from pgsim.io.strict import show_path

    accelerator = load_accelerator(path_or_name)
    with naming_file(path_or_name, accelerator):
        prices = [load_prices(accelerator), *load_prices_beside(accelerator)]
    tables = f"energy table{'s' * (len(prices) > 1)} {', '.join(table.name for table in prices)}"
    print(f"{show_path(path_or_name)}: valid ({accelerator.organisation.value}, {tables})")
    return 0
