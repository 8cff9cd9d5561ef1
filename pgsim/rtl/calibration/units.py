"""Measure the units that an energy table prices: whole MAC lanes, words of arithmetic, registers, FIFOs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.rtl.calibration.circuit import Circuit, build_circuit
from pgsim.rtl.calibration.library import Library
from pgsim.rtl.calibration.measure import Energy, energy, run_unit
from pgsim.rtl.calibration.netlist import Netlist
from pgsim.rtl.calibration.synthesis import Recipe, synthesise

Words = NDArray[np.int64]
PSUM_BITS = 24
STEPS = 36  # products of one output that pass one lane: 3 x 3 taps, 32 channels, 8 lanes
WARM_UP = 50


@dataclass(frozen=True)
class Bench:
    """A library, how units are synthesised to it, and how long they are watched."""

    library: Library
    recipe: Recipe
    slew_ps: float
    cycles: int = 4000
    seed: int = 1

    def build(
        self, top: str, parameters: Mapping[str, int], clock_gate: bool = False, booth: bool = False
    ) -> tuple[Netlist, Circuit]:
        """Return a unit's netlist and arrays."""
        recipe = replace(self.recipe, clock_gate=clock_gate, booth=booth)
        with tempfile.TemporaryDirectory() as folder:
            netlist = synthesise(top, parameters, self.library.paths, recipe, Path(folder))
        return netlist, build_circuit(netlist, self.library, slew_ps=self.slew_ps)


@dataclass(frozen=True)
class Operands:
    """What a lane sees, cycle by cycle: activation codes, weights, and where an output's first product stands."""

    act: Words
    weight: Words
    first: Words


def uniform_operands(bench: Bench, act_bits: int, weight_bits: int) -> Operands:
    """Return independent uniform codes and weights of both signs; an output has STEPS products."""
    rng = np.random.default_rng(bench.seed)
    act = rng.integers(0, 2**act_bits, bench.cycles)
    weight = rng.integers(-(2 ** (weight_bits - 1)), 2 ** (weight_bits - 1), bench.cycles)
    return Operands(act, weight, (np.arange(bench.cycles) % STEPS == 0).astype(np.int64))


def lane_sums(operands: Operands, enable: Words, psum_bits: int) -> Words:
    """Return what the lane's accumulator holds in each cycle, modulo 2^psum_bits."""
    held = (0, 0, 0)
    total, sums = 0, []
    for cycle in range(len(operands.act)):
        if cycle and enable[cycle - 1]:
            total = (0 if held[2] else total) + held[0] * held[1]
            before = cycle - 1
            held = (int(operands.act[before]), int(operands.weight[before]), int(operands.first[before]))
        sums.append(total % 2**psum_bits)
    return np.array(sums)


def watch_lane(
    bench: Bench, unit: tuple[Netlist, Circuit], operands: Operands, psum_bits: int, idle: bool = False
) -> Energy:
    """Return a lane's energy a cycle; idle, it holds what it last took. Its sums are checked in every cycle."""
    netlist, circuit = unit
    enable = np.ones(len(operands.act), np.int64)
    if idle:
        enable[WARM_UP // 2 :] = 0
        last = WARM_UP // 2 - 1
        still = np.minimum(np.arange(len(enable)), last)
        operands = Operands(operands.act[still], operands.weight[still], operands.first[still])
    values = {"enable": enable, "clear": operands.first, "act": operands.act, "weight": operands.weight}
    counted = np.arange(len(enable)) >= WARM_UP
    activity, outputs = run_unit(netlist, circuit, values, bench.recipe.period_ps, counted)
    assert np.array_equal(outputs["psum"], lane_sums(operands, enable, psum_bits)), "the netlist must add products up"
    return energy(circuit, activity)


def measure_lane(
    bench: Bench, act_bits: int, weight_bits: int, streams: Mapping[str, Operands], **options: int
) -> dict[str, Any]:
    """Return a whole MAC lane's area, leakage and energies: dense, idle, clock gated, and under each of `streams`.

    `options` are booth and SIGNED_ACT. Lanes of products above 16 bits have an accumulator of 8 bits more.
    """
    psum_bits = PSUM_BITS if act_bits + weight_bits <= 16 else act_bits + weight_bits + 8
    parameters = {"ACT_BITS": act_bits, "WEIGHT_BITS": weight_bits, "PSUM_BITS": psum_bits}
    parameters |= {name: value for name, value in options.items() if name.isupper()}
    booth = bool(options.get("booth"))
    unit = bench.build("mac_lane", parameters, booth=booth)
    gated = bench.build("mac_lane", parameters, clock_gate=True, booth=booth)
    dense = uniform_operands(bench, act_bits, weight_bits)
    energies = {"dense": watch_lane(bench, unit, dense, psum_bits)}
    energies["idle"] = watch_lane(bench, unit, dense, psum_bits, idle=True)
    energies["gated"] = watch_lane(bench, gated, dense, psum_bits, idle=True)
    energies["dense_with_clock_gate"] = watch_lane(bench, gated, dense, psum_bits)
    energies |= {name: watch_lane(bench, unit, operands, psum_bits) for name, operands in streams.items()}
    return {
        "act_bits": act_bits,
        "weight_bits": weight_bits,
        "psum_bits": psum_bits,
        "flip_flops": unit[1].flip_flops,
        "cells": len(unit[0].instances),
        "area_um2": unit[1].area_um2,
        "area_with_clock_gate_um2": gated[1].area_um2,
        "leakage_nw": unit[1].leakage_nw,
        **options,
        "energies": {name: summary(of) for name, of in energies.items()},
    }


def measure_pe(bench: Bench, act_bits: int, lanes: int) -> dict[str, Any]:
    """Return area and energy of a PE whose lanes share an adder tree and an accumulator, on uniform operands.

    Weights have 8 bits. Its sums are checked in every cycle.
    """
    unit = bench.build("pe_unit", {"ACT_BITS": act_bits, "LANES": lanes})
    streams = [uniform_operands(replace(bench, seed=bench.seed + lane), act_bits, 8) for lane in range(lanes)]
    act = np.bitwise_or.reduce([of.act << (lane * act_bits) for lane, of in enumerate(streams)])
    weight = np.bitwise_or.reduce([(of.weight & 255) << (lane * 8) for lane, of in enumerate(streams)])
    ones = np.ones(bench.cycles, np.int64)
    values = {"act": act, "weight": weight, "clear": streams[0].first, "enable": ones}
    activity, outputs = run_unit(*unit, values, bench.recipe.period_ps, np.arange(bench.cycles) >= WARM_UP)
    sums = sum(lane_sums(of, ones, PSUM_BITS) for of in streams)
    assert np.array_equal(outputs["psum"], sums % 2**PSUM_BITS), "the netlist must add products up"
    energies = {"dense": summary(energy(unit[1], activity))}
    return {"act_bits": act_bits, "weight_bits": 8, "lanes": lanes, "area_um2": unit[1].area_um2, "energies": energies}


def measure_word(bench: Bench, unit: str, bits: int) -> dict[str, Any]:
    """Return area and energy of an adder, multiplier, comparator or multiplexer: new uniform inputs in every cycle."""
    netlist, circuit = bench.build(f"{unit}_unit", {"BITS": bits})
    rng = np.random.default_rng(bench.seed)
    values = {port: rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), bench.cycles) for port in ("a", "b")}
    if unit == "multiplexer":
        values["select"] = rng.integers(0, 2, bench.cycles)
    activity, outputs = run_unit(netlist, circuit, values, 100 * bench.recipe.period_ps)
    exact = {
        "adder": ("sum", (values["a"] + values["b"]) % 2**bits),
        "comparator": ("mask", (values["a"] > values["b"]).astype(np.int64)),
        "multiplier": ("product", (values["a"] * values["b"]) & (2 ** min(2 * bits, 62) - 1)),
        "multiplexer": ("chosen", np.where(values.get("select", values["a"]), values["b"], values["a"]) % 2**bits),
    }
    port, expected = exact[unit]
    assert np.array_equal(outputs[port] & (2 ** min(2 * bits, 62) - 1), expected), f"the netlist of {unit} must compute"
    return _word(unit, bits, circuit, {"use": summary(energy(circuit, activity))})


def measure_register(bench: Bench, bits: int) -> dict[str, Any]:
    """Return area and energy of a clock-gated register: uniform words written in every cycle, and none written."""
    unit = bench.build("register_unit", {"BITS": bits}, clock_gate=True)
    rng = np.random.default_rng(bench.seed)
    words = rng.integers(0, 2**bits, bench.cycles)
    energies = {}
    for name, enable in (("write", 1), ("idle", 0)):
        values = {"d": words if enable else np.zeros_like(words), "enable": np.full(bench.cycles, enable)}
        activity, _ = run_unit(*unit, values, bench.recipe.period_ps, np.arange(bench.cycles) >= WARM_UP)
        energies[name] = summary(energy(unit[1], activity))
    return _word("register", bits, unit[1], energies)


def measure_fifo(bench: Bench, bits: int, depth: int) -> dict[str, Any]:
    """Return area and energies of a clock-gated FIFO: cycles that push, that pop, that do neither.

    It is filled and emptied in turns, with uniform words; the words that leave are checked.
    """
    unit = bench.build("fifo_unit", {"BITS": bits, "DEPTH": depth}, clock_gate=True)
    rng = np.random.default_rng(bench.seed)
    phase = np.arange(bench.cycles) % (3 * depth)
    push, pop = ((phase // depth) == 0).astype(np.int64), ((phase // depth) == 1).astype(np.int64)
    start = np.arange(bench.cycles) < 3 * depth  # a round without work, then resets end
    push[start], pop[start] = 0, 0
    words = rng.integers(0, 2**bits, bench.cycles) * push
    words = words[np.maximum.accumulate(np.where(push == 1, np.arange(bench.cycles), 0))]  # held while none is pushed
    values = {"push": push, "pop": pop, "d": words, "reset": (np.arange(bench.cycles) < 4).astype(np.int64)}
    before = {name: np.concatenate([[0], of[:-1]]) for name, of in (("push", push), ("pop", pop))}
    energies = {}
    for name, counted in (
        ("push", before["push"] == 1),
        ("pop", before["pop"] == 1),
        ("idle", (before["push"] + before["pop"] == 0) & (push + pop == 0) & (np.arange(bench.cycles) > WARM_UP)),
    ):
        activity, outputs = run_unit(*unit, values, bench.recipe.period_ps, counted)
        energies[name] = summary(energy(unit[1], activity))
    at_head = np.flatnonzero(pop)
    assert np.array_equal(outputs["q"][at_head], words[push == 1][: at_head.size]), "words must leave in order"
    return {**_word("fifo", bits, unit[1], energies), "depth": depth}


def _word(unit: str, bits: int, circuit: Circuit, energies: dict[str, Any]) -> dict[str, Any]:
    area = {"area_um2": circuit.area_um2, "leakage_nw": circuit.leakage_nw}
    return {"unit": unit, "bits": bits, "flip_flops": circuit.flip_flops, **area, "energies": energies}


def summary(of: Energy) -> dict[str, float]:
    """Return an energy as numbers for a file, its total first."""
    return {"total_fj": of.total_fj, **asdict(of)}


def rounded(value: Any, digits: int = 6) -> Any:
    """Return a measurement with its floats at `digits` significant digits."""
    if isinstance(value, dict):
        return {key: rounded(of, digits) for key, of in value.items()}
    if isinstance(value, list):
        return [rounded(of, digits) for of in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def document(measured: dict[str, Any]) -> str:
    """Return a measurement as JSON, one unit a line."""
    text = ["{"]
    for position, (key, value) in enumerate(rounded(measured).items()):
        comma = "," if position + 1 < len(measured) else ""
        if isinstance(value, list):
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            text.append(f"  {json.dumps(key)}: [\n{rows}\n  ]{comma}")
        else:
            text.append(f"  {json.dumps(key)}: {json.dumps(value)}{comma}")
    return "\n".join([*text, "}"]) + "\n"
