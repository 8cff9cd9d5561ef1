// What an accumulator of PSUM_BITS holds after a step.
// clk and taken are the assertion's.
// verilator lint_off UNUSEDSIGNAL
module fit
  import pgsim_pkg::*;
#(
    parameter int WIDE_BITS = 32,  // PSUM_BITS, but where it saturates or an error is looked for
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR
) (
    input  logic                        clk,
    input  logic                        taken,  // a register takes the value at the end of the cycle
    input  logic signed [WIDE_BITS-1:0] value,
    output logic signed [PSUM_BITS-1:0] fitted
);

  if (OVERFLOW == OVERFLOW_SATURATE) begin : saturate
    localparam logic signed [WIDE_BITS-1:0] LARGEST = (WIDE_BITS'(1) <<< (PSUM_BITS - 1)) - 1;
    localparam logic signed [WIDE_BITS-1:0] SMALLEST = -(WIDE_BITS'(1) <<< (PSUM_BITS - 1));
    always_comb
      if (value > LARGEST) fitted = PSUM_BITS'(LARGEST);
      else if (value < SMALLEST) fitted = PSUM_BITS'(SMALLEST);
      else fitted = PSUM_BITS'(value);
  end else begin : modulo  // an error does not happen, a wrap drops the bits above
    assign fitted = PSUM_BITS'(value);
  end

  // Simulation only. machine.sv then gives an accumulator the bits in which a sum that does not fit shows.
`ifdef PGSIM_ASSERT
  if (OVERFLOW == OVERFLOW_ERROR) begin : error
    always_ff @(posedge clk)
      if (taken)
        fits : assert (value == WIDE_BITS'(fitted))
        else $error("a partial sum of %0d does not fit %0d bits", value, PSUM_BITS);
  end
`endif

endmodule
