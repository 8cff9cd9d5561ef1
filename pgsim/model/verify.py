"""Hold a trace against itself: recompute every recorded integer, by more than one engine.

    recorded codes --engine--> A, mask   == recorded output, mask   (each layer, each engine)
                        A --post steps--> codes == recorded codes of the layers that read them
                 boundary --requantise--> codes == recorded codes of the layers that read them
                                          logits == recorded predictions, counted against the labels
    delta --exact quotient--> T_c        == recorded threshold

Each layer starts from its recorded codes, so one wrong integer is found where it is and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.gating import INT64_MAX, INT64_MIN, integer_thresholds
from pgsim.arith.overflow import reachable
from pgsim.arith.split import plane_formats, split_code
from pgsim.model.inference import ENGINES, Chain, Engine, first_code_mismatch
from pgsim.results.mismatch import Mismatch
from pgsim.workload.layer import Layer
from pgsim.workload.trace import LayerTensors, Trace


@dataclass(frozen=True)
class LayerCheck:
    """What was compared for one layer, and what differed.

    `outputs` counts accumulators compared (once an engine), `masks` mask bits, `codes` input codes held against the
    post steps or the boundary before them, `thresholds` those held against delta. `mismatches` holds the first
    difference of each engine and kind, in the order in which they were looked for; `wrong` counts all that differ.
    """

    layer: str
    engines: tuple[str, ...]
    outputs: int
    masks: int
    codes: int
    thresholds: int
    wrong: int
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class Verification:
    """A trace recomputed. `correct` counts images whose prediction is their label, None where either is missing.

    `chained` tells whether post steps, codes and logits were followed through: only where no layer is left out.
    """

    layers: tuple[LayerCheck, ...]
    chained: bool
    images: int
    correct: int | None
    predictions: Mismatch | None

    @property
    def first(self) -> Mismatch | None:
        """The first mismatch in network order."""
        found = [mismatch for layer in self.layers for mismatch in layer.mismatches]
        return found[0] if found else self.predictions

    @property
    def equal(self) -> bool:
        """Tell whether every integer compared is equal."""
        return self.first is None


def verify_trace(
    trace: Trace,
    *,
    engines: Mapping[str, Engine] = ENGINES,
    layers: Collection[str] | None = None,
    done: Callable[[LayerCheck], None] | None = None,
) -> Verification:
    """Recompute the recorded outputs and masks of `trace` by every engine, and what follows them.

    `engines` maps a name to an engine; a simulator's values are verified by adding it. `layers` names the layers to
    verify, None all of them; with a layer left out the post steps are not followed. `done` is called after each
    layer. One layer's tensors are in memory at a time. Raises InputError for tensors that cannot be read or post
    steps that overflow, ValueError where a name in `layers` is no layer's.
    """
    chosen = set(layers) if layers is not None else {layer.name for layer in trace.layers}
    unknown = sorted(chosen - {layer.name for layer in trace.layers})
    if unknown:
        raise ValueError(f"layers must be names of the trace's layers, not {unknown[0]!r}")
    chain = Chain(trace) if len(chosen) == len(trace.layers) else None
    checks = []
    for index, layer in enumerate(trace.layers):
        if layer.name not in chosen:
            continue
        tensors = trace.tensors(index)
        codes, origin = (chain.codes_for(index), chain.origin(index)) if chain else (None, "")
        check, output = _check_layer(layer, tensors, engines, codes, origin)
        if chain:
            chain.follow(index, output)
        checks.append(check)
        if done:
            done(check)
    correct, predictions = _check_predictions(trace, chain)
    return Verification(tuple(checks), chain is not None, trace.images, correct, predictions)


def partial_sums(layer: Layer, codes: NDArray[np.int16], index: tuple[int, ...]) -> tuple[int, int | None]:
    """Return (A_h, A_l) of output `index` (n, k, p, q), summed on Python integers; (A, None) where there is no gate.

    A_l is the sum over the low plane whether or not the output was updated. `codes` is int16 [N, C, H, W].
    """
    n, k, p, q = index
    geometry = layer.geometry
    high = low = 0
    first = k // geometry.group_out_channels * geometry.group_in_channels
    for r in range(geometry.kernel[0]):
        for s in range(geometry.kernel[1]):
            y = p * geometry.stride[0] - geometry.padding[0] + r * geometry.dilation[0]
            x = q * geometry.stride[1] - geometry.padding[2] + s * geometry.dilation[1]
            if 0 <= y < geometry.in_height and 0 <= x < geometry.in_width:
                for c in range(geometry.group_in_channels):
                    code, weight = int(codes[n, first + c, y, x]), int(layer.weight[k, c, r, s])
                    if layer.gate is None:
                        high += code * weight
                    else:
                        q_h, q_l = split_code(code, layer.act.encoding, layer.act.bits, layer.gate.pred_bits)
                        high, low = high + q_h * weight, low + q_l * weight
    return high, None if layer.gate is None else low


def threshold_mismatch(layer: Layer) -> Mismatch | None:
    """Return the first T_c that is not floor(delta / (k * 2^l)), None where all are or there is no delta.

    Exact rational and float64 arithmetic are both allowed, and so is a T_c clamped such that no reachable A_h changes
    side (arithmetic.md).
    """
    if layer.gate is None or layer.gate.delta is None:
        return None
    gate, delta = layer.gate, layer.gate.delta
    exact = integer_thresholds(delta, layer.act_scale, layer.weight_scale, layer.update_bits)
    if np.array_equal(exact, gate.threshold):
        return None
    scales = np.broadcast_to(layer.weight_scale, delta.shape)
    plane = plane_formats(layer.act.encoding, layer.act.bits, gate.pred_bits)[0]
    low, high = reachable(layer.weight, plane.min_code, plane.max_code)
    for c in np.flatnonzero(exact != gate.threshold).tolist():
        recorded, computed = int(gate.threshold[c]), int(exact[c])
        smaller, larger = sorted((recorded, computed))  # A_h in (smaller, larger] changes side
        out_of_reach = larger < low[c] or smaller >= high[c]
        in_float64 = _float64_threshold(float(delta[c]), layer.act_scale * float(scales[c]) * 2.0**layer.update_bits)
        if recorded != in_float64 and not out_of_reach:
            return Mismatch("delta", layer.name, "threshold", (c,), recorded, computed)
    return None


def _float64_threshold(delta: float, unit: float) -> int | None:
    quotient = delta / unit if np.isfinite(delta) else delta
    if not np.isfinite(quotient):
        return None
    return min(max(floor(Fraction(quotient)), INT64_MIN), INT64_MAX)


def _check_layer(
    layer: Layer, tensors: LayerTensors, engines: Mapping[str, Engine], codes: NDArray[np.int16] | None, origin: str
) -> tuple[LayerCheck, NDArray[np.int64]]:
    """Return what was compared, and the accumulator by the first engine; `origin` says what computed `codes`."""
    found: list[Mismatch] = []
    wrong = 0
    if codes is not None and (mismatch := first_code_mismatch(layer, tensors.activation, codes, origin)):
        found.append(mismatch)
        wrong += int((codes != tensors.activation).sum())
    if mismatch := threshold_mismatch(layer):
        found.append(mismatch)
        wrong += 1
    output: NDArray[np.int64] | None = None
    for name, engine in engines.items():
        values = engine(layer, tensors.activation)
        output = values.output if output is None else output
        if tensors.mask is not None:
            assert values.mask is not None
            wrong += _compare(found, name, "mask", layer, tensors.activation, tensors.mask, values.mask)
        wrong += _compare(found, name, "output", layer, tensors.activation, tensors.output, values.output)
    if output is None:
        raise ValueError("engines must name at least one engine")
    check = LayerCheck(
        layer=layer.name,
        engines=tuple(engines),
        outputs=tensors.output.size,
        masks=0 if tensors.mask is None else tensors.mask.size,
        codes=0 if codes is None else codes.size,
        thresholds=0 if layer.gate is None or layer.gate.delta is None else layer.gate.delta.size,
        wrong=wrong,
        mismatches=tuple(found),
    )
    return check, output


def _compare(
    found: list[Mismatch],
    engine: str,
    what: str,
    layer: Layer,
    codes: NDArray[np.int16],
    recorded: NDArray[Any],
    computed: NDArray[Any],
) -> int:
    """Append the first difference to `found`; return how many there are."""
    differs = recorded != computed
    if not differs.any():
        return 0
    where = tuple(int(i) for i in np.unravel_index(int(differs.argmax()), differs.shape))
    a_h, a_l = partial_sums(layer, codes, where)
    threshold = None if layer.gate is None else int(layer.gate.threshold[where[1]])
    found.append(
        Mismatch(engine, layer.name, what, where, int(recorded[where]), int(computed[where]), a_h, a_l, threshold)
    )
    return int(differs.sum())


def _check_predictions(trace: Trace, chain: Chain | None) -> tuple[int | None, Mismatch | None]:
    """Count predictions that are labels; find the first that is not the recorded prediction.

    A result of more than one pixel is a feature map, which classifies nothing.
    """
    if chain is None or not chain.logits:
        return None, None
    name, logits = list(chain.logits.items())[-1]
    if logits.shape[2:] != (1, 1):
        return None, None
    predicted = logits[:, :, 0, 0].argmax(axis=1)  # the lowest class number of equal logits
    labels, recorded = trace.info.get("labels"), trace.info.get("predictions")
    correct = None if labels is None else int((predicted == np.asarray(labels)).sum())
    if recorded is not None:
        for n in np.flatnonzero(predicted != np.asarray(recorded)).tolist():
            return correct, Mismatch("logits", name, "prediction", (n,), recorded[n], int(predicted[n]))
    return correct, None
