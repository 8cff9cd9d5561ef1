"""pgsim paper: the paper's tables and figures beside our own runs."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgsim.paper.runs import Runs
    from pgsim.paper.stored import Stored
    from pgsim.paper.tables import Row

TABLES, FIGURES = (1, 2, 3, 4, 5, 7), (3, 4, 5)
WIDTH = 130  # of a note, characters


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "results",
        metavar="RESULTS",
        nargs="+",
        help="traces (.npz), results of pgsim trace --result (.json), or folders of them",
    )
    parser.add_argument(
        "--table", type=int, choices=TABLES, action="append", help="print this table alone; may be given again"
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="also write tables (.csv) and figures 3 to 5 (.png) there"
    )


def run(args: argparse.Namespace) -> int:
    """Write tables and figures where asked, print the tables; return 0."""
    from pgsim.paper.claims import TABLES as TITLES
    from pgsim.paper.stored import load_results
    from pgsim.paper.tables import rows

    stored = load_results(args.results)
    results = stored.results
    chosen = {table: rows(results, table) for table in args.table or TABLES}
    wrote = ""
    if args.output:  # before the tables, of which a reader may want no more than the first
        from pgsim.cli.paper_files import write_files

        wrote = write_files(args.output, chosen, stored, args.results)
    for table, lines in chosen.items():
        print("\n".join([TITLES[table], _text(lines), *_deviations(lines, stored.reasons)]), end="\n\n")
    print(_legend(results))
    for line in _not_placed(stored):
        print(line)
    if wrote:
        print(wrote)
    return 0


def _text(lines: Sequence[Row]) -> str:
    from pgsim.cli.table import aligned

    header = (
        "network", "method", "bits", "Sp\npaper", "Sp\nours", "B_avg\npaper", "B_avg\nours", "all,\nMACs",
        "score\npaper", "score\nours", "differ-\nence", "within\nbounds", "change\npaper", "change\nours", "gating",
        "epochs", "n", "seeds",
    )  # fmt: skip
    left = ("network", "method", "bits", "gating", "recipe")
    cells = [_cells(line) for line in lines]
    known = Counter(_identity(line) for line in lines)
    names = [line.ours.first.recipe if line.ours and known[_identity(line)] > 1 else "" for line in lines]
    named = [(*row, name) for row, name in zip(cells, names, strict=True)]
    shown = [number for number in range(len(header) + 1) if any(row[number] for row in named)]
    heads = (*header, "recipe")
    return aligned([heads[number] for number in shown], [[row[number] for number in shown] for row in named], left)


def _identity(row: Row) -> tuple[str, ...]:
    """What tells the runs of a line from those of others, in a table without the recipes' names."""
    return (*_cells(row)[:3], *_recipe(row.ours, row)) if row.ours else ()


def _deviations(lines: Sequence[Row], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield a note for each row whose runs are further from the paper than the bounds, in either direction, and why."""
    for row in lines:
        if row.ours is not None and row.deviations:
            network, method, bits = _cells(row)[:3]
            gating, _, _, seeds = _recipe(row.ours, row)
            name = row.ours.first.recipe
            what = ", ".join(filter(None, (" ".join(filter(None, (network, method, bits))), gating, name)))
            why = row.ours.reason(reasons) or "no reason given"
            line = f"Deviates: {what}, {_epochs(row.ours)} epochs, seed {seeds}: {', '.join(row.deviations)}. {why}"
            yield _wrapped(line)


def _wrapped(note: str) -> str:
    return textwrap.fill(note, WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


def _cells(row: Row) -> tuple[str, ...]:
    claim, ours = row.claim, row.ours
    method = claim.method.value + (f" {claim.threshold:g}" if claim.threshold is not None else "")
    digits = 1 if row.perplexity else 2
    reached = {None: "", True: "yes", False: "no"}[row.reached]
    unit = " %" if row.perplexity else ""
    return (
        claim.network,
        method,
        _bits(claim.bits),
        _number(claim.sparsity, 1),
        _measured(ours.sparsity, ours.sparsity_spread, 1) if ours else "-",
        _number(claim.b_avg, 1),
        _number(row.b_avg, 2),
        _number(ours.b_avg.get("all_by_macs") if ours else None, 2),
        _number(claim.score, 1),
        _measured(ours.score, ours.score_spread, digits) if ours else "not run",
        _signed(row.score_difference, digits, unit),
        reached,
        _signed(row.paper_change, digits if row.perplexity else 1, unit),
        _signed(row.our_change, digits, unit),
        *(_recipe(ours, row) if ours else ("",) * 4),
    )


def _signed(value: float | None, digits: int, unit: str) -> str:
    return "" if value is None else f"{value:+.{digits}f}{unit}"


def _bits(bits: tuple[int, int] | None) -> str:
    return "" if bits is None else "/".join(map(str, dict.fromkeys(bits)))


def _recipe(ours: Runs, row: Row) -> tuple[str, ...]:
    first = ours.first
    threshold = [f"at {first.threshold:g}"] if first.threshold is not None and row.claim.threshold is None else []
    zeroed = ["zeroed"] if first.policy == "zero" else []
    epochs = _epochs(ours) + ("+" if first.start else "")
    return ", ".join([first.gating, *threshold, *zeroed]), epochs, str(ours.count), _seeds(ours)


def _epochs(ours: Runs) -> str:
    return "-" if ours.first.epochs is None else f"{'' if ours.first.finished else '<'}{ours.first.epochs}"


def _seeds(ours: Runs) -> str:
    return ",".join(map(str, ours.seeds)) or "-"


def _not_placed(stored: Stored) -> Iterator[str]:
    """Yield a line for each run or file that stands in no table, with the reason."""
    from pgsim.io.strict import show_path
    from pgsim.paper.tables import unplaced

    lines = [f"{show_path(one.source)}: {one.reason}" for one in stored.left_out]
    for runs in unplaced(stored.results):
        first = runs.first
        what = " ".join(filter(None, (first.network, first.method.value, _bits(first.bits))))
        fixed = "" if first.threshold is None else f" at {first.threshold:g}"
        sparsity = "" if runs.sparsity is None else f"Sp {_measured(runs.sparsity, runs.sparsity_spread, 1)}, "
        lines.append(
            f"{', '.join(show_path(one.source) for one in runs.results)}: the paper does not have {what}{fixed} on"
            f" {first.dataset} (score {_measured(runs.score, runs.score_spread, 2)}, {sparsity}{_epochs(runs)} epochs,"
            f" seed {_seeds(runs)})"
        )
    if lines:
        yield "\nIn no table:"
        yield from (_wrapped(line) for line in sorted(lines))


def _measured(value: float | None, spread: float | None, digits: int) -> str:
    return _number(value, digits) + ("" if spread is None else f"±{spread:.{digits}f}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _legend(results: Sequence[object]) -> str:
    return (
        f"{len(results)} runs. Sp in percent, by outputs; B_avg of the gated convolutions by outputs, as the paper\n"
        "counts, and over all convolutions but the stem by MACs; the files of -o have both weightings of\n"
        "both. n runs of one recipe under several seeds: means, and ± the sample standard deviation.\n"
        "Epochs are the recipe's; + : on top of those of the weights that it began at (given float ones, or\n"
        "another run's); < : weights of an earlier epoch, or of a run that was stopped. Finished runs of language\n"
        "models and ShuffleNet have the weights of the epoch that was best on held-out data.\n"
        "Within bounds: top-1 at most 0.5 points (perplexity 2 %) worse at a sparsity at most 6 points lower, and\n"
        "neither better nor higher by more, unless it is Precision Gating's own; the change from float may yet have\n"
        "the other sign.\n"
        "Rows without the paper's figures: bits that the paper does not have; shufflenetv2_x0.5_cifar: the form of\n"
        "ShuffleNet V2 for CIFAR-10, which the paper does not have either (ImageNet was not trained).\n"
        "Change: of the score from that of the same network in float32, the paper's from its own, ours from ours.\n"
        "Deviates: score or sparsity further from the paper than that, in either direction; why, reasons.yaml says."
    )
