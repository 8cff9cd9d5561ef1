// What follows one output port: a register and then the stages, one result a cycle throughout.
//
//   {image, tile, row, column, psum} --widened--> value --stage 0-- ... --stage STAGES-1
module post_port
  import post_package::*;
#(
    parameter  int                  STAGES        = 8,
    parameter  logic [8*STAGES-1:0] UNITS         = '1,  // a byte a stage, stage 0 lowest
    parameter  int                  PSUM_BITS     = 24,
    parameter  int                  VALUE_BITS    = 40,
    parameter  int                  FACTOR_BITS   = 24,
    parameter  int                  BIAS_BITS     = 40,
    parameter  int                  IMAGE_BITS    = 1,
    parameter  int                  MAP_BITS      = 8,
    parameter  int                  TILES         = 64,
    parameter  int                  ADDRESS_BITS  = 16,
    parameter  int                  SHORTCUT_BITS = 16,
    parameter  int                  CODE_BITS     = 8,
    parameter  int                  LEVELS        = 8,
    parameter  int                  TREE_WORDS    = 256,
    parameter  int                  POOL_OVERLAP  = 2,
    parameter  int                  POOL_WORDS    = 64,
    parameter  int                  POOL_AXIS     = 64,
    parameter  int                  POOL_COUNT    = 10,
    parameter  int                  POOL_QUEUE    = 64,
    localparam int                  TILE_BITS     = index_bits(TILES),
    localparam int                  WORD_BITS     = CODE_BITS + 1
) (
    input  logic                            clk,
    input  logic                            reset,
    // the host's writes to this port
    input  logic                            host_write,
    input  select_t                         host_select,
    input  logic        [              7:0] host_stage,
    input  logic        [             31:0] host_address,
    input  logic signed [             63:0] host_data,
    // results
    input  logic                            in_valid,
    input  logic        [   IMAGE_BITS-1:0] in_image,
    input  logic        [    TILE_BITS-1:0] in_tile,
    input  logic        [     MAP_BITS-1:0] in_row,
    input  logic        [     MAP_BITS-1:0] in_column,
    input  logic signed [    PSUM_BITS-1:0] in_value,
    // memories, a stage each
    output logic        [ ADDRESS_BITS-1:0] address       [STAGES],
    input  logic        [SHORTCUT_BITS-1:0] shortcut_read [STAGES],
    output logic                            shortcut_valid[STAGES],
    output logic        [SHORTCUT_BITS-1:0] shortcut_write[STAGES],
    output logic                            logit_valid   [STAGES],
    output logic signed [   VALUE_BITS-1:0] logit_write   [STAGES],
    output logic                            code_valid    [STAGES],
    output logic        [ ADDRESS_BITS-1:0] code_address  [STAGES],
    output logic signed [    WORD_BITS-1:0] code_high     [STAGES],
    output logic signed [    WORD_BITS-1:0] code_low      [STAGES],
    output logic                            busy,
    output logic                            fault
);

  // nothing follows the last stage
  // verilator lint_off UNUSEDSIGNAL
  logic [STAGES:0] valid;
  logic [IMAGE_BITS-1:0] image[STAGES+1];
  logic [TILE_BITS-1:0] tile[STAGES+1];
  logic [MAP_BITS-1:0] map_row[STAGES+1];
  logic [MAP_BITS-1:0] map_column[STAGES+1];
  logic signed [VALUE_BITS-1:0] value[STAGES+1];
  // verilator lint_on UNUSEDSIGNAL

  logic [STAGES-1:0] stage_busy, stage_fault;

  always_ff @(posedge clk) begin
    valid[0] <= !reset && in_valid;
    image[0] <= in_image;
    tile[0] <= in_tile;
    map_row[0] <= in_row;
    map_column[0] <= in_column;
    value[0] <= VALUE_BITS'(in_value);
  end

  for (genvar s = 0; s < STAGES; s++) begin : stages
    post_stage #(
        .UNITS(UNITS[8*s+:8]),
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
    ) stage (
        .clk,
        .reset,
        .host_write(host_write && host_stage == 8'(s)),
        .host_select,
        .host_address,
        .host_data,
        .in_valid(valid[s]),
        .in_image(image[s]),
        .in_tile(tile[s]),
        .in_row(map_row[s]),
        .in_column(map_column[s]),
        .in_value(value[s]),
        .out_valid(valid[s+1]),
        .out_image(image[s+1]),
        .out_tile(tile[s+1]),
        .out_row(map_row[s+1]),
        .out_column(map_column[s+1]),
        .out_value(value[s+1]),
        .address(address[s]),
        .shortcut_read(shortcut_read[s]),
        .shortcut_valid(shortcut_valid[s]),
        .shortcut_write(shortcut_write[s]),
        .logit_valid(logit_valid[s]),
        .logit_write(logit_write[s]),
        .code_valid(code_valid[s]),
        .code_address(code_address[s]),
        .code_high(code_high[s]),
        .code_low(code_low[s]),
        .busy(stage_busy[s]),
        .fault(stage_fault[s])
    );
  end

  assign busy  = valid[0] || |stage_busy;
  assign fault = |stage_fault;

endmodule
