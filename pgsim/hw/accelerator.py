"""The accelerator as one frozen record: it drives the simulator, the cost model and the generated RTL alike.

Sizes are in bits and cycles, so that no unit has to be guessed; the file side converts KiB and MHz once. Every
record checks itself: a value out of range raises InputError with the key path of the hardware file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from typing import Any

from pgsim.arith.formats import Encoding
from pgsim.arith.formats import Overflow as OverflowMode
from pgsim.hw.check import DECOUPLED_ONLY, FieldError, check_lanes, check_range


class Organisation(Enum):
    """How the two halves of a gated layer are wired (docs/timing-contract.md has each one's cycles)."""

    DECOUPLED = "decoupled"  # separate MSB and LSB arrays, an update queue between them
    DENSE = "dense"  # one array of act_bits x weight_bits; no gate
    GATED_FUSED = "gated_fused"  # PEs of two parts; the LSB part follows one tile behind and is gated where mask = 0
    TWO_PASS = "two_pass"  # one array, a mux between the phases; the update pass visits every output


class GateSource(Enum):
    """Where the gate's threshold and its treatment of skipped outputs come from."""

    TRACE = "trace"  # Precision Gating: the trace's thresholds and policy
    ZERO_PREDICTION = "zero_prediction"  # PredictiveNet: threshold 0, outputs that are not updated become 0


class DepthwisePort(Enum):
    """How a depthwise layer, whose columns share no window, is fed."""

    OWN_PORT = "own_port"  # a window port for each column: C channels side by side
    ONE_COLUMN = "one_column"  # one channel at a time, C - 1 columns idle


class FeatureMaps(Enum):
    """Where feature maps live between layers."""

    ON_CHIP = "on_chip"  # in the activation and output buffers wherever all live tensors of a batch fit, else off chip
    OFF_CHIP = "off_chip"  # always read from and written to the off-chip memory


@dataclass(frozen=True)
class PeArray:
    """Output-stationary array of `rows` pixels x `columns` channels; a PE has `multipliers` lanes and an accumulator.

    `act_bits` is the width of a lane's activation operand: the MSB plane in `decoupled`, both planes side by side
    in `gated_fused`. None ("trace" in the file) takes it from the trace: h (decoupled, two_pass: max(h, l)) or B.
    """

    rows: int
    columns: int
    multipliers: int
    act_bits: int | None
    weight_bits: int
    weight_encoding: Encoding
    psum_bits: int
    overflow: OverflowMode

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "multipliers", "weight_bits", "psum_bits"):
            check_range(f"array.{name}", getattr(self, name))
        if self.act_bits is not None:
            check_range("array.act_bits", self.act_bits)
        check_lanes("array", self.lanes)

    @property
    def lanes(self) -> int:
        """Multipliers of the whole array: rows * columns * multipliers of a PE."""
        return self.rows * self.columns * self.multipliers


@dataclass(frozen=True)
class UpdateArray:
    """LSB array of `groups` groups of `lanes` lanes; each lane has as many multipliers as a PE of the MSB array."""

    groups: int
    lanes: int
    act_bits: int | None  # width of a lane's activation operand; None takes l from the trace
    queue_depth: int  # entries of each of the C channel-banked FIFOs

    def __post_init__(self) -> None:
        for name in ("groups", "lanes", "queue_depth"):
            check_range(f"update_array.{name}", getattr(self, name))
        if self.act_bits is not None:
            check_range("update_array.act_bits", self.act_bits)


@dataclass(frozen=True)
class Buffer:
    """An on-chip SRAM of `size_bits`, in `banks` banks of equal size. The Memory that holds it checks it.

    A bank serves `ports` words a cycle to readers: it is there `ports` times over, each copy with one port. One read of
    the weight buffer gives a column its weights of `row_steps` reduction steps, which the reader keeps.
    """

    size_bits: int
    banks: int = 1
    ports: int = 1
    row_steps: int = 1

    @property
    def bank_bits(self) -> int:
        """Size of one bank."""
        return self.size_bits // self.banks

    @property
    def arrays(self) -> int:
        """SRAM arrays of one bank's size that the buffer is made of: a copy of every bank for each read port."""
        return self.banks * self.ports


@dataclass(frozen=True)
class OffChip:
    """One off-chip channel: `width_bits` a cycle, a fixed latency, priced as `kind`."""

    width_bits: int
    latency_cycles: int
    kind: str

    def __post_init__(self) -> None:
        check_range("memory.off_chip.width", self.width_bits)
        check_range("memory.off_chip.latency", self.latency_cycles)


@dataclass(frozen=True)
class Memory:
    """The memory system. `activation_lsb` exists where the planes are apart (decoupled); else it is None."""

    activation: Buffer  # the MSB plane in `decoupled`; whole codes elsewhere
    activation_lsb: Buffer | None
    weight: Buffer
    output: Buffer  # shortcuts and outputs on their way off chip
    off_chip: OffChip
    feature_maps: FeatureMaps

    def __post_init__(self) -> None:
        for name, buffer in self.buffers.items():
            check_range(f"memory.{name}.size", buffer.size_bits)
            check_range(f"memory.{name}.banks", buffer.banks)
            if name != "output":
                check_range(f"memory.{name}.ports", buffer.ports)
            if name == "weight":
                check_range("memory.weight.row_steps", buffer.row_steps)
            if buffer.size_bits % buffer.banks:
                problem = f"must be a multiple of its {buffer.banks} banks, not {buffer.size_bits} bit"
                raise FieldError(f"memory.{name}.size", problem)

    @property
    def buffers(self) -> dict[str, Buffer]:
        """The on-chip SRAMs by their names in the hardware file."""
        named = {
            "activation": self.activation,
            "activation_lsb": self.activation_lsb,
            "weight": self.weight,
            "output": self.output,
        }
        return {name: buffer for name, buffer in named.items() if buffer is not None}


@dataclass(frozen=True)
class Accelerator:
    """One accelerator, checked. `assumed` lists in words what no published source fixes; reports print it.

    Raises FieldError, an InputError that names the key path, for a value out of range and for options that the
    organisation does not have.
    """

    name: str
    organisation: Organisation
    gate: GateSource
    clock_mhz: float
    node_nm: int
    voltage_v: float
    energy_table: str
    array: PeArray
    update: UpdateArray | None  # decoupled only
    memory: Memory
    batch: int  # images taken through one layer before the next layer starts
    cooperative: bool  # decoupled: layers that are not gated run on both arrays
    depthwise: DepthwisePort
    clock_gating: bool  # idle lanes' registers are not clocked
    energy_tables_beside: tuple[str, ...] = ()  # the same counts priced again, for a second opinion
    assumed: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        check_range("clock", self.clock_mhz)
        check_range("technology.node", self.node_nm)
        check_range("technology.voltage", self.voltage_v)
        check_range("batch", self.batch)
        organisation = self.organisation.value
        decoupled = self.organisation is Organisation.DECOUPLED
        for key, part in zip(DECOUPLED_ONLY, (self.update, self.memory.activation_lsb), strict=True):
            if decoupled and part is None:
                raise FieldError(key, "must be given for organisation decoupled, not missing")
            if not decoupled and part is not None:
                raise FieldError(key, f"must be left out for organisation {organisation}; only decoupled has it")
        if self.cooperative and not decoupled:
            raise FieldError("cooperative", f"must be false for organisation {organisation}; only decoupled has it")
        if self.organisation is Organisation.GATED_FUSED and self.memory.weight.ports % 2:
            problem = f"must be even for organisation {organisation}, whose two parts read side by side"
            raise FieldError("memory.weight.ports", f"{problem}, not {self.memory.weight.ports}")
        if self.organisation is Organisation.DENSE and self.gate is not GateSource.TRACE:
            raise FieldError("gate", f"must be trace for organisation dense, which has no gate, not {self.gate.value}")
        if self.update is not None:
            check_lanes("update_array", self.update.groups * self.update.lanes * self.array.multipliers)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of everything that affects results: all but name, description, second prices, what is assumed.

        An energy table counts by its file name here; its contents have a digest of their own.
        """
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in _WORDS}
        plain |= {"clock_mhz": float(self.clock_mhz), "voltage_v": float(self.voltage_v)}  # 500 and 500.0 are one clock
        plain["energy_table"] = PurePath(self.energy_table).name.removesuffix(".yaml")
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


_WORDS = ("name", "description", "assumed", "energy_tables_beside")


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value
