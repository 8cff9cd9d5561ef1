// A FIFO of registers, as a bank of the update queue is: entries, two pointers, a count, the read multiplexer.
module fifo_unit #(
    parameter int BITS  = 24,
    parameter int DEPTH = 32
) (
    input  logic            clk,
    input  logic            reset,
    input  logic            push,
    input  logic            pop,
    input  logic [BITS-1:0] d,
    output logic [BITS-1:0] q,
    output logic            full,
    output logic            empty
);

  localparam int INDEX_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  logic [BITS-1:0] entries[0:DEPTH-1];
  logic [INDEX_BITS-1:0] head, tail;
  logic [INDEX_BITS:0] count;

  assign q = entries[head];
  assign full = count == DEPTH;
  assign empty = count == 0;

  always_ff @(posedge clk) begin
    if (push) entries[tail] <= d;
    if (reset) begin
      head  <= '0;
      tail  <= '0;
      count <= '0;
    end else begin
      if (push) tail <= tail == DEPTH - 1 ? '0 : tail + 1'b1;
      if (pop) head <= head == DEPTH - 1 ? '0 : head + 1'b1;
      count <= count + push - pop;
    end
  end

endmodule
