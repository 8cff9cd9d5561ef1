// One bank of the update queue, the FIFO of one column. No more than two segments have entries at a time, so one bit of
// the segment's number is kept. Up to TAKES entries of one segment leave at its head in a cycle.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module queue_bank
  import pgsim_pkg::*;
#(
    parameter int DEPTH = 2,
    parameter int TAKES = 1,
    parameter int PSUM_BITS = 32
) (
    input  logic                               clk,
    input  logic                               reset,
    input  logic                               push,
    input  logic                               push_slot,
    input  place_t                             push_place,
    input  logic [PSUM_BITS-1:0]               push_psum,
    input  pos_t                               take,
    output count_t                             count,
    output logic                               full,
    output logic                               head_slot,
    output count_t                             run,       // entries of one segment at the head
    output place_t [TAKES-1:0]                 place,     // of the first entries
    output logic   [TAKES-1:0][PSUM_BITS-1:0]  psum
);

  localparam int INDEX_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;

  typedef struct packed {
    logic slot;
    place_t place;
    logic [PSUM_BITS-1:0] psum;
  } entry_t;

  entry_t entries[DEPTH];
  count_t head;
  count_t of_slot[2];  // entries of each of the two segments

  function automatic count_t wrapped(input logic [17:0] index);
    wrapped = 17'(index >= 18'(DEPTH) ? index - 18'(DEPTH) : index);
  endfunction

  assign count = of_slot[0] + of_slot[1];
  assign full = count == 17'(DEPTH);
  assign head_slot = entries[INDEX_BITS'(head)].slot;
  assign run = of_slot[head_slot];
  always_comb
    for (int t = 0; t < TAKES; t++) begin
      automatic entry_t entry = entries[INDEX_BITS'((18'(head) + 18'(t)) % 18'(DEPTH))];
      place[t] = entry.place;
      psum[t] = entry.psum;
    end

  always_ff @(posedge clk) begin
    if (reset) begin
      head <= '0;
      of_slot[0] <= '0;
      of_slot[1] <= '0;
    end else begin
      head <= wrapped(18'(head) + 18'(take));
      for (int s = 0; s < 2; s++)
        of_slot[s] <= of_slot[s] + 17'(push && push_slot == 1'(s)) - (head_slot == 1'(s) ? 17'(take) : 17'd0);
    end
    if (push) entries[INDEX_BITS'(wrapped(18'(head) + 18'(count)))] <= '{slot: push_slot, place: push_place, psum: push_psum};
  end

endmodule
