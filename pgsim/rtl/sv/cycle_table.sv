// The cycles that the PE array spends on each tile, which the mapper knows; a cooperative LSB array decides by them.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module cycle_table
  import pgsim_pkg::*;
#(
    parameter int DEPTH = 16
) (
    input  logic          clk,
    input  number_t       tile,
    output logic [31:0]   cycles,
    input  logic          write,
    input  number_t       write_tile,
    input  logic [31:0]   write_cycles
);

  localparam int DEPTH_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  logic [31:0] mem[DEPTH];
  assign cycles = mem[DEPTH_BITS'(tile)];
  always_ff @(posedge clk) if (write) mem[DEPTH_BITS'(write_tile)] <= write_cycles;

endmodule
