"""Simulate a trace on one or more accelerators: tables on standard output, and files."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgsim.cli.trace_options import add_trace_options, keep_apart

if TYPE_CHECKING:
    from pgsim.io.timeline import Timeline
    from pgsim.results.run import RunResult
    from pgsim.workload.trace import Trace

SHOW = {
    "layers": "tables of all layers, the network's totals, what is assumed, the audit",
    "totals": "the network's totals and the audit",
    "nothing": "no tables; files, exit code and errors only",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    shown = "; ".join(f"{name}: {about}" for name, about in SHOW.items())
    parser.add_argument(
        "--hw",
        metavar="HW",
        action="append",
        required=True,
        help="a hardware file, or the name of a shipped one (pgsim hw); again for another, all compared to the first",
    )
    add_trace_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        action="append",
        default=[],
        help="write all results to OUT, a .csv, .json or .parquet file; may be given again",
    )
    parser.add_argument("--timeline", metavar="OUT.json", help="write a timeline that ui.perfetto.dev opens")
    parser.add_argument(
        "--engine",
        choices=("fast", "clocked"),
        default="fast",
        help="what counts the cycles; clocked takes every cycle in Python, for small layers (default: fast)",
    )
    parser.add_argument("--no-verify", action="store_true", help="do not compare outputs with the recorded ones")
    parser.add_argument(
        "--show",
        choices=tuple(SHOW),
        help=f"{shown} (default: layers with one --hw, totals with several)",
    )


def run(args: argparse.Namespace) -> int:
    """Run every accelerator in turn; return 0, or 1 where a check of the audit fails.

    Raises InputError for files and options that are refused, before any work, and MismatchError where the trace's
    outputs are not those of its own integers.
    """
    from pgsim.cli.report import audit_lines, comparison, layer_tables, summary, title
    from pgsim.io.export import check_outputs, write_results

    _check_places(args)
    check_outputs(args.output)
    show = args.show or ("layers" if len(args.hw) == 1 else "totals")
    results = _simulate_all(args)
    priced = [one for result in results for one in (result, *result.beside)]
    for path in args.output:
        write_results(path, priced)
    if show != "nothing":
        for result in results:
            tables = [layer_tables(result)] if show == "layers" else []
            details = show == "layers" or len(results) == 1
            audits = [audit_lines(one) for one in (result, *result.beside) if one is result or not _holds(one)]
            print("\n\n".join([title(result), *tables, summary(result, details), *audits]), end="\n\n")
        if len(results) > 1:
            print(comparison(results))
    failed = [one for one in priced if not _holds(one)]
    if failed and show == "nothing":
        print("\n".join(map(audit_lines, failed)), file=sys.stderr)
    return 1 if failed else 0


def _holds(result: RunResult) -> bool:
    return all(check.holds for check in result.audit)


def _check_places(args: argparse.Namespace) -> None:
    """Refuse outputs that would overwrite one another or an input, and a timeline that cannot be a .json file."""
    from pgsim.errors import InputError
    from pgsim.io.atomic import check_writable
    from pgsim.io.strict import show_path

    keep_apart((*args.output, args.timeline), (*args.hw, args.file))
    if args.timeline is not None:
        check_writable(args.timeline)
        suffix = os.path.splitext(args.timeline)[1]
        if suffix != ".json":
            got = f"{suffix!r}" if suffix else "without a suffix"
            raise InputError(f"{show_path(args.timeline)}: the timeline must end in .json, not {got}")


def _simulate_all(args: argparse.Namespace) -> list[RunResult]:
    from pgsim.cli.hardware_file import naming_file
    from pgsim.cli.progress import amounts
    from pgsim.errors import MismatchError, OverflowDetected
    from pgsim.io.energy import load_prices, load_prices_beside
    from pgsim.io.hardware import load_accelerator
    from pgsim.io.strict import show_path
    from pgsim.io.trace import load_trace

    accelerators = [load_accelerator(name) for name in args.hw]
    tables = []
    for name, accelerator in zip(args.hw, accelerators, strict=True):
        with naming_file(name, accelerator):
            tables.append((load_prices(accelerator), load_prices_beside(accelerator)))
    trace = load_trace(args.file, max_bytes=args.max_bytes)
    from pgsim.model.simulate import Engine, simulate  # numba: after the quick refusals

    results = []
    with _timeline(args.timeline, trace) as timeline:
        for name, accelerator, (table, beside) in zip(args.hw, accelerators, tables, strict=True):
            observe = timeline.begin(accelerator) if timeline else None
            with amounts(accelerator.name) as progress, naming_file(name, accelerator):
                try:
                    result = simulate(
                        trace,
                        accelerator,
                        table,
                        beside=beside,
                        engine=Engine(args.engine),
                        verify=not args.no_verify,
                        progress=progress,
                        observe=observe,
                    )
                except (MismatchError, OverflowDetected) as error:  # the model knows no file
                    raise type(error)(f"{show_path(args.file)} on {show_path(name)}: {error}") from error
            results.append(result)
    return results


@contextlib.contextmanager
def _timeline(path: str | None, trace: Trace) -> Iterator[Timeline | None]:
    if path is None:
        yield None
        return
    from pgsim.io.timeline import writing_timeline

    with writing_timeline(path, trace) as timeline:
        yield timeline
