// The PE array (the MSB array of decoupled): R rows of pixels x C columns of channels, one tile at a time (section 3,
// and section 5 for the other organisations).
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module pe_array
  import pgsim_pkg::*;
#(
    parameter int ORGANISATION = DECOUPLED,
    parameter int ROWS = 2,
    parameter int COLUMNS = 2,
    parameter int N = 1,
    parameter int ACT_BITS = 2,
    parameter int LOW_ACT_BITS = 1,
    parameter int WEIGHT_BITS = 8,
    parameter int OPERAND_BITS = 8,
    parameter int STORED_BITS = 9,
    parameter int ROW_STEPS = 1,
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR,
    parameter int STREAMS = 1  // of weights: 2 in gated_fused
) (
    input  logic                                                  clk,
    input  logic                                                  reset,
    input  layer_t                                                layer,
    // the next tile
    input  logic                                                  may_start,   // it is there, with its operands
    input  tile_t                                                 next_tile,
    input  segment_t                                              next_segment,
    input  place_t   [ROWS-1:0]                                   next_place,
    output logic                                                  starts,
    // words: of the MSB plane and of the LSB plane
    output logic     [ROWS-1:0]                                   high_ask,
    output pixel_t   [ROWS-1:0]                                   high_pixel,
    output pos_t                                                  high_word,
    output number_t                                               high_base,
    input  logic     [ROWS-1:0]                                   high_got,
    input  logic     [ROWS-1:0][N-1:0][OPERAND_BITS-1:0]          high_data,
    input  logic     [ROWS-1:0][COLUMNS-1:0][OPERAND_BITS-1:0]    high_own,
    output logic     [ROWS-1:0]                                   low_ask,
    output pixel_t   [ROWS-1:0]                                   low_pixel,
    output pos_t                                                  low_word,
    output number_t                                               low_base,
    input  logic     [ROWS-1:0]                                   low_got,
    input  logic     [ROWS-1:0][N-1:0][OPERAND_BITS-1:0]          low_data,
    input  logic     [ROWS-1:0][COLUMNS-1:0][OPERAND_BITS-1:0]    low_own,
    // weights
    output logic     [STREAMS-1:0]                                weight_ask,
    output address_t [STREAMS-1:0]                                weight_address,
    output pos_t     [STREAMS-1:0]                                weight_columns,
    input  logic     [STREAMS-1:0]                                weight_got,
    input  logic     [STREAMS-1:0][COLUMNS-1:0][ROW_STEPS-1:0][N-1:0][STORED_BITS-1:0] weight_parts,
    // thresholds of the comparators in the PEs
    output pos_t                                                  threshold_channel,
    input  logic     [COLUMNS-1:0][PSUM_BITS:0]                   threshold,
    // partial sums of the part of K before
    output pixel_t                                                fetch_ordinal,
    input  logic     [COLUMNS-1:0][PSUM_BITS-1:0]                 fetch_psum,
    // to the shadow registers
    input  logic                                                  shadow_free,
    output logic                                                  to_shadow,
    output tile_t                                                 shadow_tile,
    output segment_t                                              shadow_segment,
    output place_t   [ROWS-1:0]                                   shadow_place,
    output logic     [COLUMNS-1:0][ROWS-1:0][PSUM_BITS-1:0]       psum,
    // status
    output logic                                                  leaves,       // a tile leaves the array
    output number_t                                               leaving_tile,
    output logic                                                  is_empty,     // after the moves of this cycle
    output logic                                                  holds_tile,   // at the start of the cycle, in either part
    output logic                                                  is_active,
    output logic                                                  fetches,
    output logic                                                  words_missing,
    output logic                                                  low_part_active
);

  localparam int STEP_BITS = ROW_STEPS > 1 ? $clog2(ROW_STEPS) : 1;
  localparam int JOINED_BITS = ORGANISATION == GATED_FUSED ? ACT_BITS + LOW_ACT_BITS : ACT_BITS;

  // The tile that the array holds

  logic busy, full, low_busy, low_full, low_leaves, has_low_part;
  tile_t tile, now_tile;
  segment_t segment, now_segment;
  place_t [ROWS-1:0] place, now_place;
  pos_t fetched, now_fetched;

  assign has_low_part = ORGANISATION == GATED_FUSED && layer.gated;
  assign low_leaves = low_busy && low_full && shadow_free;
  assign leaves = busy && full && (has_low_part ? !low_busy || low_leaves : shadow_free);
  assign starts = (!busy || leaves) && may_start;
  assign is_active = (busy && !full) || starts;
  assign is_empty = (!busy || leaves) && !starts;
  assign holds_tile = busy || low_busy;
  assign leaving_tile = tile.index;

  assign now_tile = starts ? next_tile : tile;
  assign now_segment = starts ? next_segment : segment;
  assign now_place = starts ? next_place : place;
  assign now_fetched = starts ? '0 : fetched;
  assign fetches = is_active && now_segment.first_step != 0 && now_fetched != now_tile.pixels;
  assign fetch_ordinal = now_tile.ordinal + 20'(now_fetched);

  logic ends;
  always_ff @(posedge clk) begin
    if (reset) begin
      busy <= 1'b0;
      full <= 1'b0;
    end else begin
      busy <= (busy && !leaves) || starts;
      full <= (full && busy && !leaves) || ends;
    end
    if (starts) begin
      tile <= next_tile;
      segment <= next_segment;
      place <= next_place;
    end
    fetched <= now_fetched + 16'(fetches);
  end

  // Its walk through the reduction

  logic [ROWS-1:0] used, on_map, array_low_ask;
  logic does_pass, phase, opens_phase, ends_step, last_act_pass, last_weight_pass, reads_high, reads_low;
  logic [STEP_BITS-1:0] row_step;
  pass_t act_pass, weight_pass;
  shift_t act_shift, weight_shift;
  pixel_t [ROWS-1:0] pixel;
  pos_t word;
  logic unused_weights;

  always_comb begin
    for (int r = 0; r < ROWS; r++) used[r] = 16'(r) < now_tile.pixels;
    reads_high = !layer.gated || !phase;
    reads_low = !layer.gated || phase;
  end

  walker #(.LANES(ROWS), .ROW_STEPS(ROW_STEPS)) walk (
      .clk, .reset, .layer,
      .segment(now_segment), .begins(starts), .enable(is_active && !fetches),
      .two_phases(ORGANISATION == TWO_PASS && layer.gated),
      .first_passes(layer.act_predict), .second_passes(layer.act_update),
      .reads_high, .reads_low, .used, .place(now_place), .on_map, .pixel, .word,
      .ask_high(high_ask), .ask_low(array_low_ask), .got_high(high_got & high_ask), .got_low(low_got & array_low_ask),
      .ask_weights(weight_ask[0]), .weight_row(weight_address[0]), .got_weights(weight_got[0]), .row_step,
      .words_missing, .weights_missing(unused_weights), .does_pass, .phase, .opens_phase, .ends_step, .ends,
      .act_pass, .last_act_pass, .weight_pass, .last_weight_pass
  );
  assign weight_columns[0] = now_segment.columns;
  assign high_pixel = pixel;
  assign high_word = now_segment.word_base + word;
  assign high_base = now_segment.high_base;

  logic joined;
  assign joined = ORGANISATION == GATED_FUSED && !layer.gated;
  assign act_shift = joined ? 6'(act_pass) * 6'(JOINED_BITS) : 6'(act_pass) * 6'(ACT_BITS);
  assign weight_shift = 6'(weight_pass) * 6'(WEIGHT_BITS);

  logic [COLUMNS-1:0][N-1:0][WEIGHT_BITS:0] weight;
  weight_row #(
      .COLUMNS(COLUMNS), .N(N), .ROW_STEPS(ROW_STEPS), .STORED_BITS(STORED_BITS), .WEIGHT_BITS(WEIGHT_BITS)
  ) weights (
      .clk, .got(weight_got[0]), .part(weight_parts[0]), .row_step, .shift(weight_shift), .last(last_weight_pass),
      .value(weight)
  );

  // Operands of the rows, and of every column's own window

  logic [ROWS-1:0][N-1:0][OPERAND_BITS-1:0] operand;
  logic [ROWS-1:0][COLUMNS-1:0][OPERAND_BITS-1:0] own_operand;
  logic [ROWS-1:0] taking;
  assign taking = used & on_map;
  window #(.LANES(ROWS), .N(N), .OPERAND_BITS(OPERAND_BITS)) rows (
      .clk, .used(taking), .got_high(high_got & high_ask), .got_low(low_got & array_low_ask),
      .high_word(high_data), .low_word(low_data),
      .takes_high(reads_high), .takes_low(reads_low), .low_bits(layer.low_bits), .operand
  );
  window #(.LANES(ROWS), .N(COLUMNS), .OPERAND_BITS(OPERAND_BITS)) own (
      .clk, .used(taking & {ROWS{layer.own_port}}), .got_high(high_got & high_ask), .got_low(low_got & array_low_ask),
      .high_word(high_own), .low_word(low_own),
      .takes_high(reads_high), .takes_low(reads_low), .low_bits(layer.low_bits), .operand(own_operand)
  );

  // The LSB parts of gated_fused: their tile, their walk, their operands

  logic low_does_pass, low_opens, low_ends_step;
  shift_t low_act_shift, low_weight_shift;
  logic [COLUMNS-1:0][N-1:0][WEIGHT_BITS:0] low_weight;
  logic [ROWS-1:0][N-1:0][OPERAND_BITS-1:0] low_operand;
  logic [ROWS-1:0][COLUMNS-1:0][OPERAND_BITS-1:0] low_own_operand;
  logic low_last_act, low_begins;
  segment_t low_segment;
  logic [ROWS-1:0] low_rows_used;

  assign low_begins = leaves && has_low_part;
  if (ORGANISATION == GATED_FUSED) begin : low_part
    tile_t low_tile, low_now_tile;
    segment_t low_held_segment;
    place_t [ROWS-1:0] low_place, low_now_place;
    logic [ROWS-1:0] low_used, low_inside, low_part_ask, unused_ask;
    logic low_ends, low_last_weight, unused_phase, unused_words, low_unused_weights;
    logic [STEP_BITS-1:0] low_row_step;
    pass_t low_act_pass, low_weight_pass;
    pixel_t [ROWS-1:0] low_part_pixel;
    pos_t low_part_word;

    assign low_part_active = low_begins || (low_busy && !low_full);
    assign low_rows_used = low_used;
    assign low_now_tile = low_begins ? tile : low_tile;
    assign low_segment = low_begins ? segment : low_held_segment;
    assign low_now_place = low_begins ? place : low_place;
    always_comb for (int r = 0; r < ROWS; r++) low_used[r] = 16'(r) < low_now_tile.pixels;
    always_ff @(posedge clk) begin
      if (reset) begin
        low_busy <= 1'b0;
        low_full <= 1'b0;
      end else begin
        low_busy <= (low_busy && !low_leaves) || low_begins;
        low_full <= (low_full && !low_leaves) || low_ends;
      end
      if (low_begins) begin
        low_tile <= tile;
        low_held_segment <= segment;
        low_place <= place;
      end
    end

    walker #(.LANES(ROWS), .ROW_STEPS(ROW_STEPS)) low_walk (
        .clk, .reset, .layer,
        .segment(low_segment), .begins(low_begins), .enable(low_part_active), .two_phases(1'b0),
        .first_passes(layer.act_update), .second_passes(layer.act_update),
        .reads_high(1'b0), .reads_low(1'b1), .used(low_used), .place(low_now_place), .on_map(low_inside),
        .pixel(low_part_pixel), .word(low_part_word), .ask_high(unused_ask), .ask_low(low_part_ask),
        .got_high('0), .got_low(low_got & low_part_ask),
        .ask_weights(weight_ask[1]), .weight_row(weight_address[1]), .got_weights(weight_got[1]),
        .row_step(low_row_step), .words_missing(unused_words), .weights_missing(low_unused_weights),
        .does_pass(low_does_pass), .phase(unused_phase), .opens_phase(low_opens), .ends_step(low_ends_step),
        .ends(low_ends), .act_pass(low_act_pass), .last_act_pass(low_last_act), .weight_pass(low_weight_pass),
        .last_weight_pass(low_last_weight)
    );
    assign weight_columns[1] = low_segment.columns;
    assign low_ask = array_low_ask | low_part_ask;  // never both: a layer has a gate or has none
    assign low_pixel = layer.gated ? low_part_pixel : pixel;
    assign low_word = layer.gated ? low_segment.word_base + low_part_word : high_word;
    assign low_base = layer.gated ? low_segment.low_base : now_segment.low_base;
    assign low_act_shift = 6'(low_act_pass) * 6'(LOW_ACT_BITS);
    assign low_weight_shift = 6'(low_weight_pass) * 6'(WEIGHT_BITS);
    weight_row #(
        .COLUMNS(COLUMNS), .N(N), .ROW_STEPS(ROW_STEPS), .STORED_BITS(STORED_BITS), .WEIGHT_BITS(WEIGHT_BITS)
    ) low_weights (
        .clk, .got(weight_got[1]), .part(weight_parts[1]), .row_step(low_row_step), .shift(low_weight_shift),
        .last(low_last_weight), .value(low_weight)
    );
    window #(.LANES(ROWS), .N(N), .OPERAND_BITS(OPERAND_BITS)) low_rows (
        .clk, .used(low_used & low_inside), .got_high('0), .got_low(low_got & low_part_ask), .high_word('0),
        .low_word(low_data), .takes_high(1'b0), .takes_low(1'b1), .low_bits(layer.low_bits), .operand(low_operand)
    );
    window #(.LANES(ROWS), .N(COLUMNS), .OPERAND_BITS(OPERAND_BITS)) low_own_rows (
        .clk, .used(low_used & low_inside & {ROWS{layer.own_port}}), .got_high('0), .got_low(low_got & low_part_ask),
        .high_word('0), .low_word(low_own), .takes_high(1'b0), .takes_low(1'b1), .low_bits(layer.low_bits),
        .operand(low_own_operand)
    );
    assign to_shadow = has_low_part ? low_leaves : leaves;
    assign shadow_tile = has_low_part ? low_tile : tile;
    assign shadow_segment = has_low_part ? low_held_segment : segment;
    assign shadow_place = has_low_part ? low_place : place;
    assign threshold_channel = low_segment.first_channel;
  end else begin : one_part
    assign low_part_active = 1'b0;
    assign low_rows_used = '0;
    assign low_busy = 1'b0;
    assign low_full = 1'b0;
    assign low_ask = array_low_ask;
    assign low_pixel = pixel;
    assign low_word = high_word;
    assign low_base = now_segment.low_base;
    assign {low_does_pass, low_opens, low_ends_step, low_last_act} = '0;
    assign low_act_shift = '0;
    assign low_weight_shift = '0;
    assign low_weight = '0;
    assign low_operand = '0;
    assign low_own_operand = '0;
    assign low_segment = '0;
    assign to_shadow = leaves;
    assign shadow_tile = tile;
    assign shadow_segment = segment;
    assign shadow_place = place;
    assign threshold_channel = now_segment.first_channel;
  end

  // Slices of the rows' operands

  logic [ROWS-1:0][N-1:0][ACT_BITS:0] act;
  logic [ROWS-1:0][COLUMNS-1:0][ACT_BITS:0] own_act;
  logic [ROWS-1:0][N-1:0][LOW_ACT_BITS:0] low_act;
  logic [ROWS-1:0][COLUMNS-1:0][LOW_ACT_BITS:0] low_own_act;

  for (genvar r = 0; r < ROWS; r++) begin : row_slices
    for (genvar n = 0; n < N; n++) begin : word_slices
      array_slice #(
          .ORGANISATION(ORGANISATION), .OPERAND_BITS(OPERAND_BITS), .ACT_BITS(ACT_BITS), .LOW_ACT_BITS(LOW_ACT_BITS)
      ) cut (
          .joined, .operand(operand[r][n]), .shift(act_shift), .last(last_act_pass),
          .low_operand(low_operand[r][n]), .low_shift(low_act_shift), .low_last(low_last_act),
          .act(act[r][n]), .low_act(low_act[r][n])
      );
    end
    for (genvar c = 0; c < COLUMNS; c++) begin : own_slices
      array_slice #(
          .ORGANISATION(ORGANISATION), .OPERAND_BITS(OPERAND_BITS), .ACT_BITS(ACT_BITS), .LOW_ACT_BITS(LOW_ACT_BITS)
      ) cut (
          .joined, .operand(own_operand[r][c]), .shift(act_shift), .last(last_act_pass),
          .low_operand(low_own_operand[r][c]), .low_shift(low_act_shift), .low_last(low_last_act),
          .act(own_act[r][c]), .low_act(low_own_act[r][c])
      );
    end
  end

  // The grid

  for (genvar c = 0; c < COLUMNS; c++) begin : column
    for (genvar r = 0; r < ROWS; r++) begin : row
      logic [N-1:0][ACT_BITS:0] pe_act;
      logic [N-1:0][LOW_ACT_BITS:0] pe_low_act;
      always_comb begin
        pe_act = act[r];
        pe_low_act = low_act[r];
        if (layer.own_port) begin  // one channel a word: the column's own
          pe_act[0] = own_act[r][c];
          pe_low_act[0] = low_own_act[r][c];
        end
      end
      pe #(
          .ORGANISATION(ORGANISATION), .N(N), .ACT_BITS(ACT_BITS), .LOW_ACT_BITS(LOW_ACT_BITS),
          .WEIGHT_BITS(WEIGHT_BITS), .WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)
      ) element (
          .clk, .threshold(threshold[c]), .low_bits(layer.low_bits), .keeps(layer.keeps),
          .used(used[r] && 16'(c) < now_segment.columns),
          .low_used(low_rows_used[r] && 16'(c) < low_segment.columns),
          .begins(starts), .loads(fetches && now_fetched == 16'(r)), .load_value(fetch_psum[c]),
          .passes(does_pass), .opens(opens_phase && phase), .updates(phase), .ends_step,
          .shift(act_shift + weight_shift), .act(pe_act), .weight(weight[c]),
          .joined, .low_begins, .low_passes(low_does_pass), .low_opens, .low_ends_step,
          .low_shift(low_act_shift + low_weight_shift), .low_act(pe_low_act),
          .low_weight(joined ? weight[c] : low_weight[c]), .psum(psum[c][r])
      );
    end
  end

endmodule
