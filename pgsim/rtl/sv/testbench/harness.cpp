// The compiled machine behind a C interface: load a layer, run it, collect what its status outputs said.
#include <cerrno>
#include <cstdint>
#include <memory>
#include <vector>

#include "Vtestbench.h"
#include "Vtestbench__Dpi.h"
#include "verilated.h"
#ifdef PG_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

enum Stream { OUTPUTS, PUSHES, LAUNCHES, TILE_STARTS, TILE_LEAVES, SHARED, SHARED_LEAVES, DONE, CAUSES, STREAMS };
enum Count {
    CYCLES, HIGH_READS, LOW_READS, WEIGHT_READS, LOW_PART, CHANNEL_READS, CHANNEL_WRITES, FINISHED,
    SHORTCUTS, CODES, LOGITS, POST_CYCLES, POST_IDLE, POST_FAULT, FAILED_ASSERTIONS, FAILED_CYCLE, COUNTS
};
constexpr int CAUSE_KINDS = 16;
constexpr int HOST_SHORTCUTS = 9;    // Select of post_unit.py, select_t of post_package.sv
constexpr int SHORTCUT_WORDS = 7;  // of the memories that next_word fills

#ifdef PG_TRACE
// A waveform file that remembers why it could not be written: Verilator's own ends the process.
struct WaveFile final : VerilatedVcdFile {
    int error = 0;
    bool open(const std::string& name) override {
        errno = 0;
        const bool opened = VerilatedVcdFile::open(name);
        if (!opened) error = errno ? errno : EIO;
        return opened;
    }
    ssize_t write(const char* data, ssize_t length) override {
        if (error) return length;
        const ssize_t written = VerilatedVcdFile::write(data, length);
        if (written >= 0 || errno == EINTR || errno == EAGAIN) return written;
        error = errno;
        return length;
    }
};
#endif

struct Bench {
    std::unique_ptr<VerilatedContext> context{new VerilatedContext};
    std::unique_ptr<Vtestbench> top;
    std::vector<int64_t> streams[STREAMS];
    int64_t counts[COUNTS] = {};
    int64_t array_causes[CAUSE_KINDS] = {};
    int64_t group_causes[CAUSE_KINDS] = {};
    std::vector<int64_t> histogram = std::vector<int64_t>(PG_QUEUE_DEPTH + 1);
    int64_t open_launch[PG_GROUPS];
    int last_cause = -1;
    int64_t cycle = 0;  // of the layer, for the waveform: 0 is the first without reset
#ifdef PG_TRACE
    WaveFile file;
    std::unique_ptr<VerilatedVcdC> wave;
    bool windowed = false, running = false;
    int64_t first = 0, last = 0;  // cycles that a window shows
    uint64_t time = 0;
#endif
};

// Show half a cycle: it begins with the rising edge; what it reads at its end is settled in the second half.
// A window's times are 2 * cycle + half, those of a whole run go on from layer to layer.
void dump(Bench& bench, int half) {
#ifdef PG_TRACE
    if (!bench.wave) return;
    if (bench.windowed && (!bench.running || bench.cycle < bench.first || bench.cycle > bench.last)) return;
    bench.top->eval();
    bench.wave->dump(bench.windowed ? 2 * bench.cycle + half : bench.time++);
#else
    (void)bench, (void)half;
#endif
}

void tick(Bench& bench) {
    dump(bench, 1);
    bench.top->clk = 1;
    bench.top->cycle = ++bench.cycle;
    bench.top->eval();
    dump(bench, 0);
    bench.top->clk = 0;
    bench.top->eval();
}

// Note what the post-processing unit's memories take in this cycle.
void count_words(Bench& bench) {
    for (int memory = 0; memory < 3; memory++) bench.counts[SHORTCUTS + memory] += bench.top->words_written[memory];
}

// Note the first cycle in which an assertion failed, and ask for no more of them.
void check_assertions(Bench& bench) {
#ifdef PGSIM_ASSERT
    if (!bench.context->errorCount() || bench.counts[FAILED_ASSERTIONS]) return;
    bench.counts[FAILED_ASSERTIONS] = bench.context->errorCount();
    bench.counts[FAILED_CYCLE] = bench.counts[CYCLES];
    bench.context->assertOn(false);
#else
    (void)bench;
#endif
}

// Note what the cycle did. Order within a cycle: groups, then columns, each by number.
void observe(Bench& bench) {
    Vtestbench& top = *bench.top;
    const int64_t cycle = bench.counts[CYCLES];
    const uint32_t status = top.array_status;
    const int cause = status & 15;
    bench.array_causes[cause]++;
    if (cause != bench.last_cause) {
        bench.streams[CAUSES].insert(bench.streams[CAUSES].end(), {cycle, cause});
        bench.last_cause = cause;
    }
    if (status >> 8 & 1) bench.streams[TILE_STARTS].insert(bench.streams[TILE_STARTS].end(), {cycle, top.started_tile});
    if (status >> 9 & 1) bench.streams[SHARED].insert(bench.streams[SHARED].end(), {cycle, top.shared_tile});
    if (status >> 10 & 1) bench.streams[TILE_LEAVES].insert(bench.streams[TILE_LEAVES].end(), {cycle, top.leaving_tile});
    if (status >> 11 & 1)
        bench.streams[SHARED_LEAVES].insert(bench.streams[SHARED_LEAVES].end(), {cycle, top.shared_leaving_tile});
    bench.counts[LOW_PART] += status >> 12 & 1;
    bench.counts[CHANNEL_READS] += status >> 13 & 1;
    bench.counts[CHANNEL_WRITES] += status >> 14 & 1;
    for (int slot = 0; slot < 2; slot++)  // seen at the start of this cycle: the last output passed in the one before
        if (status >> (15 + slot) & 1)
            bench.streams[DONE].insert(bench.streams[DONE].end(), {cycle - 1, top.slot_segment[slot]});
    bench.counts[HIGH_READS] += top.group_reads[0];
    bench.counts[LOW_READS] += top.group_reads[1];
    bench.counts[WEIGHT_READS] += top.group_reads[2];
    for (int group = 0; PG_HAS_GROUPS && group < PG_GROUPS; group++) {
        const uint32_t word = top.group_status[group];
        bench.group_causes[word & 15]++;
        if (word >> 4 & 1) {
            bench.open_launch[group] = bench.streams[LAUNCHES].size();
            bench.streams[LAUNCHES].insert(bench.streams[LAUNCHES].end(),
                {group, top.group_column[group], top.group_segment[group], word >> 16, cycle, -1});
        }
        if (word >> 5 & 1) bench.streams[LAUNCHES][bench.open_launch[group] + 5] = cycle;
    }
    for (int column = 0; column < PG_COLUMNS; column++) {
        const uint32_t word = top.column_status[column];
        if (PG_HAS_GROUPS) bench.histogram[word >> 2]++;
        if (word >> 1 & 1) bench.streams[PUSHES].insert(bench.streams[PUSHES].end(), {cycle, column});
        if (word & 1)
            bench.streams[OUTPUTS].insert(bench.streams[OUTPUTS].end(),
                {cycle, top.port_segment[column], top.port_channel[column], top.port_y[column], top.port_x[column],
                    static_cast<int64_t>(top.port_value[column])});
    }
}

// Words on their way into a memory: row i of `place` is (bank or column, address), of `data` `width` 32-bit words.
struct Words {
    int memory = 0;
    int64_t left = 0, width = 0;
    const int32_t* place = nullptr;
    const uint32_t* data = nullptr;
};
thread_local Words loading;

// An edge of one of the inputs that are no clock of the machine.
void strobe(Bench& bench, CData& input) {
    Verilated::threadContextp(bench.context.get());
    input = 1;
    bench.top->eval();
    input = 0;
    bench.top->eval();
}

}  // namespace

// What the test bench takes at a rising edge of `load`.
extern "C" int next_word(int* memory, int* bank, int* index, svBitVecVal* data) {
    if (!loading.left) return 0;
    *memory = loading.memory;
    *bank = loading.place[0];
    *index = loading.place[1];
    for (int64_t i = 0; i < loading.width; i++) data[i] = loading.data[i];
    loading.place += 2;
    loading.data += loading.width;
    loading.left--;
    return 1;
}

extern "C" {

__attribute__((visibility("default"))) void* pg_new() {
    Bench* bench = new Bench;
    bench->top.reset(new Vtestbench{bench->context.get(), "bench"});
    bench->context->errorLimit(INT32_MAX);  // a failed assertion is said and counted
    bench->top->clk = 0;
    bench->top->reset = 1;
    bench->top->eval();
    Verilated::threadContextp(bench->context.get());
    return bench;
}

__attribute__((visibility("default"))) void pg_delete(void* handle) {
    Bench* bench = static_cast<Bench*>(handle);
#ifdef PG_TRACE
    if (bench->wave) bench->wave->close();
    bench->wave.reset();
#endif
    bench->top->final();
    delete bench;
}

// Write a waveform of all that follows, or of cycles first .. last of every layer where first <= last. Return errno.
__attribute__((visibility("default"))) int pg_wave(void* handle, const char* path, int64_t first, int64_t last) {
#ifdef PG_TRACE
    Bench* bench = static_cast<Bench*>(handle);
    bench->context->traceEverOn(true);
    bench->windowed = first <= last;
    bench->first = first;
    bench->last = last;
    bench->wave.reset(new VerilatedVcdC{&bench->file});
    bench->top->trace(bench->wave.get(), 99);
    bench->wave->open(path);
    return bench->file.error;
#else
    (void)handle, (void)path, (void)first, (void)last;
    return ENOTSUP;
#endif
}

// Return the errno of a waveform file that could not be written, else 0; `close` ends the file.
__attribute__((visibility("default"))) int pg_wave_error(void* handle, int close) {
#ifdef PG_TRACE
    Bench* bench = static_cast<Bench*>(handle);
    if (close && bench->wave) {
        bench->wave->close();
        bench->wave.reset();
    }
    return bench->file.error;
#else
    (void)handle, (void)close;
    return 0;
#endif
}

// Set `count` words of one memory: row i of `place` is (bank or column, address), of `data` `words` 32-bit words.
__attribute__((visibility("default"))) void pg_poke(
    void* handle, int memory, int64_t count, const int32_t* place, const uint32_t* data, int64_t words) {
    Bench* bench = static_cast<Bench*>(handle);
    loading = {memory, count, words, place, data};
    strobe(*bench, bench->top->load);
}

// A host write of the post-processing unit: WRITE of post_unit.py.
struct Write {
    uint8_t select, stage;
    uint16_t port;
    uint32_t address;
    int64_t data;
};

// Make the post-processing unit forget all that it keeps.
__attribute__((visibility("default"))) void pg_post_forget(void* handle) {
#ifdef PG_POST
    Bench* bench = static_cast<Bench*>(handle);
    strobe(*bench, bench->top->forget);
#else
    (void)handle;
#endif
}

// Hold the machine in reset and write the post-processing unit's program, a word a cycle; shortcuts, of which there
// may be as many as pixels, are in its memory at once, as what the machine's own memories are filled with.
__attribute__((visibility("default"))) void pg_post_load(void* handle, int64_t count, const Write* writes) {
    Bench* bench = static_cast<Bench*>(handle);
    Verilated::threadContextp(bench->context.get());
    Vtestbench& top = *bench->top;
    top.reset = 1;
    top.post_reset = 1;
#ifdef PG_TRACE
    bench->running = false;
#endif
    tick(*bench);
    top.post_reset = 0;
    top.host_write = 1;
    std::vector<int32_t> place;
    std::vector<uint32_t> data;
    for (int64_t i = 0; i < count; i++) {
        if (writes[i].select == HOST_SHORTCUTS) {
            place.insert(place.end(), {0, static_cast<int32_t>(writes[i].address)});
            data.insert(data.end(), {static_cast<uint32_t>(writes[i].data), static_cast<uint32_t>(writes[i].data >> 32)});
            continue;
        }
        top.host_select = writes[i].select;
        top.host_stage = writes[i].stage;
        top.host_port = writes[i].port;
        top.host_address = writes[i].address;
        top.host_data = writes[i].data;
        tick(*bench);
    }
    top.host_write = 0;
    if (!place.empty()) pg_poke(handle, SHORTCUT_WORDS, place.size() / 2, place.data(), data.data(), 2);
}

// Run on after the layer has ended until the post-processing unit is idle, at most `cycles`.
__attribute__((visibility("default"))) void pg_post_drain(void* handle, int64_t cycles) {
    Bench& bench = *static_cast<Bench*>(handle);
    Verilated::threadContextp(bench.context.get());
    for (; !(bench.top->post_status & 1) && bench.counts[POST_CYCLES] < cycles; bench.counts[POST_CYCLES]++) {
        count_words(bench);
        tick(bench);
    }
    bench.counts[POST_IDLE] = bench.top->post_status & 1;
    bench.counts[POST_FAULT] = bench.top->post_status >> 1 & 1;
}

// Read words of a memory of the post-processing unit, as its host does.
__attribute__((visibility("default"))) void pg_post_read(
    void* handle, int select, int64_t count, const int64_t* addresses, int64_t* words) {
    Bench& bench = *static_cast<Bench*>(handle);
    Verilated::threadContextp(bench.context.get());
    bench.top->host_select = select;
    for (int64_t i = 0; i < count; i++) {
        bench.top->host_address = addresses[i];
        bench.top->eval();
        words[i] = bench.top->host_read;
    }
}

// Forget the layer before and hold the machine in reset for a cycle.
__attribute__((visibility("default"))) void pg_reset(void* handle) {
    Bench* bench = static_cast<Bench*>(handle);
    bench->top->reset = 1;
#ifdef PG_TRACE
    bench->running = false;
#endif
    tick(*bench);
    bench->top->reset = 0;
    bench->top->cycle = bench->cycle = 0;
    bench->top->eval();
#ifdef PG_TRACE
    bench->running = true;
#endif
    for (auto& stream : bench->streams) stream.clear();
    for (auto& count : bench->counts) count = 0;
#ifdef PGSIM_ASSERT
    bench->context->errorCount(0);
    bench->context->assertOn(true);
#endif
    for (auto& count : bench->array_causes) count = 0;
    for (auto& count : bench->group_causes) count = 0;
    for (auto& count : bench->histogram) count = 0;
    bench->last_cause = -1;
}

// Run up to `cycles` more cycles; return 1 where the layer has ended, else 0.
__attribute__((visibility("default"))) int pg_run(void* handle, int64_t cycles) {
    Bench& bench = *static_cast<Bench*>(handle);
    Verilated::threadContextp(bench.context.get());
    for (int64_t i = 0; i < cycles; i++) {
        if (bench.top->finished) {
            for (int slot = 0; slot < 2; slot++)
                if (bench.top->array_status >> (15 + slot) & 1)
                    bench.streams[DONE].insert(bench.streams[DONE].end(),
                        {bench.counts[CYCLES] - 1, bench.top->slot_segment[slot]});
            bench.counts[FINISHED] = 1;
            return 1;
        }
        observe(bench);
        count_words(bench);
        tick(bench);
        check_assertions(bench);
        bench.counts[CYCLES]++;
    }
    return 0;
}

__attribute__((visibility("default"))) const int64_t* pg_stream(void* handle, int stream, int64_t* length) {
    Bench* bench = static_cast<Bench*>(handle);
    *length = bench->streams[stream].size();
    return bench->streams[stream].data();
}

__attribute__((visibility("default"))) const int64_t* pg_counts(void* handle, int which, int64_t* length) {
    Bench* bench = static_cast<Bench*>(handle);
    switch (which) {
        case 0: *length = COUNTS; return bench->counts;
        case 1: *length = CAUSE_KINDS; return bench->array_causes;
        case 2: *length = CAUSE_KINDS; return bench->group_causes;
        default: *length = bench->histogram.size(); return bench->histogram.data();
    }
}

}  // extern "C"
