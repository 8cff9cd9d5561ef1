// Holds the row of weights that was read last, until its last step is over, and gives the slices of one step's pass.
module weight_row
  import pgsim_pkg::*;
#(
    parameter int COLUMNS = 2,
    parameter int N = 1,
    parameter int ROW_STEPS = 1,
    parameter int STORED_BITS = 9,  // of a weight as it is stored, two's complement
    parameter int WEIGHT_BITS = 8,  // of a lane
    localparam int STEP_BITS = ROW_STEPS > 1 ? $clog2(ROW_STEPS) : 1
) (
    input  logic                                                              clk,
    input  logic                                                              got,
    input  logic   [COLUMNS-1:0][ROW_STEPS-1:0][N-1:0][STORED_BITS-1:0]       part,
    input  logic   [STEP_BITS-1:0]                                            row_step,
    input  shift_t                                                            shift,
    input  logic                                                              last,
    output logic   [COLUMNS-1:0][N-1:0][WEIGHT_BITS:0]                        value
);

  logic [ROW_STEPS-1:0][N-1:0][STORED_BITS-1:0] held[COLUMNS];

  for (genvar c = 0; c < COLUMNS; c++) begin : column
    logic [ROW_STEPS-1:0][N-1:0][STORED_BITS-1:0] row;
    logic [N-1:0][STORED_BITS-1:0] of_step;
    assign row = got ? part[c] : held[c];
    assign of_step = row[row_step];
    always_ff @(posedge clk) if (got) held[c] <= part[c];
    for (genvar n = 0; n < N; n++) begin : weight
      slice #(.OPERAND_BITS(STORED_BITS), .BITS(WEIGHT_BITS)) cut (
          .operand(of_step[n]), .shift, .last, .value(value[c][n])
      );
    end
  end

endmodule
