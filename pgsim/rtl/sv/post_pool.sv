// Sums or takes the maximum of windows whose values come in any order.
//
//   value at (row, column) --axis tables--> its windows --bank (r, c) each--> count and value so far --last one--> queue
//
// A window's state lies in a bank: window (p, q) in bank (p mod OVERLAP, q mod OVERLAP). A value lies in at most OVERLAP
// windows on each axis where kernel <= OVERLAP * stride, one a bank, so every bank changes at most one word a cycle and a
// value a cycle is kept up with. For each row of the map and each residue r an axis table says which window of that
// residue the row falls in, if any, and how many rows of that window lie inside the map; columns likewise. So padding,
// strides and rows that fill no window are the host's arithmetic and not this module's.
// A finished window leaves its word as it was found, at count 0, and joins the queue; one window a cycle goes on.
module post_pool
  import post_package::*;
#(
    parameter  int VALUE_BITS = 40,
    parameter  int IMAGE_BITS = 1,
    parameter  int TILE_BITS  = 6,
    parameter  int MAP_BITS   = 8,               // rows and columns of maps
    parameter  int OVERLAP    = 2,
    parameter  int WORDS      = 64,               // windows in a bank
    parameter  int AXIS_WORDS = 64,               // rows, and columns, of a map that is pooled
    parameter  int COUNT_BITS = 10,               // values of a window, at most 16 bits
    parameter  int QUEUE      = 64,
    localparam int WORD_BITS  = index_bits(WORDS)
) (
    input  logic                         clk,
    input  logic                         reset,
    // axis tables
    input  logic                         rows_write,
    input  logic                         columns_write,
    input  logic        [          15:0] axis_residue,
    // fields and maps narrower than what holds them
    // verilator lint_off UNUSEDSIGNAL
    input  logic        [          15:0] axis_address,
    input  logic        [          32:0] axis_data,     // {hit, values inside, window div OVERLAP}
    // what the layer asks for
    input  logic                         maximum,
    input  logic        [ WORD_BITS-1:0] image_stride,
    input  logic        [ WORD_BITS-1:0] row_stride,
    // values of the map
    input  logic                         in_valid,
    input  logic        [IMAGE_BITS-1:0] in_image,
    input  logic        [ TILE_BITS-1:0] in_tile,
    input  logic        [ WORD_BITS-1:0] in_offset,     // where the tile's windows begin in each bank
    input  logic        [  MAP_BITS-1:0] in_row,
    input  logic        [  MAP_BITS-1:0] in_column,
    // verilator lint_on UNUSEDSIGNAL
    input  logic signed [VALUE_BITS-1:0] in_value,
    // values of windows
    output logic                         out_valid,
    output logic        [IMAGE_BITS-1:0] out_image,
    output logic        [ TILE_BITS-1:0] out_tile,
    output logic        [  MAP_BITS-1:0] out_row,
    output logic        [  MAP_BITS-1:0] out_column,
    output logic signed [VALUE_BITS-1:0] out_value,
    output logic                         fault
);

  localparam int BANKS = OVERLAP * OVERLAP;
  localparam int AXIS_BITS = index_bits(AXIS_WORDS);
  localparam int ENTRY_BITS = 1 + COUNT_BITS + MAP_BITS;
  localparam int RESULT_BITS = IMAGE_BITS + TILE_BITS + 2 * MAP_BITS + VALUE_BITS;

  // The axis tables, one a residue: {hit, values inside, window div OVERLAP}.
  logic [ENTRY_BITS-1:0] entry, row_entry[OVERLAP], column_entry[OVERLAP];

  assign entry = {axis_data[32], COUNT_BITS'(axis_data[31:16]), MAP_BITS'(axis_data[15:0])};

  for (genvar r = 0; r < OVERLAP; r++) begin : axes
    post_table #(
        .WORDS(AXIS_WORDS),
        .BITS (ENTRY_BITS)
    ) rows (
        .clk,
        .write(rows_write && axis_residue == 16'(r)),
        .write_address(axis_address[AXIS_BITS-1:0]),
        .write_data(entry),
        .read_address(AXIS_BITS'(in_row)),
        .read_data(row_entry[r])
    );
    post_table #(
        .WORDS(AXIS_WORDS),
        .BITS (ENTRY_BITS)
    ) columns (
        .clk,
        .write(columns_write && axis_residue == 16'(r)),
        .write_address(axis_address[AXIS_BITS-1:0]),
        .write_data(entry),
        .read_address(AXIS_BITS'(in_column)),
        .read_data(column_entry[r])
    );
  end

  logic [RESULT_BITS-1:0] results[BANKS];
  logic [BANKS-1:0] pushes;

  for (genvar bank = 0; bank < BANKS; bank++) begin : banks
    localparam int R = bank / OVERLAP;
    localparam int C = bank % OVERLAP;

    logic [COUNT_BITS-1:0] counts[WORDS];
    logic signed [VALUE_BITS-1:0] values[WORDS];

    logic row_hit, column_hit, hit, first, finished;
    logic [COUNT_BITS-1:0] rows_inside, columns_inside, count;
    logic [MAP_BITS-1:0] row, column;  // of the window, div OVERLAP
    logic [WORD_BITS-1:0] address;
    logic signed [VALUE_BITS-1:0] so_far, merged;

    assign {row_hit, rows_inside, row} = row_entry[R];
    assign {column_hit, columns_inside, column} = column_entry[C];
    assign hit = in_valid && row_hit && column_hit;
    assign address = in_offset + (in_image[0] ? image_stride : '0) + WORD_BITS'(row) * row_stride + WORD_BITS'(column);
    assign first = counts[address] == '0;
    assign count = counts[address] + 1'b1;
    assign finished = count == rows_inside * columns_inside;
    assign so_far = values[address];

    always_comb begin
      if (first) merged = in_value;
      else if (!maximum) merged = so_far + in_value;
      else merged = in_value > so_far ? in_value : so_far;
    end

    always_ff @(posedge clk) begin
      if (reset) begin
        for (int i = 0; i < WORDS; i++) counts[i] <= '0;
      end else if (hit) begin
        counts[address] <= finished ? '0 : count;
      end
    end

    always_ff @(posedge clk) if (hit) values[address] <= merged;

    assign pushes[bank] = hit && finished;
    assign results[bank] = {
      in_image,
      in_tile,
      MAP_BITS'(row * MAP_BITS'(OVERLAP)) + MAP_BITS'(R),
      MAP_BITS'(column * MAP_BITS'(OVERLAP)) + MAP_BITS'(C),
      merged
    };
  end

  post_queue #(
      .SOURCES(BANKS),
      .WORDS  (QUEUE),
      .BITS   (RESULT_BITS)
  ) queue (
      .clk,
      .reset,
      .push(pushes),
      .push_data(results),
      .pop(out_valid),
      .filled(out_valid),
      .head({out_image, out_tile, out_row, out_column, out_value}),
      .fault
  );

endmodule
