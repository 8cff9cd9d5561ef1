// Walks a reduction step by step: (r, s, c), c fastest, every step in the passes of its slices. The first pass of a step
// is done in the cycle in which the last of the step's words has been read. One walker drives the PE array, another the
// LSB parts of gated_fused, one each group of the LSB array.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module walker
  import pgsim_pkg::*;
#(
    parameter int LANES = 2,
    parameter int ROW_STEPS = 1,
    localparam int STEP_BITS = ROW_STEPS > 1 ? $clog2(ROW_STEPS) : 1
) (
    input  logic                       clk,
    input  logic                       reset,
    input  layer_t                     layer,
    input  segment_t                   segment,
    input  logic                       begins,       // the reduction starts in this cycle
    input  logic                       enable,       // this cycle belongs to it
    input  logic                       two_phases,   // it goes through its steps twice
    input  pass_t                      first_passes, // of an activation operand in the first phase
    input  pass_t                      second_passes,
    input  logic                       reads_high,   // planes of which a step takes words
    input  logic                       reads_low,
    input  logic         [LANES-1:0]   used,
    input  place_t       [LANES-1:0]   place,        // output that each lane computes
    // words
    output logic         [LANES-1:0]   on_map,       // the tap is not padding
    output pixel_t       [LANES-1:0]   pixel,        // input pixel under the tap
    output pos_t                       word,         // of the group's words of a pixel
    output logic         [LANES-1:0]   ask_high,
    output logic         [LANES-1:0]   ask_low,
    input  logic         [LANES-1:0]   got_high,     // in this cycle
    input  logic         [LANES-1:0]   got_low,
    output logic                       ask_weights,
    output address_t                   weight_row,
    input  logic                       got_weights,
    output logic     [STEP_BITS-1:0]   row_step,     // step within the row of weights
    // the pass
    output logic                       words_missing,
    output logic                       weights_missing,
    output logic                       does_pass,
    output logic                       phase,
    output logic                       opens_phase,  // first pass of its phase
    output logic                       ends_step,
    output logic                       ends,         // last pass of the reduction
    output pass_t                      act_pass,
    output logic                       last_act_pass,
    output pass_t                      weight_pass,
    output logic                       last_weight_pass
);

  typedef struct packed {
    pos_t step;
    pos_t tap_y;
    pos_t tap_x;
    pos_t word;
    pass_t act_pass;
    pass_t weight_pass;
    logic phase;
    logic has_weights;
    logic [LANES-1:0] has_high;
    logic [LANES-1:0] has_low;
  } walk_t;

  walk_t start, state, now, next;

  always_comb begin
    start = '0;
    start.step = segment.first_step;
    start.tap_y = segment.first_tap_y;
    start.tap_x = segment.first_tap_x;
    now = begins ? start : state;
  end

  // Where the step's words lie
  always_comb begin
    for (int lane = 0; lane < LANES; lane++) begin
      automatic logic signed [20:0] y = 21'(place[lane].y * 20'(layer.stride_y)) + 21'(now.tap_y * 20'(layer.dilation_y))
          - 21'(layer.pad_top);
      automatic logic signed [20:0] x = 21'(place[lane].x * 20'(layer.stride_x)) + 21'(now.tap_x * 20'(layer.dilation_x))
          - 21'(layer.pad_left);
      on_map[lane] = y >= 0 && x >= 0 && y < $signed(21'(layer.in_height)) && x < $signed(21'(layer.in_width));
      pixel[lane] = on_map[lane] ? 20'(y) * 20'(layer.in_width) + 20'(x) : '0;
    end
  end
  assign word = now.word;

  // What is missing, and what comes in this cycle
  logic first_pass, needs_weights;
  logic [LANES-1:0] have_high, have_low;
  assign first_pass = now.act_pass == 0 && now.weight_pass == 0;
  assign needs_weights = now.step % 16'(ROW_STEPS) == 0 || now.step == segment.first_step;
  assign ask_high = enable && first_pass && reads_high ? used & on_map & ~now.has_high : '0;
  assign ask_low = enable && first_pass && reads_low ? used & on_map & ~now.has_low : '0;
  assign ask_weights = enable && first_pass && needs_weights && !now.has_weights;
  assign have_high = now.has_high | got_high | ~on_map | ~used | {LANES{!reads_high}};
  assign have_low = now.has_low | got_low | ~on_map | ~used | {LANES{!reads_low}};
  assign words_missing = first_pass && !(&have_high && &have_low);
  assign weights_missing = first_pass && needs_weights && !now.has_weights && !got_weights;
  assign weight_row = segment.row_base + 24'(now.step / 16'(ROW_STEPS));
  assign row_step = STEP_BITS'(now.step % 16'(ROW_STEPS));

  // The pass
  logic last_step;
  assign act_pass = now.act_pass;
  assign weight_pass = now.weight_pass;
  assign last_act_pass = now.act_pass + 5'd1 == (now.phase ? second_passes : first_passes);
  assign last_weight_pass = now.weight_pass + 5'd1 == layer.weight_passes;
  assign last_step = now.step + 16'd1 == segment.first_step + segment.steps;
  assign does_pass = enable && !words_missing && !weights_missing;
  assign phase = now.phase;
  assign opens_phase = first_pass && now.step == segment.first_step;
  assign ends_step = last_act_pass && last_weight_pass;
  assign ends = does_pass && ends_step && last_step && (now.phase || !two_phases);

  always_comb begin
    next = now;
    if (does_pass) begin
      if (!last_act_pass) next.act_pass = now.act_pass + 5'd1;
      else begin
        next.act_pass = '0;
        next.weight_pass = last_weight_pass ? '0 : now.weight_pass + 5'd1;
      end
      if (ends_step) begin
        next.has_high = '0;
        next.has_low = '0;
        next.has_weights = 1'b0;
        if (last_step) begin
          next = start;
          next.phase = 1'b1;
        end else begin
          next.step = now.step + 16'd1;
          if (now.word + 16'd1 != layer.words) next.word = now.word + 16'd1;
          else begin
            next.word = '0;
            if (now.tap_x + 16'd1 != layer.kernel_width) next.tap_x = now.tap_x + 16'd1;
            else begin
              next.tap_x = '0;
              next.tap_y = now.tap_y + 16'd1;
            end
          end
        end
      end
    end else if (enable) begin
      next.has_high = now.has_high | got_high;
      next.has_low = now.has_low | got_low;
      next.has_weights = now.has_weights | got_weights;
    end
  end

  always_ff @(posedge clk) begin
    if (reset) state <= '0;
    else if (begins || enable) state <= next;
  end

endmodule
