"""The fast engine: the clocked engine's counts from one compiled loop that skips cycles in which nothing changes.

It works on masks only; values come from pgsim.arith. State lives in flat arrays. A cycle is simulated in full whenever
a group, a FIFO or the drain could move; where only the PE array counts down (or waits for the channel), all cycles up
to the next event are added at once. Rule numbers are those of docs/timing-contract.md.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsim.model.job import ArrayCause, GroupCause, Job, Timing

_FREE, _RUN, _RETURN = 0, 1, 2
_BUSY, _TAIL, _QUEUE_FULL = int(ArrayCause.BUSY), int(ArrayCause.TAIL), int(ArrayCause.QUEUE_FULL)
_OUTPUT_PORT, _DRAIN = int(ArrayCause.OUTPUT_PORT), int(ArrayCause.DRAIN)
_UPDATE_WAIT, _OFF_CHIP = int(ArrayCause.UPDATE_WAIT), int(ArrayCause.OFF_CHIP)
_K_SPLIT, _A_CONFLICT = int(ArrayCause.K_SPLIT), int(ArrayCause.BANK_CONFLICT)
_RECURRENCE = int(ArrayCause.RECURRENCE)
_G_POP, _G_BUSY, _G_CONFLICT = int(GroupCause.POP), int(GroupCause.BUSY), int(GroupCause.BANK_CONFLICT)
_G_RETURN, _G_PORT, _G_PARTIAL = int(GroupCause.RETURN), int(GroupCause.PORT_WAIT), int(GroupCause.PARTIAL)
_G_STARVED, _G_TAIL, _G_WEIGHT = int(GroupCause.STARVED), int(GroupCause.TAIL), int(GroupCause.WEIGHT_PORT)
_NEVER = np.iinfo(np.int64).max


def run_fast(job: Job) -> Timing:
    """Run one layer and batch to its end; return the same Timing as the clocked engine."""
    s, g = job.schedule, job.geometry
    gated = job.mask is not None
    mask = job.mask.view(np.uint8) if job.mask is not None else np.zeros((0, 0, 0), dtype=np.uint8)
    entries = int(job.mask.sum()) if job.mask is not None else 0
    most_launches = entries
    if job.cooperative:
        chunks = -(-s.tile_pixels // job.lanes)
        most_launches = int((s.segment_columns[s.tile_segment] * chunks).sum())
    array_causes = np.zeros(len(ArrayCause), dtype=np.int64)
    group_causes = np.zeros(len(GroupCause), dtype=np.int64)
    histogram = np.zeros(job.queue_depth + 1, dtype=np.int64)
    tile_start, tile_transfer = np.empty(s.tiles, dtype=np.int64), np.empty(s.tiles, dtype=np.int64)
    segment_done = np.empty(s.segments, dtype=np.int64)
    launches, pushes = np.empty((most_launches, 6), dtype=np.int64), np.empty((entries, 2), dtype=np.int64)
    tile_on_lsb = np.zeros(s.tiles, dtype=np.int64)
    under = _input_pixels(job)
    sizes = (job.columns, job.groups if job.uses_groups else 0, job.lanes, job.queue_depth)
    array_reads = (np.zeros((0, 0, 0), dtype=np.int64),) * 2
    if job.cooperative:
        first_pixel, tile = np.unique(s.tile_first_pixel, return_index=True)
        array_reads = _array_reads(
            under, first_pixel, s.tile_pixels[tile], int(s.tile_pixels.max()),
            (job.activation.banks, job.lsb.banks), (job.activation.ports, job.lsb.ports),
        )  # fmt: skip
    ports = tuple((p.banks, p.ports) for p in (job.activation, job.lsb, job.weight))
    counters, array_log = _run(
        mask, gated, job.cooperative, job.tile_cycles, job.tile_fetch, np.array(job.phases, dtype=np.int64),
        job.second_cycles, s.steps, s.words, s.passes.update, sizes, ports, g.in_height, g.in_width,
        g.group_out_channels, under, s.tile_window, s.window_reads, *array_reads,
        job.row_steps, job.channel_bits, job.channel_latency, s.segment_follows, s.segment_steps,
        s.segment_image, s.segment_first_channel, s.segment_columns, s.segment_first_tile, s.segment_tiles,
        s.segment_pixels, s.segment_first_step, s.segment_read_bits, s.segment_write_bits,
        s.tile_segment, s.tile_first_pixel, s.tile_pixels,
        array_causes, group_causes, histogram, tile_start, tile_transfer, tile_on_lsb, segment_done, launches, pushes,
    )  # fmt: skip
    cycles, high_words, low_words, rows, second_busy, read_cycles, write_cycles, launched = map(int, counters)
    if not job.uses_groups:
        group_causes[GroupCause.NOT_GATED] = job.groups * cycles
    if not gated:
        histogram[0] = job.columns * cycles if job.groups else 0
    return Timing(
        cycles=cycles,
        array_causes=array_causes,
        group_causes=group_causes,
        queue_histogram=histogram,
        msb_words_read=high_words,
        lsb_words_read=low_words,
        weight_rows_read=rows,
        second_busy=second_busy,
        channel_read_cycles=read_cycles,
        channel_write_cycles=write_cycles,
        tile_start=tile_start,
        tile_transfer=tile_transfer,
        tile_on_lsb=tile_on_lsb,
        segment_done=segment_done,
        launches=launches[:launched].copy(),
        pushes=pushes,
        array_log=array_log,
    )


def _input_pixels(job: Job) -> NDArray[np.int32]:
    """Input pixel, row-major, under each tap of each output pixel, [P*Q, R*S]; -1 on padding. Empty without groups."""
    g = job.geometry
    if not job.uses_groups:
        return np.zeros((0, 0), dtype=np.int32)
    taps = [g.input_pixels(*divmod(tap, g.kernel[1])) for tap in range(g.kernel[0] * g.kernel[1])]
    return np.stack(taps, axis=1).astype(np.int32)


@njit(cache=True)
def _array_reads(under, first_pixel, pixels, rows, banks, ports):  # type: ignore[no-untyped-def]
    """When the PE array reads the words of a step, beside a cooperative LSB array, int64 [windows, taps, R] each.

    The cycle of the step in which each of the tile's pixels is read from the MSB plane and from the LSB plane: the
    words before it in its bank, over the ports.
    """
    high = np.zeros((len(first_pixel), under.shape[1], rows), dtype=np.int64)
    low = np.zeros_like(high)
    for window in range(len(first_pixel)):
        for tap in range(under.shape[1]):
            for row in range(pixels[window]):
                pixel = under[first_pixel[window] + row, tap]
                high_before = low_before = 0
                for before in range(row):
                    other = under[first_pixel[window] + before, tap]
                    high_before += other >= 0 and other % banks[0] == pixel % banks[0]
                    low_before += other >= 0 and other % banks[1] == pixel % banks[1]
                high[window, tap, row], low[window, tap, row] = high_before // ports[0], low_before // ports[1]
    return high, low


@njit(cache=True)
def _log(array_log, logged, cycle, cause):  # type: ignore[no-untyped-def]
    """Append a row to a log that grows."""
    if logged == len(array_log):
        longer = np.empty((2 * logged, 2), dtype=np.int64)
        longer[:logged] = array_log
        array_log = longer
    array_log[logged, 0], array_log[logged, 1] = cycle, cause
    return array_log, logged + 1


@njit(cache=True)
def _log_tile(array_log, logged, cycle, last_cause, fetch, phases, reads, first_tap, taps, words):  # type: ignore[no-untyped-def]
    """Log a tile from its first cycle to its last: it fetches, and then waits for words and works, step by step."""
    if fetch > 0:
        if last_cause != _K_SPLIT:
            array_log, logged = _log(array_log, logged, cycle, _K_SPLIT)
        last_cause = _K_SPLIT
        cycle += fetch
    for passes in phases:
        for tap in range(first_tap, first_tap + taps):
            if reads[tap] == 1 and last_cause == _BUSY:
                cycle += words * passes
                continue
            for _ in range(words):
                if reads[tap] > 1:
                    if last_cause != _A_CONFLICT:
                        array_log, logged = _log(array_log, logged, cycle, _A_CONFLICT)
                    last_cause = _A_CONFLICT
                    cycle += reads[tap] - 1
                if last_cause != _BUSY:
                    array_log, logged = _log(array_log, logged, cycle, _BUSY)
                last_cause = _BUSY
                cycle += passes
    return array_log, logged


@njit(cache=True)
def _empty_cause(next_tile, tile_segment, on_chip_at, is_done, follows, cycle):  # type: ignore[no-untyped-def]
    """Why the PE array is empty."""
    if next_tile == len(tile_segment):
        return _TAIL
    segment = tile_segment[next_tile]
    if segment >= 2 and not is_done[segment - 2]:
        return _UPDATE_WAIT
    if follows[segment] and not is_done[segment - 1]:
        return _RECURRENCE
    return _K_SPLIT if on_chip_at[segment] <= cycle else _OFF_CHIP


@njit(cache=True)
def _read_beside(more_at, more, words, ports, bank, word, cycle):  # type: ignore[no-untyped-def]
    """Ask a bank that serves another word already for one more: 0 refused, 1 shared, 2 read through a further port."""
    if more_at[bank] != cycle:
        more_at[bank], more[bank] = cycle, 0
    for port in range(more[bank]):
        if words[bank, port] == word:
            return 1
    if more[bank] == ports - 1:
        return 0
    words[bank, more[bank]] = word
    more[bank] += 1
    return 2


@njit(cache=True, error_model="numpy")
def _run(  # type: ignore[no-untyped-def]
    mask, gated, cooperative, tile_cycles, tile_fetch, phases,
    second_cycles, steps, words, update_passes, sizes, ports, height, width,
    group_out_channels, under, tile_window, window_reads, array_high, array_low,
    row_steps, channel_bits, channel_latency, follows, segment_steps,
    segment_image, segment_first_channel, segment_columns, segment_first_tile, segment_tiles,
    segment_pixels, segment_first_step, segment_read_bits, segment_write_bits,
    tile_segment, tile_first_pixel, tile_pixels,
    array_causes, group_causes, histogram, tile_start, tile_transfer, tile_on_lsb, segment_done, launches, pushes,
):  # fmt: skip
    """Fill the output arrays; return the counters that `run_fast` unpacks, and the log of the PE array's causes.

    mask uint8 [N, K, P*Q] ([0, 0, 0] where not gated); every other array int64 as in Schedule and Timing. Invariant: at
    the top of the loop all state is that of the start of `cycle`. The order of groups, lanes and columns is the
    contract's.
    """
    columns, groups, lanes, depth = sizes
    (high_banks, high_ports), (low_banks, low_ports), (weight_banks, weight_ports) = ports
    weight_banks = min(weight_banks, columns)  # that the columns lie in
    has_second = second_cycles[0] > 0
    all_steps = np.arange(steps)
    step_word = all_steps % words
    step_tap, step_row, row_begins = all_steps // words, all_steps // row_steps, all_steps % row_steps == 0
    segments, tiles = len(segment_image), len(tile_segment)

    outputs_left = segment_columns * segment_pixels
    is_done = np.zeros(segments, dtype=np.bool_)
    is_retired = np.zeros(segments, dtype=np.bool_)
    on_chip_at = np.full(segments, _NEVER, dtype=np.int64)
    write_ended_at = np.full(segments, _NEVER, dtype=np.int64)
    write_queue = np.empty(segments, dtype=np.int64)
    write_head = write_tail = 0
    next_read, free_at = 0, 0
    first_live = 0  # segments below are retired

    fifo_pixel = np.empty((columns, max(depth, 1)), dtype=np.int64)
    fifo_segment = np.empty((columns, max(depth, 1)), dtype=np.int64)
    fifo_head = np.zeros(columns, dtype=np.int64)
    fifo_count = np.zeros(columns, dtype=np.int64)
    fifo_since = np.zeros(columns, dtype=np.int64)  # cycle since which the FIFO has had this many entries
    popped = np.zeros(columns, dtype=np.int64)  # entries that left in the cycle of `popped_at`
    popped_at = np.full(columns, -1, dtype=np.int64)
    finished_segment = np.full(columns, -1, dtype=np.int64)
    queued = 0  # entries in all FIFOs
    may_pop = False  # whether a FIFO may have come to qualify since the last look at them

    share_tile, share_column, share_pixel = -1, 0, 0  # the LSB array's own tile, and its next item

    shadow_tile = -1
    shadow_next = np.zeros(columns, dtype=np.int64)  # pixels that the column has offered
    shadow_columns = 0  # columns that have pixels left to offer
    port_claimed = np.full(columns, -1, dtype=np.int64)  # cycle of the last claim by a returning update

    array_tile, array_spent = -1, 0
    array_step = step_at = next_step_at = 0  # the tile's step, the step's first cycle, the next one's
    second_tile, second_spent = -1, 0
    next_tile = 0

    group_state = np.zeros(groups, dtype=np.int64)
    group_column = np.zeros(groups, dtype=np.int64)
    group_segment = np.zeros(groups, dtype=np.int64)
    group_entries = np.zeros(groups, dtype=np.int64)
    group_step = np.zeros(groups, dtype=np.int64)
    group_pass = np.zeros(groups, dtype=np.int64)
    group_returned = np.zeros(groups, dtype=np.int64)
    group_launch = np.zeros(groups, dtype=np.int64)
    group_word = np.zeros(groups, dtype=np.int64)  # first word of the input channels, counted through all images
    lane_pixel = np.zeros((groups, max(lanes, 1)), dtype=np.int64)
    low_step = np.zeros((groups, max(lanes, 1)), dtype=np.int64)  # last step of which the lane has its word
    high_step = np.zeros((groups, max(lanes, 1)), dtype=np.int64)
    group_has_weights = np.zeros(groups, dtype=np.bool_)
    free_before = np.zeros(groups, dtype=np.bool_)
    # What each bank serves in the cycle of its `..._at`: a word, and through further ports `..._more` words.
    high_at, high_word = np.full(high_banks, -1, dtype=np.int64), np.zeros(high_banks, dtype=np.int64)
    high_more_at, high_more = np.full(high_banks, -1, dtype=np.int64), np.zeros(high_banks, dtype=np.int64)
    high_words = np.zeros((high_banks, high_ports), dtype=np.int64)
    low_at, low_word = np.full(low_banks, -1, dtype=np.int64), np.zeros(low_banks, dtype=np.int64)
    low_more_at, low_more = np.full(low_banks, -1, dtype=np.int64), np.zeros(low_banks, dtype=np.int64)
    low_words = np.zeros((low_banks, low_ports), dtype=np.int64)
    weight_at, weight_row = np.full(weight_banks, -1, dtype=np.int64), np.zeros(weight_banks, dtype=np.int64)
    weight_more_at, weight_more = np.full(weight_banks, -1, dtype=np.int64), np.zeros(weight_banks, dtype=np.int64)
    weight_rows = np.zeros((weight_banks, weight_ports), dtype=np.int64)
    high_bank, low_bank = np.arange(height * width) % high_banks, np.arange(height * width) % low_banks  # of a pixel
    layer_words = words * (1 + segment_first_channel[-1] // group_out_channels + columns)  # more than an image has
    last_served, last_pop = columns - 1, -1
    launched = pushed = 0
    array_log, logged, last_cause = np.empty((256, 2), dtype=np.int64), 0, -1
    high_read = low_read = weight_read = second_busy = read_cycles = write_cycles = 0

    cycle = 0
    while True:
        # Rule 1: retire
        for segment in range(first_live, segments):
            if outputs_left[segment] == 0 and not is_done[segment]:
                is_done[segment] = True
                if segment_write_bits[segment] == 0:
                    write_ended_at[segment] = cycle
                else:
                    write_queue[write_tail] = segment
                    write_tail += 1
            if write_ended_at[segment] <= cycle:
                is_retired[segment] = True
            if segment_first_tile[segment] >= next_tile:
                break  # not started: nor are those after it
        while first_live < segments and is_retired[first_live]:
            first_live += 1
        if first_live == segments:
            break

        # Rule 2: off-chip channel
        reads_wait = False
        while next_read < segments:
            if next_read >= 2 and not is_retired[next_read - 2]:
                break
            if follows[next_read] and not is_done[next_read - 1]:
                break
            if segment_read_bits[next_read] == 0:
                on_chip_at[next_read] = cycle
                next_read += 1
                continue
            reads_wait = True
            if cycle >= free_at:
                busy = -(-segment_read_bits[next_read] // channel_bits)
                free_at = cycle + busy
                on_chip_at[next_read] = cycle + busy + channel_latency
                read_cycles += busy
                next_read += 1
            break
        if not reads_wait and cycle >= free_at and write_head < write_tail:
            segment = write_queue[write_head]
            write_head += 1
            busy = -(-segment_write_bits[segment] // channel_bits)
            free_at = cycle + busy
            write_ended_at[segment] = free_at
            write_cycles += busy

        next_before = next_tile
        is_quiet = shadow_columns == 0  # nothing but the PE array and the channel can move in this cycle
        if gated or cooperative:
            work_left = (
                next_tile < tiles or array_tile >= 0 or second_tile >= 0 or shadow_columns > 0 or share_tile >= 0
            )
            waiting = queued > 0
            for group in range(groups):
                free_before[group] = group_state[group] == _FREE
                if not free_before[group]:
                    is_quiet = False

            # Rule 3: a cooperative LSB array takes a tile
            if cooperative and share_tile < 0 and next_tile < tiles and on_chip_at[tile_segment[next_tile]] <= cycle:
                chunks = -(-tile_pixels[next_tile] // lanes)
                rounds = -(-segment_columns[tile_segment[next_tile]] * chunks // groups)
                if (tiles - next_tile - 1) * tile_cycles[next_tile] >= rounds * steps * update_passes:
                    share_tile, share_column, share_pixel = next_tile, 0, 0
                    tile_on_lsb[next_tile] = 1
                    tile_start[next_tile] = cycle
                    next_tile += 1
                    is_quiet = False

            # Rule 3: free groups pop
            for group in range(groups):
                if not free_before[group]:
                    continue
                chosen = -1
                if share_tile >= 0:
                    chosen, segment = share_column, tile_segment[share_tile]
                    run = min(lanes, tile_pixels[share_tile] - share_pixel)
                elif may_pop:
                    column = last_served
                    for _ in range(columns):
                        column = column + 1 if column + 1 < columns else 0
                        count = fifo_count[column]
                        if count == 0 or popped_at[column] == cycle:
                            continue
                        place = fifo_head[column]
                        segment = fifo_segment[column, place]
                        run = 1
                        most = min(lanes, count)
                        while run < most:
                            place = place + 1 if place + 1 < depth else 0
                            if fifo_segment[column, place] != segment:
                                break
                            run += 1
                        if run >= lanes or finished_segment[column] >= segment or count == depth:
                            chosen = column
                            break
                    may_pop = chosen >= 0 or last_pop == cycle  # a FIFO taken in this cycle may qualify in the next
                if chosen < 0:
                    group_causes[_G_PARTIAL if waiting else _G_STARVED if work_left else _G_TAIL] += 1
                    continue
                is_quiet = False
                if share_tile >= 0:
                    for lane in range(run):
                        lane_pixel[group, lane] = tile_first_pixel[share_tile] + share_pixel + lane
                    share_column += 1
                    if share_column == segment_columns[segment]:
                        share_column = 0
                        share_pixel += run
                        if share_pixel == tile_pixels[share_tile]:
                            tile_transfer[share_tile] = cycle
                            share_tile = -1
                else:
                    place = fifo_head[chosen]
                    for lane in range(run):
                        lane_pixel[group, lane] = fifo_pixel[chosen, place]
                        place = place + 1 if place + 1 < depth else 0
                    fifo_head[chosen] = place
                    histogram[fifo_count[chosen]] += cycle + 1 - fifo_since[chosen]
                    fifo_since[chosen] = cycle + 1
                    fifo_count[chosen] -= run
                    popped[chosen], popped_at[chosen] = run, cycle
                    queued -= run
                    last_served, last_pop = chosen, cycle
                for lane in range(run):
                    low_step[group, lane] = high_step[group, lane] = -1
                group_has_weights[group] = False
                channel_group = (segment_first_channel[segment] + chosen) // group_out_channels
                group_word[group] = segment_image[segment] * layer_words + channel_group * words
                group_state[group] = _RUN
                group_column[group] = chosen
                group_segment[group] = segment
                group_entries[group] = run
                group_step[group] = group_pass[group] = group_returned[group] = 0
                group_launch[group] = launched
                launches[launched, 0] = group
                launches[launched, 1] = chosen
                launches[launched, 2] = segment
                launches[launched, 3] = run
                launches[launched, 4] = cycle
                launches[launched, 5] = -1
                launched += 1
                group_causes[_G_POP] += 1

            # Rule 4: groups that return results
            running = 0
            for group in range(groups):
                if free_before[group]:
                    continue
                if group_state[group] == _RUN:
                    running += 1
                    continue
                column = group_column[group]
                if port_claimed[column] == cycle:
                    group_causes[_G_PORT] += 1
                    continue
                port_claimed[column] = cycle
                segment = group_segment[group]
                outputs_left[segment] -= 1
                if outputs_left[segment] == 0:
                    segment_done[segment] = cycle
                group_returned[group] += 1
                if group_returned[group] == group_entries[group]:
                    group_state[group] = _FREE
                    launches[group_launch[group], 5] = cycle
                group_causes[_G_RETURN] += 1

        # Rule 5: drain
        refused = _DRAIN
        if shadow_columns > 0:
            segment = tile_segment[shadow_tile]
            pixels = tile_pixels[shadow_tile]
            last_tile = shadow_tile == segment_first_tile[segment] + segment_tiles[segment] - 1
            if gated or cooperative:
                image, first = segment_image[segment], tile_first_pixel[shadow_tile]
                for column in range(segment_columns[segment]):
                    offered = shadow_next[column]
                    if offered == pixels:
                        continue
                    if gated and mask[image, segment_first_channel[segment] + column, first + offered]:
                        count = fifo_count[column]
                        if count == depth or (popped_at[column] == cycle and count + popped[column] == depth):
                            refused = _QUEUE_FULL
                            continue
                        place = fifo_head[column] + count
                        place = place - depth if place >= depth else place
                        fifo_pixel[column, place], fifo_segment[column, place] = first + offered, segment
                        histogram[count] += cycle + 1 - fifo_since[column]
                        fifo_since[column] = cycle + 1
                        fifo_count[column] = count + 1
                        may_pop = True
                        queued += 1
                        pushes[pushed, 0], pushes[pushed, 1] = cycle, column
                        pushed += 1
                    else:
                        if port_claimed[column] == cycle:
                            if refused == _DRAIN:
                                refused = _OUTPUT_PORT
                            continue
                        outputs_left[segment] -= 1
                        if outputs_left[segment] == 0:
                            segment_done[segment] = cycle
                    shadow_next[column] = offered + 1
                    if offered + 1 == pixels:
                        shadow_columns -= 1
                        if last_tile:
                            finished_segment[column] = segment
                            may_pop = True
            else:
                outputs_left[segment] -= shadow_columns
                shadow_next[0] += 1
                if shadow_next[0] == pixels:
                    shadow_columns = 0
                    if outputs_left[segment] == 0:
                        segment_done[segment] = cycle

        # Rule 6: the PE array
        if second_tile >= 0 and second_spent == second_cycles[second_tile] and shadow_columns == 0:
            shadow_tile, shadow_columns = second_tile, segment_columns[tile_segment[second_tile]]
            shadow_next[:] = 0
            second_tile = -1
        if array_tile >= 0 and array_spent == tile_cycles[array_tile]:
            if has_second:
                if second_tile < 0:
                    second_tile, second_spent = array_tile, 0
                    tile_transfer[array_tile] = cycle
                    array_tile = -1
            elif shadow_columns == 0:
                shadow_tile, shadow_columns = array_tile, segment_columns[tile_segment[array_tile]]
                shadow_next[:] = 0
                tile_transfer[array_tile] = cycle
                array_tile = -1
        if second_tile >= 0 and second_spent < second_cycles[second_tile]:
            second_spent += 1
            second_busy += 1
        if array_tile < 0 and next_tile < tiles and on_chip_at[tile_segment[next_tile]] <= cycle:
            segment = tile_segment[next_tile]
            if segment_first_step[segment] == 0 or is_done[segment - 1]:
                array_tile, array_spent = next_tile, 0
                tile_start[next_tile] = cycle
                next_tile += 1
                # Nothing interrupts a tile: its cycles are counted and logged now.
                fetch, first_tap = tile_fetch[array_tile], segment_first_step[segment] // words
                worked = segment_steps[segment] * phases.sum()
                array_causes[_K_SPLIT] += fetch
                array_causes[_BUSY] += worked
                array_causes[_A_CONFLICT] += tile_cycles[array_tile] - fetch - worked
                tap_reads = window_reads[tile_window[array_tile]]
                array_log, logged = _log_tile(
                    array_log, logged, cycle, last_cause, fetch, phases, tap_reads, first_tap,
                    segment_steps[segment] // words, words,
                )  # fmt: skip
                last_cause = _BUSY
                array_step, step_at, next_step_at = 0, cycle, cycle + tap_reads[0] - 1 + phases[0]
        works = array_tile >= 0 and array_spent < tile_cycles[array_tile]
        if works:
            array_spent += 1
        else:
            cause = refused
            if array_tile < 0:
                cause = _empty_cause(next_tile, tile_segment, on_chip_at, is_done, follows, cycle)
            array_causes[cause] += 1
            if cause != last_cause:
                array_log, logged = _log(array_log, logged, cycle, cause)
                last_cause = cause

        # Rule 7: groups that run; the PE array has read before them
        if (gated or cooperative) and running > 0:
            array_row, array_banks = -1, 0
            if works:
                segment, window = tile_segment[array_tile], tile_window[array_tile]
                while next_step_at <= cycle:
                    array_step, step_at = array_step + 1, next_step_at
                    next_step_at += window_reads[window, step_tap[array_step]] - 1 + phases[0]
                if cycle == step_at and row_begins[array_step]:
                    array_row = segment_first_channel[segment] * steps + step_row[array_step]
                    array_banks = min(segment_columns[segment], weight_banks)
                tap, phase = step_tap[array_step], cycle - step_at
                reads = window_reads[window, tap]
                if cooperative and phase < reads:
                    channel_group = segment_first_channel[segment] // group_out_channels
                    word = segment_image[segment] * layer_words + channel_group * words + step_word[array_step]
                    first_wanted, first = word * (height * width), tile_first_pixel[array_tile]
                    for offset in range(tile_pixels[array_tile]):
                        pixel = under[first + offset, tap]
                        if pixel < 0:
                            continue
                        wanted = first_wanted + pixel
                        if reads == 1 or array_high[window, tap, offset] == phase:
                            bank = high_bank[pixel]
                            if high_at[bank] != cycle:
                                high_at[bank], high_word[bank] = cycle, wanted
                            else:
                                _read_beside(high_more_at, high_more, high_words, high_ports, bank, wanted, cycle)
                        if reads == 1 or array_low[window, tap, offset] == phase:
                            bank = low_bank[pixel]
                            if low_at[bank] != cycle:
                                low_at[bank], low_word[bank] = cycle, wanted
                            else:
                                _read_beside(low_more_at, low_more, low_words, low_ports, bank, wanted, cycle)
            for group in range(groups):
                if free_before[group] or group_state[group] != _RUN:
                    continue
                if group_pass[group] == 0:
                    step = group_step[group]
                    tap = step_tap[step]
                    first_wanted = (group_word[group] + step_word[step]) * (height * width)
                    all_there = True
                    for lane in range(group_entries[group]):
                        needs_low = low_step[group, lane] != step
                        needs_high = cooperative and high_step[group, lane] != step
                        if not (needs_low or needs_high):
                            continue
                        pixel = under[lane_pixel[group, lane], tap]
                        if pixel < 0:
                            low_step[group, lane] = high_step[group, lane] = step
                            continue
                        wanted = first_wanted + pixel
                        if needs_low:
                            bank = low_bank[pixel]
                            if low_at[bank] != cycle:
                                low_at[bank], low_word[bank] = cycle, wanted
                                low_step[group, lane] = step
                                low_read += 1
                            elif low_word[bank] == wanted:
                                low_step[group, lane] = step
                            elif low_ports == 1:
                                all_there = False
                            else:
                                got = _read_beside(low_more_at, low_more, low_words, low_ports, bank, wanted, cycle)
                                low_read += got == 2
                                if got > 0:
                                    low_step[group, lane] = step
                                else:
                                    all_there = False
                        if needs_high:
                            bank = high_bank[pixel]
                            if high_at[bank] != cycle:
                                high_at[bank], high_word[bank] = cycle, wanted
                                high_step[group, lane] = step
                                high_read += 1
                            elif high_word[bank] == wanted:
                                high_step[group, lane] = step
                            elif high_ports == 1:
                                all_there = False
                            else:
                                got = _read_beside(high_more_at, high_more, high_words, high_ports, bank, wanted, cycle)
                                high_read += got == 2
                                if got > 0:
                                    high_step[group, lane] = step
                                else:
                                    all_there = False
                    if not row_begins[step]:
                        group_has_weights[group] = True
                    elif not group_has_weights[group]:
                        bank = group_column[group] % weight_banks
                        if weight_at[bank] != cycle and bank < array_banks:
                            weight_at[bank], weight_row[bank] = cycle, array_row
                        row = segment_first_channel[group_segment[group]] * steps + step_row[step]
                        if weight_at[bank] != cycle:
                            weight_at[bank], weight_row[bank] = cycle, row
                            group_has_weights[group] = True
                            weight_read += 1
                        elif weight_row[bank] == row:
                            group_has_weights[group] = True
                        elif weight_ports > 1:
                            got = _read_beside(weight_more_at, weight_more, weight_rows, weight_ports, bank, row, cycle)
                            weight_read += got == 2
                            group_has_weights[group] = got > 0
                    if not all_there:
                        group_causes[_G_CONFLICT] += 1
                        continue
                    if not group_has_weights[group]:
                        group_causes[_G_WEIGHT] += 1
                        continue
                group_causes[_G_BUSY] += 1
                group_pass[group] += 1
                if group_pass[group] == update_passes:
                    group_pass[group] = 0
                    group_step[group] += 1
                    group_has_weights[group] = False
                    if group_step[group] == steps:
                        group_state[group] = _RETURN
        cycle += 1

        # Skip the cycles up to the next event
        if (gated or cooperative) and not (is_quiet and shadow_columns == 0):
            continue
        if cooperative and next_tile != next_before:
            continue  # the LSB array may take the one after
        until = _NEVER  # first cycle that has to be simulated in full
        if free_at >= cycle:
            until = free_at
        if array_tile >= 0 and array_spent < tile_cycles[array_tile]:
            until = min(until, cycle + tile_cycles[array_tile] - array_spent)
        elif array_tile >= 0 and second_tile < 0 and (shadow_columns == 0 or has_second):
            until = cycle  # full, and free to move on
        elif array_tile < 0 and next_tile < tiles and on_chip_at[tile_segment[next_tile]] > cycle:
            until = min(until, on_chip_at[tile_segment[next_tile]])
        elif array_tile < 0 and next_tile < tiles:
            segment = tile_segment[next_tile]
            if segment_first_step[segment] == 0 or is_done[segment - 1]:
                until = cycle  # starts
        if cooperative and next_tile < tiles and on_chip_at[tile_segment[next_tile]] >= cycle:
            until = min(until, on_chip_at[tile_segment[next_tile]])  # the LSB array may take it
        if second_tile >= 0:
            until = min(until, cycle + second_cycles[second_tile] - second_spent)
        if shadow_columns > 0:
            until = min(until, cycle + tile_pixels[shadow_tile] - shadow_next[0] - 1)
        for segment in range(first_live, min(first_live + 3, segments)):
            if outputs_left[segment] == 0 and not is_done[segment]:
                until = cycle
        if until == _NEVER or until <= cycle:
            continue
        skipped = until - cycle
        if array_tile >= 0 and array_spent < tile_cycles[array_tile]:
            array_spent += skipped
        else:
            cause = _DRAIN
            if array_tile < 0:
                cause = _empty_cause(next_tile, tile_segment, on_chip_at, is_done, follows, cycle)
            array_causes[cause] += skipped
            if cause != last_cause:
                array_log, logged = _log(array_log, logged, cycle, cause)
                last_cause = cause
        if second_tile >= 0 and second_spent < second_cycles[second_tile]:
            second_spent += skipped
            second_busy += skipped
        if shadow_columns > 0:
            shadow_next[0] += skipped
            outputs_left[tile_segment[shadow_tile]] -= skipped * shadow_columns
        if gated or cooperative:
            work_left = next_tile < tiles or array_tile >= 0 or second_tile >= 0
            group_causes[_G_PARTIAL if queued > 0 else _G_STARVED if work_left else _G_TAIL] += groups * skipped
        cycle = until
    if gated:
        for column in range(columns):
            histogram[fifo_count[column]] += cycle - fifo_since[column]
    counters = (cycle, high_read, low_read, weight_read, second_busy, read_cycles, write_cycles, launched)
    return counters, array_log[:logged].copy()
