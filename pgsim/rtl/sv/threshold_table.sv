// The thresholds of a layer, read for a whole channel tile at once. A threshold has one bit more than an accumulator, so
// that one can lie below or above all sums.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module threshold_table
  import pgsim_pkg::*;
#(
    parameter int COLUMNS = 2,
    parameter int DEPTH = 16,
    parameter int PSUM_BITS = 32
) (
    input  logic                             clk,
    input  pos_t                             channel,
    output logic [COLUMNS-1:0][PSUM_BITS:0]  threshold,
    input  logic                             write,
    input  pos_t                             write_channel,
    input  logic [PSUM_BITS:0]               write_threshold
);

  localparam int DEPTH_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  logic [PSUM_BITS:0] mem[DEPTH];
  for (genvar c = 0; c < COLUMNS; c++) begin : column
    assign threshold[c] = mem[DEPTH_BITS'(channel + 16'(c))];
  end
  always_ff @(posedge clk) if (write) mem[DEPTH_BITS'(write_channel)] <= write_threshold;

endmodule
