// A_h << l in an accumulator: from which an update starts, and which an output that is not updated keeps.
module align
  import pgsim_pkg::*;
#(
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR
) (
    input  logic                        clk,
    input  logic                        taken,  // a register takes the value at the end of the cycle
    input  logic signed [PSUM_BITS-1:0] psum,
    input  pass_t                       low_bits,
    output logic signed [PSUM_BITS-1:0] aligned
);

  fit #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) fitting (
      .clk, .taken, .value(WIDE_BITS'(psum) <<< low_bits), .fitted(aligned)
  );

endmodule
