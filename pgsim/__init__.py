"""Bit-accurate, cycle-level simulation of accelerators that run Precision Gating networks.

    trace = pgsim.load_trace("trace.npz")
    result = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet"))
    pgsim.layers_frame(result)

The calls are those of pgsim.api, imported when the first of them is used: `import pgsim` alone costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers know it: to import typing takes longer than all the rest
if TYPE_CHECKING:
    from pgsim.api import (
        comparison_frame,
        frame,
        layers_frame,
        load_accelerator,
        load_energy_table,
        load_prices,
        load_trace,
        shipped_accelerators,
        simulate,
        totals_frame,
        verify,
        write_results,
    )

__all__ = [
    "__version__",
    "comparison_frame",
    "frame",
    "layers_frame",
    "load_accelerator",
    "load_energy_table",
    "load_prices",
    "load_trace",
    "shipped_accelerators",
    "simulate",
    "totals_frame",
    "verify",
    "write_results",
]


def __getattr__(name: str) -> object:
    """Import a call of pgsim.api when it is asked for."""
    if name in __all__:
        from pgsim import api

        return getattr(api, name)
    raise AttributeError(f"module 'pgsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the calls and what is imported already."""
    return sorted({*globals(), *__all__})
