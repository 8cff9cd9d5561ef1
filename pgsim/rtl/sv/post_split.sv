// Splits a code into the plane that predicts and the plane that updates: code = high * 2^low_bits + low.
// Sign-magnitude codes truncate toward zero and give both planes their sign; others floor, and low is not negative.
module post_split #(
    parameter  int CODE_BITS  = 8,
    localparam int WORD_BITS  = CODE_BITS + 1,        // a sign beside the widest unsigned code
    localparam int COUNT_BITS = $clog2(WORD_BITS + 1)
) (
    input  logic signed [ WORD_BITS-1:0] code,
    input  logic                         sign_magnitude,
    input  logic        [COUNT_BITS-1:0] low_bits,        // 0: the high plane takes the whole code
    output logic signed [ WORD_BITS-1:0] high,
    output logic signed [ WORD_BITS-1:0] low
);

  logic negative;
  logic signed [WORD_BITS-1:0] number, number_high, number_low;

  assign negative = sign_magnitude && code < 0;
  assign number = negative ? -code : code;
  assign number_high = number >>> low_bits;
  assign number_low = number & ~(~WORD_BITS'(0) << low_bits);
  assign high = negative ? -number_high : number_high;
  assign low = negative ? -number_low : number_low;

endmodule
