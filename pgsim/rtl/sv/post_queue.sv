// First in, first out, of up to SOURCES pushes a cycle, source 0 first; a word can be taken in the cycle after its push.
// A push that finds no room is lost and is a fault.
module post_queue
  import post_package::*;
#(
    parameter int SOURCES = 1,
    parameter int WORDS   = 2,
    parameter int BITS    = 1
) (
    input  logic               clk,
    input  logic               reset,
    input  logic [SOURCES-1:0] push,
    input  logic [   BITS-1:0] push_data[SOURCES],
    input  logic               pop,
    output logic               filled,             // holds something
    output logic [   BITS-1:0] head,
    output logic               fault
);

  localparam int INDEX_BITS = index_bits(WORDS);

  function automatic logic [INDEX_BITS-1:0] after(input logic [INDEX_BITS-1:0] index);
    return index == INDEX_BITS'(WORDS - 1) ? '0 : index + 1'b1;
  endfunction

  logic [BITS-1:0] words[WORDS];
  logic [INDEX_BITS-1:0] first;
  logic [INDEX_BITS-1:0] slot[SOURCES+1];  // where a source's push goes; then where the next cycle's go
  logic [INDEX_BITS:0] count[SOURCES+1];  // words held before a source's push; then after all of them
  logic [INDEX_BITS-1:0] last;
  logic [INDEX_BITS:0] held;
  logic [SOURCES-1:0] take;

  always_comb begin
    slot[0]  = last;
    count[0] = held;
    for (int i = 0; i < SOURCES; i++) begin
      take[i] = push[i] && count[i] != (INDEX_BITS + 1)'(WORDS);
      slot[i+1] = take[i] ? after(slot[i]) : slot[i];
      count[i+1] = count[i] + (INDEX_BITS + 1)'(take[i]);
    end
  end

  assign filled = held != '0;
  assign head   = words[first];
  assign fault  = push != take;

  always_ff @(posedge clk) begin
    if (reset) begin
      first <= '0;
      last  <= '0;
      held  <= '0;
    end else begin
      last <= slot[SOURCES];
      if (pop) first <= after(first);
      held <= count[SOURCES] - (INDEX_BITS + 1)'(pop);
    end
  end

  always_ff @(posedge clk) begin
    for (int i = 0; i < SOURCES; i++) if (take[i]) words[slot[i]] <= push_data[i];
  end

endmodule
