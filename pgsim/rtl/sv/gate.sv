// A comparator and what an update starts from: mask = A_h > T_c, strict and signed.
module gate
  import pgsim_pkg::*;
#(
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR
) (
    input  logic                        clk,
    input  logic                        taken,  // a register or port takes the value in this cycle
    input  logic signed [PSUM_BITS-1:0] psum,
    input  logic signed [PSUM_BITS:0]   threshold,
    input  pass_t                       low_bits,
    input  logic                        keeps,
    output logic                        mask,
    output logic signed [PSUM_BITS-1:0] opened  // A_h << l; 0 where neither updated nor kept
);

  logic signed [PSUM_BITS-1:0] aligned;
  align #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) shift (
      .clk, .taken(taken && (mask || keeps)), .psum, .low_bits, .aligned
  );
  assign mask = (PSUM_BITS + 1)'(psum) > threshold;
  assign opened = mask || keeps ? aligned : '0;

endmodule
