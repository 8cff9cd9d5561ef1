// The segments of a layer and batch, in order. The off-chip channel looks at the next two that it reads, the array at the
// next tile's, before and after a cooperative LSB array took one.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module segment_table
  import pgsim_pkg::*;
#(
    parameter int DEPTH = 16
) (
    input  logic      clk,
    input  number_t   first_read,
    output segment_t  first_read_segment,
    input  number_t   second_read,
    output segment_t  second_read_segment,
    input  number_t   share,
    output segment_t  share_segment,
    input  number_t   start,
    output segment_t  start_segment,
    input  logic      write,
    input  number_t   write_number,
    input  segment_t  write_segment
);

  localparam int DEPTH_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  segment_t mem[DEPTH];
  assign first_read_segment = mem[DEPTH_BITS'(first_read)];
  assign second_read_segment = mem[DEPTH_BITS'(second_read)];
  assign share_segment = mem[DEPTH_BITS'(share)];
  assign start_segment = mem[DEPTH_BITS'(start)];
  always_ff @(posedge clk) if (write) mem[DEPTH_BITS'(write_number)] <= write_segment;

endmodule
