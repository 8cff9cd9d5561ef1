// A banked activation memory of words of N operands. The word of N channels of input pixel i lies in bank i mod BANKS.
// In a depthwise layer with a port for each column, a bank that serves a pixel serves the words of the next columns,
// whose one operand each is read beside it.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module plane
  import pgsim_pkg::*;
#(
    parameter int REQUESTS = 2,
    parameter int WINDOWS = 1,   // the first so many requests may serve every column
    parameter int COLUMNS = 1,
    parameter int OWN_PORT = 1,  // built with a window port for each column
    parameter int BANKS = 2,
    parameter int PORTS = 1,
    parameter int DEPTH = 16,    // words of a bank
    parameter int N = 1,
    parameter int OPERAND_BITS = 8
) (
    input  logic                                          clk,
    input  layer_t                                        layer,
    input  logic     [REQUESTS-1:0]                       valid,
    input  pixel_t   [REQUESTS-1:0]                       pixel,
    input  pos_t     [REQUESTS-1:0]                       word,
    input  number_t  [REQUESTS-1:0]                       base,
    output logic     [REQUESTS-1:0]                       granted,
    output logic     [REQUESTS-1:0]                       reads,
    output logic     [REQUESTS-1:0][N-1:0][OPERAND_BITS-1:0] data,
    output logic     [WINDOWS-1:0][COLUMNS-1:0][OPERAND_BITS-1:0] own,
    input  logic                                          write,
    input  logic     [15:0]                               write_bank,
    input  address_t                                      write_address,
    input  logic     [N-1:0][OPERAND_BITS-1:0]            write_data
);

  localparam int BANK_BITS = BANKS > 1 ? $clog2(BANKS) : 1;
  localparam int PORT_BITS = PORTS > 1 ? $clog2(PORTS) : 1;
  localparam int DEPTH_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;

  logic [N-1:0][OPERAND_BITS-1:0] mem[BANKS][DEPTH];
  logic [N-1:0][OPERAND_BITS-1:0] read[BANKS][PORTS];
  logic [REQUESTS-1:0][BANK_BITS-1:0] bank;
  logic [REQUESTS-1:0][PORT_BITS-1:0] port;
  address_t [REQUESTS-1:0] address;
  address_t served[BANKS][PORTS];

  always_comb
    for (int r = 0; r < REQUESTS; r++) begin
      bank[r] = BANK_BITS'(pixel[r] % 20'(BANKS));
      address[r] = base[r] + 24'(pixel[r] / 20'(BANKS)) * 24'(layer.words_per_pixel) + 24'(word[r]);
    end

  port_arbiter #(.REQUESTS(REQUESTS), .BANKS(BANKS), .PORTS(PORTS)) arbiter (
      .valid, .bank, .address, .granted, .reads, .port, .served
  );

  always_comb
    for (int b = 0; b < BANKS; b++)
      for (int p = 0; p < PORTS; p++) read[b][p] = mem[b][DEPTH_BITS'(served[b][p])];

  always_comb
    for (int r = 0; r < REQUESTS; r++) data[r] = read[bank[r]][port[r]];

  always_comb begin
    own = '0;
    if (OWN_PORT != 0 && layer.own_port)
      for (int w = 0; w < WINDOWS; w++)
        for (int c = 0; c < COLUMNS; c++) own[w][c] = mem[bank[w]][DEPTH_BITS'(served[bank[w]][port[w]] + 24'(c))][0];
  end

  always_ff @(posedge clk) if (write) mem[BANK_BITS'(write_bank)][DEPTH_BITS'(write_address)] <= write_data;

endmodule
