// N multiplier lanes and their adder tree. The sum is exact.
module lane_sum #(
    parameter int N = 1,
    parameter int ACT_BITS = 2,
    parameter int WEIGHT_BITS = 8,
    localparam int SUM_BITS = ACT_BITS + WEIGHT_BITS + 2 + $clog2(N)
) (
    input  logic        [N-1:0][ACT_BITS:0]    act,
    input  logic        [N-1:0][WEIGHT_BITS:0] weight,
    output logic signed [SUM_BITS-1:0]         sum
);

  localparam int PRODUCT_BITS = ACT_BITS + WEIGHT_BITS + 2;
  logic [N-1:0][PRODUCT_BITS-1:0] product;

  for (genvar n = 0; n < N; n++) begin : lanes
    lane #(.ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS)) multiplier (
        .act(act[n]), .weight(weight[n]), .product(product[n])
    );
  end

  always_comb begin
    sum = '0;
    for (int n = 0; n < N; n++) sum = sum + SUM_BITS'($signed(product[n]));
  end

endmodule
