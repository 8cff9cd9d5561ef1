// A small memory that the host writes and one reader reads within the cycle.
module post_table
  import post_package::*;
#(
    parameter int WORDS = 2,
    parameter int BITS  = 1
) (
    input  logic                         clk,
    input  logic                         write,
    input  logic [index_bits(WORDS)-1:0] write_address,
    input  logic [             BITS-1:0] write_data,
    input  logic [index_bits(WORDS)-1:0] read_address,
    output logic [             BITS-1:0] read_data
);

  logic [BITS-1:0] words[WORDS];

  always_ff @(posedge clk) if (write) words[write_address] <= write_data;

  assign read_data = words[read_address];

endmodule
