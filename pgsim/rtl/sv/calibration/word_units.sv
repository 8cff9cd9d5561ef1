// The parts around the lanes that energy tables price by width: combinational units and a register.
module adder_unit #(
    parameter int BITS = 24
) (
    input  logic [BITS-1:0] a,
    input  logic [BITS-1:0] b,
    output logic [BITS-1:0] sum
);
  assign sum = a + b;
endmodule

module multiplier_unit #(
    parameter int BITS = 8
) (
    input  logic signed [BITS-1:0]   a,
    input  logic signed [BITS-1:0]   b,
    output logic signed [2*BITS-1:0] product
);
  assign product = a * b;
endmodule

// mask = A_h > T_c, strict and signed
module comparator_unit #(
    parameter int BITS = 24
) (
    input  logic signed [BITS-1:0] a,
    input  logic signed [BITS-1:0] b,
    output logic                   mask
);
  assign mask = a > b;
endmodule

module multiplexer_unit #(
    parameter int BITS = 24
) (
    input  logic            select,
    input  logic [BITS-1:0] a,
    input  logic [BITS-1:0] b,
    output logic [BITS-1:0] chosen
);
  assign chosen = select ? b : a;
endmodule

module register_unit #(
    parameter int BITS = 24
) (
    input  logic            clk,
    input  logic            enable,
    input  logic [BITS-1:0] d,
    output logic [BITS-1:0] q
);
  always_ff @(posedge clk) if (enable) q <= d;
endmodule
