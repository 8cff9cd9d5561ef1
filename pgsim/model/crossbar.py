"""Multiplexers between banks, lanes, queues and ports: whoever takes a word from any of several places.

    banks of a plane --pixels--> PE array     FIFOs --entries--> groups --results--> one a group --ports--> port
    banks of a plane --lanes---> LSB array    weight banks --weights--> groups

Each is a tree of two-input multiplexers: inputs - 1 of them for each bit that comes out, of which a bit passes
log2(inputs). Weights of the PE array come from a bank of each column's own and pass none.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.model.entry import entry_bits
from pgsim.model.lanes import LaneWidths

COMPONENT = "crossbar"


@dataclass(frozen=True)
class Mux:
    """`ports` trees side by side, each taking one of `inputs` words of `bits` bits."""

    ports: int
    bits: int
    inputs: int

    @property
    def selectors(self) -> int:
        """Two-input multiplexers of one bit."""
        return self.ports * self.bits * (self.inputs - 1)

    @property
    def levels(self) -> int:
        """Two-input multiplexers that a bit passes."""
        return (self.inputs - 1).bit_length()


def crossbar(accelerator: Accelerator, widths: LaneWidths) -> dict[str, Mux]:
    """Return the machine's multiplexers by what they carry.

    A copy of a bank for a second port counts as an input of its own; words are as wide as lanes take them.
    """
    array, memory, update, n = accelerator.array, accelerator.memory, accelerator.update, accelerator.array.multipliers
    high = memory.activation.arrays
    muxes = {"pixels": Mux(array.rows, n * widths.msb, high)}
    if accelerator.organisation is Organisation.GATED_FUSED:
        muxes["pixels_lsb"] = Mux(array.rows, n * widths.lsb, high)
    if update is not None and memory.activation_lsb is not None:
        low, lanes = memory.activation_lsb.arrays, update.groups * update.lanes
        row_bits = n * array.weight_bits * memory.weight.row_steps
        muxes |= {
            "pixels_lsb": Mux(array.rows, n * widths.lsb, low),  # of layers without a gate
            "lanes_lsb": Mux(lanes, n * widths.lsb, low),
            "weights": Mux(update.groups, row_bits, min(memory.weight.banks, array.columns) * memory.weight.ports),
            "entries": Mux(lanes, entry_bits(array.psum_bits), array.columns),
            "results": Mux(update.groups, array.psum_bits, update.lanes),
            "ports": Mux(array.columns, array.psum_bits, update.groups + 1),  # a group's result, or the drain's
        }
        if accelerator.cooperative:
            muxes["lanes_msb"] = Mux(lanes, n * widths.msb, high)
    return muxes
