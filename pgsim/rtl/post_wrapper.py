"""The post-processing unit behind a machine's output ports: what generated text of accelerator.sv says of it.

machine.port_valid, port_segment, port_place, port_value --a column each--> post_unit.in_valid, in_segment, in_row, ...
"""

from __future__ import annotations

from pgsim.rtl.post_unit import Kind, PostUnit

MODULES = (
    "post_package.sv",
    "post_table.sv",
    "post_memory.sv",
    "post_queue.sv",
    "post_split.sv",
    "post_search.sv",
    "post_pool.sv",
    "post_segments.sv",
    "post_stage.sv",
    "post_port.sv",
    "post_unit.sv",
)
"""The unit's sources, the package and leaves first."""

OF_MACHINE = ("COLUMNS", "PSUM_BITS")
"""The unit's parameters that the machine has already."""

PORTS = """\
    // post-processing unit: its host writes while the machine is held in reset, and reads while the unit is idle
    input  logic                                  post_reset,
    input  logic                                  host_write,
    input  logic    [3:0]                         host_select,    // select_t of post_package
    input  logic    [7:0]                         host_stage,
    input  logic    [15:0]                        host_port,
    input  logic    [31:0]                        host_address,
    input  logic signed [63:0]                    host_data,
    output logic signed [63:0]                    host_read,
    output logic    [31:0]                        shortcuts_written,
    output logic    [31:0]                        codes_written,
    output logic    [31:0]                        logits_written,
    output logic                                  post_idle,
    output logic                                  post_fault,
"""

NO_UNIT = """\
  // no post-processing unit: results leave at the output ports, and nothing is behind them
  assign host_read = '0;
  assign {shortcuts_written, codes_written, logits_written, post_fault} = '0;
  assign post_idle = 1'b1;
"""

UNIT = """\
  logic post_valid[COLUMNS];
  logic [post_package::index_bits(POST_SEGMENTS)-1:0] post_segment[COLUMNS];
  logic [POST_MAP_BITS-1:0] post_row[COLUMNS];
  logic [POST_MAP_BITS-1:0] post_column[COLUMNS];
  logic signed [PSUM_BITS-1:0] post_value[COLUMNS];

  for (genvar c = 0; c < COLUMNS; c++) begin : behind
    assign post_valid[c] = port_valid[c];
    assign post_segment[c] = $bits(post_segment[c])'(port_segment[c]);
    assign post_row[c] = POST_MAP_BITS'(port_place[c].y);
    assign post_column[c] = POST_MAP_BITS'(port_place[c].x);
    assign post_value[c] = port_value[c];
  end

  post_unit #(
{parameters}
  ) post (
      .clk, .reset(post_reset), .host_write, .host_select, .host_stage, .host_port, .host_address, .host_data,
      .host_read, .in_valid(post_valid), .in_segment(post_segment), .in_row(post_row), .in_column(post_column),
      .in_value(post_value), .shortcuts_written, .codes_written, .logits_written, .idle(post_idle), .fault(post_fault)
  );
"""


def post_parameters(unit: PostUnit | None) -> list[str]:
    """Return the lines of accelerator_parameters.sv that give the unit's sizes."""
    if unit is None:
        return []
    kinds = {"UNITS": f"logic [{8 * len(unit.stages) - 1}:0]"}
    sizes = {name: value for name, value in unit.parameters().items() if name not in OF_MACHINE}
    lines = [f"  localparam {kinds.get(name, 'int')} POST_{name} = {value};" for name, value in sizes.items()]
    return ["  // the post-processing unit's", *lines, ""]


def post_instance(unit: PostUnit | None) -> str:
    """Return what accelerator.sv says behind the machine."""
    if unit is None:
        return NO_UNIT
    passed = [f"      .{name}({name if name in OF_MACHINE else f'POST_{name}'})" for name in unit.parameters()]
    return UNIT.format(parameters=",\n".join(passed))


def general_unit(columns: int, psum_bits: int) -> PostUnit:
    """Return a unit for no network in particular: every step once, in the order of residual networks."""
    kinds = (Kind.FIXED_POINT, Kind.ADD, Kind.CLAMP, Kind.SAVE, Kind.POOL, Kind.REQUANTISE, Kind.LOGITS)
    stages = tuple(frozenset({kind}) for kind in kinds)
    return PostUnit(columns, stages, psum_bits=psum_bits, value_bits=max(40, psum_bits + 8))
