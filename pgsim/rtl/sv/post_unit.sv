// What follows the accumulator (docs/timing-contract.md, section 8): a row of stages behind each output port, and the
// memories of shortcuts, of codes in two planes and of logits that they share.
//
//   port 0 --stages--+                    +--> shortcuts --> back to the stages
//   port 1 --stages--+--codes, values-----+--> high plane, low plane
//   ...              |                    +--> logits
//
// Every port takes a result a cycle, in any order, and none is ever refused. One compiled unit serves every layer: the host
// loads a program (pgsim/rtl/post.py) while the unit is idle, then feeds results, then waits for idle and reads.
module post_unit
  import post_package::*;
#(
    parameter  int                  COLUMNS        = 4,
    parameter  int                  STAGES         = 8,
    parameter  logic [8*STAGES-1:0] UNITS          = '1,                      // a byte a stage: what it can do
    parameter  int                  PSUM_BITS      = 24,
    parameter  int                  VALUE_BITS     = 40,                      // between steps
    parameter  int                  FACTOR_BITS    = 24,
    parameter  int                  BIAS_BITS      = 40,
    parameter  int                  IMAGES         = 1,
    parameter  int                  SEGMENTS       = 1024,                    // of a layer and batch
    parameter  int                  MAP_BITS       = 8,                       // maps have at most 2^MAP_BITS rows and columns
    parameter  int                  TILES          = 64,                      // channels of a port
    parameter  int                  SHORTCUT_BITS  = 16,
    parameter  int                  CODE_BITS      = 8,
    parameter  int                  LEVELS         = 8,                       // 2^LEVELS - 1 thresholds
    parameter  int                  TREE_WORDS     = 256,
    parameter  int                  POOL_OVERLAP   = 2,
    parameter  int                  POOL_WORDS     = 64,
    parameter  int                  POOL_AXIS      = 64,
    parameter  int                  POOL_COUNT     = 10,
    parameter  int                  POOL_QUEUE     = 64,
    parameter  int                  SHORTCUT_WORDS = 1024,
    parameter  int                  CODE_WORDS     = 1024,
    parameter  int                  LOGIT_WORDS    = 64,
    localparam int                  SEGMENT_BITS   = index_bits(SEGMENTS)
) (
    input  logic                         clk,
    input  logic                         reset,
    // host: a word a cycle in; a word of a memory within the cycle out
    input  logic                         host_write,
    input  logic        [           3:0] host_select,         // select_t
    input  logic        [           7:0] host_stage,
    input  logic        [          15:0] host_port,
    input  logic        [          31:0] host_address,
    input  logic signed [          63:0] host_data,
    output logic signed [          63:0] host_read,
    // results, one a port and cycle
    input  logic                         in_valid   [COLUMNS],
    input  logic        [SEGMENT_BITS-1:0] in_segment [COLUMNS],
    input  logic        [  MAP_BITS-1:0] in_row     [COLUMNS],
    input  logic        [  MAP_BITS-1:0] in_column  [COLUMNS],
    input  logic signed [ PSUM_BITS-1:0] in_value   [COLUMNS],
    // words that the memories take in this cycle
    output logic        [          31:0] shortcuts_written,
    output logic        [          31:0] codes_written,
    output logic        [          31:0] logits_written,
    output logic                         idle,
    output logic                         fault                // since the last reset: results are not to be trusted
);

  localparam int EVERY_PORT = 65535;  // a host write with this port goes to all
  localparam int IMAGE_BITS = index_bits(IMAGES);
  localparam int TILE_BITS = index_bits(TILES);
  localparam int WORD_BITS = CODE_BITS + 1;
  localparam int ADDRESS_BITS = index_bits(larger(larger(SHORTCUT_WORDS, CODE_WORDS), larger(LOGIT_WORDS, POOL_WORDS)));

  select_t select;
  assign select = select_t'(host_select);

  // Segments

  logic complete[COLUMNS];
  logic [IMAGE_BITS-1:0] image[COLUMNS];
  logic [TILE_BITS-1:0] tile[COLUMNS];

  post_segments #(
      .COLUMNS(COLUMNS),
      .SEGMENTS(SEGMENTS),
      .IMAGES(IMAGES),
      .TILES(TILES)
  ) segments (
      .clk,
      .host_write(host_write && select == TO_SEGMENTS),
      .host_address,
      .host_data,
      .in_valid,
      .in_segment,
      .out_valid(complete),
      .out_image(image),
      .out_tile(tile)
  );

  // Ports

  // what no stage can do is led nowhere
  // verilator lint_off UNUSEDSIGNAL
  logic [ADDRESS_BITS-1:0] address[COLUMNS][STAGES];
  logic [ADDRESS_BITS-1:0] code_address[COLUMNS][STAGES];
  logic [SHORTCUT_BITS-1:0] shortcut_read[COLUMNS][STAGES];
  logic [SHORTCUT_BITS-1:0] shortcut_write[COLUMNS][STAGES];
  logic signed [VALUE_BITS-1:0] logit_write[COLUMNS][STAGES];
  logic signed [WORD_BITS-1:0] code_high[COLUMNS][STAGES];
  logic signed [WORD_BITS-1:0] code_low[COLUMNS][STAGES];
  logic shortcut_valid[COLUMNS][STAGES];
  logic logit_valid[COLUMNS][STAGES];
  logic code_valid[COLUMNS][STAGES];
  // verilator lint_on UNUSEDSIGNAL
  logic [COLUMNS-1:0] port_busy, port_fault;

  for (genvar j = 0; j < COLUMNS; j++) begin : ports
    post_port #(
        .STAGES(STAGES),
        .UNITS(UNITS),
        .PSUM_BITS(PSUM_BITS),
        .VALUE_BITS(VALUE_BITS),
        .FACTOR_BITS(FACTOR_BITS),
        .BIAS_BITS(BIAS_BITS),
        .IMAGE_BITS(IMAGE_BITS),
        .MAP_BITS(MAP_BITS),
        .TILES(TILES),
        .ADDRESS_BITS(ADDRESS_BITS),
        .SHORTCUT_BITS(SHORTCUT_BITS),
        .CODE_BITS(CODE_BITS),
        .LEVELS(LEVELS),
        .TREE_WORDS(TREE_WORDS),
        .POOL_OVERLAP(POOL_OVERLAP),
        .POOL_WORDS(POOL_WORDS),
        .POOL_AXIS(POOL_AXIS),
        .POOL_COUNT(POOL_COUNT),
        .POOL_QUEUE(POOL_QUEUE)
    ) post (
        .clk,
        .reset,
        .host_write(host_write && (host_port == 16'(j) || host_port == 16'(EVERY_PORT))),
        .host_select(select),
        .host_stage,
        .host_address,
        .host_data,
        .in_valid(complete[j]),
        .in_image(image[j]),
        .in_tile(tile[j]),
        .in_row(in_row[j]),
        .in_column(in_column[j]),
        .in_value(in_value[j]),
        .address(address[j]),
        .shortcut_read(shortcut_read[j]),
        .shortcut_valid(shortcut_valid[j]),
        .shortcut_write(shortcut_write[j]),
        .logit_valid(logit_valid[j]),
        .logit_write(logit_write[j]),
        .code_valid(code_valid[j]),
        .code_address(code_address[j]),
        .code_high(code_high[j]),
        .code_low(code_low[j]),
        .busy(port_busy[j]),
        .fault(port_fault[j])
    );
  end

  assign idle = ~|port_busy;

  always_ff @(posedge clk) fault <= !reset && (fault || |port_fault);

  // Memories: a writer, or reader, for each stage of each port that can need it, and the host as the last one

  // Stages below `stage` that can do a kind of step.
  function automatic int able(input kind_t kind, input int stage);
    able = 0;
    for (int s = 0; s < stage; s++) able += int'(UNITS[8*s+int'(kind)]);
  endfunction

  localparam int ADDERS = COLUMNS * able(ADD, STAGES);
  localparam int SAVERS = COLUMNS * able(SAVE, STAGES);
  localparam int CODERS = COLUMNS * able(REQUANTISE, STAGES);
  localparam int LOGGERS = COLUMNS * able(LOGITS, STAGES);
  localparam int SHORTCUT_INDEX = index_bits(SHORTCUT_WORDS);
  localparam int CODE_INDEX = index_bits(CODE_WORDS);
  localparam int LOGIT_INDEX = index_bits(LOGIT_WORDS);

  logic [SHORTCUT_INDEX-1:0] shortcut_read_addresses[ADDERS+1];
  logic [SHORTCUT_BITS-1:0] shortcut_reads[ADDERS+1];
  logic shortcut_writes[SAVERS+1];
  logic [SHORTCUT_INDEX-1:0] shortcut_addresses[SAVERS+1];
  logic [SHORTCUT_BITS-1:0] shortcut_words[SAVERS+1];
  logic code_writes[2][CODERS+1];  // of the high and of the low plane
  logic [CODE_INDEX-1:0] code_addresses[CODERS+1];
  logic [WORD_BITS-1:0] code_words[2][CODERS+1];
  logic [WORD_BITS-1:0] code_reads[2][1];
  logic logit_writes[LOGGERS+1];
  logic [LOGIT_INDEX-1:0] logit_addresses[LOGGERS+1];
  logic [VALUE_BITS-1:0] logit_words[LOGGERS+1];
  logic [VALUE_BITS-1:0] logit_reads[1];

  for (genvar j = 0; j < COLUMNS; j++) begin : from_ports
    for (genvar s = 0; s < STAGES; s++) begin : from_stages
      if (UNITS[8*s+int'(ADD)]) begin : adds
        localparam int I = j * able(ADD, STAGES) + able(ADD, s);
        assign shortcut_read_addresses[I] = SHORTCUT_INDEX'(address[j][s]);
        assign shortcut_read[j][s] = shortcut_reads[I];
      end else begin : adds_nothing
        assign shortcut_read[j][s] = '0;
      end
      if (UNITS[8*s+int'(SAVE)]) begin : saves
        localparam int I = j * able(SAVE, STAGES) + able(SAVE, s);
        assign shortcut_writes[I] = shortcut_valid[j][s];
        assign shortcut_addresses[I] = SHORTCUT_INDEX'(address[j][s]);
        assign shortcut_words[I] = shortcut_write[j][s];
      end
      if (UNITS[8*s+int'(REQUANTISE)]) begin : codes
        localparam int I = j * able(REQUANTISE, STAGES) + able(REQUANTISE, s);
        assign code_writes[0][I] = code_valid[j][s];
        assign code_writes[1][I] = code_valid[j][s];
        assign code_addresses[I] = CODE_INDEX'(code_address[j][s]);
        assign code_words[0][I] = code_high[j][s];
        assign code_words[1][I] = code_low[j][s];
      end
      if (UNITS[8*s+int'(LOGITS)]) begin : scores
        localparam int I = j * able(LOGITS, STAGES) + able(LOGITS, s);
        assign logit_writes[I] = logit_valid[j][s];
        assign logit_addresses[I] = LOGIT_INDEX'(address[j][s]);
        assign logit_words[I] = logit_write[j][s];
      end
    end
  end

  assign shortcut_read_addresses[ADDERS] = SHORTCUT_INDEX'(host_address);
  assign shortcut_writes[SAVERS] = host_write && select == TO_SHORTCUTS;
  assign shortcut_addresses[SAVERS] = SHORTCUT_INDEX'(host_address);
  assign shortcut_words[SAVERS] = SHORTCUT_BITS'(host_data);
  assign code_writes[0][CODERS] = host_write && select == TO_HIGH_PLANE;
  assign code_writes[1][CODERS] = host_write && select == TO_LOW_PLANE;
  assign code_addresses[CODERS] = CODE_INDEX'(host_address);
  assign code_words[0][CODERS] = WORD_BITS'(host_data);
  assign code_words[1][CODERS] = WORD_BITS'(host_data);
  assign logit_writes[LOGGERS] = host_write && select == TO_LOGITS;
  assign logit_addresses[LOGGERS] = LOGIT_INDEX'(host_address);
  assign logit_words[LOGGERS] = VALUE_BITS'(host_data);

  post_memory #(
      .WORDS(SHORTCUT_WORDS),
      .BITS(SHORTCUT_BITS),
      .WRITERS(SAVERS + 1),
      .READERS(ADDERS + 1)
  ) shortcuts (
      .clk,
      .write(shortcut_writes),
      .write_address(shortcut_addresses),
      .write_data(shortcut_words),
      .read_address(shortcut_read_addresses),
      .read_data(shortcut_reads)
  );

  for (genvar plane = 0; plane < 2; plane++) begin : planes
    post_memory #(
        .WORDS(CODE_WORDS),
        .BITS(WORD_BITS),
        .WRITERS(CODERS + 1),
        .READERS(1)
    ) codes (
        .clk,
        .write(code_writes[plane]),
        .write_address(code_addresses),
        .write_data(code_words[plane]),
        .read_address('{CODE_INDEX'(host_address)}),
        .read_data(code_reads[plane])
    );
  end

  post_memory #(
      .WORDS(LOGIT_WORDS),
      .BITS(VALUE_BITS),
      .WRITERS(LOGGERS + 1),
      .READERS(1)
  ) logits (
      .clk,
      .write(logit_writes),
      .write_address(logit_addresses),
      .write_data(logit_words),
      .read_address('{LOGIT_INDEX'(host_address)}),
      .read_data(logit_reads)
  );

  always_comb begin
    case (select)
      TO_SHORTCUTS: host_read = 64'(shortcut_reads[ADDERS]);
      TO_HIGH_PLANE: host_read = 64'(signed'(code_reads[0][0]));
      TO_LOW_PLANE: host_read = 64'(signed'(code_reads[1][0]));
      default: host_read = 64'(signed'(logit_reads[0]));
    endcase
  end

  always_comb begin
    shortcuts_written = '0;
    codes_written = '0;
    logits_written = '0;
    for (int i = 0; i < SAVERS; i++) shortcuts_written += 32'(shortcut_writes[i]);
    for (int i = 0; i < CODERS; i++) codes_written += 32'(code_writes[0][i]);
    for (int i = 0; i < LOGGERS; i++) logits_written += 32'(logit_writes[i]);
  end

endmodule
