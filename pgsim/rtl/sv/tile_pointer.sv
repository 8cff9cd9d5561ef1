// Describes the tile that a pointer stands at, and where the pointer stands after it: R pixels on, or at the next segment.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module tile_pointer
  import pgsim_pkg::*;
#(
    parameter int ROWS = 2
) (
    input  layer_t              layer,
    input  pointer_t            pointer,
    input  segment_t            segment,  // the pointer's
    output logic                valid,    // a tile is left
    output tile_t               tile,
    output place_t [ROWS-1:0]   place,
    output pointer_t            next
);

  pixel_t left, ordinal;
  place_t last_place;
  assign left = pointer.fresh ? segment.pixels : pointer.left;
  assign ordinal = pointer.fresh ? '0 : pointer.ordinal;
  assign valid = pointer.index != layer.tiles;

  always_comb begin
    last_place = pointer.fresh ? '{y: segment.first_row, x: 16'd0} : pointer.first;
    for (int r = 0; r < ROWS; r++) begin
      place[r] = last_place;
      last_place = place_after(last_place, layer.out_width);
    end
  end

  always_comb begin
    tile.segment = pointer.segment;
    tile.index = pointer.index;
    tile.ordinal = ordinal;
    tile.last = left <= 20'(ROWS);
    tile.pixels = tile.last ? 16'(left) : 16'(ROWS);
    next.segment = tile.last ? pointer.segment + 24'd1 : pointer.segment;
    next.index = pointer.index + 24'd1;
    next.fresh = tile.last;
    next.first = last_place;
    next.left = left - 20'(ROWS);
    next.ordinal = ordinal + 20'(ROWS);
  end

endmodule
