// Rule 3: free groups of the LSB array choose their work, in the order of their numbers: an item of a shared tile, or
// entries of one FIFO, round robin from the one after the last served.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module scheduler
  import pgsim_pkg::*;
#(
    parameter int GROUPS = 1,
    parameter int LANES = 1,
    parameter int COLUMNS = 2,
    parameter int ROWS = 2,
    parameter int COOPERATIVE = 0,
    localparam int COLUMN_BITS = COLUMNS > 1 ? $clog2(COLUMNS) : 1
) (
    input  logic                                  clk,
    input  logic                                  reset,
    input  layer_t                                layer,
    input  logic   [GROUPS-1:0]                   is_free,
    // the queue
    input  count_t [COLUMNS-1:0]                  count,
    input  count_t [COLUMNS-1:0]                  run,
    input  logic   [COLUMNS-1:0]                  full,
    input  logic   [COLUMNS-1:0]                  head_finished, // the column has offered all of the run's segment
    output pos_t   [COLUMNS-1:0]                  take,
    // the next tile, which a cooperative LSB array may take
    input  logic                                  next_ready,
    input  tile_t                                 next_tile,
    input  segment_t                              next_segment,
    input  place_t [ROWS-1:0]                     next_place,
    input  logic   [31:0]                         next_cycles,   // that the PE array would spend on it
    output logic                                  shares,        // takes it
    output logic                                  items_left,    // at the start of the cycle
    output logic                                  items_end,     // the last item goes to a group
    output number_t                               items_tile,
    // launches
    output logic   [GROUPS-1:0]                   launch,
    output logic   [GROUPS-1:0][COLUMN_BITS-1:0]  column,
    output logic   [GROUPS-1:0]                   from_queue,
    output pos_t   [GROUPS-1:0]                   entries,
    output number_t                               item_segment,
    output place_t [GROUPS-1:0][LANES-1:0]        item_place
);

  // Items of a shared tile: pixel chunks of LANES, columns fastest

  logic has_items;
  tile_t item_tile;
  pos_t item_columns, item_first, item_column;
  place_t held_place[ROWS];
  pos_t now_first[GROUPS], now_column[GROUPS];  // of the item that a group may take
  tile_t now_tile;
  pos_t now_columns;
  logic [GROUPS-1:0] takes_item;

  assign items_left = has_items;
  assign items_tile = now_tile.index;
  assign item_segment = now_tile.segment;
  assign now_tile = shares ? next_tile : item_tile;
  assign now_columns = shares ? next_segment.columns : item_columns;

  if (COOPERATIVE != 0) begin : sharing
    localparam int ROW_BITS = ROWS > 1 ? $clog2(ROWS) : 1;
    logic [31:0] items, own_cycles;
    logic [55:0] others_cycles;
    number_t tiles_after;
    assign tiles_after = layer.tiles - next_tile.index - 24'd1;
    assign items = 32'(next_segment.columns) * ((32'(next_tile.pixels) + 32'(LANES - 1)) / 32'(LANES));
    assign own_cycles = (items + 32'(GROUPS - 1)) / 32'(GROUPS) * 32'(next_segment.steps)
        * (32'(layer.act_update) * 32'(layer.weight_passes));
    assign others_cycles = 56'(tiles_after) * 56'(next_cycles);
    assign shares = layer.cooperative && !has_items && next_ready && others_cycles >= 56'(own_cycles);

    logic next_has;
    pos_t next_first, next_column;
    always_comb begin
      next_has = has_items || shares;
      next_first = shares ? '0 : item_first;
      next_column = shares ? '0 : item_column;
      for (int g = 0; g < GROUPS; g++) begin
        takes_item[g] = is_free[g] && next_has;
        now_first[g] = next_first;
        now_column[g] = next_column;
        if (takes_item[g]) begin
          next_column = next_column + 16'd1;
          if (next_column == now_columns) begin
            next_column = '0;
            next_first = next_first + 16'(LANES);
            next_has = next_first < now_tile.pixels;
          end
        end
      end
    end
    assign items_end = (has_items || shares) && !next_has;
    always_comb
      for (int g = 0; g < GROUPS; g++)
        for (int l = 0; l < LANES; l++)
          item_place[g][l] = shares ? next_place[ROW_BITS'(now_first[g] + 16'(l))]
              : held_place[ROW_BITS'(now_first[g] + 16'(l))];
    always_ff @(posedge clk) begin
      if (reset) has_items <= 1'b0;
      else has_items <= next_has;
      item_tile <= now_tile;
      item_columns <= now_columns;
      item_first <= next_first;
      item_column <= next_column;
      if (shares) for (int r = 0; r < ROWS; r++) held_place[r] <= next_place[r];
    end
  end else begin : alone
    assign shares = 1'b0;
    assign has_items = 1'b0;
    assign items_end = 1'b0;
    assign takes_item = '0;
    assign item_place = '0;
    assign item_tile = '0;
    assign item_columns = '0;
    assign item_first = '0;
    assign item_column = '0;
    for (genvar g = 0; g < GROUPS; g++) begin : none
      assign now_first[g] = '0;
      assign now_column[g] = '0;
    end
  end

  // Entries of a FIFO

  logic [COLUMN_BITS-1:0] last_served, served;
  logic [COLUMNS-1:0] qualifies, taken;
  always_comb begin
    for (int c = 0; c < COLUMNS; c++)
      qualifies[c] = count[c] != 0 && (run[c] >= 17'(LANES) || head_finished[c] || full[c]);
    taken = '0;
    served = last_served;
    take = '0;
    for (int g = 0; g < GROUPS; g++) begin
      automatic logic [COLUMNS-1:0] open = qualifies & ~taken;
      automatic logic above = 1'b0;
      automatic logic [COLUMN_BITS-1:0] chosen = '0;
      for (int c = COLUMNS - 1; c >= 0; c--)  // the lowest open one, or the lowest after the last served
        if (open[c] && (16'(c) > 16'(served) || !above)) begin
          if (16'(c) > 16'(served)) above = 1'b1;
          chosen = COLUMN_BITS'(c);
        end
      from_queue[g] = is_free[g] && !takes_item[g] && open != '0;
      launch[g] = takes_item[g] || from_queue[g];
      column[g] = chosen;
      entries[g] = run[chosen] < 17'(LANES) ? 16'(run[chosen]) : 16'(LANES);
      if (from_queue[g]) begin
        taken[chosen] = 1'b1;
        served = chosen;
        take[chosen] = entries[g];
      end
      if (takes_item[g]) begin
        column[g] = COLUMN_BITS'(now_column[g]);
        entries[g] = now_tile.pixels - now_first[g] < 16'(LANES) ? now_tile.pixels - now_first[g] : 16'(LANES);
      end
    end
  end

  always_ff @(posedge clk)
    if (reset) last_served <= COLUMN_BITS'(COLUMNS - 1);
    else last_served <= served;

endmodule
