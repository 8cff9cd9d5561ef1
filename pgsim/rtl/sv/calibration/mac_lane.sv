// A whole MAC lane, as the energy tables price it: operand registers, the machine's multiplier lane, an accumulator.
// Activations are unsigned codes, weights two's complement; SIGNED_ACT = 1 gives the activation a sign bit of its own.
module mac_lane #(
    parameter int ACT_BITS = 8,
    parameter int WEIGHT_BITS = 8,
    parameter int PSUM_BITS = 24,
    parameter int SIGNED_ACT = 0
) (
    input  logic                           clk,
    input  logic                           enable,  // takes an operand pair; else all registers hold
    input  logic                           clear,   // the accumulator starts anew with this product
    input  logic [ACT_BITS+SIGNED_ACT-1:0] act,
    input  logic [WEIGHT_BITS-1:0]         weight,
    output logic [PSUM_BITS-1:0]           psum
);

  logic [ACT_BITS+SIGNED_ACT-1:0] act_held;
  logic [WEIGHT_BITS-1:0] weight_held;
  logic clear_held;
  logic signed [ACT_BITS:0] act_operand;
  logic signed [WEIGHT_BITS:0] weight_operand;
  logic signed [ACT_BITS+WEIGHT_BITS+1:0] product;
  logic signed [PSUM_BITS-1:0] addend;

  assign act_operand = SIGNED_ACT != 0 ? $signed(act_held) : $signed({1'b0, act_held});
  assign weight_operand = $signed(weight_held);
  lane #(.ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS)) multiplier (
      .act(act_operand), .weight(weight_operand), .product(product)
  );
  assign addend = product;

  always_ff @(posedge clk)
    if (enable) begin
      act_held <= act;
      weight_held <= weight;
      clear_held <= clear;
      psum <= (clear_held ? '0 : psum) + addend;
    end

endmodule
