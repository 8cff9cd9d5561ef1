// The whole machine of docs/timing-contract.md: one clock, one contract cycle a clock cycle. A layer and batch is loaded
// (registers of the layer, segment table, memories), the machine leaves reset, and `finished` rises in the first cycle at
// whose start every segment is retired. Results leave at the output ports, one a column and cycle.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module machine
  import pgsim_pkg::*;
#(
    parameter int ORGANISATION = DECOUPLED,
    parameter int ROWS = 2,
    parameter int COLUMNS = 2,
    parameter int N = 2,               // multipliers of a PE, and of a lane of the LSB array
    parameter int ACT_BITS = 2,        // of a lane: of the PE array, or of its MSB part
    parameter int LOW_ACT_BITS = 1,    // of the LSB array, or of the LSB part
    parameter int WEIGHT_BITS = 8,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR,
    parameter int GROUPS = 1,          // of the LSB array (decoupled; else ignored)
    parameter int LANES = 2,
    parameter int QUEUE_DEPTH = 2,
    parameter int COOPERATIVE = 0,
    parameter int OWN_PORT = 1,        // depthwise: a window port for each column
    parameter int HIGH_BANKS = 2,
    parameter int HIGH_PORTS = 1,
    parameter int LOW_BANKS = 2,
    parameter int LOW_PORTS = 1,
    parameter int WEIGHT_BANKS = 2,    // at most COLUMNS
    parameter int WEIGHT_PORTS = 1,    // for each stream of weights
    parameter int ROW_STEPS = 1,
    parameter int CHANNEL_BITS = 64,
    parameter int CHANNEL_LATENCY = 3,
    // what is stored
    parameter int OPERAND_BITS = 17,   // of a code, and of each of its planes, in two's complement
    parameter int STORED_BITS = 17,    // of a weight
    parameter int HIGH_DEPTH = 256,    // words of a bank
    parameter int LOW_DEPTH = 256,
    parameter int WEIGHT_DEPTH = 256,  // rows
    parameter int SEGMENT_DEPTH = 64,
    parameter int CHANNEL_DEPTH = 64,  // output channels, for thresholds
    parameter int PIXEL_DEPTH = 64,    // output pixels of a band, for partial sums where K is split
    parameter int TILE_DEPTH = 64,     // for a cooperative LSB array
    // derived
    localparam int HAS_GROUPS = ORGANISATION == DECOUPLED ? 1 : 0,
    localparam int G = HAS_GROUPS != 0 ? GROUPS : 1,
    localparam int L = HAS_GROUPS != 0 ? LANES : 1,
    localparam int COLUMN_BITS = COLUMNS > 1 ? $clog2(COLUMNS) : 1
) (
    input  logic                                  clk,
    input  logic                                  reset,
    input  layer_t                                layer,
    // loading: one word of one memory a cycle
    input  logic    [5:0]                         write,        // segments, MSB plane, LSB plane, weights, thresholds, tiles
    input  logic    [15:0]                        write_bank,   // or column
    input  address_t                              write_address,
    input  segment_t                              write_segment,
    input  logic    [N-1:0][OPERAND_BITS-1:0]     write_word,
    input  logic    [ROW_STEPS*N*STORED_BITS-1:0] write_weights,
    input  logic    [PSUM_BITS:0]                 write_threshold,
    input  logic    [31:0]                        write_cycles,
    output logic                                  finished,
    // results
    output logic    [COLUMNS-1:0]                 port_valid,
    output number_t [COLUMNS-1:0]                 port_segment,
    output place_t  [COLUMNS-1:0]                 port_place,
    output pos_t    [COLUMNS-1:0]                 port_channel,
    output logic    [COLUMNS-1:0][PSUM_BITS-1:0]  port_value,
    // status
    output array_cause_t                          array_cause,
    output logic                                  tile_starts,
    output number_t                               started_tile,
    output logic                                  tile_shared,    // with a cooperative LSB array
    output number_t                               shared_tile,
    output logic                                  tile_leaves,
    output number_t                               leaving_tile,
    output logic                                  shared_leaves,
    output number_t                               shared_leaving_tile,
    output logic                                  low_part_active,
    output logic    [1:0]                         newly_done,     // by slot
    output number_t [1:0]                         slot_segment,
    output logic                                  channel_reads,
    output logic                                  channel_writes,
    output logic    [COLUMNS-1:0]                 queue_push,
    output count_t  [COLUMNS-1:0]                 queue_count,    // at the start of the cycle
    output group_cause_t [G-1:0]                  group_cause,
    output logic    [G-1:0]                       group_launch,
    output logic    [G-1:0][COLUMN_BITS-1:0]      group_column,   // of a launch
    output number_t [G-1:0]                       group_segment,
    output pos_t    [G-1:0]                       group_entries,
    output logic    [G-1:0]                       group_ends,     // its last result takes its port
    output logic    [15:0]                        group_high_reads,
    output logic    [15:0]                        group_low_reads,
    output logic    [15:0]                        group_weight_reads
);

  // An accumulator that saturates needs room for a step's sum before it fits, and for A_h << l.
  localparam int STEP_SUM_BITS = OPERAND_BITS + STORED_BITS + $clog2(N) + 1;
  localparam int ALIGNED_BITS = PSUM_BITS + OPERAND_BITS;
`ifdef PGSIM_ASSERT  // and one that must not overflow, for the assertion in fit.sv
  localparam int KEEPS_SUM = OVERFLOW != OVERFLOW_WRAP ? 1 : 0;
`else
  localparam int KEEPS_SUM = OVERFLOW == OVERFLOW_SATURATE ? 1 : 0;
`endif
  localparam int WIDE_BITS = KEEPS_SUM == 0 ? PSUM_BITS
      : (ALIGNED_BITS > STEP_SUM_BITS ? ALIGNED_BITS : STEP_SUM_BITS) + 1;
  localparam int STREAMS = ORGANISATION == GATED_FUSED ? 2 : 1;
  localparam int HIGH_REQUESTS = ROWS + (HAS_GROUPS != 0 && COOPERATIVE != 0 ? G * L : 0);
  localparam int LOW_REQUESTS = ROWS + (HAS_GROUPS != 0 ? G * L : 0);
  localparam int PART_BITS = ROW_STEPS * N * STORED_BITS;

  // Rules 1 and 2: segments and the off-chip channel

  number_t first_read, second_read;
  segment_t first_read_segment, second_read_segment, share_segment, next_segment;
  pointer_t pointer, after_share, after_start;
  segment_table #(.DEPTH(SEGMENT_DEPTH)) segments (
      .clk, .first_read, .first_read_segment, .second_read, .second_read_segment, .share(pointer.segment),
      .share_segment, .start(after_share.segment), .start_segment(next_segment), .write(write[0]),
      .write_number(write_address), .write_segment
  );

  number_t read_before;
  logic [1:0] on_chip, done;
  segment_t [1:0] held_segment;
  logic [COLUMNS-1:0] port_slot;
  off_chip #(.COLUMNS(COLUMNS), .CHANNEL_BITS(CHANNEL_BITS), .LATENCY(CHANNEL_LATENCY)) channel (
      .clk, .reset, .layer,
      .first_number(first_read), .first_segment(first_read_segment),
      .second_number(second_read), .second_segment(second_read_segment),
      .port_valid, .port_slot, .read_before, .on_chip, .done, .number(slot_segment), .held(held_segment), .finished,
      .newly_done, .reads(channel_reads), .writes(channel_writes)
  );

  // The next tile, before and after a cooperative LSB array took one

  pointer_t shared_pointer, started_pointer;
  tile_t share_tile, next_tile;
  place_t [ROWS-1:0] share_place, next_place;
  logic share_valid, next_valid, shares, starts;
  tile_pointer #(.ROWS(ROWS)) share_view (
      .layer, .pointer, .segment(share_segment), .valid(share_valid), .tile(share_tile), .place(share_place),
      .next(shared_pointer)
  );
  if (HAS_GROUPS != 0 && COOPERATIVE != 0) begin : after_sharing
    assign after_share = shares ? shared_pointer : pointer;
    tile_pointer #(.ROWS(ROWS)) start_view (
        .layer, .pointer(after_share), .segment(next_segment), .valid(next_valid), .tile(next_tile),
        .place(next_place), .next(started_pointer)
    );
  end else begin : no_sharing
    assign after_share = pointer;
    assign next_valid = share_valid;
    assign next_tile = share_tile;
    assign next_place = share_place;
    assign started_pointer = shared_pointer;
  end
  assign after_start = starts ? started_pointer : after_share;
  always_ff @(posedge clk)
    if (reset) begin
      pointer <= '0;
      pointer.fresh <= 1'b1;
    end else pointer <= after_start;

  // Whether its operands are there
  logic next_slot, next_on_chip, before_done, psums_there;
  assign next_slot = next_tile.segment[0];
  assign next_on_chip = next_tile.segment < read_before && on_chip[next_slot];
  assign before_done = done[~next_slot] || slot_segment[~next_slot] > next_tile.segment;  // or its slot is taken again
  assign psums_there = next_segment.first_step == 0 || before_done;

  // Rule 6: the PE array

  logic [ROWS-1:0] array_high_ask, array_high_got, array_low_ask, array_low_got;
  pixel_t [ROWS-1:0] array_high_pixel, array_low_pixel;
  pos_t array_high_word, array_low_word;
  number_t array_high_base, array_low_base;
  logic [HIGH_REQUESTS-1:0][N-1:0][OPERAND_BITS-1:0] high_data;
  logic [LOW_REQUESTS-1:0][N-1:0][OPERAND_BITS-1:0] low_data;
  logic [ROWS-1:0][COLUMNS-1:0][OPERAND_BITS-1:0] high_own, low_own;
  logic [STREAMS-1:0] weight_ask, weight_got;
  address_t [STREAMS-1:0] weight_address;
  pos_t [STREAMS-1:0] weight_columns;
  logic [STREAMS-1:0][COLUMNS-1:0][PART_BITS-1:0] weight_parts;
  pos_t pe_threshold_channel, drain_threshold_channel;
  logic [COLUMNS-1:0][PSUM_BITS:0] threshold;
  pixel_t fetch_ordinal;
  logic [COLUMNS-1:0][PSUM_BITS-1:0] fetch_psum;
  logic shadow_is_free, shadow_free_now, to_shadow, array_empty, array_holds, array_active, array_fetches;
  logic array_words_missing;
  tile_t shadow_tile;
  segment_t shadow_segment;
  place_t [ROWS-1:0] shadow_place;
  logic [COLUMNS-1:0][ROWS-1:0][PSUM_BITS-1:0] array_psum;

  pe_array #(
      .ORGANISATION(ORGANISATION), .ROWS(ROWS), .COLUMNS(COLUMNS), .N(N), .ACT_BITS(ACT_BITS),
      .LOW_ACT_BITS(LOW_ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS), .OPERAND_BITS(OPERAND_BITS), .STORED_BITS(STORED_BITS),
      .ROW_STEPS(ROW_STEPS), .WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW), .STREAMS(STREAMS)
  ) array (
      .clk, .reset, .layer,
      .may_start(next_valid && next_on_chip && psums_there), .next_tile, .next_segment, .next_place, .starts,
      .high_ask(array_high_ask), .high_pixel(array_high_pixel), .high_word(array_high_word), .high_base(array_high_base),
      .high_got(array_high_got), .high_data(high_data[ROWS-1:0]), .high_own,
      .low_ask(array_low_ask), .low_pixel(array_low_pixel), .low_word(array_low_word), .low_base(array_low_base),
      .low_got(array_low_got), .low_data(low_data[ROWS-1:0]), .low_own,
      .weight_ask, .weight_address, .weight_columns, .weight_got, .weight_parts,
      .threshold_channel(pe_threshold_channel), .threshold, .fetch_ordinal, .fetch_psum,
      .shadow_free(shadow_free_now), .to_shadow, .shadow_tile, .shadow_segment, .shadow_place, .psum(array_psum),
      .leaves(tile_leaves), .leaving_tile, .is_empty(array_empty), .holds_tile(array_holds), .is_active(array_active),
      .fetches(array_fetches), .words_missing(array_words_missing), .low_part_active
  );
  assign tile_starts = starts;
  assign started_tile = next_tile.index;

  logic queue_refused, port_refused;
  always_comb
    if (array_active) begin
      if (array_fetches) array_cause = ARRAY_K_SPLIT;
      else if (array_words_missing) array_cause = ARRAY_BANK_CONFLICT;
      else array_cause = ARRAY_BUSY;
    end else if (!array_empty) begin
      if (queue_refused) array_cause = ARRAY_QUEUE_FULL;
      else if (port_refused) array_cause = ARRAY_OUTPUT_PORT;
      else array_cause = ARRAY_DRAIN;
    end else if (!next_valid) array_cause = ARRAY_TAIL;
    else if (next_tile.segment >= 2 && next_tile.segment >= read_before && !done[next_slot])
      array_cause = ARRAY_UPDATE_WAIT;
    else if (next_segment.follows && !before_done) array_cause = ARRAY_RECURRENCE;
    else array_cause = next_on_chip ? ARRAY_K_SPLIT : ARRAY_OFF_CHIP;

  // Rule 5: shadow registers and drain

  logic [COLUMNS-1:0] queue_full, claimed, drain_puts;
  logic drain_slot;
  place_t [COLUMNS-1:0] drain_place;
  logic [COLUMNS-1:0][PSUM_BITS-1:0] drain_psum, drain_value;
  logic [COLUMNS-1:0][1:0] finished_slot;
  shadow #(
      .ORGANISATION(ORGANISATION), .ROWS(ROWS), .COLUMNS(COLUMNS), .WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS),
      .OVERFLOW(OVERFLOW)
  ) drain (
      .clk, .reset, .layer, .load(to_shadow), .load_tile(shadow_tile), .load_segment(shadow_segment),
      .load_place(shadow_place), .load_psum(array_psum), .is_free(shadow_is_free), .free_now(shadow_free_now),
      .threshold_channel(drain_threshold_channel), .threshold, .queue_full, .port_claimed(claimed), .push(queue_push),
      .put(drain_puts), .slot(drain_slot), .place(drain_place), .psum(drain_psum), .value(drain_value), .queue_refused,
      .port_refused, .finished(finished_slot)
  );

  // decoupled compares in the drain, the other organisations in the PEs
  threshold_table #(.COLUMNS(COLUMNS), .DEPTH(CHANNEL_DEPTH), .PSUM_BITS(PSUM_BITS)) thresholds (
      .clk, .channel(ORGANISATION == DECOUPLED ? drain_threshold_channel : pe_threshold_channel), .threshold,
      .write(write[4]), .write_channel(16'(write_address)), .write_threshold
  );

  partial_sums #(.COLUMNS(COLUMNS), .DEPTH(PIXEL_DEPTH), .PSUM_BITS(PSUM_BITS)) spilled (
      .clk, .reset, .number(slot_segment), .put(drain_puts), .slot(drain_slot), .value(drain_value),
      .ordinal(fetch_ordinal), .psum(fetch_psum)
  );

  // Activation planes: the PE array asks first, then the groups

  logic [HIGH_REQUESTS-1:0] high_valid, high_granted, high_reads;
  pixel_t [HIGH_REQUESTS-1:0] high_pixel;
  pos_t [HIGH_REQUESTS-1:0] high_word;
  number_t [HIGH_REQUESTS-1:0] high_base;
  logic [LOW_REQUESTS-1:0] low_valid, low_granted, low_reads;
  pixel_t [LOW_REQUESTS-1:0] low_pixel;
  pos_t [LOW_REQUESTS-1:0] low_word;
  number_t [LOW_REQUESTS-1:0] low_base;

  for (genvar r = 0; r < ROWS; r++) begin : row_requests
    assign high_valid[r] = array_high_ask[r];
    assign high_pixel[r] = array_high_pixel[r];
    assign high_word[r] = array_high_word;
    assign high_base[r] = array_high_base;
    assign low_valid[r] = array_low_ask[r];
    assign low_pixel[r] = array_low_pixel[r];
    assign low_word[r] = array_low_word;
    assign low_base[r] = array_low_base;
  end
  assign array_high_got = high_granted[ROWS-1:0];
  assign array_low_got = low_granted[ROWS-1:0];

  plane #(
      .REQUESTS(HIGH_REQUESTS), .WINDOWS(ROWS), .COLUMNS(COLUMNS), .OWN_PORT(OWN_PORT), .BANKS(HIGH_BANKS),
      .PORTS(HIGH_PORTS), .DEPTH(HIGH_DEPTH), .N(N), .OPERAND_BITS(OPERAND_BITS)
  ) high_plane (
      .clk, .layer, .valid(high_valid), .pixel(high_pixel), .word(high_word), .base(high_base), .granted(high_granted),
      .reads(high_reads), .data(high_data), .own(high_own), .write(write[1]), .write_bank, .write_address,
      .write_data(write_word)
  );
  plane #(
      .REQUESTS(LOW_REQUESTS), .WINDOWS(ROWS), .COLUMNS(COLUMNS), .OWN_PORT(OWN_PORT), .BANKS(LOW_BANKS),
      .PORTS(LOW_PORTS), .DEPTH(LOW_DEPTH), .N(N), .OPERAND_BITS(OPERAND_BITS)
  ) low_plane (
      .clk, .layer, .valid(low_valid), .pixel(low_pixel), .word(low_word), .base(low_base), .granted(low_granted),
      .reads(low_reads), .data(low_data), .own(low_own), .write(write[2]), .write_bank, .write_address,
      .write_data(write_word)
  );

  // Weights

  logic [G-1:0] group_weight_ask, group_weight_got, group_weight_read;
  address_t [G-1:0] group_weight_address;
  logic [G-1:0][COLUMN_BITS-1:0] running_column;
  logic [G-1:0][PART_BITS-1:0] group_weight_part;
  weight_memory #(
      .STREAMS(STREAMS), .GROUPS(G), .COLUMNS(COLUMNS), .BANKS(WEIGHT_BANKS), .PORTS(WEIGHT_PORTS),
      .DEPTH(WEIGHT_DEPTH), .PART_BITS(PART_BITS)
  ) weights (
      .clk, .ask(weight_ask), .row(weight_address), .columns(weight_columns), .got(weight_got), .parts(weight_parts),
      .group_ask(group_weight_ask), .group_row(group_weight_address), .group_column(running_column),
      .group_got(group_weight_got), .group_reads(group_weight_read), .group_part(group_weight_part),
      .write(write[3]), .write_column(write_bank), .write_row(write_address), .write_part(write_weights)
  );

  always_comb begin
    group_high_reads = '0;
    group_low_reads = '0;
    group_weight_reads = '0;
    for (int r = ROWS; r < HIGH_REQUESTS; r++) group_high_reads = group_high_reads + 16'(high_reads[r]);
    for (int r = ROWS; r < LOW_REQUESTS; r++) group_low_reads = group_low_reads + 16'(low_reads[r]);
    for (int g = 0; g < G; g++) group_weight_reads = group_weight_reads + 16'(group_weight_read[g]);
  end

  // What a cooperative LSB array decides by
  logic [31:0] next_cycles;
  cycle_table #(.DEPTH(TILE_DEPTH)) tile_cycles (
      .clk, .tile(share_tile.index), .cycles(next_cycles), .write(write[5]), .write_tile(write_address), .write_cycles
  );

  // Rules 3, 4 and 7: update queue and LSB array

  logic [G-1:0] returns, return_claims, return_slot;
  place_t [G-1:0] return_place;
  logic [G-1:0][PSUM_BITS-1:0] return_value;

  if (HAS_GROUPS != 0) begin : lsb_array
    number_t item_segment;
    logic [G-1:0] is_free, from_queue, runs, is_last, words_missing, weights_missing;
    place_t [G-1:0][L-1:0] item_place;
    count_t [COLUMNS-1:0] run;
    pos_t [COLUMNS-1:0] take;
    logic [COLUMNS-1:0] head_slot, head_finished;
    place_t front_place[COLUMNS][L];
    logic [PSUM_BITS-1:0] front_psum[COLUMNS][L];
    logic items_left, items_end, waiting, work_left;

    for (genvar c = 0; c < COLUMNS; c++) begin : queue
      place_t [L-1:0] bank_place;
      logic [L-1:0][PSUM_BITS-1:0] bank_psum;
      queue_bank #(.DEPTH(QUEUE_DEPTH), .TAKES(L), .PSUM_BITS(PSUM_BITS)) fifo (
          .clk, .reset, .push(queue_push[c]), .push_slot(drain_slot), .push_place(drain_place[c]),
          .push_psum(drain_psum[c]), .take(take[c]), .count(queue_count[c]), .full(queue_full[c]),
          .head_slot(head_slot[c]), .run(run[c]), .place(bank_place), .psum(bank_psum)
      );
      assign head_finished[c] = finished_slot[c][head_slot[c]];
      for (genvar l = 0; l < L; l++) begin : front
        assign front_place[c][l] = bank_place[l];
        assign front_psum[c][l] = bank_psum[l];
      end
    end

    scheduler #(.GROUPS(G), .LANES(L), .COLUMNS(COLUMNS), .ROWS(ROWS), .COOPERATIVE(COOPERATIVE)) scheduling (
        .clk, .reset, .layer, .is_free, .count(queue_count), .run, .full(queue_full), .head_finished, .take,
        .next_ready(share_valid && share_tile.segment < read_before && on_chip[share_tile.segment[0]]),
        .next_tile(share_tile), .next_segment(share_segment), .next_place(share_place), .next_cycles,
        .shares, .items_left, .items_end, .items_tile(shared_leaving_tile), .launch(group_launch), .column(group_column),
        .from_queue, .entries(group_entries), .item_segment, .item_place
    );
    assign tile_shared = shares;
    assign shared_tile = share_tile.index;
    assign shared_leaves = items_end;

    always_comb begin
      waiting = 1'b0;
      for (int c = 0; c < COLUMNS; c++) waiting = waiting || queue_count[c] != 0;
      work_left = share_valid || array_holds || items_left || !shadow_is_free;
    end

    for (genvar g = 0; g < G; g++) begin : group
      logic launch_slot;
      logic [L-1:0] high_ask, low_ask, high_got, low_got;
      pixel_t [L-1:0] pixel;
      pos_t word;
      number_t group_high_base, group_low_base;
      place_t [L-1:0] launch_place;
      logic [L-1:0][PSUM_BITS-1:0] launch_psum;
      logic [L-1:0][N-1:0][OPERAND_BITS-1:0] group_high_data;

      assign launch_slot = from_queue[g] ? head_slot[group_column[g]] : item_segment[0];
      assign group_segment[g] = from_queue[g] ? slot_segment[launch_slot] : item_segment;
      for (genvar l = 0; l < L; l++) begin : entry
        logic [PSUM_BITS-1:0] aligned;
        align #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) from_queue_psum (
            .clk, .taken(group_launch[g] && from_queue[g] && 16'(l) < group_entries[g]),
            .psum(front_psum[group_column[g]][l]), .low_bits(layer.low_bits), .aligned(aligned)
        );
        assign launch_place[l] = from_queue[g] ? front_place[group_column[g]][l] : item_place[g][l];
        assign launch_psum[l] = from_queue[g] ? aligned : '0;
        assign low_valid[ROWS+g*L+l] = low_ask[l];
        assign low_pixel[ROWS+g*L+l] = pixel[l];
        assign low_word[ROWS+g*L+l] = word;
        assign low_base[ROWS+g*L+l] = group_low_base;
        if (COOPERATIVE != 0) begin : both_planes
          assign high_valid[ROWS+g*L+l] = high_ask[l];
          assign high_pixel[ROWS+g*L+l] = pixel[l];
          assign high_word[ROWS+g*L+l] = word;
          assign high_base[ROWS+g*L+l] = group_high_base;
          assign high_got[l] = high_granted[ROWS+g*L+l];
          assign group_high_data[l] = high_data[ROWS+g*L+l];
        end else begin : low_plane_only
          assign high_got[l] = 1'b0;
          assign group_high_data[l] = '0;
        end
      end
      assign low_got = low_granted[ROWS+g*L+:L];

      update_group #(
          .LANES(L), .COLUMNS(COLUMNS), .N(N), .ACT_BITS(LOW_ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS),
          .OPERAND_BITS(OPERAND_BITS), .STORED_BITS(STORED_BITS), .ROW_STEPS(ROW_STEPS), .WIDE_BITS(WIDE_BITS),
          .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)
      ) lanes (
          .clk, .reset, .layer, .held_segment, .launch(group_launch[g]), .launch_column(group_column[g]), .launch_slot,
          .launch_entries(group_entries[g]), .launch_place, .launch_psum, .high_ask, .low_ask, .pixel, .word,
          .high_base(group_high_base), .low_base(group_low_base), .high_got, .low_got, .high_data(group_high_data),
          .low_data(low_data[ROWS+g*L+:L]), .weight_ask(group_weight_ask[g]), .weight_address(group_weight_address[g]),
          .weight_got(group_weight_got[g]), .weight_part(group_weight_part[g]), .column(running_column[g]),
          .slot(return_slot[g]), .returns(returns[g]), .claimed(return_claims[g]), .place(return_place[g]),
          .value(return_value[g]), .is_free(is_free[g]), .is_last(is_last[g]), .runs(runs[g]),
          .words_missing(words_missing[g]), .weights_missing(weights_missing[g])
      );
      assign group_ends[g] = returns[g] && return_claims[g] && is_last[g];

      always_comb
        if (group_launch[g]) group_cause[g] = GROUP_POP;
        else if (runs[g]) begin
          if (words_missing[g]) group_cause[g] = GROUP_BANK_CONFLICT;
          else group_cause[g] = weights_missing[g] ? GROUP_WEIGHT_PORT : GROUP_BUSY;
        end else if (returns[g]) group_cause[g] = return_claims[g] ? GROUP_RETURN : GROUP_PORT_WAIT;
        else if (!layer.gated && !layer.cooperative) group_cause[g] = GROUP_NOT_GATED;
        else if (waiting) group_cause[g] = GROUP_PARTIAL;
        else group_cause[g] = work_left ? GROUP_STARVED : GROUP_TAIL;
    end
  end else begin : no_lsb_array
    assign shares = 1'b0;
    assign {tile_shared, shared_tile, shared_leaves, shared_leaving_tile} = '0;
    assign queue_full = '0;
    assign queue_count = '0;
    assign {group_launch, group_column, group_segment, group_entries, group_ends} = '0;
    assign group_cause = {G{GROUP_NOT_GATED}};
    assign {returns, return_slot, return_place, return_value} = '0;
    assign {group_weight_ask, group_weight_address, running_column} = '0;
  end

  // Rule 4, and the output ports: returning updates go first, lower groups before higher ones

  always_comb begin
    claimed = '0;
    for (int g = 0; g < G; g++) begin
      return_claims[g] = returns[g] && !claimed[running_column[g]];
      if (return_claims[g]) claimed[running_column[g]] = 1'b1;
    end
  end

  always_comb begin
    for (int c = 0; c < COLUMNS; c++) begin
      port_valid[c] = drain_puts[c];
      port_slot[c] = drain_slot;
      port_place[c] = drain_place[c];
      port_value[c] = drain_value[c];
    end
    for (int g = 0; g < G; g++)
      if (return_claims[g]) begin
        port_valid[running_column[g]] = 1'b1;
        port_slot[running_column[g]] = return_slot[g];
        port_place[running_column[g]] = return_place[g];
        port_value[running_column[g]] = return_value[g];
      end
    for (int c = 0; c < COLUMNS; c++) begin
      port_segment[c] = slot_segment[port_slot[c]];
      port_channel[c] = held_segment[port_slot[c]].first_channel + 16'(c);
    end
  end

endmodule
