"""A small random network for the whole RTL: residual, both poolings, requantisation, logits.

0 stem    conv 3x3, 4-bit unsigned, plain    -> fixed point, clamp, save stream, requantise
1 narrow  conv 3x3 gated 3/1 unsigned        -> bias, max pool, requantise (two channels reversed)
2 join    conv 3x3 gated 3/2 sign-magnitude  -> fixed point, add stream (stride 2, padded), clamp, sum pool, requantise
3 scores  linear gated 4/2 unsigned          -> bias, logits
"""

from __future__ import annotations

from pgsim.hw.accelerator import Organisation
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Geometry,
    LayerKind,
    Logits,
    MaxPool,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import Trace
from tests.build_trace import SIGNED3, UNSIGNED3, UNSIGNED4, Builder, Ints, requantise, step
from tests.model.random_machines import make_accelerator

SIZES = {
    "rows": 2, "columns": 3, "multipliers": 2, "psum_bits": 24, "activation_banks": 2, "banks": 3,
    "weight_buffer_bits": 2616, "buffer_bits": 840,
}  # fmt: skip
"""Of machines that compile soon, whose buffers hold no layer whole: bands, and parts of K without gates."""

MACHINES = {
    "decoupled": make_accelerator(groups=2, lanes=2, queue_depth=3, act_bits=2, **SIZES),  # type: ignore[arg-type]
    "cooperative": make_accelerator(groups=2, lanes=2, act_bits=2, cooperative=True, **SIZES),  # type: ignore[arg-type]
    "dense": make_accelerator(Organisation.DENSE, act_bits=4, **SIZES),  # type: ignore[arg-type]
    "two_pass": make_accelerator(Organisation.TWO_PASS, act_bits=2, **SIZES),  # type: ignore[arg-type]
    "gated_fused": make_accelerator(Organisation.GATED_FUSED, **SIZES),  # type: ignore[arg-type]
}


def _fixed_point(builder: Builder, v: Ints) -> FixedPoint:
    return FixedPoint(builder.integers(2**8, v.shape[1]), builder.integers(2**10, v.shape[1]), 5)


def _bias(builder: Builder, v: Ints) -> Bias:
    return Bias(builder.integers(100, v.shape[1]))


def build_network(images: int = 2) -> tuple[Trace, dict[str, Ints]]:
    """Return the trace of the module's docstring, and its logits by name, computed by numpy alone."""
    b, conv, same = Builder(7, images), LayerKind.CONV, (1, 1, 1, 1)
    stream = [_fixed_point, step(Clamp(0, 4095)), step(SaveShortcut("stream", 12))]
    b.add(
        "stem",
        Geometry(conv, 3, 4, 6, 6, (3, 3), padding=same),
        UNSIGNED4,
        post=[*stream, requantise("stem.codes", UNSIGNED3, per_channel=False)],
    )
    b.add(
        "narrow",
        Geometry(conv, 4, 5, 6, 6, (3, 3), padding=same),
        UNSIGNED3,
        pred_bits=1,
        input_name="stem.codes",
        post=[
            _bias,
            step(MaxPool((2, 2), (1, 1), (0, 1, 1, 0))),
            requantise("narrow.codes", SIGNED3, reversed_channels=2),
        ],
    )
    pooled = [step(AddShortcut("stream", 2, 1, 1)), step(Clamp(-5000, 5000)), step(SumPool((3, 3), (3, 3)))]
    b.add(
        "join",
        Geometry(conv, 5, 6, 6, 6, (3, 3), (2, 2), same),
        SIGNED3,
        pred_bits=2,
        input_name="narrow.codes",
        post=[_fixed_point, *pooled, requantise("join.codes", UNSIGNED4)],
    )
    b.add(
        "scores",
        Geometry(LayerKind.LINEAR, 6, 4),
        UNSIGNED4,
        pred_bits=2,
        input_name="join.codes",
        post=[_bias, step(Logits("scores", 1.0))],
    )
    predictions = b.logits["scores"][:, :, 0, 0].argmax(axis=1).tolist()
    return b.trace({"predictions": predictions, "labels": predictions}), b.logits
