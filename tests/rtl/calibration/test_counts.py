"""Toggles of small netlists, counted by hand; energies of those counts, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pgsim.errors import InputError
from pgsim.rtl.calibration.circuit import build_circuit
from pgsim.rtl.calibration.library import Library
from pgsim.rtl.calibration.measure import energy, run_unit
from pgsim.rtl.calibration.netlist import Instance, Netlist

LIBRARY = Library([Path(__file__).parent / "tiny.lib"])
PERIOD = 200


def words(text: str) -> np.ndarray:
    return np.array([int(digit) for digit in text], np.int64)


def xor_with_inverse(kind: str) -> Netlist:
    """y = a ^ !a, which settles at 1: net 2 is a, 3 is !a, 4 is y."""
    gates = (Instance("INV", {"A": 2, "Y": 3}), Instance(kind, {"A": 2, "B": 3, "Y": 4}))
    return Netlist("pulse", {"a": (2,)}, {"y": (4,)}, gates, 5)


def test_a_pulse_longer_than_the_gates_delay_is_counted_as_a_glitch() -> None:
    netlist = xor_with_inverse("XOR_FAST")  # 5 ps, the inverter 10
    activity, outputs = run_unit(netlist, build_circuit(netlist, LIBRARY), {"a": words("0110")}, PERIOD)
    assert outputs["y"].tolist() == [1, 1, 1, 1]
    assert activity.net[2].tolist() == [1, 1]  # a: one rise, one fall
    assert activity.net[3].tolist() == [1, 1]
    assert activity.net[4].tolist() == [2, 2]  # y: down and up again at each change of a
    assert activity.settled[4].tolist() == [0, 0]
    assert activity.latest_ps == 15


def test_a_pulse_shorter_than_the_gates_delay_does_not_leave_it() -> None:
    netlist = xor_with_inverse("XOR_SLOW")  # 20 ps
    activity, outputs = run_unit(netlist, build_circuit(netlist, LIBRARY), {"a": words("0110")}, PERIOD)
    assert outputs["y"].tolist() == [1, 1, 1, 1]
    assert activity.net[4].tolist() == [0, 0]
    assert activity.settled[[2, 3]].tolist() == [[1, 1], [1, 1]]


def test_the_energy_of_gates_is_that_worked_out_by_hand() -> None:
    netlist = xor_with_inverse("XOR_FAST")
    circuit = build_circuit(netlist, LIBRARY)
    activity, _ = run_unit(netlist, circuit, {"a": words("0110")}, PERIOD)
    cost = energy(circuit, activity)
    # Half C V^2 at 2 V is 2 fJ a fF: a drives 1 + 2 fF, !a drives 2 fF, y nothing; two transitions each.
    assert cost.switching_fj * 4 == pytest.approx(2 * 2 * 3 + 2 * 2 * 2)
    # INV 3 + 5. XOR: a rail's mean, then the rails'. Rise (8 + 6) / 2, fall (10 + 12) / 2, two of each.
    assert cost.output_fj * 4 == pytest.approx(3 + 5 + 2 * 7 + 2 * 11)
    # XOR's B: falls with a = 1 to a state of y = 1, rises with a = 0 to y = 1: neither is A * !Y.
    assert cost.input_fj * 4 == pytest.approx(2 * 0.5)
    assert (circuit.area_um2, circuit.leakage_nw) == (4.5, pytest.approx(9e-3))
    assert (cost.transitions, cost.settled_transitions) == (8 / 4, 4 / 4)


def test_an_input_pins_energy_is_that_of_its_cells_state() -> None:
    netlist = Netlist("gate", {"a": (2,), "b": (3,)}, {"y": (4,)}, (Instance("XOR_FAST", {"A": 2, "B": 3, "Y": 4}),), 5)
    circuit = build_circuit(netlist, LIBRARY)
    values = {"a": words("1111"), "b": words("0101")}
    activity, _ = run_unit(netlist, circuit, values, PERIOD, np.array([False, True, True, True]))
    # b rises to a state of a = 1, y = 0 twice (0.25), falls once to y = 1 (0.5).
    assert energy(circuit, activity).input_fj * 3 == pytest.approx(0.25 + 0.5 + 0.25)


def test_cycles_that_are_not_counted_cost_nothing() -> None:
    netlist = xor_with_inverse("XOR_FAST")
    circuit = build_circuit(netlist, LIBRARY)
    counted = np.array([False, True, False, False])
    activity, _ = run_unit(netlist, circuit, {"a": words("0110")}, PERIOD, counted)
    assert activity.cycles == 1
    assert activity.net[2].tolist() == [1, 0]
    assert activity.pin.sum() == 3  # a at INV and XOR, !a at XOR


def register(gated: bool) -> Netlist:
    """One flip-flop: net 2 is clk, 3 d, 4 !q; 5 enable and 6 the gated clock."""
    cells = [Instance("DFF", {"CLK": 6 if gated else 2, "D": 3, "QN": 4})]
    inputs = {"clk": (2,), "d": (3,)}
    if gated:
        cells.append(Instance("GATE_CLOCK", {"CLK": 2, "E": 5, "GCLK": 6}))
        inputs["enable"] = (5,)
    return Netlist("register", inputs, {"qn": (4,)}, tuple(cells), 7 if gated else 5)


def test_a_flip_flop_takes_what_stood_before_the_rise() -> None:
    netlist = register(gated=False)
    activity, outputs = run_unit(netlist, build_circuit(netlist, LIBRARY), {"d": words("0110")}, PERIOD)
    assert outputs["qn"].tolist() == [1, 1, 0, 0]  # d of the cycle before, inverted
    assert activity.net[2].tolist() == [4, 4]  # the clock
    assert activity.net[4].tolist() == [0, 1]
    assert activity.latest_ps == 30


def test_the_energy_of_a_flip_flop_is_that_worked_out_by_hand() -> None:
    netlist = register(gated=False)
    circuit = build_circuit(netlist, LIBRARY, slew_ps=0.0)
    activity, _ = run_unit(netlist, circuit, {"d": words("0110")}, PERIOD)
    cost = energy(circuit, activity)
    assert cost.switching_fj * 4 == pytest.approx(2 * (8 * 0.5 + 2 * 1))  # clock pin and d
    assert cost.output_fj * 4 == pytest.approx(9)  # QN falls once
    # Clock: 4 falls of 6; rises of 4, but 0 where the output is about to change. d: twice at the high clock.
    assert cost.input_fj * 4 == pytest.approx(4 * 6 + 3 * 4 + 2 * 1)


def test_a_gated_clock_rises_only_where_it_was_enabled() -> None:
    netlist = register(gated=True)
    circuit = build_circuit(netlist, LIBRARY)
    values = {"d": words("010101"), "enable": words("010010")}
    activity, outputs = run_unit(netlist, circuit, values, PERIOD)
    # Enabled in cycles 1 and 4: the rises of 2 and 5 take d of 1 (1) and of 4 (0).
    assert outputs["qn"].tolist() == [1, 1, 0, 0, 0, 1]
    assert activity.net[6].tolist() == [2, 2]
    assert activity.net[2].tolist() == [6, 6]


def test_a_clock_gate_that_is_shut_costs_its_own_clock_pin() -> None:
    netlist = register(gated=True)
    circuit = build_circuit(netlist, LIBRARY)
    activity, _ = run_unit(netlist, circuit, {"d": words("0000"), "enable": words("0000")}, PERIOD)
    cost = energy(circuit, activity)
    assert (cost.switching_fj, cost.output_fj) == (2 * 2 * 1, 0)  # 1 fF, two edges a cycle
    assert cost.input_fj == 2 * 0.75


def test_a_circuit_that_does_not_settle_in_its_period_is_refused() -> None:
    netlist = xor_with_inverse("XOR_FAST")
    with pytest.raises(InputError, match=r"^the circuit must settle within the period of 12 ps, not in 15 ps$"):
        run_unit(netlist, build_circuit(netlist, LIBRARY), {"a": words("01")}, 12)


def test_netlists_that_are_none_are_refused() -> None:
    loop = Netlist("loop", {"a": (2,)}, {}, (Instance("INV", {"A": 3, "Y": 3}),), 4)
    with pytest.raises(InputError, match=r"^loop must have no loop of gates$"):
        build_circuit(loop, LIBRARY)
    twice = Netlist("twice", {"a": (2,)}, {}, (Instance("INV", {"A": 2, "Y": 3}), Instance("INV", {"A": 2, "Y": 3})), 4)
    with pytest.raises(InputError, match=r"^net 3 of twice must have one driver, not two$"):
        build_circuit(twice, LIBRARY)
    open_pin = Netlist("open", {"a": (2,)}, {}, (Instance("INV", {"Y": 3}),), 4)
    with pytest.raises(InputError, match=r"^pin A of cell INV must be connected$"):
        build_circuit(open_pin, LIBRARY)
    netlist = xor_with_inverse("XOR_FAST")
    with pytest.raises(InputError, match=r"^input port a of pulse must have values$"):
        run_unit(netlist, build_circuit(netlist, LIBRARY), {"b": words("01")}, PERIOD)
