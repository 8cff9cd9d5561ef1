// One multiplier lane: a slice of an activation operand times a slice of a weight, both with their sign.
module lane #(
    parameter int ACT_BITS = 2,
    parameter int WEIGHT_BITS = 8
) (
    input  logic signed [ACT_BITS:0]               act,
    input  logic signed [WEIGHT_BITS:0]            weight,
    output logic signed [ACT_BITS+WEIGHT_BITS+1:0] product
);

  localparam int BITS = ACT_BITS + WEIGHT_BITS + 2;
  assign product = BITS'(act) * BITS'(weight);

endmodule
