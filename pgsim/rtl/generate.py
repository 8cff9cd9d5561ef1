"""Write the RTL of an accelerator: parameters and a thin wrapper around the hand-written modules of pgsim/rtl/sv.

Accelerator + LaneWidths + Capacity + PostUnit --> accelerator_parameters.sv, accelerator.sv
pgsim/rtl/sv/*.sv                              --> copied as they are
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path

from pgsim.hw.accelerator import Accelerator, DepthwisePort, Organisation, OverflowMode
from pgsim.model.lanes import LaneWidths
from pgsim.rtl import post_wrapper
from pgsim.rtl.post_unit import PostUnit

ORGANISATIONS = {
    Organisation.DECOUPLED: "DECOUPLED",
    Organisation.DENSE: "DENSE",
    Organisation.TWO_PASS: "TWO_PASS",
    Organisation.GATED_FUSED: "GATED_FUSED",
}
OVERFLOWS = {
    OverflowMode.ERROR: "OVERFLOW_ERROR",
    OverflowMode.SATURATE: "OVERFLOW_SATURATE",
    OverflowMode.WRAP: "OVERFLOW_WRAP",
}


@dataclass(frozen=True)
class Capacity:
    """What the memories of a compiled machine hold. Depths are words of a bank, rows or entries.

    The hardware file's buffers say how many bits are on the chip; a simulated memory holds a whole layer and batch, so
    that what the off-chip channel carries can be loaded at once.
    """

    operand_bits: int = 17  # of a code, two's complement; 17 holds every code that a trace may have
    stored_bits: int = 17  # of a weight
    high_depth: int = 1024
    low_depth: int = 1024
    weight_depth: int = 1024
    segment_depth: int = 256
    channel_depth: int = 256
    pixel_depth: int = 256  # of a band, where K is split
    tile_depth: int = 1  # where an LSB array is cooperative

    def covers(self, other: Capacity) -> bool:
        """Whether a machine of this capacity holds all that one of `other` does."""
        return all(getattr(self, f.name) >= getattr(other, f.name) for f in fields(self))

    def rounded(self) -> Capacity:
        """The same with depths that are powers of two, so that machines of similar layers are one."""
        depths = {f.name: 1 << (getattr(self, f.name) - 1).bit_length() for f in fields(self) if "depth" in f.name}
        return replace(self, **depths)

    def joined(self, other: Capacity) -> Capacity:
        """The least capacity that holds what either holds."""
        return Capacity(**{f.name: max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})


def parameters(accelerator: Accelerator, widths: LaneWidths, capacity: Capacity) -> dict[str, int | str]:
    """Return the machine's parameters by name; a string is a name of pgsim_pkg."""
    array, update, memory = accelerator.array, accelerator.update, accelerator.memory
    streams = 2 if accelerator.organisation is Organisation.GATED_FUSED else 1
    low = memory.activation_lsb or memory.activation  # elsewhere one buffer holds both planes side by side
    sizes = {name.upper(): size for name, size in asdict(capacity).items()}
    if memory.activation_lsb is None:
        sizes["LOW_DEPTH"] = sizes["HIGH_DEPTH"] = max(capacity.high_depth, capacity.low_depth)
    return {
        "ORGANISATION": ORGANISATIONS[accelerator.organisation],
        "ROWS": array.rows,
        "COLUMNS": array.columns,
        "N": array.multipliers,
        "ACT_BITS": widths.msb,
        "LOW_ACT_BITS": widths.lsb or widths.msb,
        "WEIGHT_BITS": array.weight_bits,
        "PSUM_BITS": array.psum_bits,
        "OVERFLOW": OVERFLOWS[array.overflow],
        "GROUPS": update.groups if update else 1,
        "LANES": update.lanes if update else 1,
        "QUEUE_DEPTH": update.queue_depth if update else 1,
        "COOPERATIVE": int(accelerator.cooperative),
        "OWN_PORT": int(accelerator.depthwise is DepthwisePort.OWN_PORT),
        "HIGH_BANKS": memory.activation.banks,
        "HIGH_PORTS": memory.activation.ports,
        "LOW_BANKS": low.banks,
        "LOW_PORTS": low.ports,
        "WEIGHT_BANKS": min(memory.weight.banks, array.columns),
        "WEIGHT_PORTS": memory.weight.ports // streams,
        "ROW_STEPS": memory.weight.row_steps,
        "CHANNEL_BITS": memory.off_chip.width_bits,
        "CHANNEL_LATENCY": memory.off_chip.latency_cycles,
        **sizes,
    }


def parameter_package(values: dict[str, int | str], post: PostUnit | None) -> str:
    """Return the text of accelerator_parameters.sv."""
    lines = [f"  localparam int {name} = {value};" for name, value in values.items()]
    return "\n".join(
        [
            "// Parameters of the machine, written by `pgsim rtl` from a hardware file.",
            "package accelerator_parameters;",
            "  import pgsim_pkg::*;",
            "",
            *lines,
            "",
            *post_wrapper.post_parameters(post),
            "  // derived, as in machine.sv",
            "  localparam int G = ORGANISATION == DECOUPLED ? GROUPS : 1;",
            "  localparam int COLUMN_BITS = COLUMNS > 1 ? $clog2(COLUMNS) : 1;",
            "",
            "endpackage",
            "",
        ]
    )


def wrapper(name: str, values: dict[str, int | str], post: PostUnit | None) -> str:
    """Return the text of accelerator.sv: the machine's ports with the widths that the parameters give them, and what
    is behind its output ports."""
    text = source("machine.sv").split(") (\n", 1)[1]
    ports = text[: text.index("\n);\n")].replace("    // results\n", f"{post_wrapper.PORTS}    // results\n")
    passed = ", ".join(f".{key}({key})" for key in values)
    lines, line = [], "     "
    for item in passed.split(", "):
        if len(line) + len(item) > 114:
            lines.append(line)
            line = "     "
        line += f" {item},"
    lines.append(line.removesuffix(","))
    return "\n".join(
        [
            f"// {name}: the machine of machine.sv with the parameters of accelerator_parameters.sv,",
            "// and what follows its accumulators behind the output ports.",
            "module accelerator",
            "  import pgsim_pkg::*;",
            "  import accelerator_parameters::*;",
            "(",
            ports,
            ");",
            "",
            "  machine #(",
            *lines,
            "  ) core (.*);",
            "",
            post_wrapper.post_instance(post),
            "endmodule",
            "",
        ]
    )


def source(name: str) -> str:
    """Return the text of one hand-written file of pgsim/rtl/sv."""
    return files("pgsim.rtl").joinpath("sv", *name.split("/")).read_text(encoding="utf-8")


MODULES = (
    "pgsim_pkg.sv",
    "lane.sv",
    "lane_sum.sv",
    "fit.sv",
    "align.sv",
    "accumulator.sv",
    "gate.sv",
    "slice.sv",
    "array_slice.sv",
    "window.sv",
    "weight_row.sv",
    "walker.sv",
    "port_arbiter.sv",
    "plane.sv",
    "weight_memory.sv",
    "segment_table.sv",
    "threshold_table.sv",
    "cycle_table.sv",
    "partial_sums.sv",
    "off_chip.sv",
    "tile_pointer.sv",
    "pe.sv",
    "pe_array.sv",
    "shadow.sv",
    "queue_bank.sv",
    "scheduler.sv",
    "update_group.sv",
    "machine.sv",
)
"""The machine's sources, packages and leaves first."""

BENCH = ("testbench/testbench.sv", "testbench/harness.cpp", "testbench/main.cpp", "lint.vlt")


def sources(
    accelerator: Accelerator,
    widths: LaneWidths,
    capacity: Capacity,
    post: PostUnit | None = None,
    *,
    bench: bool = True,
) -> dict[str, str]:
    """Return every file of the machine by its name, in the order in which a tool must read the .sv files.

    `post` is the unit behind the output ports; without one results end there.
    """
    values = parameters(accelerator, widths, capacity)
    written = {name: source(name) for name in (*MODULES, *(post_wrapper.MODULES if post else ()))}
    written["accelerator_parameters.sv"] = parameter_package(values, post)
    written["accelerator.sv"] = wrapper(accelerator.name, values, post)
    if bench:
        written |= {name.removeprefix("testbench/"): source(name) for name in BENCH}
    return written


def write_sources(folder: Path, texts: dict[str, str]) -> None:
    """Write files into a folder that exists."""
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
