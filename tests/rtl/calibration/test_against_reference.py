"""The event-driven simulator against an obvious one: time passes one ps after another, every gate is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pgsim.rtl.calibration.circuit import Circuit, build_circuit
from pgsim.rtl.calibration.library import Library
from pgsim.rtl.calibration.measure import run_unit
from pgsim.rtl.calibration.netlist import Instance, Netlist

LIBRARY = Library([Path(__file__).parent / "tiny.lib"])
DELAY = {"INV": 10, "XOR_FAST": 5, "XOR_SLOW": 20, "DFF": 30}
INPUTS, GATES, CYCLES, PERIOD = 4, 24, 40, 1000


def drawn(rng: np.random.Generator) -> Netlist:
    """A netlist of gates and flip-flops: net 2 is the clock, then inputs, then one net a cell, each from earlier ones.

    A flip-flop's input may also be a later net: a loop through it is none of gates.
    """
    first = 3 + INPUTS
    cells = []
    for number in range(GATES):
        net = first + number
        kind = rng.choice(["INV", "XOR_FAST", "XOR_SLOW", "DFF"])
        a, b = (int(rng.integers(3, net)) for _ in range(2))
        if kind == "INV":
            cells.append(Instance("INV", {"A": a, "Y": net}))
        elif kind == "DFF":
            cells.append(Instance("DFF", {"CLK": 2, "D": int(rng.integers(3, first + GATES)), "QN": net}))
        else:
            cells.append(Instance(str(kind), {"A": a, "B": b, "Y": net}))
    last = tuple(range(first, first + GATES))
    return Netlist("drawn", {"clk": (2,), "x": tuple(range(3, first))}, {"y": last}, tuple(cells), first + GATES)


def output(cell: Instance, value: dict[int, int]) -> int:
    if cell.cell == "INV":
        return 1 - value[cell.pins["A"]]
    return value[cell.pins["A"]] ^ value[cell.pins["B"]]


def count_by_hand(netlist: Netlist, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rises and falls of every net, and what every net settles at."""
    gates = [cell for cell in netlist.instances if cell.cell != "DFF"]
    flip_flops = [cell for cell in netlist.instances if cell.cell == "DFF"]
    value = dict.fromkeys(range(netlist.nets), 0) | {1: 1}
    held = [0] * len(flip_flops)
    for cell in flip_flops:
        value[cell.pins["QN"]] = 1
    for cell in gates:  # in an order in which each stands after what it reads
        value[cell.pins["Y"]] = output(cell, value)
    counts, settled = np.zeros((netlist.nets, 2), int), []
    for word in inputs:
        taken = [value[cell.pins["D"]] for cell in flip_flops]
        due: dict[int, int] = {}  # net: time at which it turns over
        for time in range(PERIOD):
            turned = {net for net, when in due.items() if when == time}
            if time in (0, PERIOD // 2):
                turned.add(2)
            if time == 0:
                turned |= {3 + i for i in range(INPUTS) if value[3 + i] != word >> i & 1}
                for place, cell in enumerate(flip_flops):
                    if held[place] != taken[place]:
                        due[cell.pins["QN"]] = DELAY["DFF"]
                held = taken
            for net in turned:
                due.pop(net, None)
                value[net] ^= 1
                counts[net, 1 - value[net]] += 1
            for cell in gates:
                net = cell.pins["Y"]
                wanted = output(cell, value)
                if wanted != value[net] and net not in due and turned & set(cell.pins.values()):
                    due[net] = time + DELAY[cell.cell]
                if wanted == value[net]:
                    due.pop(net, None)
        assert not due
        settled.append([value[net] for net in range(netlist.nets)])
    return counts, np.array(settled)


@pytest.mark.parametrize("seed", range(12))
def test_every_transition_of_a_drawn_netlist_is_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    netlist = drawn(rng)
    inputs = rng.integers(0, 2**INPUTS, CYCLES)
    counts, settled = count_by_hand(netlist, inputs)
    circuit: Circuit = build_circuit(netlist, LIBRARY)
    activity, _ = run_unit(netlist, circuit, {"x": inputs}, PERIOD)
    assert np.array_equal(activity.outputs, settled[:, [*netlist.outputs["y"]]])
    assert np.array_equal(activity.net[: netlist.nets], counts)
    steps = np.diff(np.vstack([np.zeros_like(settled[:1]), settled]), axis=0)[1:]
    first = activity.settled[: netlist.nets] - np.stack([(steps > 0).sum(0), (steps < 0).sum(0)], axis=1)
    assert first.min() >= 0  # what the first cycle adds to the others
    assert first.sum(1).max() <= 1
    assert activity.settled.sum() < activity.net.sum()
