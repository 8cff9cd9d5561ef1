"""The accelerator as one frozen record: it drives the simulator, the cost model and the generated RTL alike.

Sizes are in bits and cycles, so that no unit has to be guessed; the file side converts KiB and MHz once. Every
record checks itself: a value out of range raises InputError with the key path of the hardware file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pgsim.arith.formats import Encoding


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


class OverflowMode(Enum):
    """What an accumulator does when a sum leaves psum_bits."""

    ERROR = "error"  # refuse the layer, naming channel, value and width needed
    SATURATE = "saturate"  # stick at the nearest representable value after every reduction step
    WRAP = "wrap"  # two's complement wrap-around


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
    """Output-stationary array of `rows` pixels x `columns` channels; each PE has `multipliers` lanes and an accumulator.

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


@dataclass(frozen=True)
class UpdateArray:
    """LSB array of `groups` groups of `lanes` lanes; each lane has as many multipliers as a PE of the MSB array."""

    groups: int
    lanes: int
    act_bits: int | None  # width of a lane's activation operand; None takes l from the trace
    queue_depth: int  # entries of each of the C channel-banked FIFOs


@dataclass(frozen=True)
class Buffer:
    """An on-chip SRAM of `size_bits`, in `banks` banks."""

    size_bits: int
    banks: int = 1


@dataclass(frozen=True)
class OffChip:
    """One off-chip channel: `width_bits` a cycle, a fixed latency, priced as `kind`."""

    width_bits: int
    latency_cycles: int
    kind: str


@dataclass(frozen=True)
class Memory:
    """The memory system. `activation_lsb` exists where the planes are apart (decoupled); else it is None."""

    activation: Buffer  # the MSB plane in `decoupled`; whole codes elsewhere
    activation_lsb: Buffer | None
    weight: Buffer
    output: Buffer  # shortcuts and outputs on their way off chip
    off_chip: OffChip
    feature_maps: FeatureMaps


@dataclass(frozen=True)
class Accelerator:
    """One accelerator, checked. `assumed` lists in words what no published source fixes; reports print it."""

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
    assumed: tuple[str, ...] = ()
    description: str = ""
    sha256: str = ""  # digest of everything above that affects results
