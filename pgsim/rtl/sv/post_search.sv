// Requantises: counts the thresholds that a value reaches, by a binary search of one level a cycle.
//
//   value, row --level 0--> 1 bit --level 1--> 2 bits -- ... --> count --+ base--> code --split--> high, low
//
// The thresholds t[0] <= t[1] <= ... of a row, 2^depth - 1 of them, lie in a tree: with i bits of the count known, `known`,
// level i compares with t[known * 2^(depth-i) + 2^(depth-i-1) - 1] and so learns the next bit. Each level has a memory of
// its own, so that a value a cycle goes in and, LEVELS cycles later, its code comes out. Levels past `depth` do nothing.
module post_search
  import post_package::*;
#(
    parameter  int VALUE_BITS   = 40,
    parameter  int LEVELS       = 8,
    parameter  int TREE_WORDS   = 256,                     // thresholds that a level holds, over all rows
    parameter  int ROW_BITS     = 6,
    parameter  int CODE_BITS    = 8,
    parameter  int ADDRESS_BITS = 16,
    localparam int WORD_BITS    = CODE_BITS + 1,
    localparam int DEPTH_BITS   = $clog2(LEVELS + 1),
    localparam int COUNT_BITS   = $clog2(WORD_BITS + 1),
    localparam int NODE_BITS    = index_bits(TREE_WORDS)
) (
    input  logic                           clk,
    input  logic                           reset,
    // thresholds
    input  logic                           tree_write,
    input  logic        [             7:0] tree_level,
    input  logic        [   NODE_BITS-1:0] tree_address,
    input  logic signed [    VALUE_BITS:0] tree_data,
    // what the layer asks for
    input  logic        [  DEPTH_BITS-1:0] depth,
    input  logic signed [   WORD_BITS-1:0] base,
    input  logic                           sign_magnitude,
    input  logic        [  COUNT_BITS-1:0] low_bits,
    // a value and where its code goes
    input  logic                           in_valid,
    input  logic signed [    VALUE_BITS:0] in_value,        // direction * v, a bit wider than v
    input  logic        [    ROW_BITS-1:0] in_row,
    input  logic        [ADDRESS_BITS-1:0] in_address,
    output logic                           out_valid,
    output logic        [ADDRESS_BITS-1:0] out_address,
    output logic signed [   WORD_BITS-1:0] out_high,
    output logic signed [   WORD_BITS-1:0] out_low,
    output logic                           busy
);

  logic signed [    VALUE_BITS:0] value  [LEVELS+1];
  logic        [    ROW_BITS-1:0] row    [LEVELS+1];
  logic        [ADDRESS_BITS-1:0] address[LEVELS+1];
  logic        [      LEVELS-1:0] known  [LEVELS+1];
  logic        [        LEVELS:0] valid;

  assign value[0]   = in_value;
  assign row[0]     = in_row;
  assign address[0] = in_address;
  assign known[0]   = '0;
  assign valid[0]   = in_valid;

  for (genvar i = 0; i < LEVELS; i++) begin : levels
    logic [NODE_BITS-1:0] node;
    logic [VALUE_BITS:0] threshold;
    logic reached;

    assign node = NODE_BITS'((NODE_BITS + ROW_BITS + LEVELS)'(row[i]) << i) + NODE_BITS'(known[i]);
    assign reached = value[i] >= signed'(threshold);

    post_table #(
        .WORDS(TREE_WORDS),
        .BITS (VALUE_BITS + 1)
    ) tree (
        .clk,
        .write(tree_write && tree_level == 8'(i)),
        .write_address(tree_address),
        .write_data(tree_data),
        .read_address(node),
        .read_data(threshold)
    );

    always_ff @(posedge clk) begin
      valid[i+1] <= !reset && valid[i];
      value[i+1] <= value[i];
      row[i+1] <= row[i];
      address[i+1] <= address[i];
      known[i+1] <= DEPTH_BITS'(i) < depth ? LEVELS'({known[i], reached}) : known[i];
    end
  end

  logic signed [WORD_BITS-1:0] code;

  assign code = base + WORD_BITS'(known[LEVELS]);
  assign out_valid = valid[LEVELS];
  assign out_address = address[LEVELS];
  assign busy = |valid;

  post_split #(
      .CODE_BITS(CODE_BITS)
  ) split (
      .code,
      .sign_magnitude,
      .low_bits,
      .high(out_high),
      .low (out_low)
  );

endmodule
