// Gives out the read ports of a banked memory in the order of the requests: a bank serves PORTS different words a cycle,
// and whoever asks for one that it serves in this cycle shares it (section 3, words and ports).
module port_arbiter
  import pgsim_pkg::*;
#(
    parameter int REQUESTS = 2,
    parameter int BANKS = 2,
    parameter int PORTS = 1,
    localparam int BANK_BITS = BANKS > 1 ? $clog2(BANKS) : 1,
    localparam int PORT_BITS = PORTS > 1 ? $clog2(PORTS) : 1
) (
    input  logic     [REQUESTS-1:0]                valid,
    input  logic     [REQUESTS-1:0][BANK_BITS-1:0] bank,
    input  address_t [REQUESTS-1:0]                address,
    output logic     [REQUESTS-1:0]                granted,
    output logic     [REQUESTS-1:0]                reads,    // granted, and no other was served this word before
    output logic     [REQUESTS-1:0][PORT_BITS-1:0] port,
    output address_t                               served [BANKS][PORTS]
);

  logic taken[BANKS][PORTS];

  always_comb begin
    for (int b = 0; b < BANKS; b++)
      for (int p = 0; p < PORTS; p++) begin
        taken[b][p] = 1'b0;
        served[b][p] = '0;
      end
    for (int r = 0; r < REQUESTS; r++) begin
      granted[r] = 1'b0;
      reads[r] = 1'b0;
      port[r] = '0;
      for (int p = 0; p < PORTS; p++)  // ports fill up from the lowest: a free one ends the search
        if (valid[r] && !granted[r] && (!taken[bank[r]][p] || served[bank[r]][p] == address[r])) begin
          granted[r] = 1'b1;
          reads[r] = !taken[bank[r]][p];
          port[r] = PORT_BITS'(p);
          taken[bank[r]][p] = 1'b1;
          served[bank[r]][p] = address[r];
        end
    end
  end

endmodule
