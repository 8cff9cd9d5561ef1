// Names shared by the post-processing unit and whoever loads it; pgsim/rtl/post.py holds the same numbers.
package post_package;

  // What a stage does with the values that pass it. Bias is FIXED_POINT with factor 1 and shift 0.
  typedef enum logic [2:0] {
    PASS        = 3'd0,  // nothing
    FIXED_POINT = 3'd1,  // v <- (factor * v + bias + 2^(shift-1)) >> shift
    ADD         = 3'd2,  // v <- v + shortcut
    CLAMP       = 3'd3,  // v <- min(max(v, low), high)
    SAVE        = 3'd4,  // keeps v as a shortcut
    POOL        = 3'd5,  // v <- sum or maximum of each window; a new stream, of windows
    REQUANTISE  = 3'd6,  // keeps base + number of thresholds that direction * v reaches, as two planes
    LOGITS      = 3'd7   // keeps v as it is
  } kind_t;

  // What a host write goes to. Those down to AXIS_COLUMNS lie in a stage of a port.
  typedef enum logic [3:0] {
    TO_DESCRIPTOR   = 4'd0,   // address: a field_t
    TO_FACTOR       = 4'd1,   // address: tile
    TO_BIAS         = 4'd2,   // address: tile
    TO_OFFSET       = 4'd3,   // address: tile; bit 32 of the data: there is a shortcut for this channel
    TO_DIRECTION    = 4'd4,   // address: tile; 1: compare -v
    TO_TREE         = 4'd5,   // address: level << 24 | row * 2^level + node
    TO_AXIS_ROWS    = 4'd6,   // address: residue << 16 | row of the map
    TO_AXIS_COLUMNS = 4'd7,   // address: residue << 16 | column of the map
    TO_SEGMENTS     = 4'd8,   // address: segment; data: bit 48: ends in outputs; from 16 on: image; from 0: tile
    TO_SHORTCUTS    = 4'd9,   // memories: address: word
    TO_HIGH_PLANE   = 4'd10,
    TO_LOW_PLANE    = 4'd11,
    TO_LOGITS       = 4'd12
  } select_t;

  // The registers of a stage.
  typedef enum logic [3:0] {
    KIND           = 4'd0,
    SHIFT          = 4'd1,   // FIXED_POINT: 0 .. 62
    LOW            = 4'd2,   // CLAMP: lower bound; SAVE: smallest value that the shortcut holds
    HIGH           = 4'd3,   // CLAMP: upper bound; SAVE: largest
    SIGNED         = 4'd4,   // ADD: the shortcut is two's complement
    IMAGE_STRIDE   = 4'd5,   // words from an image to the next; POOL: windows of an image in a bank
    ROW_STRIDE     = 4'd6,   // words from a row to the next; POOL: windows of a row in a bank
    COLUMN_STRIDE  = 4'd7,
    DEPTH          = 4'd8,   // REQUANTISE: levels of the tree in use, 2^DEPTH - 1 thresholds
    SHARED         = 4'd9,   // REQUANTISE: one row of thresholds for all channels
    BASE           = 4'd10,  // REQUANTISE: the code below all thresholds
    SIGN_MAGNITUDE = 4'd11,  // REQUANTISE: both planes take the code's sign, and split its magnitude
    LOW_BITS       = 4'd12,  // REQUANTISE: bits of the low plane, 0 for none
    MAXIMUM        = 4'd13   // POOL: 1: the maximum, 0: the sum
  } field_t;

  // Bits that number so many things; one thing takes a bit, too.
  function automatic int index_bits(input int things);
    return things > 1 ? $clog2(things) : 1;
  endfunction

  function automatic int larger(input int a, input int b);
    return a > b ? a : b;
  endfunction

endpackage
