"""What one unit costs under one stimulus: counts times the library's energies, multiplied once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.rtl.calibration.circuit import Circuit
from pgsim.rtl.calibration.netlist import ONE, Netlist
from pgsim.rtl.calibration.simulate import Activity, simulate


@dataclass(frozen=True)
class Energy:
    """fJ a counted cycle: pin capacitances charged, and what cells take inside at their outputs and inputs.

    `transitions` and `settled_transitions` a cycle: what lies between them is glitches.
    """

    switching_fj: float
    output_fj: float
    input_fj: float
    transitions: float
    settled_transitions: float
    latest_ps: int

    @property
    def total_fj(self) -> float:
        """All of it."""
        return self.switching_fj + self.output_fj + self.input_fj


def energy(circuit: Circuit, activity: Activity) -> Energy:
    """Return the energy a cycle of what was counted."""
    cycles = activity.cycles
    return Energy(
        switching_fj=float((activity.net.sum(1) * circuit.net_charge).sum()) / cycles,
        output_fj=float((activity.net * circuit.net_energy).sum()) / cycles,
        input_fj=float((activity.pin * circuit.pin_energy).sum()) / cycles,
        transitions=int(activity.net.sum()) / cycles,
        settled_transitions=int(activity.settled.sum()) / cycles,
        latest_ps=activity.latest_ps,
    )


def run_unit(
    netlist: Netlist,
    circuit: Circuit,
    values: Mapping[str, NDArray[np.int64]],
    period_ps: int,
    counted: NDArray[np.bool_] | None = None,
) -> tuple[Activity, dict[str, NDArray[np.int64]]]:
    """Return the activity, and every output port's settled values, for input ports' values [cycles].

    Negative values are two's complement at the port's width. Raises InputError for a port without values.
    """
    cycles = len(next(iter(values.values())))
    columns = []
    for port, nets in netlist.inputs.items():
        for bit, net in enumerate(nets):
            if net == circuit.clock or net <= ONE:
                continue
            if port not in values:
                raise InputError(f"input port {port} of {netlist.name} must have values")
            columns.append((values[port] >> bit & 1).astype(np.uint8))
    inputs = np.stack(columns, axis=1)
    every = np.ones(cycles, bool)
    activity = simulate(circuit, np.ascontiguousarray(inputs), every if counted is None else counted, period_ps)
    outputs, at = {}, 0
    for port, nets in netlist.outputs.items():
        bits = activity.outputs[:, at : at + len(nets)].astype(np.int64)
        outputs[port] = (bits << np.arange(len(nets))).sum(1)
        at += len(nets)
    return activity, outputs
