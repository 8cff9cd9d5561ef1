"""Cycles of a layer once more, with a waveform: what a co-simulation shows around the first event that differs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgsim.hw.accelerator import Accelerator
from pgsim.model.job import ArrayCause
from pgsim.rtl.bench import Bench, Unfinished
from pgsim.rtl.image import Image
from pgsim.rtl.vcd import changes, paths, read_header


@dataclass(frozen=True)
class Repeat:
    """What runs a layer and batch that differed once more, from reset; the memories it needs are in `program`."""

    image: Image
    program: NDArray[np.void] | None
    cycle: int  # of the first difference; where no cycle belongs to it, the layer's last
    exact: bool  # the difference has this cycle
    cycles: int  # of the engine, or of the RTL where that took longer

    def run(self, bench: Bench, path: Path, around: int, tick: Callable[[], None] | None = None) -> tuple[int, int]:
        """Write a waveform of the cycles from `around` before to `around` after as VCD, and return (first, last).

        `bench` is compiled with waves. The times are 2 * cycle at its rising edge, 2 * cycle + 1 in its second half.
        Raises OSError where the file cannot be written.
        """
        first, last = max(0, self.cycle - around), self.cycle + around
        bench.forget()
        bench.load(self.image, self.program)
        bench.wave(path, (first, last))
        with contextlib.suppress(Unfinished):
            bench.run(last + 1, tick)
        bench.end_wave()
        return first, last


def key_signals(path: Path, accelerator: Accelerator, cycle: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a header and a row for each cycle of such a waveform, the row of `cycle` marked with >.

    A row has what the machine signalled in the cycle: cause of the PE array, tiles, segments on the chip, pushes,
    launches and entries of the update queue, results at the output ports.
    """
    header = ["cycle", "PE array", "tiles", "segments"]
    decoupled = accelerator.update is not None
    if decoupled:
        header += ["entries", "pushes", "LSB groups"]
    rows = []
    for at, signals in _cycles(path):
        row = [("> " if at == cycle else "") + str(at), *_of_array(signals)]
        if decoupled:
            row += _of_groups(signals, accelerator)
        rows.append((*row, _of_ports(signals, accelerator.array.columns)))
    return (*header, "output ports"), rows


def _cycles(path: Path) -> Iterator[tuple[int, Mapping[str, int]]]:
    """Yield (cycle, the test bench's signals by name), as they are settled in each cycle's second half."""
    with open(path, encoding="ascii") as stream:
        found = paths(read_header(stream)[1])
        top = min((name.rpartition(".")[0] for name in found), key=len)
        names: dict[str, list[str]] = {}  # of a code: equal signals share one
        for name, variable in found.items():
            if name.rpartition(".")[0] == top:
                names.setdefault(variable.code, []).append(name.removeprefix(f"{top}."))
        now: dict[str, int] = {}
        before = 0  # an even time: the first half of a cycle
        for time, code, value in changes(stream):
            if time != before and before % 2:
                yield before // 2, dict(now)
            before = time
            for name in names.get(code, ()):
                now[name] = int(value, 2)
        if before % 2:
            yield before // 2, now


def _of_array(signals: Mapping[str, int]) -> list[str]:
    status = signals["array_status"]
    events = [("starts {}", 8, "started_tile"), ("leaves {}", 10, "leaving_tile")]
    events += [("{} to the LSB array", 9, "shared_tile"), ("{} leaves the LSB array", 11, "shared_leaving_tile")]
    tiles = ", ".join(text.format(signals[name]) for text, bit, name in events if status >> bit & 1)
    done = [" done" if status >> 15 + slot & 1 else "" for slot in range(2)]
    segments = ", ".join(f"{signals[f'slot_segment[{slot}]']}{done[slot]}" for slot in range(2))
    return [ArrayCause(status & 15).name.lower(), tiles, segments]


def _of_groups(signals: Mapping[str, int], accelerator: Accelerator) -> list[str]:
    assert accelerator.update is not None
    columns = [signals[f"column_status[{column}]"] for column in range(accelerator.array.columns)]
    entries = [word >> 2 for word in columns]
    pushes = [str(column) for column, word in enumerate(columns) if word >> 1 & 1]
    groups = []
    for group in range(accelerator.update.groups):
        word, column = signals[f"group_status[{group}]"], signals[f"group_column[{group}]"]
        if word >> 4 & 1:
            groups.append(f"{group} takes {word >> 16} of column {column}")
        if word >> 5 & 1:
            groups.append(f"{group} ends")
    shown = " ".join(map(str, entries)) if len(entries) <= 8 else f"{sum(entries)}, most {max(entries)}"
    return [shown, _some(pushes, 8, " "), _some(groups, 3, ", ")]


def _of_ports(signals: Mapping[str, int], columns: int) -> str:
    results = []
    for column in range(columns):
        if signals[f"column_status[{column}]"] & 1:
            channel, y, x = (signals[f"port_{name}[{column}]"] for name in ("channel", "y", "x"))
            value = signals[f"port_value[{column}]"]
            results.append(f"[{channel}, {y}, {x}] {value - (value >> 63 << 64)}")
    return _some(results, 3, "; ")


def _some(items: list[str], most: int, between: str) -> str:
    more = len(items) - most
    return between.join(items[:most]) + (f"{between}{more} more" if more > 0 else "")
