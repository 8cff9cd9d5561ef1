// What co-simulation drives: the machine with its status as 32-bit words, and functions that set its memories at once.
// Not part of the machine; the only file that is not written for synthesis.
module testbench
  import pgsim_pkg::*;
  import accelerator_parameters::*;
(
    input  logic               clk,
    input  logic               reset,
    input  logic               load,                   // rises to fill the machine's memories
    input  logic               forget,                 // rises to clear those of the post-processing unit
    input  logic        [31:0] cycle,                  // of the layer, for whoever reads a waveform
    output logic               finished,
    output logic        [31:0] array_status,           // cause, and the events of the cycle as bits from 8 on
    output logic        [31:0] started_tile,
    output logic        [31:0] shared_tile,
    output logic        [31:0] leaving_tile,
    output logic        [31:0] shared_leaving_tile,
    output logic        [31:0] slot_segment[2],
    output logic        [31:0] group_reads[3],         // words of both planes, rows of weights
    output logic        [31:0] column_status[COLUMNS], // entries in the FIFO << 2 | push << 1 | output at the port
    output logic        [31:0] port_segment[COLUMNS],
    output logic        [31:0] port_channel[COLUMNS],
    output logic        [31:0] port_y[COLUMNS],
    output logic        [31:0] port_x[COLUMNS],
    output logic signed [63:0] port_value[COLUMNS],
    output logic        [31:0] group_status[G],        // entries << 16 | ends << 5 | launch << 4 | cause
    output logic        [31:0] group_column[G],
    output logic        [31:0] group_segment[G],
    // the post-processing unit's host, as it is
    input  logic               post_reset,
    input  logic               host_write,
    input  logic        [ 3:0] host_select,
    input  logic        [ 7:0] host_stage,
    input  logic        [15:0] host_port,
    input  logic        [31:0] host_address,
    input  logic signed [63:0] host_data,
    output logic signed [63:0] host_read,
    output logic        [31:0] words_written[3],       // shortcuts, codes, logits
    output logic        [31:0] post_status             // fault << 1 | idle
);

  layer_t layer;
  logic [COLUMNS-1:0] port_valid, queue_push;
  number_t [COLUMNS-1:0] segment;
  place_t [COLUMNS-1:0] place;
  pos_t [COLUMNS-1:0] channel;
  count_t [COLUMNS-1:0] queue_count;
  logic [COLUMNS-1:0][PSUM_BITS-1:0] value;
  array_cause_t array_cause;
  logic tile_starts, tile_shared, tile_leaves, shared_leaves, low_part_active, channel_reads, channel_writes;
  logic [1:0] newly_done;
  number_t started, shared, leaving, shared_leaving;
  number_t [1:0] slots;
  group_cause_t [G-1:0] group_cause;
  logic [G-1:0] group_launch, group_ends;
  logic [G-1:0][COLUMN_BITS-1:0] launch_column;
  number_t [G-1:0] launch_segment;
  pos_t [G-1:0] group_entries;
  logic [15:0] high_reads, low_reads, weight_reads;
  logic post_idle, post_fault;

  accelerator dut (
      .clk, .reset, .layer, .write('0), .write_bank('0), .write_address('0), .write_segment('0), .write_word('0),
      .write_weights('0), .write_threshold('0), .write_cycles('0), .finished, .port_valid, .port_segment(segment),
      .port_place(place), .port_channel(channel), .port_value(value), .array_cause, .tile_starts, .started_tile(started),
      .tile_shared, .shared_tile(shared), .tile_leaves, .leaving_tile(leaving), .shared_leaves,
      .shared_leaving_tile(shared_leaving), .low_part_active, .newly_done, .slot_segment(slots), .channel_reads,
      .channel_writes, .queue_push, .queue_count, .group_cause, .group_launch, .group_column(launch_column),
      .group_segment(launch_segment), .group_entries, .group_ends, .group_high_reads(high_reads),
      .group_low_reads(low_reads), .group_weight_reads(weight_reads), .post_reset, .host_write, .host_select,
      .host_stage, .host_port, .host_address, .host_data, .host_read, .shortcuts_written(words_written[0]),
      .codes_written(words_written[1]), .logits_written(words_written[2]), .post_idle, .post_fault
  );

  assign post_status = {30'd0, post_fault, post_idle};

  assign array_status = {15'd0, newly_done, channel_writes, channel_reads, low_part_active, shared_leaves, tile_leaves,
      tile_shared, tile_starts, 4'd0, array_cause};
  assign started_tile = 32'(started);
  assign shared_tile = 32'(shared);
  assign leaving_tile = 32'(leaving);
  assign shared_leaving_tile = 32'(shared_leaving);
  assign slot_segment[0] = 32'(slots[0]);
  assign slot_segment[1] = 32'(slots[1]);
  assign group_reads[0] = 32'(high_reads);
  assign group_reads[1] = 32'(low_reads);
  assign group_reads[2] = 32'(weight_reads);
  for (genvar c = 0; c < COLUMNS; c++) begin : column
    assign column_status[c] = {13'd0, queue_count[c], queue_push[c], port_valid[c]};
    assign port_segment[c] = 32'(segment[c]);
    assign port_channel[c] = 32'(channel[c]);
    assign port_y[c] = 32'(place[c].y);
    assign port_x[c] = 32'(place[c].x);
    assign port_value[c] = 64'($signed(value[c]));
  end
  for (genvar g = 0; g < G; g++) begin : group
    assign group_status[g] = {group_entries[g], 10'd0, group_ends[g], group_launch[g], group_cause[g]};
    assign group_column[g] = 32'(launch_column[g]);
    assign group_segment[g] = 32'(launch_segment[g]);
  end

  // Memories are filled in no time, at a rising edge of `load`, with what the host has to give: words of `data` by
  // memory, bank (or column) and address, until it returns 0.
  localparam int LAYER_BITS = $bits(layer_t);
  localparam int SEGMENT_BITS = $bits(segment_t);
  localparam int WORD_BITS = N * OPERAND_BITS;
  localparam int PART_BITS = ROW_STEPS * N * STORED_BITS;
  localparam int OPERANDS_BITS = widest(WORD_BITS, PART_BITS);
  localparam int DATA_BITS = widest(widest(widest(LAYER_BITS, SEGMENT_BITS), widest(OPERANDS_BITS, PSUM_BITS + 1)), 64);

  function automatic int widest(input int one, input int other);
    widest = one > other ? one : other;
  endfunction

  import "DPI-C" function int next_word(
    output int memory,
    output int bank,
    output int index,
    output bit [DATA_BITS-1:0] data
  );

  int memory, bank, index;
  bit [DATA_BITS-1:0] data;
  // verilator lint_off BLKSEQ
  always @(posedge load)
    while (next_word(memory, bank, index, data) != 0)
      case (memory)
        0: layer = data[LAYER_BITS-1:0];
        1: dut.core.segments.mem[index] = data[SEGMENT_BITS-1:0];
        2: dut.core.high_plane.mem[bank][index] = data[WORD_BITS-1:0];
        3: dut.core.low_plane.mem[bank][index] = data[WORD_BITS-1:0];
        4: dut.core.weights.mem[bank][index] = data[PART_BITS-1:0];
        5: dut.core.thresholds.mem[index] = data[PSUM_BITS:0];
        6: dut.core.tile_cycles.mem[index] = data[31:0];
`ifdef PG_POST
        7: dut.post.shortcuts.words[index] = data[POST_SHORTCUT_BITS-1:0];
`endif
        default: ;
      endcase

`ifdef PG_POST
  // At a rising edge of `forget` the post-processing unit's memories hold the smallest number, which hardly any layer
  // leaves there.
  always @(posedge forget) begin
    for (int i = 0; i < POST_SHORTCUT_WORDS; i++) dut.post.shortcuts.words[i] = {1'b1, {POST_SHORTCUT_BITS - 1{1'b0}}};
    for (int i = 0; i < POST_CODE_WORDS; i++) dut.post.planes[0].codes.words[i] = {1'b1, {POST_CODE_BITS{1'b0}}};
    for (int i = 0; i < POST_CODE_WORDS; i++) dut.post.planes[1].codes.words[i] = {1'b1, {POST_CODE_BITS{1'b0}}};
    for (int i = 0; i < POST_LOGIT_WORDS; i++) dut.post.logits.words[i] = {1'b1, {POST_VALUE_BITS - 1{1'b0}}};
  end
`endif
  // verilator lint_on BLKSEQ

endmodule
