"""Count what switches in a circuit, cycle by cycle: event-driven, with the cells' own delays, glitches included.

Delays are inertial: a pulse shorter than the delay of the cell that makes it does not leave that cell. The clock rises
at 0 everywhere at once and falls at half the period; primary inputs change with its rise. Integers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.rtl.calibration.circuit import Circuit


@dataclass(frozen=True)
class Activity:
    """Transitions over the counted cycles.

    net int64 [nets, edge], glitches included; settled int64 [nets, edge], one at most a net and cycle, what a
    simulation without delays counts; pin int64 by Circuit.pin_base; outputs uint8 [all cycles, output nets] as they
    settle; latest_ps, the last transition after a rise of the clock.
    """

    cycles: int
    net: NDArray[np.int64]
    settled: NDArray[np.int64]
    pin: NDArray[np.int64]
    outputs: NDArray[np.uint8]
    latest_ps: int


def simulate(circuit: Circuit, inputs: NDArray[np.uint8], counted: NDArray[np.bool_], period_ps: int) -> Activity:
    """Run `inputs`, uint8 [cycles, input nets] in the order of circuit.input_nets, from registers of 0.

    Raises InputError where the circuit takes longer than the period to settle.
    """
    net = np.zeros((circuit.nets, 2), np.int64)
    settled = np.zeros((circuit.nets, 2), np.int64)
    pin = np.zeros(circuit.pin_energy.size, np.int64)
    outputs = np.zeros((len(inputs), circuit.output_nets.size), np.uint8)
    c = circuit
    latest = _run(
        inputs, counted, period_ps // 2, c.clock, c.input_nets, c.output_nets, c.kind, c.cell_clock, c.cell_table,
        c.variable_start, c.variable_net, c.pin_base, c.gate_start, c.gate_net, c.gate_table, c.gate_delay,
        c.sink_start, c.sink_cell, c.sink_variable, c.order, c.table, c.delay, net, settled, pin, outputs,
    )  # fmt: skip
    states = c.variable_start[1:][c.kind != 0] - 1
    settled[c.variable_net[states]] = 0  # a cell's state is no net
    if latest > period_ps:
        raise InputError(f"the circuit must settle within the period of {period_ps} ps, not in {latest} ps")
    return Activity(int(counted.sum()), net, settled, pin, outputs, int(latest))


@njit(cache=True)
def _state(cell: Any, value: Any, variable_start: Any, variable_net: Any) -> Any:
    state = 0
    first = variable_start[cell]
    for v in range(first, variable_start[cell + 1]):
        state |= np.int64(value[variable_net[v]]) << (v - first)
    return state


@njit(cache=True)
def _run(
    inputs: Any, counted: Any, half_ps: Any, clock: Any, input_nets: Any, output_nets: Any, kind: Any,
    cell_clock: Any, cell_table: Any, variable_start: Any, variable_net: Any, pin_base: Any, gate_start: Any,
    gate_net: Any, gate_table: Any, gate_delay: Any, sink_start: Any, sink_cell: Any, sink_variable: Any,
    order: Any, table: Any, delay: Any, net_count: Any, settled_count: Any, pin_count: Any, outputs: Any,
) -> Any:  # fmt: skip
    nets, cells, gates = net_count.shape[0], kind.size, gate_net.size
    value = np.zeros(nets, np.uint8)
    value[1] = 1
    gate_cell = np.zeros(gates, np.int64)
    for cell in range(cells):
        for g in range(gate_start[cell], gate_start[cell + 1]):
            gate_cell[g] = cell
    for g in order:
        if kind[gate_cell[g]] != 2:
            value[gate_net[g]] = table[gate_table[g] + _state(gate_cell[g], value, variable_start, variable_net)]
    before = value.copy()
    pending = np.full(gates, -1, np.int64)  # number of the event on its way, or -1
    taken = np.zeros(cells, np.uint8)
    events = [(np.int64(0), np.int64(0), np.int64(0))]  # a heap of (time, number, gate)
    events.pop()
    changes = [np.int64(0)]  # nets that change at this moment
    changes.pop()
    number: Any = np.int64(0)
    latest: Any = np.int64(0)
    for cycle in range(inputs.shape[0]):
        count = counted[cycle]
        # What registers and clock gates take: the values settled in the cycle before.
        for cell in range(cells):
            if kind[cell] != 0:
                taken[cell] = table[cell_table[cell] + _state(cell, value, variable_start, variable_net)]
        for edge in range(2 if clock >= 0 else 1):
            time: Any = np.int64(edge * half_ps)
            if clock >= 0:
                changes.append(clock)
                for cell in range(cells):
                    if kind[cell] == 2:
                        value[variable_net[variable_start[cell + 1] - 1]] = taken[cell]
                        if taken[cell]:
                            changes.append(gate_net[gate_start[cell]])
            captures = edge == 0
            while True:
                for net in changes:  # all at once: a gate must see none of a moment's changes alone
                    value[net] ^= 1
                for net in changes:
                    e = 1 - np.int64(value[net])
                    if count:
                        net_count[net, e] += 1
                    for s in range(sink_start[net], sink_start[net + 1]):
                        cell = sink_cell[s]
                        state = _state(cell, value, variable_start, variable_net)
                        if count:
                            pin_count[pin_base[sink_variable[s]] + 2 * state + e] += 1
                        if kind[cell] != 0:
                            continue
                        for g in range(gate_start[cell], gate_start[cell + 1]):
                            new = np.int64(table[gate_table[g] + state])
                            if pending[g] >= 0:
                                if new == value[gate_net[g]]:
                                    pending[g] = -1  # the pulse is swallowed
                            elif new != value[gate_net[g]]:
                                place = gate_delay[g] + 2 * (sink_variable[s] - variable_start[cell]) + 1 - new
                                number += 1
                                pending[g] = number
                                heappush(events, (time + delay[place], number, np.int64(g)))
                changes.clear()
                if captures:  # once a cycle, after the clock's rise: states, then primary inputs
                    captures = False
                    for cell in range(cells):
                        held = variable_net[variable_start[cell + 1] - 1]
                        if kind[cell] != 1 or value[cell_clock[cell]] == 0 or value[held] == taken[cell]:
                            continue
                        value[held] = taken[cell]
                        state = _state(cell, value, variable_start, variable_net)
                        place = 2 * (variable_start[cell + 1] - 1 - variable_start[cell]) + 1
                        for g in range(gate_start[cell], gate_start[cell + 1]):
                            new = np.int64(table[gate_table[g] + state])
                            number += 1
                            pending[g] = number
                            heappush(events, (delay[gate_delay[g] + place - new], number, np.int64(g)))
                    for i in range(input_nets.size):
                        if value[input_nets[i]] != inputs[cycle, i]:
                            changes.append(input_nets[i])
                    continue
                while len(events) > 0 and pending[events[0][2]] != events[0][1]:
                    heappop(events)
                if len(events) == 0 or (edge == 0 and clock >= 0 and events[0][0] >= half_ps):
                    break
                time = events[0][0]
                latest = max(latest, time)
                while len(events) > 0 and events[0][0] == time:
                    _, of, due = heappop(events)
                    if pending[due] == of:
                        pending[due] = -1
                        changes.append(gate_net[due])
        for n in range(nets):
            if value[n] != before[n]:
                if count:
                    settled_count[n, 1 - np.int64(value[n])] += 1
                before[n] = value[n]
        for i in range(output_nets.size):
            outputs[cycle, i] = value[output_nets[i]]
    return latest
