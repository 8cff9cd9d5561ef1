"""A cell's truth tables and the internal energies of its pins, state by state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pgsim.rtl.calibration.boolean import evaluate, variables
from pgsim.rtl.calibration.library import FALL, RISE, Arc, Cell, Pin


def cell_function(cell: Cell, expression: str) -> NDArray[np.bool_]:
    """Return an expression's truth table over a cell's variables: its inputs, then its state."""
    return evaluate(expression, _values(cell))


def _values(cell: Cell) -> dict[str, NDArray[np.bool_]]:
    names = [pin.name for pin in cell.inputs] + ([cell.state[0]] if cell.state[0] else [])
    index = np.arange(2 ** len(names))
    values = {name: (index >> bit & 1).astype(bool) for bit, name in enumerate(names)}
    if cell.state[1]:
        values[cell.state[1]] = ~values[cell.state[0]]
    return values


def pin_energies(cell: Cell, pin: Pin, slew_ps: float) -> NDArray[np.float64]:
    """Return fJ of an input pin's transition at [2 * state + edge], `state` that of the cell's variables after it."""
    values = _values(cell)
    size = next(iter(values.values())).size
    for out in cell.outputs:  # conditions may read outputs; a hidden transition leaves them as they are
        if out.function and variables(out.function) <= set(values):
            values[out.name] = evaluate(out.function, values)
    result = np.zeros((size, 2))
    conditional = [arc for arc in pin.power if arc.when and variables(arc.when) <= set(values)]
    plain = tuple(arc for arc in pin.power if not arc.when)

    def at_edge(arc: Arc, edge: int) -> float:
        table = arc.tables[edge]
        return table.at(slew_ps, 0.0) if table else 0.0

    for edge in (RISE, FALL):
        energy = partial(at_edge, edge=edge)
        default = mean_over_rails(plain, energy)
        matches = [evaluate(arc.when, values) for arc in conditional]
        for state in range(size):
            arcs = tuple(arc for arc, match in zip(conditional, matches, strict=True) if match[state])
            result[state, edge] = mean_over_rails(arcs, energy) if arcs else default
    return result.ravel()


def mean_over_rails(arcs: tuple[Arc, ...], energy: Callable[[Arc], float]) -> float:
    """Return the mean of the arcs' energies on each rail, then of the rails: each rail tells of the same charge."""
    rails: dict[str, list[float]] = {}
    for arc in arcs:
        rails.setdefault(arc.rail, []).append(energy(arc))
    return float(np.mean([np.mean(of) for of in rails.values()])) if rails else 0.0
