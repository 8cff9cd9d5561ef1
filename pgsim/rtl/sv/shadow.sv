// Shadow registers and drain: from the cycle after a tile's transfer each column offers its pixels in order, one a cycle,
// to its FIFO where the comparator says so, else to its output port (section 3).
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module shadow
  import pgsim_pkg::*;
#(
    parameter int ORGANISATION = DECOUPLED,
    parameter int ROWS = 2,
    parameter int COLUMNS = 2,
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR
) (
    input  logic                                            clk,
    input  logic                                            reset,
    input  layer_t                                          layer,
    input  logic                                            load,
    input  tile_t                                           load_tile,
    input  segment_t                                        load_segment,
    input  place_t [ROWS-1:0]                               load_place,
    input  logic   [COLUMNS-1:0][ROWS-1:0][PSUM_BITS-1:0]   load_psum,
    output logic                                            is_free,      // at the start of the cycle
    output logic                                            free_now,     // or emptied in it
    output pos_t                                            threshold_channel,
    input  logic   [COLUMNS-1:0][PSUM_BITS:0]               threshold,
    // to queue and ports
    input  logic   [COLUMNS-1:0]                            queue_full,
    input  logic   [COLUMNS-1:0]                            port_claimed,
    output logic   [COLUMNS-1:0]                            push,
    output logic   [COLUMNS-1:0]                            put,          // on the output port
    output logic                                            slot,         // of the segment
    output place_t [COLUMNS-1:0]                            place,
    output logic   [COLUMNS-1:0][PSUM_BITS-1:0]             psum,         // A_h, for the queue
    output logic   [COLUMNS-1:0][PSUM_BITS-1:0]             value,        // for the port
    output logic                                            queue_refused,
    output logic                                            port_refused,
    output logic   [COLUMNS-1:0][1:0]                       finished      // the column has offered all of a slot's segment
);

  localparam int ROW_BITS = ROWS > 1 ? $clog2(ROWS) : 1;

  logic [PSUM_BITS-1:0] held[COLUMNS][ROWS];
  place_t held_place[ROWS];
  pos_t next_row[COLUMNS];
  logic [COLUMNS-1:0] pending, mask, refused, last_row;
  pos_t pixels;
  logic last;

  assign is_free = pending == '0;
  assign free_now = (pending & ~((push | put) & last_row)) == '0;
  assign queue_refused = |(pending & mask & queue_full);
  assign port_refused = |(pending & ~mask & port_claimed);
  assign refused = mask & queue_full | ~mask & port_claimed;
  assign push = pending & mask & ~refused;
  assign put = pending & ~mask & ~refused;

  for (genvar c = 0; c < COLUMNS; c++) begin : column
    logic compared;
    logic [PSUM_BITS-1:0] opened;
    assign psum[c] = held[c][ROW_BITS'(next_row[c])];
    assign place[c] = held_place[ROW_BITS'(next_row[c])];
    assign last_row[c] = next_row[c] + 16'd1 == pixels;
    if (ORGANISATION == DECOUPLED) begin : gated
      gate #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) comparator (
          .clk, .taken(layer.gated && put[c]), .psum(psum[c]), .threshold(threshold[c]), .low_bits(layer.low_bits),
          .keeps(layer.keeps), .mask(compared), .opened(opened)
      );
    end else begin : plain  // the gate, if there is one, is behind it
      assign compared = 1'b0;
      assign opened = psum[c];
    end
    assign mask[c] = layer.gated && compared;
    assign value[c] = layer.gated ? opened : psum[c];

    always_ff @(posedge clk) begin
      if (reset) begin
        pending[c] <= 1'b0;
        finished[c] <= '0;
      end else begin
        if (push[c] || put[c]) begin
          next_row[c] <= next_row[c] + 16'd1;
          if (last_row[c]) begin
            pending[c] <= 1'b0;
            if (last) finished[c][slot] <= 1'b1;
          end
        end
        if (load) begin
          pending[c] <= 16'(c) < load_segment.columns;
          next_row[c] <= '0;
          finished[c][load_tile.segment[0]] <= 1'b0;
        end
      end
      if (load) for (int r = 0; r < ROWS; r++) held[c][r] <= load_psum[c][r];
    end
  end

  always_ff @(posedge clk)
    if (load) begin
      for (int r = 0; r < ROWS; r++) held_place[r] <= load_place[r];
      pixels <= load_tile.pixels;
      last <= load_tile.last;
      slot <= load_tile.segment[0];
      threshold_channel <= load_segment.first_channel;
    end

endmodule
