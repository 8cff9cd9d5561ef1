// LANES lanes with operand registers, the machine's adder tree and one accumulator: what a PE of several lanes shares.
module pe_unit #(
    parameter int LANES = 8,
    parameter int ACT_BITS = 8,
    parameter int WEIGHT_BITS = 8,
    parameter int PSUM_BITS = 24
) (
    input  logic                         clk,
    input  logic                         enable,
    input  logic                         clear,
    input  logic [LANES*ACT_BITS-1:0]    act,
    input  logic [LANES*WEIGHT_BITS-1:0] weight,
    output logic [PSUM_BITS-1:0]         psum
);

  localparam int SUM_BITS = ACT_BITS + WEIGHT_BITS + 2 + $clog2(LANES);
  logic [LANES*ACT_BITS-1:0] act_held;
  logic [LANES*WEIGHT_BITS-1:0] weight_held;
  logic clear_held;
  logic [LANES-1:0][ACT_BITS:0] act_operand;
  logic [LANES-1:0][WEIGHT_BITS:0] weight_operand;
  logic signed [SUM_BITS-1:0] sum;
  logic signed [PSUM_BITS-1:0] addend;

  for (genvar n = 0; n < LANES; n++) begin : operands
    assign act_operand[n] = {1'b0, act_held[n*ACT_BITS+:ACT_BITS]};
    assign weight_operand[n] = {weight_held[n*WEIGHT_BITS+WEIGHT_BITS-1], weight_held[n*WEIGHT_BITS+:WEIGHT_BITS]};
  end
  lane_sum #(.N(LANES), .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS)) lanes (
      .act(act_operand), .weight(weight_operand), .sum(sum)
  );
  assign addend = sum;

  always_ff @(posedge clk)
    if (enable) begin
      act_held <= act;
      weight_held <= weight;
      clear_held <= clear;
      psum <= (clear_held ? '0 : psum) + addend;
    end

endmodule
