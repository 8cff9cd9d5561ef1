// Runs one layer, written by `pgsim rtl`, on the machine by itself: layer.txt [--vcd FILE].
// Says whether its cycles and outputs are the simulator's; returns 1 where they are not, 2 for a wrong call or file.
#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

extern "C" {
void* pg_new();
void pg_delete(void*);
int pg_wave(void*, const char*, int64_t, int64_t);
int pg_wave_error(void*, int);
void pg_poke(void*, int, int64_t, const int32_t*, const uint32_t*, int64_t);
void pg_post_forget(void*);
void pg_post_load(void*, int64_t, const struct Write*);
void pg_post_drain(void*, int64_t);
void pg_reset(void*);
int pg_run(void*, int64_t);
const int64_t* pg_stream(void*, int, int64_t*);
const int64_t* pg_counts(void*, int, int64_t*);
}

// A host write of the post-processing unit, as in harness.cpp.
struct Write {
    uint8_t select, stage;
    uint16_t port;
    uint32_t address;
    int64_t data;
};

namespace {

using Place = std::array<int64_t, 3>;  // channel, y, x

int refused(const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());
    return 2;
}

}  // namespace

int main(int count, char** words) {
    const char* usage = "usage: Vtestbench layer.txt [--vcd FILE]";
    if (count != 2 && !(count == 4 && !std::strcmp(words[2], "--vcd"))) return refused(usage);
    std::ifstream file(words[1]);
    if (!file) return refused(std::string(words[1]) + ": cannot be read");
    void* bench = pg_new();
    if (count == 4)
        if (const int error = pg_wave(bench, words[3], 0, -1))
            return refused(std::string(words[3]) + ": " + std::strerror(error));

    std::vector<Write> program;
    std::map<Place, int64_t> expected, found;
    int64_t cycles = 0, differing = 0;
    std::string line, kind;
    pg_post_forget(bench);
    while (std::getline(file, line)) {
        std::istringstream text(line);
        text >> kind;
        if (kind == "memory") {  // memory, bank or column, address, 32-bit words in hexadecimal, the lowest first
            int memory;
            int32_t place[2];
            std::vector<uint32_t> data;
            text >> memory >> place[0] >> place[1] >> std::hex;
            for (uint32_t word; text >> word;) data.push_back(word);
            pg_poke(bench, memory, 1, place, data.data(), data.size());
        } else if (kind == "host") {
            unsigned select, stage;
            Write write;
            text >> select >> stage >> write.port >> write.address >> write.data;
            write.select = select;
            write.stage = stage;
            program.push_back(write);
        } else if (kind == "cycles") {
            text >> cycles;
        } else if (kind == "output") {
            Place place;
            int64_t value;
            text >> place[0] >> place[1] >> place[2] >> value;
            expected[place] = value;
        }
    }
    pg_post_load(bench, program.size(), program.data());
    pg_reset(bench);
    const bool ended = pg_run(bench, 2 * cycles + 10000);
    if (ended && !program.empty()) pg_post_drain(bench, 1 << 20);
    const int error = pg_wave_error(bench, 1);
    if (error) return refused(std::string(words[3]) + ": " + std::strerror(error));

    int64_t length;
    const int64_t* rows = pg_stream(bench, 0, &length);  // cycle, segment, channel, y, x, value; parts of K before sums
    for (int64_t i = 0; i + 5 < length; i += 6) found[{rows[i + 2], rows[i + 3], rows[i + 4]}] = rows[i + 5];
    for (const auto& [place, value] : expected) {
        const auto at = found.find(place);
        if (at != found.end() && at->second == value) continue;
        if (!differing++)
            std::printf("output [%" PRId64 ", %" PRId64 ", %" PRId64 "] is %s, not %" PRId64 "\n", place[0], place[1],
                place[2], at == found.end() ? "missing" : std::to_string(at->second).c_str(), value);
    }
    const int64_t* counts = pg_counts(bench, 0, &length);
    const bool equal = ended && !differing && found.size() == expected.size() && counts[0] == cycles;
    std::printf("%" PRId64 " cycles (simulator %" PRId64 "), %zu outputs, %" PRId64 " differing: %s\n", counts[0], cycles,
        found.size(), differing, equal ? "equal" : "NOT EQUAL");
    if (counts[14]) std::printf("an assertion failed in cycle %" PRId64 "\n", counts[15]);
    const bool good = equal && !counts[14];
    pg_delete(bench);
    return good ? 0 : 1;
}
