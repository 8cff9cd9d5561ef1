// Types and fixed codes that every module of the machine shares. Rule numbers are those of docs/timing-contract.md.
// All organisations and overflow modes, also those that only a parameter names.
// verilator lint_off UNUSEDPARAM
package pgsim_pkg;

  typedef logic [15:0] pos_t;      // a coordinate, a reduction step, a channel
  typedef logic [16:0] count_t;    // entries of a FIFO, which may be 2^16
  typedef logic [19:0] pixel_t;    // a pixel of a feature map, or a count of them
  typedef logic [23:0] address_t;  // a word in a memory bank
  typedef logic [23:0] number_t;   // a segment or a tile of the layer
  typedef logic [39:0] traffic_t;  // bits on their way over the off-chip channel
  typedef logic [4:0] pass_t;      // a pass of a step
  typedef logic [5:0] shift_t;     // a shift that puts a slice's product in its place

  // Organisations
  localparam int DECOUPLED = 0;
  localparam int DENSE = 1;
  localparam int TWO_PASS = 2;
  localparam int GATED_FUSED = 3;

  // What an accumulator does with a value that it cannot hold
  localparam int OVERFLOW_ERROR = 0;  // does not happen: whoever loads the layer has made sure
  localparam int OVERFLOW_SATURATE = 1;
  localparam int OVERFLOW_WRAP = 2;

  // One layer: what is the same for all of its segments.
  typedef struct packed {
    logic gated;        // runs with a gate on this machine
    logic keeps;        // an output that is not updated keeps A_h << l; else it becomes 0
    logic cooperative;  // the LSB array shares the tiles
    logic own_port;     // depthwise, a window port for each column
    number_t segments;
    number_t tiles;
    pos_t in_height;
    pos_t in_width;
    pos_t out_width;
    pos_t stride_y;
    pos_t stride_x;
    pos_t pad_top;
    pos_t pad_left;
    pos_t dilation_y;
    pos_t dilation_x;
    pos_t kernel_width;
    pos_t words;            // of N channels that one tap takes
    pos_t words_per_pixel;  // of all groups
    pass_t low_bits;        // code = (high << low_bits) + low; l of a gated layer
    pass_t act_predict;     // passes of an activation operand on the PE array, in its first phase
    pass_t act_update;      // on the LSB side, or in the second phase
    pass_t weight_passes;
  } layer_t;

  // One segment: (image, band, group, channel tile, part of K).
  typedef struct packed {
    number_t high_base;  // first word of the image in each bank of the MSB plane (or of the one activation buffer)
    number_t low_base;   // and of the LSB plane
    pos_t word_base;     // first word of the group within a pixel
    address_t row_base;  // first row of the channel tile's weights
    pos_t first_channel;
    pos_t columns;
    pos_t first_row;     // of the output rows of the band
    pixel_t pixels;
    number_t outputs;    // pixels * columns
    pos_t first_step;
    pos_t steps;
    pos_t first_tap_y;
    pos_t first_tap_x;
    logic follows;       // the segment before must be done before this one is read
    traffic_t read_bits;
    traffic_t write_bits;
  } segment_t;

  // A place in an output feature map.
  typedef struct packed {
    pos_t y;
    pos_t x;
  } place_t;

  // One tile on its way through the machine.
  typedef struct packed {
    number_t segment;
    number_t index;
    pixel_t ordinal;  // of its first pixel, within the segment
    pos_t pixels;
    logic last;       // of its segment
  } tile_t;

  // Where the next tile comes from.
  typedef struct packed {
    number_t segment;
    number_t index;
    logic fresh;     // at a segment's first tile: the fields below are not set yet
    place_t first;
    pixel_t left;
    pixel_t ordinal;
  } pointer_t;

  typedef enum logic [3:0] {
    ARRAY_BUSY = 0, ARRAY_TAIL = 1, ARRAY_QUEUE_FULL = 2, ARRAY_OUTPUT_PORT = 3, ARRAY_DRAIN = 4,
    ARRAY_UPDATE_WAIT = 5, ARRAY_OFF_CHIP = 6, ARRAY_K_SPLIT = 7, ARRAY_BANK_CONFLICT = 8, ARRAY_RECURRENCE = 9
  } array_cause_t;

  typedef enum logic [3:0] {
    GROUP_POP = 0, GROUP_BUSY = 1, GROUP_BANK_CONFLICT = 2, GROUP_WEIGHT_PORT = 3, GROUP_RETURN = 4,
    GROUP_PORT_WAIT = 5, GROUP_PARTIAL = 6, GROUP_STARVED = 7, GROUP_TAIL = 8, GROUP_NOT_GATED = 9
  } group_cause_t;

  // The pixel after this one, row-major.
  function automatic place_t place_after(input place_t place, input pos_t out_width);
    if (place.x + 16'd1 == out_width) place_after = '{y: place.y + 16'd1, x: 16'd0};
    else place_after = '{y: place.y, x: place.x + 16'd1};
  endfunction

endpackage
