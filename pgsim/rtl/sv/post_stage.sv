// One step of what follows the accumulator, chosen at run time by the stage's descriptor.
//
//   in --+--> fixed point, add, clamp ---------------> register --+--> out
//        +--> save, logits: a word and its address                |
//        +--> requantise: search ~~~> planes and their address    |
//        +--> pool: windows ~~~> --------------------------------+
//
// UNITS says which steps the stage can be told to do (bit k: those of kind k); the others cost nothing. Addresses are
// offset[tile] + image * image_stride + row * row_stride + column * column_stride, so that the host lays out tensors.
module post_stage
  import post_package::*;
#(
    parameter  logic [7:0] UNITS         = 8'hff,
    parameter  int         VALUE_BITS    = 40,
    parameter  int         FACTOR_BITS   = 24,
    parameter  int         BIAS_BITS     = 40,
    parameter  int         IMAGE_BITS    = 1,
    parameter  int         MAP_BITS      = 8,
    parameter  int         TILES         = 64,
    parameter  int         ADDRESS_BITS  = 16,
    parameter  int         SHORTCUT_BITS = 16,
    parameter  int         CODE_BITS     = 8,
    parameter  int         LEVELS        = 8,
    parameter  int         TREE_WORDS    = 256,
    parameter  int         POOL_OVERLAP  = 2,
    parameter  int         POOL_WORDS    = 64,
    parameter  int         POOL_AXIS     = 64,
    parameter  int         POOL_COUNT    = 10,
    parameter  int         POOL_QUEUE    = 64,
    localparam int         TILE_BITS     = index_bits(TILES),
    localparam int         WORD_BITS     = CODE_BITS + 1,
    localparam int         DEPTH_BITS    = $clog2(LEVELS + 1),
    localparam int         COUNT_BITS    = $clog2(WORD_BITS + 1)
) (
    input  logic                            clk,
    input  logic                            reset,
    // the host's writes to this stage
    input  logic                            host_write,
    input  select_t                         host_select,
    // each unit takes the bits that it needs
    // verilator lint_off UNUSEDSIGNAL
    input  logic        [             31:0] host_address,
    input  logic signed [             63:0] host_data,
    // verilator lint_on UNUSEDSIGNAL
    // values in, and out to the next stage
    input  logic                            in_valid,
    input  logic        [   IMAGE_BITS-1:0] in_image,
    input  logic        [    TILE_BITS-1:0] in_tile,
    input  logic        [     MAP_BITS-1:0] in_row,
    input  logic        [     MAP_BITS-1:0] in_column,
    input  logic signed [   VALUE_BITS-1:0] in_value,
    output logic                            out_valid,
    output logic        [   IMAGE_BITS-1:0] out_image,
    output logic        [    TILE_BITS-1:0] out_tile,
    output logic        [     MAP_BITS-1:0] out_row,
    output logic        [     MAP_BITS-1:0] out_column,
    output logic signed [   VALUE_BITS-1:0] out_value,
    // memories
    output logic        [ ADDRESS_BITS-1:0] address,          // of this cycle's shortcut or logit
    input  logic        [SHORTCUT_BITS-1:0] shortcut_read,
    output logic                            shortcut_valid,
    output logic        [SHORTCUT_BITS-1:0] shortcut_write,
    output logic                            logit_valid,
    output logic signed [   VALUE_BITS-1:0] logit_write,
    output logic                            code_valid,
    output logic        [ ADDRESS_BITS-1:0] code_address,
    output logic signed [    WORD_BITS-1:0] code_high,
    output logic signed [    WORD_BITS-1:0] code_low,
    output logic                            busy,             // holds something that is still to come out
    output logic                            fault             // a shortcut that does not fit, a full queue
);

  // Descriptor

  kind_t kind;
  // a stage that lacks a unit leaves its registers unread
  // verilator lint_off UNUSEDSIGNAL
  logic [5:0] shift;
  logic signed [VALUE_BITS-1:0] low, high;
  logic shortcut_signed, shared, sign_magnitude, maximum;
  logic [ADDRESS_BITS-1:0] image_stride, row_stride, column_stride;
  logic [DEPTH_BITS-1:0] depth;
  logic [COUNT_BITS-1:0] low_bits;
  logic signed [WORD_BITS-1:0] base;
  // verilator lint_on UNUSEDSIGNAL

  always_ff @(posedge clk) begin
    if (reset) kind <= PASS;
    else if (host_write && host_select == TO_DESCRIPTOR) begin
      case (host_address[3:0])
        KIND: kind <= kind_t'(host_data[2:0]);
        SHIFT: shift <= host_data[5:0];
        LOW: low <= VALUE_BITS'(host_data);
        HIGH: high <= VALUE_BITS'(host_data);
        SIGNED: shortcut_signed <= host_data[0];
        IMAGE_STRIDE: image_stride <= ADDRESS_BITS'(host_data);
        ROW_STRIDE: row_stride <= ADDRESS_BITS'(host_data);
        COLUMN_STRIDE: column_stride <= ADDRESS_BITS'(host_data);
        DEPTH: depth <= DEPTH_BITS'(host_data);
        SHARED: shared <= host_data[0];
        BASE: base <= WORD_BITS'(host_data);
        SIGN_MAGNITUDE: sign_magnitude <= host_data[0];
        LOW_BITS: low_bits <= COUNT_BITS'(host_data);
        MAXIMUM: maximum <= host_data[0];
        default: ;
      endcase
    end
  end

  // Fixed point

  logic signed [VALUE_BITS-1:0] scaled;

  if (UNITS[FIXED_POINT]) begin : fixed_point
    // Holds factor * v + bias + 2^61 exactly, whatever they are.
    localparam int WIDE_BITS = 2 + larger(larger(VALUE_BITS + FACTOR_BITS, BIAS_BITS), 62);

    logic [FACTOR_BITS-1:0] factor;
    logic [BIAS_BITS-1:0] bias;
    logic signed [WIDE_BITS-1:0] rounding, sum;

    post_table #(
        .WORDS(TILES),
        .BITS (FACTOR_BITS)
    ) factors (
        .clk,
        .write(host_write && host_select == TO_FACTOR),
        .write_address(host_address[TILE_BITS-1:0]),
        .write_data(FACTOR_BITS'(host_data)),
        .read_address(in_tile),
        .read_data(factor)
    );

    post_table #(
        .WORDS(TILES),
        .BITS (BIAS_BITS)
    ) biases (
        .clk,
        .write(host_write && host_select == TO_BIAS),
        .write_address(host_address[TILE_BITS-1:0]),
        .write_data(BIAS_BITS'(host_data)),
        .read_address(in_tile),
        .read_data(bias)
    );

    assign rounding = shift == '0 ? '0 : WIDE_BITS'(1) << (shift - 1'b1);
    assign sum = WIDE_BITS'(signed'(factor)) * WIDE_BITS'(in_value) + WIDE_BITS'(signed'(bias)) + rounding;
    assign scaled = VALUE_BITS'(sum >>> shift);
  end else begin : no_fixed_point
    assign scaled = in_value;
  end

  // Addresses

  logic present;
  logic [ADDRESS_BITS-1:0] offset;

  post_table #(
      .WORDS(TILES),
      .BITS (1 + ADDRESS_BITS)
  ) offsets (
      .clk,
      .write(host_write && host_select == TO_OFFSET),
      .write_address(host_address[TILE_BITS-1:0]),
      .write_data({host_data[32], ADDRESS_BITS'(host_data)}),
      .read_address(in_tile),
      .read_data({present, offset})
  );

  assign address = offset + ADDRESS_BITS'(in_image) * image_stride + ADDRESS_BITS'(in_row) * row_stride +
      ADDRESS_BITS'(in_column) * column_stride;

  // Add, clamp, save, logits

  logic signed [VALUE_BITS-1:0] shortcut, limited;

  always_comb begin
    if (!present) shortcut = '0;
    else if (shortcut_signed) shortcut = VALUE_BITS'(signed'(shortcut_read));
    else shortcut = VALUE_BITS'(shortcut_read);
  end

  always_comb begin
    if (in_value < low) limited = low;
    else if (in_value > high) limited = high;
    else limited = in_value;
  end

  assign shortcut_valid = UNITS[SAVE] && in_valid && kind == SAVE;
  assign shortcut_write = SHORTCUT_BITS'(in_value);
  assign logit_valid = UNITS[LOGITS] && in_valid && kind == LOGITS;
  assign logit_write = in_value;

  // Requantise

  logic searching;

  if (UNITS[REQUANTISE]) begin : requantise
    localparam int NODE_BITS = index_bits(TREE_WORDS);

    logic direction;
    logic signed [VALUE_BITS:0] directed;

    post_table #(
        .WORDS(TILES),
        .BITS (1)
    ) directions (
        .clk,
        .write(host_write && host_select == TO_DIRECTION),
        .write_address(host_address[TILE_BITS-1:0]),
        .write_data(host_data[0]),
        .read_address(in_tile),
        .read_data(direction)
    );

    assign directed = direction ? -(VALUE_BITS + 1)'(in_value) : (VALUE_BITS + 1)'(in_value);

    post_search #(
        .VALUE_BITS(VALUE_BITS),
        .LEVELS(LEVELS),
        .TREE_WORDS(TREE_WORDS),
        .ROW_BITS(TILE_BITS),
        .CODE_BITS(CODE_BITS),
        .ADDRESS_BITS(ADDRESS_BITS)
    ) search (
        .clk,
        .reset,
        .tree_write(host_write && host_select == TO_TREE),
        .tree_level(host_address[31:24]),
        .tree_address(host_address[NODE_BITS-1:0]),
        .tree_data((VALUE_BITS + 1)'(host_data)),
        .depth,
        .base,
        .sign_magnitude,
        .low_bits,
        .in_valid(in_valid && kind == REQUANTISE),
        .in_value(directed),
        .in_row(shared ? '0 : in_tile),
        .in_address(address),
        .out_valid(code_valid),
        .out_address(code_address),
        .out_high(code_high),
        .out_low(code_low),
        .busy(searching)
    );
  end else begin : no_requantise
    assign code_valid   = 1'b0;
    assign code_address = '0;
    assign code_high    = '0;
    assign code_low     = '0;
    assign searching    = 1'b0;
  end

  // Pool

  logic pool_valid, pool_fault;
  logic [IMAGE_BITS-1:0] pool_image;
  logic [TILE_BITS-1:0] pool_tile;
  logic [MAP_BITS-1:0] pool_row, pool_column;
  logic signed [VALUE_BITS-1:0] pool_value;

  if (UNITS[POOL]) begin : pool
    localparam int POOL_BITS = index_bits(POOL_WORDS);

    post_pool #(
        .VALUE_BITS(VALUE_BITS),
        .IMAGE_BITS(IMAGE_BITS),
        .TILE_BITS(TILE_BITS),
        .MAP_BITS(MAP_BITS),
        .OVERLAP(POOL_OVERLAP),
        .WORDS(POOL_WORDS),
        .AXIS_WORDS(POOL_AXIS),
        .COUNT_BITS(POOL_COUNT),
        .QUEUE(POOL_QUEUE)
    ) windows (
        .clk,
        .reset,
        .rows_write(host_write && host_select == TO_AXIS_ROWS),
        .columns_write(host_write && host_select == TO_AXIS_COLUMNS),
        .axis_residue(host_address[31:16]),
        .axis_address(host_address[15:0]),
        .axis_data(host_data[32:0]),
        .maximum,
        .image_stride(POOL_BITS'(image_stride)),
        .row_stride(POOL_BITS'(row_stride)),
        .in_valid(in_valid && kind == POOL),
        .in_image,
        .in_tile,
        .in_offset(POOL_BITS'(offset)),
        .in_row,
        .in_column,
        .in_value,
        .out_valid(pool_valid),
        .out_image(pool_image),
        .out_tile(pool_tile),
        .out_row(pool_row),
        .out_column(pool_column),
        .out_value(pool_value),
        .fault(pool_fault)
    );
  end else begin : no_pool
    assign pool_valid  = 1'b0;
    assign pool_image  = '0;
    assign pool_tile   = '0;
    assign pool_row    = '0;
    assign pool_column = '0;
    assign pool_value  = '0;
    assign pool_fault  = 1'b0;
  end

  // On to the next stage

  logic step_valid;
  logic [IMAGE_BITS-1:0] step_image;
  logic [TILE_BITS-1:0] step_tile;
  logic [MAP_BITS-1:0] step_row, step_column;
  logic signed [VALUE_BITS-1:0] step_value;

  always_ff @(posedge clk) begin
    step_valid  <= !reset && in_valid && !(UNITS[POOL] && kind == POOL);
    step_image  <= in_image;
    step_tile   <= in_tile;
    step_row    <= in_row;
    step_column <= in_column;
    case (kind)
      FIXED_POINT: step_value <= scaled;
      ADD: step_value <= UNITS[ADD] ? in_value + shortcut : in_value;
      CLAMP: step_value <= UNITS[CLAMP] ? limited : in_value;
      default: step_value <= in_value;
    endcase
  end

  assign out_valid  = step_valid || pool_valid;
  assign out_image  = pool_valid ? pool_image : step_image;
  assign out_tile   = pool_valid ? pool_tile : step_tile;
  assign out_row    = pool_valid ? pool_row : step_row;
  assign out_column = pool_valid ? pool_column : step_column;
  assign out_value  = pool_valid ? pool_value : step_value;

  assign busy  = out_valid || searching;
  assign fault = pool_fault || (shortcut_valid && (in_value < low || in_value > high));

endmodule
