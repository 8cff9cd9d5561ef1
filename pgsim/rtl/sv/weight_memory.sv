// The weight buffer: a row holds the weights of ROW_STEPS steps for every column of a channel tile, column j's part in
// bank j mod BANKS. Streams (the PE array; in gated_fused each of its two parts, through ports of its own) read whole
// rows and come first; the groups of the LSB array read one column's part each.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module weight_memory
  import pgsim_pkg::*;
#(
    parameter int STREAMS = 1,
    parameter int GROUPS = 1,   // at least 1; without an LSB array it never asks
    parameter int COLUMNS = 2,
    parameter int BANKS = 2,    // at most COLUMNS
    parameter int PORTS = 1,    // of a bank, for each stream
    parameter int DEPTH = 16,   // rows
    parameter int PART_BITS = 8,
    localparam int COLUMN_BITS = COLUMNS > 1 ? $clog2(COLUMNS) : 1
) (
    input  logic                                        clk,
    input  logic     [STREAMS-1:0]                      ask,
    input  address_t [STREAMS-1:0]                      row,
    input  pos_t     [STREAMS-1:0]                      columns,  // of the channel tile that a stream reads
    output logic     [STREAMS-1:0]                      got,
    output logic     [STREAMS-1:0][COLUMNS-1:0][PART_BITS-1:0] parts,
    input  logic     [GROUPS-1:0]                       group_ask,
    input  address_t [GROUPS-1:0]                       group_row,
    input  logic     [GROUPS-1:0][COLUMN_BITS-1:0]      group_column,
    output logic     [GROUPS-1:0]                       group_got,
    output logic     [GROUPS-1:0]                       group_reads,
    output logic     [GROUPS-1:0][PART_BITS-1:0]        group_part,
    input  logic                                        write,
    input  logic     [15:0]                             write_column,
    input  address_t                                    write_row,
    input  logic     [PART_BITS-1:0]                    write_part
);

  localparam int BANK_BITS = BANKS > 1 ? $clog2(BANKS) : 1;
  localparam int PORT_BITS = PORTS > 1 ? $clog2(PORTS) : 1;
  localparam int DEPTH_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  localparam int REQUESTS = BANKS + GROUPS;

  logic [PART_BITS-1:0] mem[COLUMNS][DEPTH];

  for (genvar s = 0; s < STREAMS; s++) begin : stream
    logic [REQUESTS-1:0] valid, granted, reads;
    logic [REQUESTS-1:0][BANK_BITS-1:0] bank;
    logic [REQUESTS-1:0][PORT_BITS-1:0] port;
    address_t [REQUESTS-1:0] address;
    address_t served[BANKS][PORTS];

    always_comb begin
      for (int b = 0; b < BANKS; b++) begin
        valid[b] = ask[s] && 16'(b) < columns[s];
        bank[b] = BANK_BITS'(b);
        address[b] = row[s];
      end
      for (int g = 0; g < GROUPS; g++) begin
        valid[BANKS+g] = s == 0 && group_ask[g];
        bank[BANKS+g] = BANK_BITS'(16'(group_column[g]) % 16'(BANKS));
        address[BANKS+g] = group_row[g];
      end
    end

    port_arbiter #(.REQUESTS(REQUESTS), .BANKS(BANKS), .PORTS(PORTS)) arbiter (
        .valid, .bank, .address, .granted, .reads, .port, .served
    );

    assign got[s] = granted[0] && ask[s];  // it asks first: all its banks serve it, or none was asked

    logic [PART_BITS-1:0] read[COLUMNS][PORTS];
    always_comb
      for (int c = 0; c < COLUMNS; c++)
        for (int p = 0; p < PORTS; p++) read[c][p] = mem[c][DEPTH_BITS'(served[c%BANKS][p])];
    for (genvar c = 0; c < COLUMNS; c++) begin : column
      assign parts[s][c] = read[c][0];
    end
    if (s == 0) begin : groups
      always_comb
        for (int g = 0; g < GROUPS; g++) begin
          group_got[g] = granted[BANKS+g];
          group_reads[g] = reads[BANKS+g];
          group_part[g] = read[group_column[g]][port[BANKS+g]];
        end
    end
  end

  always_ff @(posedge clk) if (write) mem[COLUMN_BITS'(write_column)][DEPTH_BITS'(write_row)] <= write_part;

endmodule
