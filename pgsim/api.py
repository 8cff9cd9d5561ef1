"""pgsim from Python: load, simulate, verify, results as DataFrames and files (docs/python.md).

    load_trace ------.
    load_accelerator -+--> simulate --> RunResult --> frame, layers_frame, totals_frame
    load_prices -----'                           comparison_frame, write_results

`import pgsim` imports this module when the first of these names is asked for; numba, pandas and pyarrow are imported
by the functions that need them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

    from pgsim.hw.accelerator import Accelerator
    from pgsim.hw.prices import EnergyTable
    from pgsim.model.verify import Verification
    from pgsim.results.run import RunResult
    from pgsim.workload.trace import Trace

DEFAULT_MAX_BYTES = 4 << 30  # of pgsim.io.npz, which numpy comes with


def load_trace(path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES, digests: bool = True) -> Trace:
    """Return the trace of a file (docs/trace-format.md).

    Layers, weights and thresholds are checked and loaded; activations, outputs and masks stay in the file until a layer
    is asked for. A file that expands past `max_bytes` is refused. `digests=False` leaves SHA-256 digests unchecked.
    Raises InputError, one line, for a file that is no trace.
    """
    from pgsim.io.trace import load_trace

    return load_trace(path, max_bytes=max_bytes, digests=digests)


def load_accelerator(path_or_name: str | os.PathLike[str]) -> Accelerator:
    """Return the accelerator of a hardware file, or of a shipped one by name ("predictivenet").

    Raises InputError, one line, for a file that is not what docs/hardware.md says.
    """
    from pgsim.io.hardware import load_accelerator

    return load_accelerator(path_or_name)


def shipped_accelerators() -> list[str]:
    """Return the names of the hardware files that come with pgsim, in order."""
    from pgsim.io.hardware import shipped_accelerators

    return shipped_accelerators()


def load_prices(accelerator: Accelerator) -> EnergyTable:
    """Return the energy table that an accelerator names, pJ and um2; what `simulate` takes where it is given none.

    Raises InputError where it cannot be read or is of another node or voltage.
    """
    from pgsim.io.energy import load_prices

    return load_prices(accelerator)


def load_energy_table(path_or_name: str | os.PathLike[str]) -> EnergyTable:
    """Return the energy table of a file, or a shipped one by name ("45nm").

    Raises InputError, one line, for a file that is not what docs/energy.md says.
    """
    from pgsim.io.energy import load_energy_table

    return load_energy_table(path_or_name)


def simulate(
    trace: Trace,
    accelerator: Accelerator,
    *,
    prices: EnergyTable | None = None,
    engine: Literal["fast", "clocked"] = "fast",
    verify: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> RunResult:
    """Return what every layer of `trace` takes on `accelerator`: cycles by cause, action counts, energy, an audit.

    All images of the trace are run, one batch after the other; cycles and pJ are those of all of them. `prices` None
    takes the energy table that the accelerator names, and those beside it for the result's `beside`.

    `engine="clocked"` simulates every cycle in Python: the same
    counts, for small layers. `verify` compares every output and mask bit with the recorded ones. `progress` is called
    with (layer name, MACs done, MACs in all).

    Raises MismatchError at the first integer that is not the recorded one, InputError where a buffer is too small for
    any tile, OverflowDetected where an accumulator overflows and the accelerator says `overflow: error`, TypeError for
    a path or name (load it first).
    """
    from pgsim.hw.accelerator import Accelerator
    from pgsim.io.energy import load_prices_beside
    from pgsim.model.simulate import Engine, simulate
    from pgsim.workload.trace import Trace

    _check_type("trace", trace, Trace, "load_trace")
    _check_type("accelerator", accelerator, Accelerator, "load_accelerator")
    beside = load_prices_beside(accelerator) if prices is None else ()
    table = load_prices(accelerator) if prices is None else prices
    return simulate(trace, accelerator, table, beside=beside, engine=Engine(engine), verify=verify, progress=progress)


def verify(
    trace: Trace,
    *,
    engine: Literal["reference", "fast", "all"] = "all",
    layers: Collection[str] | None = None,
) -> Verification:
    """Recompute the recorded integers of `trace`, by the scalar reference, the fast kernels or both.

    Each layer starts from its recorded codes; with all layers (`layers` None) the post steps are followed from layer to
    layer, to the predictions. The answer's `equal` tells whether all are right, `first` names the first that is not.
    Seal and digests are the file's business: `pgsim verify` checks them too. Raises InputError for tensors that cannot
    be read, ValueError for an unknown engine or layer, TypeError for a path.
    """
    from pgsim.model.inference import ENGINES
    from pgsim.model.verify import verify_trace
    from pgsim.workload.trace import Trace

    _check_type("trace", trace, Trace, "load_trace")
    if engine not in (*ENGINES, "all"):
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, all, not {engine!r}")
    return verify_trace(trace, engines={n: e for n, e in ENGINES.items() if engine in (n, "all")}, layers=layers)


def frame(results: RunResult | Iterable[RunResult]) -> pd.DataFrame:
    """Return one run or several as a DataFrame: a row a layer, then each run's totals (network, gated, not_gated).

    The columns are those of docs/results-format.md, with units in their names; types are nullable.
    """
    from pgsim.results.frame import frame

    return frame(results)


def layers_frame(results: RunResult | Iterable[RunResult]) -> pd.DataFrame:
    """Return the rows of `frame` that are layers, in network order, one run after the other."""
    table = frame(results)
    return table[table["row"] == "layer"].reset_index(drop=True)


def totals_frame(results: RunResult | Iterable[RunResult]) -> pd.DataFrame:
    """Return the rows of `frame` that are totals: network, gated and not_gated of one run after the other."""
    table = frame(results)
    return table[table["row"] != "layer"].reset_index(drop=True)


def comparison_frame(results: Iterable[RunResult], baseline: RunResult) -> pd.DataFrame:
    """Return runs held against a baseline: a row for each run's network, gated and not_gated layers.

    speedup, multiplier_bits_ratio, area_ratio and energy_ratio are relative to `baseline`; a speedup at equal
    multiplier bits (area) is that of as many copies as have the baseline's bits (area), all kept busy.
    Raises ValueError for a run of another trace.
    """
    import pandas as pd

    from pgsim.results.compare import compare

    names = ("speedup_at_equal_multiplier_bits", "speedup_at_equal_area")
    rows = [vars(one) | {name: getattr(one, name) for name in names} for one in compare(results, baseline)]
    return pd.DataFrame(rows)


def write_results(path: str | os.PathLike[str], results: RunResult | Iterable[RunResult]) -> None:
    """Write one run or several to a .csv, .json or .parquet file, whole or not at all.

    Raises InputError for another suffix or a file that cannot be written.
    """
    from pgsim.io.export import write_results
    from pgsim.results.run import RunResult

    write_results(path, [results] if isinstance(results, RunResult) else list(results))


def _check_type(name: str, value: object, wanted: type, loader: str) -> None:
    if not isinstance(value, wanted):
        article = "an" if wanted.__name__[0] in "AEIOU" else "a"
        got = type(value).__name__
        raise TypeError(f"{name} must be {article} {wanted.__name__} (pgsim.{loader} returns one), not {got}")
