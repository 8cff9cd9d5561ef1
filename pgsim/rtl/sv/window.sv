// Holds the words that a step's lanes have read until the step is over, and gives each lane its operands: of the plane
// that the phase takes, or whole codes joined from both.
module window
  import pgsim_pkg::*;
#(
    parameter int LANES = 2,
    parameter int N = 1,
    parameter int OPERAND_BITS = 8
) (
    input  logic                                            clk,
    input  logic  [LANES-1:0]                               used,       // a word is there, or comes in this cycle
    input  logic  [LANES-1:0]                               got_high,
    input  logic  [LANES-1:0]                               got_low,
    input  logic  [LANES-1:0][N-1:0][OPERAND_BITS-1:0]      high_word,
    input  logic  [LANES-1:0][N-1:0][OPERAND_BITS-1:0]      low_word,
    input  logic                                            takes_high,
    input  logic                                            takes_low,  // with takes_high: whole codes
    input  pass_t                                           low_bits,
    output logic  [LANES-1:0][N-1:0][OPERAND_BITS-1:0]      operand
);

  logic [N-1:0][OPERAND_BITS-1:0] high_held[LANES], low_held[LANES];

  for (genvar lane = 0; lane < LANES; lane++) begin : words
    logic [N-1:0][OPERAND_BITS-1:0] high, low;
    assign high = got_high[lane] ? high_word[lane] : high_held[lane];
    assign low = got_low[lane] ? low_word[lane] : low_held[lane];
    always_ff @(posedge clk) begin
      if (got_high[lane]) high_held[lane] <= high;
      if (got_low[lane]) low_held[lane] <= low;
    end
    always_comb
      for (int n = 0; n < N; n++)
        if (!used[lane]) operand[lane][n] = '0;
        else if (takes_high && takes_low) operand[lane][n] = (high[n] << low_bits) + low[n];
        else operand[lane][n] = takes_high ? high[n] : low[n];
  end

endmodule
