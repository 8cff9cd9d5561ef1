"""What an action costs: an energy table as a record, and the look-ups of the cost model. Knows no file.

Every look-up is a small pure function that returns a Price: value, unit, source, and whether it is assumed. Counts are
multiplied by prices once, by the cost model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from pgsim.errors import InputError
from pgsim.hw.curve import Curve, Price

GATE_LEVEL_PSUM_BITS = 24  # accumulator of the lanes that the gate-level factors were measured on


class Stimulus(Enum):
    """What a MAC lane sees: its energy depends on its data, and the parts of a lane do not sum."""

    DENSE = "dense"  # whole codes
    MSB = "msb"  # the MSB plane after ReLU: many zeros
    LSB = "lsb"  # the LSB plane: nearly uniform
    IDLE = "idle"  # operands held, registers clocked
    GATED = "gated"  # registers not clocked: clock_gating


class Action(Enum):
    """What the parts around the lanes do, priced by width in bits."""

    ADD = "add"
    MULTIPLY = "multiply"
    COMPARE = "compare"
    REGISTER_WRITE = "register_write"
    FIFO_PUSH = "fifo_push"
    FIFO_POP = "fifo_pop"
    SELECT = "select"  # a bit through a two-input multiplexer; a table may leave it to mux_pj


class Component(Enum):
    """Parts around the lanes that take area, by width in bits."""

    ADDER = "adder"
    MULTIPLIER = "multiplier"
    COMPARATOR = "comparator"
    REGISTER = "register"
    FIFO = "fifo"
    MULTIPLEXER = "multiplexer"  # of two inputs; a table may leave it to mux_area_um2


@dataclass(frozen=True)
class LaneFit:
    """Price of a lane of a x w bits that no row gives: product * a * w + mean * (a + w) / 2 + constant."""

    product: Price
    mean: Price
    constant: Price

    def at(self, act_bits: int, weight_bits: int) -> Price:
        """Return the fitted price, assumed."""
        value = (
            self.product.value * act_bits * weight_bits
            + self.mean.value * (act_bits + weight_bits) / 2
            + self.constant.value
        )
        total = self.product.plus(self.mean).plus(self.constant)
        note = f"{total.note}; fitted for {act_bits} x {weight_bits} bits"
        return Price(value, total.unit, total.source, True, note.removeprefix("; "))


@dataclass(frozen=True)
class EnergyTable:
    """Prices at one node and voltage. Build one with pgsim.io.energy.

    lane_energy and lane_area hold whole MAC lanes: multiplier, operand registers, accumulator (so an accumulator is
    not added to a lane's price again). sram_read and sram_write are pJ a bit by bank size.
    """

    name: str
    node_nm: int
    voltage_v: float
    lane_energy: Mapping[tuple[int, int, Stimulus], Price]
    lane_area: Mapping[tuple[int, int], Price]
    lane_energy_fit: LaneFit
    lane_area_fit: LaneFit
    logic_leakage: Price  # nW a um2
    actions: Mapping[Action, Curve]
    areas: Mapping[Component, Curve]
    sram_read: Curve
    sram_write: Curve
    sram_leakage: Curve  # mW
    sram_area: Curve  # um2
    dram: Mapping[str, Price]
    sha256: str = ""  # digest of the file

    def mac_energy_pj(self, act_bits: int, weight_bits: int, stimulus: Stimulus) -> Price:
        """Return what one cycle of a MAC lane costs. Widths in bits, > 0; raises ValueError for others.

        A width without a row: dense by the fit; msb and lsb as the nearest row's share of dense; idle and gated by the
        flip-flops, act_bits + weight_bits + 24.
        """
        _check_widths(act_bits, weight_bits)
        row = self.lane_energy.get((act_bits, weight_bits, stimulus))
        if row is not None:
            return row
        if stimulus is Stimulus.DENSE:
            return self.lane_energy_fit.at(act_bits, weight_bits)
        near = self._nearest(act_bits, weight_bits, stimulus)
        if stimulus in (Stimulus.IDLE, Stimulus.GATED):
            share = _flip_flops(act_bits, weight_bits) / _flip_flops(*near)
            note = f"{stimulus.value} lane of {near[0]} x {near[1]} bits, by flip-flops"
            return self.lane_energy[(*near, stimulus)].times(share, note, assumed=True)
        share = self.lane_energy[(*near, stimulus)].value / self.lane_energy[(*near, Stimulus.DENSE)].value
        note = f"{stimulus.value} share of the {near[0]} x {near[1]}-bit lane"
        return self.mac_energy_pj(act_bits, weight_bits, Stimulus.DENSE).times(share, note, assumed=True)

    def _nearest(self, act_bits: int, weight_bits: int, stimulus: Stimulus) -> tuple[int, int]:
        rows = [(a, w) for a, w, kind in self.lane_energy if kind is stimulus]
        return min(rows, key=lambda row: (abs(row[1] - weight_bits), abs(row[0] - act_bits), row))

    def lane_area_um2(self, act_bits: int, weight_bits: int) -> Price:
        """Return the area of a whole MAC lane; widths as in mac_energy_pj."""
        _check_widths(act_bits, weight_bits)
        row = self.lane_area.get((act_bits, weight_bits))
        return row if row is not None else self.lane_area_fit.at(act_bits, weight_bits)

    def action_pj(self, action: Action | str, bits: int) -> Price:
        """Return what one action on a word of `bits` costs. Raises InputError for an unknown action."""
        wanted = _member(Action, action, "action")
        return self.mux_pj().times(bits) if wanted not in self.actions else self.actions[wanted].at(bits)

    def area_um2(self, component: Component | str, bits: int) -> Price:
        """Return the area of a component of `bits`. Raises InputError for an unknown component."""
        wanted = _member(Component, component, "component")
        return self.mux_area_um2().times(bits) if wanted not in self.areas else self.areas[wanted].at(bits)

    def accumulator_area_um2(self, psum_bits: int) -> Price:
        """Return the area of an accumulator outside the lanes: an adder and a register of psum_bits."""
        return self.area_um2(Component.ADDER, psum_bits).plus(self.area_um2(Component.REGISTER, psum_bits))

    def queue_area_um2(self, entry_bits: int, depth: int) -> Price:
        """Return the area of a FIFO of `depth` entries."""
        return self.area_um2(Component.FIFO, entry_bits * depth)

    def mux_area_um2(self) -> Price:
        """Return the area of a two-input multiplexer of one bit.

        Without a row it is assumed: what a bit of a FIFO takes beside its register, as the read multiplexer of a FIFO
        has one of these a bit stored; the register's area where the table's FIFO takes no more than that.
        """
        if Component.MULTIPLEXER in self.areas:
            return self.area_um2(Component.MULTIPLEXER, 1)
        fifo, register = self.area_um2(Component.FIFO, 1), self.area_um2(Component.REGISTER, 1)
        more = fifo.value - register.value
        value, what = (more, "a FIFO's bit less its register") if more > 0 else (register.value, "a register's bit")
        return replace(fifo.plus(register).times(1, f"multiplexer of two inputs: {what}", assumed=True), value=value)

    def mux_pj(self) -> Price:
        """Return what one bit through a two-input multiplexer costs.

        Without a row it is assumed: a bit of a FIFO's pop, which passes all levels of its read multiplexer; so that is
        an upper bound.
        """
        if Action.SELECT in self.actions:
            return self.action_pj(Action.SELECT, 1)
        pop = self.action_pj(Action.FIFO_POP, 1)
        return pop.times(1, "multiplexer of two inputs: a bit of a FIFO's pop", assumed=True)

    def sram_read_pj_per_bit(self, bank_bits: int) -> Price:
        """Return the energy of reading a bit from a bank of `bank_bits`; beyond the table that of its largest bank."""
        return self.sram_read.at(bank_bits)

    def sram_write_pj_per_bit(self, bank_bits: int) -> Price:
        """Return the energy of writing a bit, as sram_read_pj_per_bit."""
        return self.sram_write.at(bank_bits)

    def sram_leakage_mw(self, bank_bits: int) -> Price:
        """Return the leakage of one bank; beyond the table it is composed of the table's largest bank."""
        return _composed(self.sram_leakage, bank_bits)

    def sram_area_um2(self, bank_bits: int) -> Price:
        """Return the area of one bank, composed as in sram_leakage_mw."""
        return _composed(self.sram_area, bank_bits)

    def dram_pj_per_bit(self, kind: str) -> Price:
        """Return the energy of a bit to or from DRAM. Raises InputError for an unknown kind."""
        if kind not in self.dram:
            known = ", ".join(sorted(self.dram))
            must = f"memory.off_chip.kind must be a DRAM kind of energy table {self.name} ({known})"
            raise InputError(f"{must}, not {kind!r}")
        return self.dram[kind]

    def logic_leakage_mw(self, area_um2: float) -> Price:
        """Return the leakage of logic of `area_um2`, lanes and all else but SRAM."""
        return self.logic_leakage.times(area_um2 * 1e-6, unit="mW")  # 1 nW = 1e-6 mW


def _composed(curve: Curve, bank_bits: int) -> Price:
    largest, price = curve.points[-1]
    if bank_bits <= largest:
        return curve.at(bank_bits)
    whole, rest = divmod(bank_bits, largest)
    note = f"composed of banks of {largest} bit"
    total = price.times(whole, note, assumed=True)
    return total.plus(curve.at(rest).times(1, note, assumed=True)) if rest else total


def _flip_flops(act_bits: int, weight_bits: int) -> int:
    return act_bits + weight_bits + GATE_LEVEL_PSUM_BITS


def _check_widths(act_bits: int, weight_bits: int) -> None:
    if act_bits <= 0 or weight_bits <= 0:
        raise ValueError(f"operand widths must be above 0 bits, not {act_bits} x {weight_bits}")


_E = TypeVar("_E", bound=Enum)


def _member(members: type[_E], value: _E | str, noun: str) -> _E:
    names = [member.value for member in members]
    name = value.value if isinstance(value, Enum) else value
    if name not in names:
        raise InputError(f"the {noun} must be one of {', '.join(names)}, not {name!r}")
    return members(name)
