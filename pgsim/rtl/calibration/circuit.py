"""A netlist as arrays: functions, delays and energies of every cell as it is loaded, for the event-driven simulator.

Model: no wires and no clock tree. A net's capacitance is that of the input pins on it. Transitions spread from the
inputs and the clock, each with the same given transition time, through the library's tables; a cell's delay and
internal energy are those at that transition and load. A table given per supply rail tells of the same charge at each
rail, and counts as the rails' mean; tables of several conditions or related pins of an output count as their mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.rtl.calibration.cell_tables import cell_function, mean_over_rails, pin_energies
from pgsim.rtl.calibration.library import FALL, RISE, Arc, CellKind, Library, Pin
from pgsim.rtl.calibration.netlist import ONE, ZERO, Instance, Netlist

KINDS = {CellKind.GATE: 0, CellKind.FLIP_FLOP: 1, CellKind.CLOCK_GATE: 2}
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Circuit:
    """Arrays by net, cell, variable (a cell's input pins, then its state) and gate (an output of a cell).

    `table` holds truth tables; a cell's state is read as bits, its variable 0 lowest. `pin_base[v] + 2 * state + edge`
    numbers what an input pin's transition costs, `state` that of its cell after the transition.
    """

    nets: int
    input_nets: Ints
    output_nets: Ints
    clock: int  # its net, or -1
    kind: Ints  # [cell]
    cell_clock: Ints  # [cell] net
    cell_table: Ints  # [cell] next state or enable, in `table`
    variable_start: Ints  # [cell + 1]
    variable_net: Ints  # [variable]
    pin_base: Ints  # [variable]
    gate_start: Ints  # [cell + 1]
    gate_net: Ints  # [gate]
    gate_table: Ints  # [gate]
    gate_delay: Ints  # [gate] in `delay`: 2 * variable + edge
    sink_start: Ints  # [net + 1]
    sink_cell: Ints
    sink_variable: Ints
    order: Ints  # gates, each after those that it reads
    table: NDArray[np.uint8]
    delay: Ints  # ps
    pin_energy: NDArray[np.float64]  # fJ, by pin_base
    net_energy: NDArray[np.float64]  # [net, edge] fJ, internal energy of the driving cell
    net_charge: NDArray[np.float64]  # [net] fJ, half C V^2
    area_um2: float
    leakage_nw: float
    flip_flops: int


def build_circuit(netlist: Netlist, library: Library, clock: str = "clk", slew_ps: float = 50.0) -> Circuit:
    """Return the arrays of a netlist. `slew_ps` is the transition time of inputs and clock.

    Raises InputError for a cell that the simulator does not know, a net with two drivers or a loop of gates.
    """
    return _Builder(netlist, library, clock, slew_ps).circuit()


class _Builder:
    """Collects the arrays, cell by cell."""

    def __init__(self, netlist: Netlist, library: Library, clock: str, slew_ps: float):
        self.netlist, self.library, self.slew_ps = netlist, library, slew_ps
        self.cells = [library.cell(instance.cell) for instance in netlist.instances]
        self.clock = netlist.inputs[clock][0] if clock in netlist.inputs else -1
        self.nets = netlist.nets
        self.state_net: dict[int, int] = {}
        for index, cell in enumerate(self.cells):
            if cell.kind is not CellKind.GATE:
                self.state_net[index] = self.nets
                self.nets += 1
        self.load = np.zeros(self.nets)
        for instance, cell in zip(netlist.instances, self.cells, strict=True):
            for pin in cell.inputs:
                self.load[self.net(instance, pin)] += pin.capacitance_ff
        self.load[[ZERO, ONE]] = 0.0

    def net(self, instance: Instance, pin: Pin) -> int:
        if pin.name not in instance.pins:
            raise InputError(f"pin {pin.name} of cell {instance.cell} must be connected")
        return instance.pins[pin.name]

    def circuit(self) -> Circuit:
        variable_net, variable_start, gates, gate_start = [], [0], [], [0]
        tables: list[NDArray[np.bool_]] = []
        cell_table, cell_clock = [], []
        for index, (instance, cell) in enumerate(zip(self.netlist.instances, self.cells, strict=True)):
            variable_net += [self.net(instance, pin) for pin in cell.inputs]
            variable_net += [self.state_net[index]] if index in self.state_net else []
            variable_start.append(len(variable_net))
            cell_clock.append(instance.pins[cell.clock] if cell.clock else -1)
            cell_table.append(len(tables))
            if cell.next_state:
                tables.append(cell_function(cell, cell.next_state))
            for pin in cell.outputs:
                if pin.name not in instance.pins:
                    continue
                gates.append((index, pin, instance.pins[pin.name], len(tables)))
                function = cell.state[0] if cell.kind is CellKind.CLOCK_GATE else pin.function
                tables.append(cell_function(cell, function))
            gate_start.append(len(gates))
        offsets = np.cumsum([0, *(len(table) for table in tables)])
        order = self._order(gates)
        self._spread(gates, order)
        pin_base, pin_energy = self._pins()
        delays = [self._delays(gate) for gate in gates]
        sinks = self._sinks()
        net_energy = np.zeros((self.nets, 2))
        for gate in gates:
            net_energy[gate[2]] = self._internal(gate)
        return Circuit(
            nets=self.nets,
            input_nets=_ints(
                net for nets in self.netlist.inputs.values() for net in nets if net != self.clock and net > ONE
            ),
            output_nets=_ints(net for nets in self.netlist.outputs.values() for net in nets),
            clock=self.clock,
            kind=_ints(KINDS[cell.kind] for cell in self.cells),
            cell_clock=_ints(cell_clock),
            cell_table=_ints(offsets[row] for row in cell_table),
            variable_start=_ints(variable_start),
            variable_net=_ints(variable_net),
            pin_base=pin_base,
            gate_start=_ints(gate_start),
            gate_net=_ints(gate[2] for gate in gates),
            gate_table=_ints(offsets[gate[3]] for gate in gates),
            gate_delay=_ints(np.cumsum([0, *(len(delay) for delay in delays)])),
            sink_start=_ints(np.cumsum([0, *(len(of) for of in sinks)])),
            sink_cell=_ints(cell for of in sinks for cell, _ in of),
            sink_variable=_ints(variable for of in sinks for _, variable in of),
            order=_ints(order),
            table=np.concatenate([*tables, np.zeros(0, bool)]).astype(np.uint8),
            delay=_ints(value for delay in delays for value in delay),
            pin_energy=pin_energy,
            net_energy=net_energy,
            net_charge=0.5 * self.load * self.library.voltage_v**2,
            area_um2=sum(cell.area_um2 for cell in self.cells),
            leakage_nw=sum(cell.leakage_nw for cell in self.cells),
            flip_flops=sum(cell.kind is CellKind.FLIP_FLOP for cell in self.cells),
        )

    def _order(self, gates: list[_Gate]) -> list[int]:
        """Return the gates so that each stands after those that drive its cell's inputs."""
        driver: dict[int, int] = {}
        for number, (_, _, net, _) in enumerate(gates):
            if net in driver:
                raise InputError(f"net {net} of {self.netlist.name} must have one driver, not two")
            driver[net] = number
        waits, readers = [0] * len(gates), [[] for _ in gates]  # type: tuple[list[int], list[list[int]]]
        for number, (index, _, _, _) in enumerate(gates):
            if self.cells[index].kind is not CellKind.GATE:
                continue
            for pin in self.cells[index].inputs:
                source = driver.get(self.net(self.netlist.instances[index], pin))
                if source is not None:
                    waits[number] += 1
                    readers[source].append(number)
        ready = [number for number, count in enumerate(waits) if count == 0]
        for number in ready:
            for reader in readers[number]:
                waits[reader] -= 1
                if waits[reader] == 0:
                    ready.append(reader)
        if len(ready) != len(gates):
            raise InputError(f"{self.netlist.name} must have no loop of gates")
        return ready

    def _spread(self, gates: list[_Gate], order: list[int]) -> None:
        """Find every net's transition time: the mean of the driving cell's tables over related pins and edges."""
        self.slew = np.full(self.nets, self.slew_ps)
        for number in order:
            index, pin, net, _ = gates[number]
            found = [
                table.at(self._slew_at(index, arc), self.load[net])
                for arc in pin.timing
                for table in arc.transitions
                if table is not None
            ]
            self.slew[net] = np.mean(found) if found else self.slew_ps

    def _slew_at(self, index: int, arc: Arc) -> float:
        net = self.netlist.instances[index].pins.get(arc.related, -1)
        return float(self.slew[net]) if net >= 0 else self.slew_ps

    def _delays(self, gate: _Gate) -> list[int]:
        """Return the delay from each variable of the gate's cell, by edge: the mean of the arcs from that pin."""
        index, pin, net, _ = gate
        cell = self.cells[index]
        names = [of.name for of in cell.inputs] + ([cell.clock] if index in self.state_net else [])
        result = []
        for name in names:
            arcs = [arc for arc in pin.timing if name in arc.related.split()] or list(pin.timing)
            for edge in (RISE, FALL):
                found = [t.at(self._slew_at(index, arc), self.load[net]) for arc in arcs if (t := arc.tables[edge])]
                result.append(max(1, round(float(np.mean(found)))) if found else 1)
        return result

    def _internal(self, gate: _Gate) -> list[float]:
        """Return the internal energy of the gate's rise and fall, the mean over related pins and conditions."""
        index, pin, net, _ = gate

        def energy(arc: Arc, edge: int) -> float:
            table = arc.tables[edge]
            return table.at(self._slew_at(index, arc), self.load[net]) if table else 0.0

        return [mean_over_rails(pin.power, partial(energy, edge=edge)) for edge in (RISE, FALL)]

    def _pins(self) -> tuple[Ints, NDArray[np.float64]]:
        """Return each variable's base and all pin energies: a state's arcs, else those without a condition."""
        bases, blocks, at = [], [], 0
        for index, (instance, cell) in enumerate(zip(self.netlist.instances, self.cells, strict=True)):
            states = 2 ** (len(cell.inputs) + (index in self.state_net))
            for pin in cell.inputs:
                slew = float(self.slew[self.net(instance, pin)])
                bases.append(at)
                block = pin_energies(cell, pin, slew)
                blocks.append(block)
                at += block.size
            if index in self.state_net:
                bases.append(at)
                blocks.append(np.zeros(2 * states))
                at += 2 * states
        return _ints(bases), np.concatenate([*blocks, np.zeros(0)])

    def _sinks(self) -> list[list[tuple[int, int]]]:
        sinks: list[list[tuple[int, int]]] = [[] for _ in range(self.nets)]
        variable = 0
        for index, (instance, cell) in enumerate(zip(self.netlist.instances, self.cells, strict=True)):
            for pin in cell.inputs:
                sinks[self.net(instance, pin)].append((index, variable))
                variable += 1
            variable += index in self.state_net
        return sinks


_Gate = tuple[int, Pin, int, int]  # cell, output pin, net, row of its truth table


def _ints(values: Iterable[int | np.integer[Any]]) -> Ints:
    return np.array(list(values), np.int64)
