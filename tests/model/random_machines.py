"""Hypothesis strategies: small layers, masks and machines of every shape that the contract allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat
from pgsim.hw.accelerator import (
    Accelerator,
    Buffer,
    DepthwisePort,
    FeatureMaps,
    GateSource,
    Memory,
    OffChip,
    Organisation,
    OverflowMode,
    PeArray,
    UpdateArray,
)
from pgsim.model.schedule import Traffic
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind


@dataclass(frozen=True)
class Case:
    """A layer with its activations and a machine to run it on."""

    layer: Layer
    activation: np.ndarray
    accelerator: Accelerator
    traffic: Traffic


def make_accelerator(
    organisation: Organisation = Organisation.DECOUPLED,
    *,
    rows: int = 2,
    columns: int = 2,
    multipliers: int = 2,
    act_bits: int | None = None,
    weight_bits: int = 8,
    groups: int = 1,
    lanes: int = 2,
    lsb_bits: int | None = None,
    queue_depth: int = 2,
    banks: int = 2,
    lsb_ports: int = 1,
    activation_banks: int = 1,
    activation_ports: int = 8,
    weight_banks: int = 1,
    weight_ports: int = 4,
    row_steps: int = 1,
    channel_bits: int = 64,
    latency: int = 3,
    buffer_bits: int = 60 << 14,
    weight_buffer_bits: int = 60 << 14,
    gate: GateSource = GateSource.TRACE,
    depthwise: DepthwisePort = DepthwisePort.OWN_PORT,
    cooperative: bool = False,
    psum_bits: int = 32,
    overflow: OverflowMode = OverflowMode.ERROR,
) -> Accelerator:
    """A machine with everything that a test does not care about filled in; nobody waits for an activation or weight."""
    decoupled = organisation is Organisation.DECOUPLED
    streams = 2 if organisation is Organisation.GATED_FUSED else 1
    return Accelerator(
        name="test",
        organisation=organisation,
        gate=gate,
        clock_mhz=500.0,
        node_nm=45,
        voltage_v=1.0,
        energy_table="45nm",
        array=PeArray(rows, columns, multipliers, act_bits, weight_bits, Encoding.TWOS_COMPLEMENT, psum_bits, overflow),
        update=UpdateArray(groups, lanes, lsb_bits, queue_depth) if decoupled else None,
        memory=Memory(
            activation=Buffer(buffer_bits, activation_banks, activation_ports),
            activation_lsb=Buffer(buffer_bits, banks, lsb_ports) if decoupled else None,
            weight=Buffer(weight_buffer_bits, weight_banks, weight_ports * streams, row_steps),
            output=Buffer(buffer_bits),
            off_chip=OffChip(channel_bits, latency, "LPDDR4"),
            feature_maps=FeatureMaps.OFF_CHIP,
        ),
        batch=1,
        cooperative=cooperative,
        depthwise=depthwise,
        clock_gating=True,
    )


@st.composite
def layers(draw: st.DrawFn, gated: bool | None = None) -> tuple[Layer, np.ndarray]:
    """A small layer and activations for one to three images; thresholds near the sums, so that masks are mixed."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    depthwise = draw(st.booleans()) and groups > 1
    in_channels = groups * (1 if depthwise else draw(st.integers(1, 4)))
    out_channels = groups * (1 if depthwise else draw(st.integers(1, 4)))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height = draw(st.integers(max(1, spans[0] - padding[0] - padding[1]), 7))
    width = draw(st.integers(max(1, spans[1] - padding[2] - padding[3]), 7))
    geometry = Geometry(
        LayerKind.CONV, in_channels, out_channels, height, width, kernel, stride, padding, dilation, groups
    )
    encoding = draw(st.sampled_from(list(Encoding)))
    bits = draw(st.integers(2, 6))
    act = NumberFormat(encoding, bits)
    weight_format = NumberFormat(
        draw(st.sampled_from([Encoding.SIGN_MAGNITUDE, Encoding.TWOS_COMPLEMENT])), draw(st.sampled_from([2, 4, 8]))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = draw(st.integers(1, 3))
    activation = rng.integers(act.min_code, act.max_code + 1, (images, *geometry.activation_shape)).astype(np.int16)
    weight = rng.integers(weight_format.min_code, weight_format.max_code + 1, geometry.weight_shape).astype(np.int16)
    gate = None
    if gated if gated is not None else draw(st.booleans()):
        pred = draw(st.integers(1, bits - 1))
        spread = int(np.abs(weight).sum() / out_channels) * 2**pred // 4 + 1
        low = draw(st.sampled_from([-spread, 0, spread // 2, 10**6, -(10**6)]))
        threshold = rng.integers(low, low + spread + 1, out_channels).astype(np.int64)
        gate = Gate(pred, threshold, draw(st.sampled_from(list(GatePolicy))))
    recurrent = draw(st.sampled_from([False, False, False, True]))
    layer = Layer("layer", geometry, act, weight_format, weight, 1.0, np.ones(1), gate, recurrent=recurrent)
    return layer, activation


@st.composite
def cases(draw: st.DrawFn, organisation: Organisation | None = None) -> Case:
    """A layer on a machine."""
    layer, activation = draw(layers())
    org = organisation or draw(st.sampled_from(list(Organisation)))
    overflow = draw(st.sampled_from([None, None, OverflowMode.SATURATE, OverflowMode.WRAP]))
    accelerator = make_accelerator(
        org,
        rows=draw(st.integers(1, 6)),
        columns=draw(st.integers(1, 4)),
        multipliers=draw(st.integers(1, 4)),
        act_bits=None if org is Organisation.GATED_FUSED else draw(st.sampled_from([None, 2, 3])),
        weight_bits=draw(st.sampled_from([3, 8, 9])),
        groups=draw(st.integers(1, 3)),
        lanes=draw(st.integers(1, 4)),
        lsb_bits=draw(st.sampled_from([None, 1, 2])),
        queue_depth=draw(st.integers(1, 6)),
        banks=draw(st.integers(1, 5)),
        lsb_ports=draw(st.sampled_from([1, 1, 2, 3])),
        activation_banks=draw(st.integers(1, 5)),
        activation_ports=draw(st.sampled_from([1, 1, 2, 3])),
        weight_banks=draw(st.sampled_from([1, 2, 4])),
        weight_ports=draw(st.sampled_from([1, 1, 2])),
        row_steps=draw(st.sampled_from([1, 1, 2, 3])),
        channel_bits=draw(st.sampled_from([1, 8, 64, 4096])),
        latency=draw(st.integers(0, 20)),
        buffer_bits=draw(st.sampled_from([60 << 14, 60 << 14, 240, 480, 960, 1920])),  # small ones cut bands
        depthwise=draw(st.sampled_from(list(DepthwisePort))),
        weight_buffer_bits=draw(st.sampled_from([1 << 20, 1 << 11, 1 << 10, 1 << 9, 1 << 8, 1 << 7])),
        psum_bits=8 if overflow else 32,
        overflow=overflow or OverflowMode.ERROR,
        cooperative=org is Organisation.DECOUPLED and draw(st.booleans()),
    )
    traffic = Traffic(
        input_off_chip=draw(st.booleans()),
        pixel_bits=layer.geometry.in_channels * layer.act.bits,
        pixel_lsb_bits=draw(st.integers(0, 4)) if org is Organisation.DECOUPLED else 0,
        read_bits=layer.geometry.outputs * draw(st.sampled_from([0, 0, 16])),
        write_bits=layer.geometry.outputs * draw(st.sampled_from([0, 3, 19])) // draw(st.sampled_from([1, 4])),
    )
    return Case(layer, activation, accelerator, traffic)
