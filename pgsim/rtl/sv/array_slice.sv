// The slices of one operand for the PE array: of the one part, or of both parts of gated_fused, which take the upper and
// the lower bits of a joined slice where a layer is not gated.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module array_slice
  import pgsim_pkg::*;
#(
    parameter int ORGANISATION = DECOUPLED,
    parameter int OPERAND_BITS = 8,
    parameter int ACT_BITS = 2,
    parameter int LOW_ACT_BITS = 1
) (
    input  logic                      joined,
    input  logic [OPERAND_BITS-1:0]   operand,
    input  shift_t                    shift,
    input  logic                      last,
    input  logic [OPERAND_BITS-1:0]   low_operand,
    input  shift_t                    low_shift,
    input  logic                      low_last,
    output logic [ACT_BITS:0]         act,
    output logic [LOW_ACT_BITS:0]     low_act
);

  logic signed [ACT_BITS:0] one;
  slice #(.OPERAND_BITS(OPERAND_BITS), .BITS(ACT_BITS)) cut (.operand(operand), .shift, .last, .value(one));

  if (ORGANISATION == GATED_FUSED) begin : fused
    localparam int JOINED_BITS = ACT_BITS + LOW_ACT_BITS;
    logic signed [JOINED_BITS:0] both;
    logic signed [LOW_ACT_BITS:0] low_one;
    slice #(.OPERAND_BITS(OPERAND_BITS), .BITS(JOINED_BITS)) joined_cut (.operand(operand), .shift, .last, .value(both));
    slice #(.OPERAND_BITS(OPERAND_BITS), .BITS(LOW_ACT_BITS)) low_cut (
        .operand(low_operand), .shift(low_shift), .last(low_last), .value(low_one)
    );
    assign act = joined ? both[JOINED_BITS:LOW_ACT_BITS] : one;
    assign low_act = joined ? {1'b0, both[LOW_ACT_BITS-1:0]} : low_one;
  end else begin : one_part
    assign act = one;
    assign low_act = '0;
  end

endmodule
