// A processing element: N lanes, adder tree, accumulator. In two_pass a comparator opens the update phase of the same
// accumulator; in gated_fused a second part, with an accumulator of its own, does the update phase of the tile before,
// and both parts take an operand together in a layer that is not gated.
// What an organisation has no use for.
// verilator lint_off UNUSEDSIGNAL
module pe
  import pgsim_pkg::*;
#(
    parameter int ORGANISATION = DECOUPLED,
    parameter int N = 1,
    parameter int ACT_BITS = 2,
    parameter int LOW_ACT_BITS = 1,  // of the LSB part, in gated_fused
    parameter int WEIGHT_BITS = 8,
    parameter int WIDE_BITS = 32,
    parameter int PSUM_BITS = 32,
    parameter int OVERFLOW = OVERFLOW_ERROR
) (
    input  logic                             clk,
    input  logic signed [PSUM_BITS:0]        threshold,
    input  pass_t                            low_bits,
    input  logic                             keeps,
    input  logic                             used,       // a pixel and channel of the tile is this PE's
    input  logic                             low_used,   // the same of the LSB part
    // the array, or its MSB part
    input  logic                             begins,     // a tile's first cycle
    input  logic                             loads,      // fetches a partial sum
    input  logic signed [PSUM_BITS-1:0]      load_value,
    input  logic                             passes,
    input  logic                             opens,      // first pass of the update phase (two_pass)
    input  logic                             updates,    // a pass of the update phase
    input  logic                             ends_step,
    input  shift_t                           shift,
    input  logic [N-1:0][ACT_BITS:0]         act,
    input  logic [N-1:0][WEIGHT_BITS:0]      weight,
    // the LSB part (gated_fused)
    input  logic                             joined,     // both parts are at work on one operand
    input  logic                             low_begins, // takes over what the MSB part holds
    input  logic                             low_passes,
    input  logic                             low_opens,
    input  logic                             low_ends_step,
    input  shift_t                           low_shift,
    input  logic [N-1:0][LOW_ACT_BITS:0]     low_act,
    input  logic [N-1:0][WEIGHT_BITS:0]      low_weight,
    output logic signed [PSUM_BITS-1:0]      psum
);

  localparam int PART_BITS = ACT_BITS + WEIGHT_BITS + 2 + $clog2(N);
  localparam int LOW_PART_BITS = LOW_ACT_BITS + WEIGHT_BITS + 2 + $clog2(N);
  localparam int SUM_BITS = ORGANISATION == GATED_FUSED ? PART_BITS + LOW_ACT_BITS + 1 : PART_BITS;

  logic signed [PART_BITS-1:0] part;
  logic signed [SUM_BITS-1:0] sum;
  logic signed [WIDE_BITS-1:0] held, from, to;

  lane_sum #(.N(N), .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS)) lanes (.act, .weight, .sum(part));
  accumulator #(.SUM_BITS(SUM_BITS), .WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) adder (
      .clk, .taken(used && passes), .from, .sum, .shift, .ends_step, .to
  );
  always_ff @(posedge clk)
    if (loads) held <= WIDE_BITS'(load_value);
    else if (passes) held <= to;
    else if (begins) held <= '0;

  if (ORGANISATION == TWO_PASS) begin : two_pass
    logic mask, mask_held, mask_now;
    logic signed [PSUM_BITS-1:0] opened;
    logic signed [WIDE_BITS-1:0] base;
    gate #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) comparator (
        .clk, .taken(used && passes && opens), .psum(PSUM_BITS'(held)), .threshold, .low_bits, .keeps, .mask, .opened
    );
    assign mask_now = opens ? mask : mask_held;
    assign base = opens ? WIDE_BITS'(opened) : held;
    assign from = begins ? '0 : base;
    assign sum = updates && !mask_now ? '0 : part;
    assign psum = PSUM_BITS'(held);
    always_ff @(posedge clk) if (passes && opens) mask_held <= mask;
  end else if (ORGANISATION == GATED_FUSED) begin : fused
    logic mask, mask_held, mask_now;
    logic signed [LOW_PART_BITS-1:0] low_part, low_sum;
    logic signed [PSUM_BITS-1:0] opened;
    logic signed [WIDE_BITS-1:0] low_held, low_base, low_from, low_to;
    lane_sum #(.N(N), .ACT_BITS(LOW_ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS)) low_lanes (
        .act(low_act), .weight(low_weight), .sum(low_part)
    );
    assign from = begins ? '0 : held;
    assign sum = joined ? (SUM_BITS'(part) <<< LOW_ACT_BITS) + SUM_BITS'(low_part) : SUM_BITS'(part);
    assign low_base = low_begins ? held : low_held;
    gate #(.WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) comparator (
        .clk, .taken(low_used && low_passes && low_opens), .psum(PSUM_BITS'(low_base)), .threshold, .low_bits, .keeps,
        .mask, .opened
    );
    assign mask_now = low_opens ? mask : mask_held;
    assign low_from = low_opens ? WIDE_BITS'(opened) : low_base;
    assign low_sum = mask_now ? low_part : '0;
    accumulator #(.SUM_BITS(LOW_PART_BITS), .WIDE_BITS(WIDE_BITS), .PSUM_BITS(PSUM_BITS), .OVERFLOW(OVERFLOW)) low_adder (
        .clk, .taken(low_used && low_passes), .from(low_from), .sum(low_sum), .shift(low_shift),
        .ends_step(low_ends_step), .to(low_to)
    );
    assign psum = PSUM_BITS'(joined ? held : low_held);
    always_ff @(posedge clk) begin
      if (low_passes && low_opens) mask_held <= mask;
      if (low_passes) low_held <= low_to;
      else if (low_begins) low_held <= held;
    end
  end else begin : plain
    assign from = begins ? '0 : held;
    assign sum = part;
    assign psum = PSUM_BITS'(held);
  end

endmodule
