"""Prices, multiplied once and last: energy of counted actions, leakage over time, area of the machine."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce

from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.hw.curve import Price
from pgsim.hw.prices import Action as PricedAction
from pgsim.hw.prices import Component, EnergyTable
from pgsim.model.crossbar import COMPONENT as CROSSBAR
from pgsim.model.crossbar import crossbar
from pgsim.model.entry import entry_bits
from pgsim.model.lanes import LaneWidths
from pgsim.model.post_unit import COMPONENT as POST
from pgsim.model.post_unit import PostUnit, default_post_unit
from pgsim.results.actions import Action, ActionKind, Actions
from pgsim.results.layer import Energy

_WORD_ACTIONS = {
    ActionKind.ADD: PricedAction.ADD,
    ActionKind.MULTIPLY: PricedAction.MULTIPLY,
    ActionKind.COMPARE: PricedAction.COMPARE,
    ActionKind.REGISTER_WRITE: PricedAction.REGISTER_WRITE,
    ActionKind.FIFO_PUSH: PricedAction.FIFO_PUSH,
    ActionKind.FIFO_POP: PricedAction.FIFO_POP,
}


def price_of(action: Action, accelerator: Accelerator, table: EnergyTable) -> Price:
    """Return the price of one action, pJ."""
    if action.kind is ActionKind.MAC:
        assert action.stimulus is not None
        return table.mac_energy_pj(action.bits, action.other_bits, action.stimulus)
    if action.kind in (ActionKind.DRAM_READ, ActionKind.DRAM_WRITE):
        return table.dram_pj_per_bit(accelerator.memory.off_chip.kind)
    if action.kind is ActionKind.SELECT:
        return table.mux_pj()
    if action.kind is ActionKind.SRAM_READ:
        return table.sram_read_pj_per_bit(accelerator.memory.buffers[action.component].bank_bits)
    if action.kind is ActionKind.SRAM_WRITE:
        buffer = accelerator.memory.buffers[action.component]
        return table.sram_write_pj_per_bit(buffer.bank_bits).times(buffer.ports)  # into every copy
    return table.action_pj(_WORD_ACTIONS[action.kind], action.bits)


def area(accelerator: Accelerator, widths: LaneWidths, table: EnergyTable) -> dict[str, Price]:
    """Return the area of the machine by component, um2: lanes, accumulator and shadow registers, queue, comparators,
    multiplexers, post-processing, SRAMs.

    A lane's price holds an accumulator of its own, so a PE of N lanes is priced with N of them (the table has whole
    lanes only): this overstates machines of many narrow lanes the most. Without control and wiring.
    """
    array, org = accelerator.array, accelerator.organisation
    pes = array.rows * array.columns
    lanes = pes * array.multipliers
    parts: dict[str, Price] = {}
    if org is Organisation.GATED_FUSED:
        parts["array"] = table.lane_area_um2(widths.msb, array.weight_bits).times(lanes)
        parts["update_array"] = table.lane_area_um2(widths.lsb, array.weight_bits).times(lanes)
    else:
        parts["array"] = table.lane_area_um2(widths.msb, array.weight_bits).times(lanes)
    shadows = pes * (2 if org is Organisation.GATED_FUSED else 1)
    parts["shadow"] = table.area_um2(Component.REGISTER, array.psum_bits).times(shadows)
    if org is not Organisation.DENSE:
        comparators = array.columns if org is Organisation.DECOUPLED else pes
        thresholds = table.area_um2(Component.REGISTER, 2 * (array.psum_bits + 1)).times(array.columns)  # two buffers
        parts["comparator"] = table.area_um2(Component.COMPARATOR, array.psum_bits).times(comparators).plus(thresholds)
    if accelerator.update is not None:
        update = accelerator.update
        update_lanes = update.groups * update.lanes * array.multipliers
        parts["update_array"] = table.lane_area_um2(widths.lsb, array.weight_bits).times(update_lanes)
        fifo = table.queue_area_um2(entry_bits(array.psum_bits), update.queue_depth)
        parts["queue"] = fifo.times(array.columns)
    if accelerator.memory.weight.row_steps > 1:
        readers = array.columns + (accelerator.update.groups if accelerator.update else 0)
        kept = (accelerator.memory.weight.row_steps - 1) * array.multipliers * readers
        parts["weight_register"] = table.area_um2(Component.REGISTER, array.weight_bits).times(kept)
    selectors = sum(mux.selectors for mux in crossbar(accelerator, widths).values())
    if selectors:
        parts[CROSSBAR] = table.mux_area_um2().times(selectors)
    parts[POST] = _post_area(widths.post or default_post_unit(array.psum_bits), array.columns, table)
    for name, buffer in accelerator.memory.buffers.items():
        parts[name] = table.sram_area_um2(buffer.bank_bits).times(buffer.arrays)
    return parts


def _post_area(unit: PostUnit, columns: int, table: EnergyTable) -> Price:
    """Return the area of a unit at each of `columns` output ports and of the registers for its parameters."""
    parts = [(Component.MULTIPLIER, bits, columns) for bits in unit.multipliers]
    parts += [(Component.ADDER, bits, columns) for bits in unit.adders]
    parts += [(Component.COMPARATOR, bits, columns) for bits in unit.comparators]
    parts += [(Component.REGISTER, 2 * unit.channel_bits, columns), (Component.REGISTER, unit.shared_bits, 1)]
    prices = [table.area_um2(component, bits).times(count) for component, bits, count in parts if bits]
    return reduce(Price.plus, prices).times(1, "as many and as wide as what follows the layers needs", assumed=True)


def energy(
    actions: Actions, cycles: int, accelerator: Accelerator, table: EnergyTable, areas: dict[str, Price]
) -> Energy:
    """Return counts x prices + leakage x time, pJ, by component."""
    dynamic: dict[str, float] = defaultdict(float)
    leakage: dict[str, float] = {}
    assumed = set()
    for action, count in actions.counts.items():
        if not count:
            continue
        price = price_of(action, accelerator, table)
        dynamic[action.component] += count * price.value
        if price.assumed:
            assumed.add(action.component)
    nanoseconds = cycles * 1e3 / accelerator.clock_mhz
    buffers = accelerator.memory.buffers
    for name, part in areas.items():
        if name in buffers:
            power = table.sram_leakage_mw(buffers[name].bank_bits).times(buffers[name].arrays)
        else:
            power = table.logic_leakage_mw(part.value)
        leakage[name] = power.value * nanoseconds  # 1 mW x 1 ns = 1 pJ
        if power.assumed or part.assumed:
            assumed.add(f"{name} leakage")
    return Energy(dict(dynamic), leakage, frozenset(assumed))
