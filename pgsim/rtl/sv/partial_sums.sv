// Partial sums in the output buffer, where K is split: column by column, in the order in which a segment's pixels drain.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module partial_sums
  import pgsim_pkg::*;
#(
    parameter int COLUMNS = 2,
    parameter int DEPTH = 16,  // pixels
    parameter int PSUM_BITS = 32
) (
    input  logic                             clk,
    input  logic                             reset,
    input  number_t [1:0]                    number,      // of the segments in the slots
    input  logic    [COLUMNS-1:0]            put,
    input  logic                             slot,
    input  logic    [COLUMNS-1:0][PSUM_BITS-1:0] value,
    input  pixel_t                           ordinal,     // of the pixel to fetch
    output logic    [COLUMNS-1:0][PSUM_BITS-1:0] psum
);

  localparam int DEPTH_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  logic [PSUM_BITS-1:0] mem[COLUMNS][DEPTH];

  for (genvar c = 0; c < COLUMNS; c++) begin : column
    pixel_t drained, now_drained;
    number_t of_segment;  // that the count is of
    assign now_drained = of_segment == number[slot] ? drained : '0;
    assign psum[c] = mem[c][DEPTH_BITS'(ordinal)];
    always_ff @(posedge clk)
      if (reset) begin
        drained <= '0;
        of_segment <= '1;
      end else if (put[c]) begin
        mem[c][DEPTH_BITS'(now_drained)] <= value[c];
        drained <= now_drained + 20'd1;
        of_segment <= number[slot];
      end
  end

endmodule
