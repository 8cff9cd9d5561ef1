"""Which feature maps stay on chip between layers, and what each layer moves over the off-chip channel.

The rule, in network order: a tensor of codes (or a shortcut) stays in the activation buffers (the output buffer) if it
and all that is kept beside it, for every image of a batch, fit at every layer from its producer to its last consumer.
A layer that also may stream something from or to off-chip memory through the same buffer keeps a quarter of it for
that. A shortcut that replaces one of the same size at the same layer overwrites it, element by element. A recorded
boundary comes from outside: a layer that adds one reads it over the channel, and so does one that reads its codes.
Codes and shortcuts that no layer of the trace reads are for somebody outside: they leave the chip.

Codes that stay are split into planes once, as the layers with a gate that read them need them; a layer without one
reads both planes, however they were split. Codes that two layers with a gate need in different planes go off chip, and
are split anew for each as they arrive.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod

from pgsim.hw.accelerator import Accelerator, FeatureMaps
from pgsim.model.lanes import LaneWidths
from pgsim.model.post_unit import pooled
from pgsim.model.schedule import Traffic
from pgsim.workload.layer import AddShortcut, Layer, Logits, MaxPool, Requantise, SaveShortcut, SumPool
from pgsim.workload.trace import Trace

STREAM_SHARE = 4  # 1 / 4 of a buffer stays free for what a layer streams


@dataclass(frozen=True)
class Kept:
    """A tensor that a layer hands to later ones. Bits are of one image."""

    name: str
    producer: int
    consumers: tuple[int, ...]
    bits: int  # in the activation buffer (MSB plane), or in the output buffer for a shortcut
    lsb_bits: int  # in the LSB plane's buffer
    is_shortcut: bool
    shape: tuple[int, int, int]  # (channels, rows, columns)
    alike: bool = True  # all readers take the same planes, so that it may stay on chip

    @property
    def elements(self) -> int:
        """Values of one image."""
        return prod(self.shape)

    @property
    def total_bits(self) -> int:
        """All planes."""
        return self.bits + self.lsb_bits


@dataclass(frozen=True)
class Placement:
    """Where one layer's tensors are."""

    traffic: Traffic
    words: str  # for the table: "input on chip, output off chip"
    code_write_bits: int  # code bits an image's outputs write into the activation buffers, both planes
    code_lsb_write_bits: int  # of these, the LSB plane's
    shortcut_read_bits: int  # shortcut bits read from the output buffer, an image
    shortcut_write_bits: int  # shortcut bits written into the output buffer to stay there, an image
    planes: tuple[int, int]  # bits of one input code as it is stored: in the activation buffer, in the LSB plane's
    raw_output: bool  # True where what follows is outside the trace and accumulators leave the chip as they are
    unread: tuple[str, ...] = ()  # codes and shortcuts that no layer of the trace reads


def plane_bits(layer: Layer, widths: LaneWidths) -> tuple[int, int]:
    """Bits of one input code of `layer` in the activation buffer and in the LSB plane's, as the machine stores it.

    A gated layer's codes are split h and l; others in proportion to the lane widths. Sign-magnitude planes carry a
    sign each.
    """
    if not widths.lsb:
        return layer.act.storage_bits, 0
    sign = layer.act.storage_bits - layer.act.bits
    if layer.gate:
        return layer.pred_bits + sign, layer.update_bits + sign
    total = layer.act.storage_bits
    high = -(-total * widths.msb // (widths.msb + widths.lsb))
    return high, total - high


def shared_planes(readers: list[Layer], widths: LaneWidths) -> tuple[int, int] | None:
    """Return `plane_bits` of a tensor for all its readers: those of the layers with a gate, the first reader's where
    none has one; None where two with a gate need different planes."""
    needs = {plane_bits(layer, widths) for layer in readers if layer.gate} or {plane_bits(readers[0], widths)}
    return needs.pop() if len(needs) == 1 else None


def saved_shapes(layer: Layer) -> dict[str, tuple[int, int, int]]:
    """Shape (channels, rows, columns) of every tensor that the layer's post steps save, by name."""
    channels, rows, columns = layer.geometry.output_shape
    saved = {}
    for step in layer.post:
        if isinstance(step, SumPool | MaxPool):
            rows, columns = pooled(step, rows, columns)
        elif isinstance(step, Requantise | SaveShortcut | Logits):
            saved[step.name] = (channels, rows, columns)
    return saved


def _kept_tensors(trace: Trace, widths: LaneWidths, planes_apart: bool) -> list[Kept]:
    consumers: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(trace.layers):
        if layer.input_name is not None:
            consumers[layer.input_name].append(index)
        for step in layer.post:
            if isinstance(step, AddShortcut):
                consumers[step.source].append(index)
    kept = []
    for index, layer in enumerate(trace.layers):
        shapes = saved_shapes(layer)
        for step in layer.post:
            if not isinstance(step, Requantise | SaveShortcut) or not consumers[step.name]:
                continue
            shape, users = shapes[step.name], tuple(consumers[step.name])
            if isinstance(step, SaveShortcut):
                kept.append(Kept(step.name, index, users, prod(shape) * step.bits, 0, True, shape))
            else:
                planes: tuple[int, int] | None = (step.format.storage_bits, 0)
                if planes_apart:
                    planes = shared_planes([trace.layers[user] for user in users], widths)
                high, low = planes or plane_bits(trace.layers[users[0]], widths)
                bits, lsb_bits = prod(shape) * high, prod(shape) * low
                kept.append(Kept(step.name, index, users, bits, lsb_bits, False, shape, planes is not None))
    return kept


def place(trace: Trace, accelerator: Accelerator, widths: LaneWidths, psum_bits: int) -> list[Placement]:
    """Return the placement of every layer's tensors, in network order."""
    memory = accelerator.memory
    apart = memory.activation_lsb is not None
    tensors = _kept_tensors(trace, widths, apart)
    by_name = {tensor.name: tensor for tensor in tensors}
    on_chip: set[str] = set()
    used = [{"activation": 0, "activation_lsb": 0, "output": 0} for _ in trace.layers]
    if accelerator.memory.feature_maps is FeatureMaps.ON_CHIP:
        for tensor in tensors:
            if tensor.alike and _try_keep(tensor, by_name, on_chip, used, trace, accelerator):
                on_chip.add(tensor.name)
    return [
        _placement(index, trace, by_name, on_chip, used[index], accelerator, widths, psum_bits)
        for index in range(len(trace.layers))
    ]


def _try_keep(
    tensor: Kept,
    by_name: dict[str, Kept],
    on_chip: set[str],
    used: list[dict[str, int]],
    trace: Trace,
    accelerator: Accelerator,
) -> bool:
    """Keep a tensor on chip if it fits through its whole life; account for it in `used`."""
    memory, batch = accelerator.memory, accelerator.batch
    needs = (
        {"output": tensor.bits}
        if tensor.is_shortcut
        else {"activation": tensor.bits, "activation_lsb": tensor.lsb_bits}
    )
    life = range(tensor.producer, tensor.consumers[-1] + 1)
    if tensor.is_shortcut and _overwrites(tensor, trace.layers[tensor.producer], by_name, on_chip):
        life = range(tensor.producer + 1, tensor.consumers[-1] + 1)
    for index in life:
        for name, bits in needs.items():
            if not bits:
                continue
            source = trace.layers[index].input_name
            streams = name == "output" or (source != tensor.name and source not in on_chip)  # or is not placed yet
            size = memory.buffers[name].size_bits
            if used[index][name] + bits * batch > (size - size // STREAM_SHARE if streams else size):
                return False
    for index in life:
        for name, bits in needs.items():
            used[index][name] += bits * batch
    return True


def _overwrites(tensor: Kept, producer: Layer, by_name: dict[str, Kept], on_chip: set[str]) -> bool:
    """Whether the tensor takes the place of a shortcut of its size that its producer consumes for the last time."""
    sources = [by_name[s.source] for s in producer.post if isinstance(s, AddShortcut) and s.source in by_name]
    return any(
        source.name in on_chip and source.elements == tensor.elements and source.bits == tensor.bits
        and source.consumers[-1] == tensor.producer
        for source in sources
    )  # fmt: skip


def _shortcut_bits(step: AddShortcut, trace: Trace, by_name: dict[str, Kept]) -> int:
    """Bits of one image that adding a shortcut reads: each element of the subsampled one once, no padding channels."""
    if step.source in by_name:
        (channels, rows, columns), bits = by_name[step.source].shape, by_name[step.source].bits
        bits //= by_name[step.source].elements
    else:
        boundary = next(boundary for boundary in trace.boundaries if boundary.name == step.source)
        (channels, rows, columns), bits = boundary.shape, boundary.bits
    return channels * -(-rows // step.stride) * -(-columns // step.stride) * bits


def _placement(
    index: int,
    trace: Trace,
    by_name: dict[str, Kept],
    on_chip: set[str],
    used: dict[str, int],
    accelerator: Accelerator,
    widths: LaneWidths,
    psum_bits: int,
) -> Placement:
    layer, memory = trace.layers[index], accelerator.memory
    planes = plane_bits(layer, widths) if memory.activation_lsb is not None else (layer.act.storage_bits, 0)
    if layer.input_name in on_chip:
        tensor = by_name[layer.input_name]
        planes = (tensor.bits // tensor.elements, tensor.lsb_bits // tensor.elements)
    reads = writes = code_writes = code_lsb_writes = shortcut_reads = shortcut_writes = 0
    unread = []
    for step in layer.post:
        if isinstance(step, AddShortcut):
            bits = _shortcut_bits(step, trace, by_name)
            shortcut_reads += bits
            reads += 0 if step.source in on_chip else bits
        elif isinstance(step, Requantise | SaveShortcut) and step.name in by_name:
            tensor = by_name[step.name]
            if tensor.name not in on_chip:
                writes += tensor.total_bits
            elif tensor.is_shortcut:
                shortcut_writes += tensor.bits
            else:
                code_writes += tensor.total_bits
                code_lsb_writes += tensor.lsb_bits
        elif isinstance(step, Logits):
            writes += prod(saved_shapes(layer)[step.name]) * psum_bits
        elif isinstance(step, Requantise | SaveShortcut):
            bits = step.bits if isinstance(step, SaveShortcut) else step.format.storage_bits
            writes += prod(saved_shapes(layer)[step.name]) * bits
            unread.append(step.name)
    raw = not any(isinstance(step, Requantise | SaveShortcut | Logits) for step in layer.post)
    if raw:
        writes += layer.geometry.outputs * psum_bits
    input_on_chip = layer.input_name in on_chip
    traffic = Traffic(
        input_off_chip=not input_on_chip,
        pixel_bits=layer.geometry.in_channels * planes[0],
        pixel_lsb_bits=layer.geometry.in_channels * planes[1],
        read_bits=reads,
        write_bits=writes,
        activation_free=memory.activation.size_bits - used["activation"],
        activation_lsb_free=memory.activation_lsb.size_bits - used["activation_lsb"] if memory.activation_lsb else None,
        output_free=memory.output.size_bits - used["output"],
    )
    if input_on_chip:
        traffic = replace(traffic, activation_free=None, activation_lsb_free=None)
    words = f"input {'on' if input_on_chip else 'off'} chip, output {'off' if writes else 'on'} chip"
    if reads:
        words += ", shortcut off chip"
    return Placement(
        traffic, words, code_writes, code_lsb_writes, shortcut_reads, shortcut_writes, planes, raw, tuple(unread)
    )  # fmt: skip
