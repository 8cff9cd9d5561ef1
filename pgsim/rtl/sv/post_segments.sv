// Turns what a machine's output port says of a result, its segment, into what the stages ask for: the image and the port's
// tile. A partial sum, a result of a segment whose part of K is not the last, goes no further.
module post_segments
  import post_package::*;
#(
    parameter  int COLUMNS      = 4,
    parameter  int SEGMENTS     = 1024,                  // of a layer and batch
    parameter  int IMAGES       = 1,
    parameter  int TILES        = 64,
    localparam int SEGMENT_BITS = index_bits(SEGMENTS),
    localparam int IMAGE_BITS   = index_bits(IMAGES),
    localparam int TILE_BITS    = index_bits(TILES)
) (
    input  logic                           clk,
    input  logic                           host_write,
    // as many bits as segments, images and tiles have
    // verilator lint_off UNUSEDSIGNAL
    input  logic        [            31:0] host_address,
    input  logic signed [            63:0] host_data,
    // verilator lint_on UNUSEDSIGNAL
    input  logic                           in_valid  [COLUMNS],
    input  logic        [SEGMENT_BITS-1:0] in_segment[COLUMNS],
    output logic                           out_valid [COLUMNS],
    output logic        [  IMAGE_BITS-1:0] out_image [COLUMNS],
    output logic        [   TILE_BITS-1:0] out_tile  [COLUMNS]
);

  logic [IMAGE_BITS+TILE_BITS:0] entries[SEGMENTS];  // {complete, image, tile}
  logic [COLUMNS-1:0] complete;

  always_ff @(posedge clk) begin
    if (host_write)
      entries[host_address[SEGMENT_BITS-1:0]] <= {host_data[48], host_data[16+:IMAGE_BITS], host_data[0+:TILE_BITS]};
  end

  always_comb begin
    for (int j = 0; j < COLUMNS; j++) begin
      {complete[j], out_image[j], out_tile[j]} = entries[in_segment[j]];
      out_valid[j] = in_valid[j] && complete[j];
    end
  end

endmodule
