"""Check that a trace is whole: its container, metadata, every array's shape, range and digest, and its seal."""

from __future__ import annotations

import argparse

from pgsim.cli.trace_options import add_trace_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_trace_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read every tensor of the trace once; return 0. Raises InputError at the first thing that is wrong."""
    from pgsim.io.trace import check_seal, load_trace, trace_file

    trace = load_trace(args.file, max_bytes=args.max_bytes)
    check_seal(trace)
    for index in range(len(trace.layers)):
        trace.tensors(index)
    file = trace_file(trace)
    sealed = "sealed" if file.sealed else "not sealed"
    counts = f"{len(trace.layers)} layers, {trace.images} images, {len(file.npz.members)} members"
    print(f"{file.npz.shown}: valid ({counts}, {file.npz.expanded_bytes:,} bytes expanded, {sealed})")
    return 0
