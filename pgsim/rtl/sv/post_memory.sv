// Words that all ports write and read in the same cycle, each its own (docs/timing-contract.md, section 8: what takes
// no time), and the host beside them. A read sees what was written up to the cycle before.
module post_memory
  import post_package::*;
#(
    parameter int WORDS   = 2,
    parameter int BITS    = 1,
    parameter int WRITERS = 1,
    parameter int READERS = 1
) (
    input  logic                         clk,
    input  logic                         write        [WRITERS],
    input  logic [index_bits(WORDS)-1:0] write_address[WRITERS],
    input  logic [             BITS-1:0] write_data   [WRITERS],
    input  logic [index_bits(WORDS)-1:0] read_address [READERS],
    output logic [             BITS-1:0] read_data    [READERS]
);

  logic [BITS-1:0] words[WORDS];

  always_ff @(posedge clk) begin
    for (int i = 0; i < WRITERS; i++) if (write[i]) words[write_address[i]] <= write_data[i];
  end

  always_comb begin
    for (int i = 0; i < READERS; i++) read_data[i] = words[read_address[i]];
  end

endmodule
