// An accumulator's adder: adds a sum of products at its place; a step's last pass makes the value fit PSUM_BITS.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module accumulator
  import pgsim_pkg::*;
#(
    parameter int SUM_BITS = 8,
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR
) (
    input  logic                        clk,
    input  logic                        taken,     // a register takes the sum at the end of the cycle
    input  logic signed [WIDE_BITS-1:0] from,
    input  logic signed [SUM_BITS-1:0]  sum,
    input  shift_t                      shift,
    input  logic                        ends_step,
    output logic signed [WIDE_BITS-1:0] to
);

  logic signed [WIDE_BITS-1:0] added;
  logic signed [PSUM_BITS-1:0] fitted;
  assign added = from + (WIDE_BITS'(sum) <<< shift);
  fit #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) step_end (
      .clk, .taken(taken && ends_step), .value(added), .fitted
  );
  assign to = ends_step ? WIDE_BITS'(fitted) : added;

endmodule
