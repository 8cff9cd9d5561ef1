"""What a layer's operands cost on lanes of a given width: resolved widths and passes (timing contract, section 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pgsim.arith.formats import Encoding
from pgsim.errors import InputError
from pgsim.hw.accelerator import Accelerator, Organisation
from pgsim.model.post_unit import PostUnit, post_unit
from pgsim.workload.layer import Layer
from pgsim.workload.trace import Trace


@dataclass(frozen=True)
class LaneWidths:
    """Activation operand widths, in bits, of one lane once `trace` is resolved; `lsb` is 0 where there is no LSB
    part. With it what else the machine is built for the trace with."""

    msb: int
    lsb: int
    from_trace: bool  # True where the hardware file said `trace`
    post: PostUnit | None = None  # at each output port; None: the default, as no trace says more


def resolve_widths(accelerator: Accelerator, trace: Trace) -> LaneWidths:
    """Return the lane widths of `accelerator` for `trace`, and the unit for what follows the trace's accumulators.

    `trace` in the file means: the largest h (MSB array) and l (LSB array, LSB part) of the gated layers in
    decoupled and gated_fused, the larger of the two in two_pass, the largest gated B in dense. A trace without gated
    layers gives its widest activation to the MSB side and 1 bit to the LSB side. Signs count (`operand_bits`). Raises
    InputError for fused lanes of one bit.
    """
    return replace(_lane_widths(accelerator, trace), post=post_unit(trace.layers, accelerator.array.psum_bits))


def _lane_widths(accelerator: Accelerator, trace: Trace) -> LaneWidths:
    gated = [operand_bits(layer) for layer in trace.layers if layer.gate]
    pred = max((high for high, _, _ in gated), default=max(operand_bits(layer)[2] for layer in trace.layers))
    update = max((low for _, low, _ in gated), default=1)
    full = max((whole for _, _, whole in gated), default=pred)
    array, org = accelerator.array, accelerator.organisation
    if org is Organisation.DECOUPLED:
        assert accelerator.update is not None
        lsb = accelerator.update.act_bits
        from_trace = array.act_bits is None or lsb is None
        return LaneWidths(array.act_bits or pred, lsb or update, from_trace)
    if org is Organisation.GATED_FUSED:
        # A fixed width is split as the trace's widest gated layer splits its bits.
        total = array.act_bits or pred + update
        if total < 2:
            raise InputError(
                f"{accelerator.name}: array.act_bits must be at least 2 in gated_fused, a bit for each part, "
                f"not {total}"
            )
        lsb = min(update, total - 1)
        return LaneWidths(total - lsb, lsb, array.act_bits is None)
    if org is Organisation.TWO_PASS:
        return LaneWidths(array.act_bits or max(pred, update), 0, array.act_bits is None)
    return LaneWidths(array.act_bits or full, 0, array.act_bits is None)


def operand_bits(layer: Layer) -> tuple[int, int, int]:
    """Return what a layer's MSB plane, LSB plane and whole codes take as operands: h, l and B bits.

    Each is one bit more in sign-magnitude, whose planes both carry the sign; l is 0 where the layer is not gated.
    """
    sign = int(layer.act.encoding is Encoding.SIGN_MAGNITUDE)
    low = layer.update_bits + sign if layer.update_bits else 0
    return layer.pred_bits + sign, low, layer.act.bits + sign


def multiplier_bits(accelerator: Accelerator, widths: LaneWidths) -> int:
    """Return the sum over all lanes of activation bits x weight bits: what machines are held equal in."""
    array, update = accelerator.array, accelerator.update
    total = array.lanes * widths.msb
    if accelerator.organisation is Organisation.GATED_FUSED:
        total += array.lanes * widths.lsb
    if update is not None:
        total += update.groups * update.lanes * array.multipliers * widths.lsb
    return total * array.weight_bits


@dataclass(frozen=True)
class Passes:
    """Cycles that one reduction step takes: `predict` on the PE array, `update` on the LSB array or in the second
    phase.

    `act_predict`, `act_update` and `weight` are the factors: predict = act_predict * weight. For a layer that is not
    gated on a cooperative machine `update` is p_c, the passes of its whole codes on the LSB lanes.
    """

    act_predict: int
    act_update: int
    weight: int

    @property
    def predict(self) -> int:
        """Cycles of a step of the prediction phase, or of a layer that is not gated."""
        return self.act_predict * self.weight

    @property
    def update(self) -> int:
        """Cycles of a step of the update phase; 0 where there is none."""
        return self.act_update * self.weight


def weight_passes(layer: Layer, accelerator: Accelerator) -> int:
    """Return the passes that the layer's weights need on the array's weight operand."""
    fmt = layer.weight_format
    bits = fmt.bits
    if fmt.encoding is Encoding.SIGN_MAGNITUDE and accelerator.array.weight_encoding is not Encoding.SIGN_MAGNITUDE:
        bits += 1  # sign-magnitude 8 is 9 bits in two's complement
    return -(-bits // accelerator.array.weight_bits)


def passes_of(layer: Layer, accelerator: Accelerator, widths: LaneWidths, gated: bool) -> Passes:
    """Return how many cycles each of the layer's reduction steps takes; `gated`: it runs with a gate on this
    machine."""
    weight = weight_passes(layer, accelerator)
    predict, update, bits = operand_bits(layer)
    org = accelerator.organisation
    if not gated:
        lane = widths.msb + (widths.lsb if org is Organisation.GATED_FUSED else 0)
        shared = -(-bits // widths.lsb) if accelerator.cooperative else 0
        return Passes(-(-bits // lane), shared, weight)
    if org is Organisation.DECOUPLED:
        return Passes(-(-predict // widths.msb), -(-update // widths.lsb), weight)
    if org is Organisation.GATED_FUSED:
        both = max(-(-predict // widths.msb), -(-update // widths.lsb))
        return Passes(both, both, weight)
    return Passes(-(-predict // widths.msb), -(-update // widths.msb), weight)
