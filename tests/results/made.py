"""A run made by hand: two layers, every number chosen so that what follows from it can be worked out on paper.

a  gated 3/2 bits, 4 images of 25 outputs of 9 MACs; 30 of 100 outputs updated
b  plain 8 bits, 4 images of 5 outputs of 16 MACs
"""

from __future__ import annotations

from pgsim.hw.prices import Stimulus
from pgsim.results.actions import Action, ActionKind, Actions
from pgsim.results.layer import Energy, LayerCounts, LayerResult, LayerShape
from pgsim.results.run import Check, Provenance, RunResult

BIG = 2**60 + 1  # no float64 holds it


def made_run(name: str = "paper", clock_mhz: float = 200.0, cycles: int = 80) -> RunResult:
    """Return the run; layer a takes `cycles` cycles."""
    array, lsb = "array", "update_array"
    a = LayerCounts(
        images=4, outputs=100, outputs_updated=30, macs_issued=900, macs_useful=800, macs_updated=270,
        lane_cycles_busy=900, update_lane_cycles_busy=270, cycles=cycles,
        array_causes={"busy": 60, "tail": cycles - 60, "queue_full": 0, "drain": 0},
        group_causes={"busy": 100, "starved": 2 * cycles - 100},
        queue_histogram=(4 * cycles - 10, 7, 3, 0), channel_read_cycles=5, channel_write_cycles=0,
        outputs_checked=100, outputs_differing=0,
        actions=Actions({
            Action(ActionKind.MAC, array, 2, 8, Stimulus.MSB): 900,
            Action(ActionKind.MAC, array, 2, 8, Stimulus.GATED): 20 * cycles - 900,
            Action(ActionKind.MAC, lsb, 1, 8, Stimulus.LSB): 270,
            Action(ActionKind.SRAM_READ, "activation"): 64,
            Action(ActionKind.SRAM_WRITE, "weight"): BIG,
            Action(ActionKind.DRAM_READ, "off_chip"): 320,
        }),
    )  # fmt: skip
    b = LayerCounts(
        images=4, outputs=20, outputs_updated=0, macs_issued=320, macs_useful=320, macs_updated=0,
        lane_cycles_busy=320, update_lane_cycles_busy=0, cycles=20,
        array_causes={"busy": 16, "tail": 1, "queue_full": 0, "drain": 3},
        group_causes={"busy": 0, "starved": 40},
        queue_histogram=(80, 0, 0, 0), channel_read_cycles=1, channel_write_cycles=2,
        outputs_checked=20, outputs_differing=0,
        actions=Actions({Action(ActionKind.MAC, array, 2, 8, Stimulus.DENSE): 320,
                         Action(ActionKind.DRAM_WRITE, "off_chip"): 128}),
    )  # fmt: skip

    def shape(index: int, layer: str, gated: bool, bits: int, kind: str) -> LayerShape:
        return LayerShape(
            index=index, name=layer, kind=kind, shape="1x5x5 -> 1x5x5, 3x3/1", gated=gated, gate_applied=gated,
            act_bits=bits, pred_bits=2 if gated else bits, weight_bits=8, passes="1 + 1" if gated else "4",
            tiling="1 band of 5 rows", placement="input on chip, output on chip", lanes=20, update_lanes=8, groups=2,
        )  # fmt: skip

    energy_a = Energy({"array": 3000.0, "off_chip": 1000.0}, {"array": 400.0, "weight": 100.0}, frozenset({"array"}))
    energy_b = Energy({"array": 250.0, "off_chip": 50.0}, {"array": 150.0, "weight": 50.0})
    return RunResult(
        provenance=Provenance("0.1.0", "made by hand", "t" * 64, name, name[0] * 64, "45nm", "e" * 64),
        organisation="decoupled",
        images=4,
        clock_mhz=clock_mhz,
        multiplier_bits=384,
        area_um2={"array": 1.5e6, "weight": 0.5e6},
        layers=(
            LayerResult(shape(0, "a", True, 3, "conv"), a, energy_a),
            LayerResult(shape(1, "b", False, 8, "linear"), b, energy_b),
        ),
        audit=(Check("cycles: one cause each", cycles, cycles, "a"), Check("energy", 5000.0, 5000.0 * (1 + 1e-12))),
        assumed=("the clock", "the array's size"),
    )
