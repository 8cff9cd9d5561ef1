"""Synthesise the machine's units to a cell library and measure what they cost: analysis/calibration/NAME.json.

    python analysis/calibrate_lanes.py sky130 --library sky130_fd_sc_hd__tt_025C_1v80.lib
    python analysis/calibrate_lanes.py asap7 --library SIMPLE.lib --library INVBUF.lib --library AO.lib ...

The first library given names the rest. Needs Yosys (pip install 'pgsim[calibration]') and the library, which does not
come with pgsim; analysis/calibrated_tables.py makes energy tables of what this writes. docs/calibration.md says how.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pgsim
from pgsim.rtl.calibration.library import Library
from pgsim.rtl.calibration.synthesis import Recipe, yosys_version
from pgsim.rtl.calibration.units import (
    Bench,
    Operands,
    document,
    measure_fifo,
    measure_lane,
    measure_pe,
    measure_register,
    measure_word,
)

ROOT = Path(__file__).resolve().parent.parent
TRACES = {3: "resnet20_3-2_release", 4: "resnet20_4-3_release"}  # by activation bits
Code = Callable[[NDArray[np.int64]], NDArray[np.int64]]
LANES = 8  # of a PE: a lane takes every eighth channel


@dataclass(frozen=True)
class Process:
    """What the flow must know of a library beside its files."""

    node_nm: int
    period_ps: int
    slew_ps: float
    dont_use: tuple[str, ...]


PROCESSES = {
    # Flip-flops with an enable of their own (edf) are larger than a flip-flop and a multiplexer; probe and lpflow cells
    # are for test structures and power domains, dlymetal for hold times.
    "sky130": Process(130, 20_000, 50.0, ("*__edf*", "*__sedf*", "*__sdf*", "*__probe*", "*__lpflow*", "*__dlymetal*")),
    # The fractional strengths (xp) are weak; scan and reset flip-flops and two-output adders are of no use here.
    "asap7": Process(7, 2_000, 20.0, ("*x1p*", "*xp*", "SDF*", "DFFASRHQN*", "FAx*", "HAx*")),
}


class Streams:
    """Operand pairs in the order that a lane of a PE takes them, from a trace's gated layers.

    Outputs are drawn at random, layers by their MACs. A lane sees all taps of an output's window, and at each the
    channels n, n + 8, ...; padding is 0.
    """

    def __init__(self, name: str):
        self.trace = pgsim.load_trace(ROOT / "traces" / f"{name}.npz")
        self.label = f"{name} sha256 {self.trace.sha256[:16]}"
        self.layers = [index for index, layer in enumerate(self.trace.layers) if layer.gate]
        self.tensors = {index: self.trace.tensors(index) for index in self.layers}

    def operands(self, cycles: int, seed: int, code: Code, updated: bool) -> Operands:
        """Return pairs with code(activation); of updated outputs alone where `updated`."""
        rng = np.random.default_rng(seed)
        act: list[Any] = []
        weight: list[Any] = []
        first: list[Any] = []
        while sum(len(part) for part in act) < cycles:
            a, w = next(self._outputs(rng, updated))
            act.append(code(a))
            weight.append(w)
            first.append((np.arange(len(a)) == 0).astype(np.int64))
        return Operands(*(np.concatenate(of)[:cycles] for of in (act, weight, first)))

    def _outputs(self, rng: np.random.Generator, updated: bool) -> Iterator[tuple[Any, Any]]:
        macs = np.array([self.trace.layers[index].geometry.macs for index in self.layers], float)
        while True:
            index = self.layers[rng.choice(len(self.layers), p=macs / macs.sum())]
            layer, tensors = self.trace.layers[index], self.tensors[index]
            g = layer.geometry
            n, k = rng.integers(self.trace.images), rng.integers(g.out_channels)
            p, q = rng.integers(g.out_height), rng.integers(g.out_width)
            if updated and tensors.mask is not None and not tensors.mask[n, k, p, q]:
                continue
            top, bottom, left, right = g.padding
            padded = np.pad(tensors.activation[n].astype(np.int64), ((0, 0), (top, bottom), (left, right)))
            y, x = p * g.stride[0], q * g.stride[1]
            window = padded[:, y : y + g.kernel[0], x : x + g.kernel[1]]
            lane = rng.integers(LANES)
            acts = window[lane::LANES].transpose(1, 2, 0).ravel()
            weights = layer.weight[k, lane::LANES].transpose(1, 2, 0).ravel().astype(np.int64)
            yield acts, weights


def _high(low: int) -> Code:
    return lambda code: code >> low


def _low(low: int) -> Code:
    return lambda code: code & ((1 << low) - 1)


def real_streams(cycles: int) -> tuple[dict[tuple[int, str], Operands], list[str]]:
    """Return operands by lane width and stimulus, weights of 8 bits, and the traces' labels.

    msb and lsb of b-bit codes at every split; codes, the whole codes. Those in wide8 are whole codes for a lane of 8.
    """
    result: dict[tuple[int, str], Operands] = {}
    labels = []
    for bits, name in sorted(TRACES.items()):
        streams = Streams(name)
        labels.append(streams.label)
        for high in range(1, bits):
            low = bits - high
            msb = streams.operands(cycles, 10 * bits + high, _high(low), updated=False)
            lsb = streams.operands(cycles, 20 * bits + high, _low(low), updated=True)
            result[high, f"msb_of_{bits}"] = msb
            result[low, f"lsb_of_{bits}"] = lsb
        codes = streams.operands(cycles, bits, lambda code: code, updated=False)
        result[bits, f"codes_of_{bits}"] = codes
        result[8, f"codes_of_{bits}"] = codes
    return result, labels


def measure(name: str, libraries: list[Path], cycles: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Return everything that is measured of one library."""
    process = PROCESSES[name]
    library = Library(libraries)
    recipe = Recipe(dont_use=process.dont_use, period_ps=process.period_ps)
    bench = Bench(library, recipe, process.slew_ps, cycles)
    streams, traces = real_streams(cycles)
    lanes, variants, units = [], [], []
    widths = [(act, weight) for weight in (8, 4, 2) for act in range(1, 9)] + [(16, 16)]
    for act_bits, weight_bits in widths:
        say(f"lane {act_bits} x {weight_bits}")
        own = {kind: of for (width, kind), of in streams.items() if (width, weight_bits) == (act_bits, 8)}
        lanes.append(measure_lane(bench, act_bits, weight_bits, own))
    for options in ({"booth": 1}, {"SIGNED_ACT": 1}):
        for act_bits in (2, 3, 4, 8):
            say(f"lane {act_bits} x 8 {options}")
            variants.append(measure_lane(bench, act_bits, 8, {}, **options))
    pes = []
    for act_bits in (1, 2, 3, 4, 8):
        say(f"PE of {LANES} lanes, {act_bits} x 8")
        pes.append(measure_pe(bench, act_bits, LANES))
    for unit, sizes in (
        ("adder", (8, 16, 24, 32, 48)),
        ("multiplier", (8, 16, 24)),
        ("comparator", (8, 16, 24, 32)),
        ("multiplexer", (24,)),
    ):
        for bits in sizes:
            say(f"{unit} {bits}")
            units.append(measure_word(bench, unit, bits))
    for bits in (8, 32):
        say(f"register {bits}")
        units.append(measure_register(bench, bits))
    for bits, depth in ((24, 32), (48, 32)):
        say(f"fifo {bits} x {depth}")
        units.append(measure_fifo(bench, bits, depth))
    return {
        "library": library.label,
        "yosys": yosys_version(),
        "node_nm": process.node_nm,
        "voltage_v": library.voltage_v,
        "temperature_c": library.temperature_c,
        "period_ps": process.period_ps,
        "slew_ps": process.slew_ps,
        "dont_use": ", ".join(process.dont_use),
        "cycles": cycles,
        "seed": bench.seed,
        "traces": "; ".join(traces),
        "lanes": lanes,
        "variants": variants,
        "pes": pes,
        "units": units,
    }


def main(arguments: list[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(PROCESSES))
    parser.add_argument(
        "--library", action="append", type=Path, required=True, help="a Liberty file; again for another"
    )
    parser.add_argument("--cycles", type=int, default=4000)
    parser.add_argument("-o", "--output", type=Path, help="default: analysis/calibration/NAME.json")
    options = parser.parse_args(arguments)
    output = options.output or ROOT / "analysis" / "calibration" / f"{options.name}.json"
    measured = measure(options.name, options.library, options.cycles, lambda line: print(line, file=sys.stderr))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(measured), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
