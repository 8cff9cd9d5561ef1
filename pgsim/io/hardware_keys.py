"""The keys of a hardware file, format 1: the one table that the loader, `pgsim hw show` and the JSON Schema use."""

from __future__ import annotations

from fractions import Fraction

from pgsim.arith.formats import Encoding
from pgsim.hw.accelerator import DepthwisePort, FeatureMaps, GateSource, Organisation, OverflowMode
from pgsim.hw.check import RANGES
from pgsim.io.keys import Choice, Flag, Key, Mapping, Number, Quantity, Text, Texts, Version

FORMAT_KEY = "pgsim_hw"
FORMAT_VERSION = 1

_BIT = ("bit", Fraction(1))
SIZES = (_BIT, ("B", Fraction(8)), ("KiB", Fraction(8 * 1024)), ("MiB", Fraction(8 * 1024**2)))
_FREQUENCIES = (("MHz", Fraction(1)), ("Hz", Fraction(1, 10**6)), ("kHz", Fraction(1, 1000)), ("GHz", Fraction(1000)))


def _number(key: str, word: str = "") -> Number:
    return Number(RANGES[key], word)


def _size(key: str) -> Quantity:
    return Quantity("a size", SIZES, RANGES[key])


def _buffer(name: str, about: str, absent: bool = False) -> Key:
    path = f"memory.{name}"
    keys = [
        Key("size", _size(f"{path}.size"), "size of the whole buffer, as in 32 KiB"),
        Key("banks", _number(f"{path}.banks"), "banks of equal size", default=1),
    ]
    if name != "output":
        about_ports = "words that a bank serves a cycle; each port is a copy of the bank, in area too"
        keys.append(Key("ports", _number(f"{path}.ports"), about_ports, default=1))
    if name == "weight":
        about_rows = "reduction steps whose weights one read gives; readers keep them in registers"
        keys.append(Key("row_steps", _number(f"{path}.row_steps"), about_rows, default=1))
    return Key(name, Mapping(tuple(keys)), about, absent=absent)


TECHNOLOGY = Mapping(
    (
        Key("node", Quantity("a length", (("nm", Fraction(1)),), RANGES["technology.node"]), "logic node, as in 45 nm"),
        Key(
            "voltage",
            Quantity("a voltage", (("V", Fraction(1)), ("mV", Fraction(1, 1000))), RANGES["technology.voltage"]),
            "supply voltage, as in 1.0 V; that of the energy table",
        ),
        Key("energy_table", Text(), "a shipped energy table (45nm) or the path of one, from this file's folder"),
        Key(
            "beside", Texts(), "more energy tables, of any node, by which the same counts are priced again", default=()
        ),
    )
)

ARRAY = Mapping(
    (
        Key("rows", _number("array.rows"), "R: pixels that the array works on side by side"),
        Key("columns", _number("array.columns"), "C: output channels that the array works on side by side"),
        Key("multipliers", _number("array.multipliers"), "N: multipliers of a PE, input channels of one step"),
        Key(
            "act_bits",
            _number("array.act_bits", word="trace"),
            "width of a multiplier's activation operand, or trace: the trace's own (h of decoupled, B of dense)",
        ),
        Key("weight_bits", _number("array.weight_bits"), "width of a multiplier's weight operand"),
        Key(
            "weight_encoding",
            Choice(Encoding),
            "what the multipliers take; sign-magnitude weights of w bits need w + 1 bits in two's complement",
            default=Encoding.TWOS_COMPLEMENT,
        ),
        Key("psum_bits", _number("array.psum_bits"), "width of the accumulators, signed"),
        Key("overflow", Choice(OverflowMode), "what an accumulator does at its limits", default=OverflowMode.ERROR),
    )
)

UPDATE_ARRAY = Mapping(
    (
        Key("groups", _number("update_array.groups"), "G: groups, each busy with one run of a channel's updates"),
        Key("lanes", _number("update_array.lanes"), "L: lanes of a group, each with N multipliers"),
        Key(
            "act_bits",
            _number("update_array.act_bits", word="trace"),
            "width of a lane's activation operand, or trace: l of the trace",
            default=None,
        ),
        Key("queue_depth", _number("update_array.queue_depth"), "entries of each column's update queue"),
    )
)

OFF_CHIP = Mapping(
    (
        Key("width", Quantity("a width", (_BIT,), RANGES["memory.off_chip.width"]), "bits a cycle"),
        Key("latency", _number("memory.off_chip.latency"), "cycles from the last bit sent to on chip"),
        Key("kind", Text(40), "DRAM kind, a name of the energy table, as in lpddr4"),
    )
)

MEMORY = Mapping(
    (
        _buffer("activation", "activation codes; the MSB plane of decoupled"),
        _buffer("activation_lsb", "LSB plane; decoupled only", absent=True),
        _buffer("weight", "weights, shared by both phases"),
        _buffer("output", "shortcuts, and outputs on their way off chip"),
        Key("off_chip", OFF_CHIP, "the off-chip channel"),
        Key(
            "feature_maps",
            Choice(FeatureMaps),
            "where feature maps live between layers",
            default=FeatureMaps.ON_CHIP,
        ),
    )
)

HARDWARE = Mapping(
    (
        Key(FORMAT_KEY, Version(FORMAT_VERSION), "version of this format"),
        Key("name", Text(80), "the accelerator's name in results"),
        Key("description", Text(2000, lines=True), "a few words for people", default=""),
        Key("assumed", Texts(), "in words, what no published source fixes; reports print it", default=()),
        Key("organisation", Choice(Organisation), "how the two halves of a gated layer are wired"),
        Key("gate", Choice(GateSource), "whose thresholds and policy the gate has", default=GateSource.TRACE),
        Key("clock", Quantity("a frequency", _FREQUENCIES, RANGES["clock"]), "clock frequency, as in 500 MHz"),
        Key("technology", TECHNOLOGY, "node, voltage and prices"),
        Key("array", ARRAY, "the PE array; the MSB array of decoupled"),
        Key("update_array", UPDATE_ARRAY, "the LSB array; decoupled only", absent=True),
        Key("memory", MEMORY, "on-chip buffers and the off-chip channel"),
        Key("batch", _number("batch"), "images taken through a layer before the next layer starts", default=1),
        Key("cooperative", Flag(), "decoupled: layers that are not gated run on both arrays", default=False),
        Key("depthwise", Choice(DepthwisePort), "how a depthwise layer is fed", default=DepthwisePort.OWN_PORT),
        Key("clock_gating", Flag(), "idle lanes' registers are not clocked", default=False),
    )
)
