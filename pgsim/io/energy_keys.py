"""The keys of an energy table, format 1."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction

from pgsim.hw.check import RANGES, SIZE, Range
from pgsim.hw.prices import Action, Component, Stimulus
from pgsim.io.hardware_keys import SIZES
from pgsim.io.keys import Choice, Flag, Key, Mapping, Number, Quantity, Rows, Text, Version

FORMAT_KEY = "pgsim_energy"
FORMAT_VERSION = 1


class FitTerm(Enum):
    """Terms of a price fitted for lanes of a x w bits."""

    PRODUCT = "product"  # times a * w
    MEAN = "mean"  # times (a + w) / 2
    CONSTANT = "constant"


class SramQuantity(Enum):
    """What a row of the SRAM table gives for a bank."""

    READ = "read"
    WRITE = "write"
    LEAKAGE = "leakage"
    AREA = "area"


_ANY = 1e9
_ENERGY = Quantity("an energy", (("pJ", Fraction(1)), ("fJ", Fraction(1, 1000))), Range(0, _ANY, "pJ", whole=False))
_AREA = Quantity("an area", (("um2", Fraction(1)), ("mm2", Fraction(10**6))), Range(0, 1e12, "um2", whole=False))
_POWER = Quantity(
    "a power",
    (("mW", Fraction(1)), ("uW", Fraction(1, 1000)), ("nW", Fraction(1, 10**6))),
    Range(0, _ANY, "mW", whole=False),
)
_PER_BIT = Quantity("an energy a bit", (("pJ/bit", Fraction(1)),), Range(0, _ANY, "pJ/bit", whole=False))
_PER_AREA = Quantity("a power an area", (("nW/um2", Fraction(1)),), Range(0, _ANY, "nW/um2", whole=False))
_NODE = Quantity("a length", (("nm", Fraction(1)),), RANGES["technology.node"])
_VOLTAGE = Quantity("a voltage", (("V", Fraction(1)), ("mV", Fraction(1, 1000))), RANGES["technology.voltage"])
_WIDTH = Number(Range(1, 64))

_AT = (Key("node", _NODE, "logic node of the figure"), Key("voltage", _VOLTAGE, "supply voltage of the figure"))
_SOURCE = (
    Key("source", Text(80), "a name under sources; may be left out for an assumed figure", default=""),
    Key("assumed", Flag(), "true where no published source gives the figure", default=False),
    Key("reason", Text(600, lines=True), "why an assumed figure is what it is", default=""),
    Key("derivation", Text(600, lines=True), "how the figure follows from the source's", default=""),
)


def _rows(names: tuple[Key, ...], value: Quantity) -> Rows:
    return Rows(Mapping((*names, Key("value", value, "the figure and its unit"), *_AT, *_SOURCE)))


_LANE = (
    Key("act_bits", _WIDTH, "activation operand of the lane"),
    Key("weight_bits", _WIDTH, "weight operand of the lane"),
)
_TERM = (Key("term", Choice(FitTerm), "term of the fit"),)
_ACTION = Key("action", Choice(Action), "what is done")
_COMPONENT = Key("component", Choice(Component), "the part")
_BITS = Key("bits", Number(Range(1, 4096)), "width of the word")

_SRAM_ROW = Mapping(
    (
        Key("size", Quantity("a size", SIZES, SIZE), "size of the bank"),
        Key("read", _ENERGY, "energy of reading one word"),
        Key("write", _ENERGY, "energy of writing one word"),
        Key("leakage", _POWER, "leakage of the bank"),
        Key("area", _AREA, "area of the bank"),
        *_AT,
        *_SOURCE,
    )
)
_SRAM = Mapping(
    (
        Key("word", Quantity("a width", (("bit", Fraction(1)),), Range(1, 4096, "bit")), "word of an access"),
        Key("leakage_factor", Number(Range(0, 1000, whole=False)), "multiplies the rows' leakage; assumed", default=1),
        Key("rows", Rows(_SRAM_ROW), "banks by size"),
    )
)

ENERGY = Mapping(
    (
        Key(FORMAT_KEY, Version(FORMAT_VERSION), "version of this format"),
        Key("name", Text(80), "the table's name in results"),
        Key("description", Text(2000, lines=True), "a few words for people", default=""),
        Key("node", _NODE, "logic node of every figure but DRAM's"),
        Key("voltage", _VOLTAGE, "supply voltage of every figure but DRAM's"),
        Key("sources", Rows(Mapping((Key("name", Text(80), ""), Key("text", Text(600, lines=True), "")))), "citations"),
        Key(
            "lanes",
            _rows((*_LANE, Key("stimulus", Choice(Stimulus), "what the lane sees")), _ENERGY),
            "energy of a whole MAC lane in a cycle",
        ),
        Key("lane_areas", _rows(_LANE, _AREA), "area of a whole MAC lane"),
        Key("lane_energy_fit", _rows(_TERM, _ENERGY), "dense energy of lanes without a row"),
        Key("lane_area_fit", _rows(_TERM, _AREA), "area of lanes without a row"),
        Key("logic_leakage", _rows((), _PER_AREA).row, "leakage of logic by area"),
        Key("actions", _rows((_ACTION, _BITS), _ENERGY), "energy of what is not a lane"),
        Key("areas", _rows((_COMPONENT, _BITS), _AREA), "area of what is not a lane"),
        Key("sram", _SRAM, "SRAM banks by size"),
        Key(
            "dram",
            Rows(Mapping((Key("kind", Text(40), "DRAM kind"), Key("value", _PER_BIT, "energy a bit"), *_SOURCE))),
            "DRAM by kind; no logic node applies",
        ),
    )
)
