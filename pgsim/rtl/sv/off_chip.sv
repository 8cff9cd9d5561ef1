// Rules 1 and 2: which segments are done and retired, and what the off-chip channel moves. Two slots hold the segments on
// the chip, the even and the odd one. The channel is modelled by its time: what it carries is loaded from outside.
// Fields of whole records, and what an organisation or a depth has no use for.
// verilator lint_off UNUSEDSIGNAL
module off_chip
  import pgsim_pkg::*;
#(
    parameter int COLUMNS = 2,
    parameter int CHANNEL_BITS = 64,
    parameter int LATENCY = 3
) (
    input  logic                     clk,
    input  logic                     reset,
    input  layer_t                   layer,
    // the segment table
    output number_t                  first_number,    // the next segment to read
    input  segment_t                 first_segment,
    output number_t                  second_number,   // and the one after it
    input  segment_t                 second_segment,
    // outputs that pass the ports in this cycle
    input  logic     [COLUMNS-1:0]   port_valid,
    input  logic     [COLUMNS-1:0]   port_slot,
    // to the rest of the machine
    output number_t                  read_before,     // segments whose read was issued, those of 0 bits in this cycle too
    output logic     [1:0]           on_chip,         // by slot
    output logic     [1:0]           done,            // at the start of the cycle
    output number_t  [1:0]           number,          // of the segment that a slot holds
    output segment_t [1:0]           held,
    output logic                     finished,        // every segment is retired
    // status
    output logic     [1:0]           newly_done,
    output logic                     reads,           // the channel is reading in this cycle
    output logic                     writes
);

  number_t next_read;
  logic [1:0] live, seen_done, has, ended, queued;
  logic [19:0] wait_left[2];
  number_t left[2];
  traffic_t moving;  // bits after this cycle's; 0: the channel is free
  logic moving_slot, moving_out;

  // Rule 1
  logic [1:0] has_write, retired, pending;
  for (genvar s = 0; s < 2; s++) begin : slots
    assign done[s] = live[s] && left[s] == 0;
    assign newly_done[s] = done[s] && !seen_done[s];
    assign has_write[s] = held[s].write_bits != 0;
    assign retired[s] = !live[s] || (done[s] && (!has_write[s] || ended[s]));
    assign pending[s] = queued[s] || (newly_done[s] && has_write[s]);
  end
  assign finished = next_read == layer.segments && &retired;

  // Rule 2: up to two reads of 0 bits, or one of more; else a write
  logic first_may, first_zero, second_may, second_zero, free, start_read, start_write, write_slot;
  number_t read_number;
  segment_t read_segment;
  assign first_number = next_read;
  assign second_number = next_read + 24'd1;
  assign first_may = first_number < layer.segments && retired[first_number[0]]
      && !(first_segment.follows && !done[~first_number[0]]);
  assign first_zero = first_may && first_segment.read_bits == 0;
  assign second_may = first_zero && second_number < layer.segments && retired[second_number[0]]
      && !second_segment.follows;  // the one before has just come
  assign second_zero = second_may && second_segment.read_bits == 0;
  assign read_before = next_read + 24'(first_zero) + 24'(second_zero);
  assign read_number = first_zero ? second_number : first_number;
  assign read_segment = first_zero ? second_segment : first_segment;
  assign free = moving == 0;
  assign start_read = free && (first_zero ? second_may && !second_zero : first_may);
  assign start_write = free && !start_read && pending != 0;

  // In the order of done. Where both are pending, both were done in this cycle: a write that has waited waits for a
  // transfer of the other slot, whose segment is not done before its read and no more pending once its write began.
  assign write_slot = pending == 2'b11 ? number[1] < number[0] : pending[1];

  // The transfer of this cycle, and whether it is its last
  traffic_t now_bits;
  logic active, ends, now_slot, now_out;
  assign active = !free || start_read || start_write;
  assign now_slot = !free ? moving_slot : start_read ? read_number[0] : write_slot;
  assign now_out = !free ? moving_out : !start_read;
  assign now_bits = !free ? moving : start_read ? read_segment.read_bits : held[write_slot].write_bits;
  assign ends = active && now_bits <= 40'(CHANNEL_BITS);
  assign reads = active && !now_out;
  assign writes = active && now_out;

  for (genvar s = 0; s < 2; s++) begin : arrival
    assign on_chip[s] = (has[s] && wait_left[s] == 0) || (first_zero && first_number[0] == 1'(s))
        || (second_zero && second_number[0] == 1'(s));
  end

  logic [1:0] issue, issue_zero;
  segment_t [1:0] issued;
  number_t [1:0] issued_number;
  always_comb
    for (int s = 0; s < 2; s++) begin
      issue_zero[s] = (first_zero && first_number[0] == 1'(s)) || (second_zero && second_number[0] == 1'(s));
      issue[s] = issue_zero[s] || (start_read && read_number[0] == 1'(s));
      issued[s] = first_number[0] == 1'(s) ? first_segment : second_segment;
      issued_number[s] = first_number[0] == 1'(s) ? first_number : second_number;
    end

  always_ff @(posedge clk) begin
    automatic number_t passed[2] = '{default: '0};
    for (int c = 0; c < COLUMNS; c++) if (port_valid[c]) passed[port_slot[c]] = passed[port_slot[c]] + 24'd1;
    if (reset) begin
      next_read <= '0;
      live <= '0;
      moving <= '0;
      has <= '0;
      ended <= '0;
      queued <= '0;
      seen_done <= '0;
    end else begin
      next_read <= next_read + 24'(first_zero) + 24'(second_zero) + 24'(start_read);
      if (active) moving <= ends ? '0 : now_bits - 40'(CHANNEL_BITS);
      moving_slot <= now_slot;
      moving_out <= now_out;
      for (int s = 0; s < 2; s++) begin
        left[s] <= left[s] - passed[s];
        if (has[s] && wait_left[s] != 0) wait_left[s] <= wait_left[s] - 20'd1;
        queued[s] <= pending[s] && !(start_write && write_slot == 1'(s));
        seen_done[s] <= done[s];
        if (ends && now_slot == 1'(s)) begin
          if (now_out) ended[s] <= 1'b1;
          else begin
            has[s] <= 1'b1;
            wait_left[s] <= 20'(LATENCY);
          end
        end
        if (issue[s]) begin
          live[s] <= 1'b1;
          left[s] <= issued[s].outputs;
          held[s] <= issued[s];
          number[s] <= issued_number[s];
          seen_done[s] <= 1'b0;
          ended[s] <= 1'b0;
          queued[s] <= 1'b0;
          if (issue_zero[s]) begin
            has[s] <= 1'b1;
            wait_left[s] <= '0;
          end else if (!ends) has[s] <= 1'b0;
        end
      end
    end
  end

endmodule
