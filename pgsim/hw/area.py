"""Lane widths of an accelerator for given trace bits, its multiplier bits, and the area of its parts."""

from __future__ import annotations

from dataclasses import dataclass

from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.hw.curve import Price
from pgsim.hw.prices import Component, EnergyTable

QUEUE_PIXEL_BITS = 16  # of a queue entry beside A_h: the pixel's index; assumed


@dataclass(frozen=True)
class LaneBits:
    """Activation operand widths of the PE array and of the LSB side (0 where there is none)."""

    array: int
    update: int


def lane_bits(accelerator: Accelerator, act_bits: int, pred_bits: int) -> LaneBits:
    """Return the widths where `trace` means B = act_bits and h = pred_bits; a width that the file fixes stays.

    gated_fused gives h bits to `array` and l = B - h to `update`, side by side in each lane.
    """
    update_bits = act_bits - pred_bits
    fixed = accelerator.array.act_bits
    if accelerator.organisation is Organisation.DECOUPLED:
        assert accelerator.update is not None
        return LaneBits(fixed or pred_bits, accelerator.update.act_bits or update_bits)
    if accelerator.organisation is Organisation.GATED_FUSED:
        total = fixed or act_bits
        lsb = min(update_bits, total - 1)
        return LaneBits(total - lsb, lsb)
    if accelerator.organisation is Organisation.TWO_PASS:
        return LaneBits(fixed or max(pred_bits, update_bits), 0)
    return LaneBits(fixed or act_bits, 0)


def update_lanes(accelerator: Accelerator) -> int:
    """Return the multipliers of the LSB array; gated_fused counts its LSB parts, the others but decoupled have none."""
    if accelerator.update is not None:
        return accelerator.update.groups * accelerator.update.lanes * accelerator.array.multipliers
    return accelerator.array.lanes if accelerator.organisation is Organisation.GATED_FUSED else 0


def multiplier_bits(accelerator: Accelerator, bits: LaneBits) -> int:
    """Return the sum of lanes x act_bits x weight_bits: what "equal multiplier bits" compares."""
    msb = accelerator.array.lanes * bits.array
    lsb = update_lanes(accelerator) * bits.update
    return (msb + lsb) * accelerator.array.weight_bits


def part_areas_um2(accelerator: Accelerator, bits: LaneBits, table: EnergyTable) -> dict[str, Price]:
    """Return the area of every part in um2; their sum is the accelerator's.

    Lanes are whole MAC lanes, accumulator included, so a PE of N lanes carries N accumulators: an upper bound for one
    whose lanes share an adder tree. Post-processing, control and wiring are not here.
    """
    array, update, memory = accelerator.array, accelerator.update, accelerator.memory
    outputs = array.rows * array.columns
    parts = {
        "PE array": table.lane_area_um2(bits.array, array.weight_bits).times(array.lanes),
        "shadow registers": table.area_um2(Component.REGISTER, array.psum_bits).times(outputs),
    }
    if bits.update:
        lsb = table.lane_area_um2(bits.update, array.weight_bits)
        parts["LSB array" if update else "LSB parts"] = lsb.times(update_lanes(accelerator))
    if accelerator.organisation is not Organisation.DENSE:
        compared = outputs if accelerator.organisation is Organisation.TWO_PASS else array.columns
        parts["comparators"] = table.area_um2(Component.COMPARATOR, array.psum_bits).times(compared)
        thresholds = table.area_um2(Component.REGISTER, 2 * (array.psum_bits + 1))  # double buffered
        parts["threshold registers"] = thresholds.times(array.columns)
    if update is not None:
        queue = table.queue_area_um2(array.psum_bits + QUEUE_PIXEL_BITS, update.queue_depth)
        parts["update queue"] = queue.times(array.columns)
    for name, buffer in memory.buffers.items():
        parts[f"{name} SRAM"] = table.sram_area_um2(buffer.bank_bits).times(buffer.banks)
    return parts
