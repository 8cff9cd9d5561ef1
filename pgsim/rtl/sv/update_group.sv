// One group of the LSB array: LANES lanes of N multipliers, each with one output of the same column (section 4).
module update_group
  import pgsim_pkg::*;
#(
    parameter int LANES = 1,
    parameter int COLUMNS = 2,
    parameter int N = 1,
    parameter int ACT_BITS = 1,
    parameter int WEIGHT_BITS = 8,
    parameter int OPERAND_BITS = 8,
    parameter int STORED_BITS = 9,
    parameter int ROW_STEPS = 1,
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR,
    localparam int COLUMN_BITS = COLUMNS > 1 ? $clog2(COLUMNS) : 1
) (
    input  logic                                             clk,
    input  logic                                             reset,
    input  layer_t                                           layer,
    input  segment_t [1:0]                                   held_segment, // by slot
    // work
    input  logic                                             launch,
    input  logic     [COLUMN_BITS-1:0]                       launch_column,
    input  logic                                             launch_slot,
    input  pos_t                                             launch_entries,
    input  place_t   [LANES-1:0]                             launch_place,
    input  logic     [LANES-1:0][PSUM_BITS-1:0]              launch_psum,
    // words and weights
    output logic     [LANES-1:0]                             high_ask,
    output logic     [LANES-1:0]                             low_ask,
    output pixel_t   [LANES-1:0]                             pixel,
    output pos_t                                             word,
    output number_t                                          high_base,
    output number_t                                          low_base,
    input  logic     [LANES-1:0]                             high_got,
    input  logic     [LANES-1:0]                             low_got,
    input  logic     [LANES-1:0][N-1:0][OPERAND_BITS-1:0]    high_data,
    input  logic     [LANES-1:0][N-1:0][OPERAND_BITS-1:0]    low_data,
    output logic                                             weight_ask,
    output address_t                                         weight_address,
    input  logic                                             weight_got,
    input  logic     [ROW_STEPS-1:0][N-1:0][STORED_BITS-1:0] weight_part,
    // results
    output logic     [COLUMN_BITS-1:0]                       column,
    output logic                                             slot,
    output logic                                             returns,      // has a result for its column's port
    input  logic                                             claimed,      // the port takes it
    output place_t                                           place,
    output logic     [PSUM_BITS-1:0]                         value,
    // status
    output logic                                             is_free,
    output logic                                             is_last,      // its last result is at the port
    output logic                                             runs,
    output logic                                             words_missing,
    output logic                                             weights_missing
);

  localparam int STEP_BITS = ROW_STEPS > 1 ? $clog2(ROW_STEPS) : 1;
  localparam int LANE_BITS = LANES > 1 ? $clog2(LANES) : 1;
  localparam int SUM_BITS = ACT_BITS + WEIGHT_BITS + 2 + $clog2(N);

  typedef enum logic [1:0] { FREE, RUN, RETURN } state_t;
  state_t state;
  logic begins;
  pos_t entries, returned;
  place_t lane_place[LANES];
  segment_t segment;

  assign segment = held_segment[slot];
  assign is_free = state == FREE;
  assign runs = state == RUN;
  assign returns = state == RETURN;
  assign is_last = returned + 16'd1 == entries;

  logic [LANES-1:0] used, on_map;
  place_t [LANES-1:0] walked_place;
  logic does_pass, ends, ends_step, last_act_pass, last_weight_pass, unused_phase, unused_opens;
  logic [STEP_BITS-1:0] row_step;
  pass_t act_pass, weight_pass;
  pos_t walked_word;
  shift_t act_shift, weight_shift;
  logic whole_codes;
  assign whole_codes = !layer.gated;  // of a shared tile: both planes

  always_comb
    for (int l = 0; l < LANES; l++) begin
      used[l] = 16'(l) < entries;
      walked_place[l] = lane_place[l];
    end

  walker #(.LANES(LANES), .ROW_STEPS(ROW_STEPS)) walk (
      .clk, .reset, .layer, .segment, .begins, .enable(runs), .two_phases(1'b0),
      .first_passes(layer.act_update), .second_passes(layer.act_update),
      .reads_high(whole_codes), .reads_low(1'b1), .used, .place(walked_place), .on_map, .pixel, .word(walked_word),
      .ask_high(high_ask), .ask_low(low_ask), .got_high(high_got), .got_low(low_got),
      .ask_weights(weight_ask), .weight_row(weight_address), .got_weights(weight_got), .row_step,
      .words_missing, .weights_missing, .does_pass, .phase(unused_phase), .opens_phase(unused_opens), .ends_step, .ends,
      .act_pass, .last_act_pass, .weight_pass, .last_weight_pass
  );
  assign word = segment.word_base + walked_word + (layer.own_port ? 16'(column) : 16'd0);
  assign high_base = segment.high_base;
  assign low_base = segment.low_base;
  assign act_shift = 6'(act_pass) * 6'(ACT_BITS);
  assign weight_shift = 6'(weight_pass) * 6'(WEIGHT_BITS);

  logic [LANES-1:0][N-1:0][OPERAND_BITS-1:0] operand;
  window #(.LANES(LANES), .N(N), .OPERAND_BITS(OPERAND_BITS)) words (
      .clk, .used(used & on_map), .got_high(high_got), .got_low(low_got), .high_word(high_data), .low_word(low_data),
      .takes_high(whole_codes), .takes_low(1'b1), .low_bits(layer.low_bits), .operand
  );
  logic [0:0][N-1:0][WEIGHT_BITS:0] weight;
  weight_row #(
      .COLUMNS(1), .N(N), .ROW_STEPS(ROW_STEPS), .STORED_BITS(STORED_BITS), .WEIGHT_BITS(WEIGHT_BITS)
  ) weights (
      .clk, .got(weight_got), .part(weight_part), .row_step, .shift(weight_shift), .last(last_weight_pass), .value(weight)
  );

  logic signed [WIDE_BITS-1:0] psum[LANES];
  for (genvar l = 0; l < LANES; l++) begin : lanes
    logic [N-1:0][ACT_BITS:0] act;
    logic signed [SUM_BITS-1:0] sum;
    logic signed [WIDE_BITS-1:0] to;
    for (genvar n = 0; n < N; n++) begin : slices
      slice #(.OPERAND_BITS(OPERAND_BITS), .BITS(ACT_BITS)) cut (
          .operand(operand[l][n]), .shift(act_shift), .last(last_act_pass), .value(act[n])
      );
    end
    lane_sum #(.N(N), .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS)) products (.act, .weight(weight[0]), .sum);
    accumulator #(.SUM_BITS(SUM_BITS), .WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) adder (
        .clk, .taken(does_pass && used[l]), .from(psum[l]), .sum, .shift(act_shift + weight_shift), .ends_step, .to
    );
    always_ff @(posedge clk)
      if (launch) begin
        psum[l] <= WIDE_BITS'($signed(launch_psum[l]));
        lane_place[l] <= launch_place[l];
      end else if (does_pass && used[l]) psum[l] <= to;
  end

  assign place = lane_place[LANE_BITS'(returned)];
  assign value = PSUM_BITS'(psum[LANE_BITS'(returned)]);

  always_ff @(posedge clk) begin
    if (reset) state <= FREE;
    else begin
      case (state)
        FREE: if (launch) state <= RUN;
        RUN: if (ends) state <= RETURN;
        RETURN: if (claimed && is_last) state <= FREE;
        default: state <= FREE;
      endcase
    end
    begins <= launch;
    if (launch) begin
      column <= launch_column;
      slot <= launch_slot;
      entries <= launch_entries;
      returned <= '0;
    end else if (returns && claimed) returned <= returned + 16'd1;
  end

endmodule
