// The slice of an operand that a lane takes in a pass: BITS bits from `shift` on, unsigned below the last, the last with
// the operand's sign.
module slice
  import pgsim_pkg::*;
#(
    parameter int OPERAND_BITS = 8,
    parameter int BITS = 4
) (
    input  logic signed [OPERAND_BITS-1:0] operand,
    input  shift_t                         shift,
    input  logic                           last,
    output logic signed [BITS:0]           value
);

  logic signed [BITS:0] shifted;
  assign shifted = (BITS + 1)'(operand >>> shift);
  assign value = last ? shifted : {1'b0, shifted[BITS-1:0]};

endmodule
