"""Files of `pgsim paper -o DIR`: the tables as CSV, Figures 3 to 5 as PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pgsim.errors import InputError
from pgsim.io.atomic import replacing
from pgsim.io.strict import show_path
from pgsim.io.trace import load_trace
from pgsim.paper.stored import Stored, trace_files
from pgsim.paper.tables import Row

COLUMNS = (
    "network", "dataset", "method", "act_bits", "pred_bits", "threshold", "paper_sparsity_percent",
    "paper_b_avg_bits", "paper_score", "paper_change_from_float", "sparsity_percent", "mac_sparsity_percent",
    "b_avg_bits", "b_avg_by_macs_bits", "b_avg_all_convolutions_bits", "b_avg_all_convolutions_by_macs_bits",
    "score", "change_from_float", "score_difference", "sparsity_difference", "within_bounds", "gating", "policy",
    "recipe", "epochs", "began_at", "finished", "runs", "seeds", "sparsity_deviation", "score_deviation", "deviates",
    "reason", "sources", "digests",
)  # fmt: skip
DPI = 130


def write_files(folder: str, tables: Mapping[int, Sequence[Row]], stored: Stored, places: Iterable[str]) -> str:
    """Write table_N.csv for each table, figure_3.png, figure_4_NETWORK.png and figure_5_TRACE.png, each whole; return a
    line that says so."""
    try:
        from pgsim.paper import figures
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise InputError("the figures need matplotlib (pip install 'pgsim[plot]'), which is missing") from None
    drawn, results = {"figure_3": figures.figure_3()}, stored.results
    for table in (1, 5, 7):
        networks = figures.networks_of(results, table)
        drawn |= {f"figure_4_{name}": figures.figure_4(results, name, table) for name in networks}
    traces: dict[str, Path] = {}
    for path in (path for place in places for path in trace_files(Path(place))):
        first = traces.setdefault(path.stem, path)
        if first is not path and not first.samefile(path):
            raise InputError(
                f"{show_path(path)} must have another file name than {show_path(first)}, as its Figure 5 is called so"
            )
    for stem, path in traces.items():
        try:
            drawn[f"figure_5_{stem}"] = figures.figure_5(load_trace(path), stem)
        except figures.NoMapsError:
            continue
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"-o must be a folder that can be written, not {show_path(folder)} ({error.strerror})"
        ) from None
    for table, lines in tables.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_line(row, stored.reasons) for row in lines)
        with replacing(place / f"table_{table}.csv") as stream:
            stream.write(text.getvalue().encode())
    for name, figure in drawn.items():
        with replacing(place / f"{name}.png") as stream:
            figure.savefig(stream, format="png", dpi=DPI)
    return f"wrote {len(tables)} tables and {len(drawn)} figures to {show_path(folder)}"


def _line(row: Row, reasons: Mapping[str, str]) -> list[object]:
    claim, ours = row.claim, row.ours
    act_bits, pred_bits = claim.bits or (None, None)
    theirs: list[object] = [
        claim.network, claim.dataset, claim.method.value, act_bits, pred_bits, claim.threshold, claim.sparsity,
        claim.b_avg, claim.score, row.paper_change,
    ]  # fmt: skip
    mine: list[object] = [None] * (len(COLUMNS) - len(theirs))
    if ours is not None:
        first = ours.first
        b_avg = (ours.b_avg.get(name) for name in ("gated_by_macs", "all_by_outputs", "all_by_macs"))
        mine = [
            ours.sparsity, ours.mac_sparsity, row.b_avg, *b_avg, ours.score, row.our_change,
            row.score_difference, row.sparsity_difference, row.reached, first.gating, first.policy, first.recipe,
            first.epochs, first.start, first.finished, ours.count, _joined(ours.seeds), ours.sparsity_spread,
            ours.score_spread,
            "; ".join(row.deviations), ours.reason(reasons) if row.deviations else "",
            _joined(one.source for one in ours.results), _joined(one.digest for one in ours.results),
        ]  # fmt: skip
    return [*theirs, *mine]


def _joined(values: Iterable[object]) -> str:
    return ";".join(map(str, values))
