"""Record a model's quantised and gated layers as a trace: codes, weights, integer thresholds, outputs and masks.

Each layer stands alone: what lies between layers (norms, activations, additions, element-wise functions) stays torch's,
so that a layer's recorded codes are its input, its accumulators leave as they are, and no layer feeds another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.arith.gating import INT64_MAX, INT64_MIN
from pgsim.nn.calibrate import looking, run_model
from pgsim.nn.codes import max_magnitude, split_codes, weight_codes
from pgsim.nn.functional import gated_phases, integer_threshold
from pgsim.nn.layers import CodedLayer, QuantConv2d, coded_layers
from pgsim.nn.product import Product, exact_dtype, exact_sum
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from pgsim.workload.trace import InMemory, LayerTensors, Trace


@dataclass
class _Calls:
    """What one layer saw: a tensor a call, on the CPU; weights and step of the first call, the same in all of them."""

    layer: CodedLayer
    weight: Tensor
    weight_step: Tensor
    act_step: float
    codes: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)


def trace(model: nn.Module, inputs: Any, *, info: Mapping[str, Any] | None = None) -> Trace:
    """Run `model` once in evaluation mode on `inputs` and return what its quantised and gated layers did, as a trace.

    `inputs` is a tensor, or a tuple of positional arguments. Layers are named by their module paths and stand in the
    order in which they first ran; one that did not run is left out. Write the trace with pgsim.io.trace.write_trace;
    `pgsim verify` and `pgsim run` take it.

    Images: convolutions have those of their batch, and an LSTM cell the steps of one sequence (`recurrent`; call it on
    batches of 1), over all calls. Where both occur they must be as many. A linear layer whose input has more rows than
    that becomes a matmul of rows / images rows an image. Without either, images are the first layer's first dimension.

    `info` becomes the free part of the trace's metadata. Counts are left as they were. Raises ValueError, with the
    layer's path, for a count of images or rows that does not fit, a sequence of more than one, a threshold that is NaN,
    and for a model whose layers did not run.
    """
    calls: dict[str, _Calls] = {}
    layers = coded_layers(model)
    with looking(model), torch.no_grad():
        for path, layer in layers.items():
            layer.watch = _Recorder(path, calls)
        try:
            run_model(model, inputs)
        finally:
            for layer in layers.values():
                layer.watch = None
    if not calls:
        raise ValueError("model must run at least one quantised or gated layer on these inputs, not 0")
    images = _images(calls)
    built = [_built(path, seen, images) for path, seen in calls.items()]
    free = {"made_by": "pgsim.nn.trace", **(info or {})}
    return Trace(tuple(layer for layer, _ in built), images, InMemory(tuple(tensors for _, tensors in built)), free)


class _Recorder:
    """Adds each call of one layer to `calls`, with the integers that it gives."""

    def __init__(self, path: str, calls: dict[str, _Calls]) -> None:
        self.path, self.calls = path, calls

    def __call__(self, layer: CodedLayer, codes: Tensor, weight: Tensor, act_step: float, product: Product) -> None:
        if layer.recurrent and codes.shape[0] != 1:
            raise ValueError(f"{self.path}: a traced sequence must have batch 1, not {codes.shape[0]}")
        w_codes, w_step = weight_codes(weight, layer.weights)
        seen = self.calls.setdefault(self.path, _Calls(layer, w_codes.cpu(), w_step.cpu(), act_step))
        act = layer.quantiser().format
        if layer.gating is None or layer.delta is None:
            output = exact_sum(product, codes, w_codes, exact_dtype(w_codes, max_magnitude(act)))
        else:
            if bool(layer.delta.isnan().any()):
                raise ValueError(f"{self.path}: delta must be a number, not NaN")
            planes = split_codes(codes, act.encoding, layer.gating.update_bits(act.bits))
            phases = gated_phases(product, planes, (w_codes, w_step), layer.delta, act_step, act, layer.gating)
            output = phases.a
            seen.masks.append(phases.mask.cpu())
        seen.codes.append(_without_border(layer, codes).cpu())
        seen.outputs.append(output.cpu())


def _without_border(layer: CodedLayer, codes: Tensor) -> Tensor:
    """Take off the border that a convolution with unequal padding gave its codes."""
    if not isinstance(layer, QuantConv2d):
        return codes
    top, bottom, left, right = layer.padding
    if top == bottom and left == right:
        return codes
    return codes[:, :, top : codes.shape[2] - bottom, left : codes.shape[3] - right]


def _images(calls: Mapping[str, _Calls]) -> int:
    """Return how many images the trace has; raises ValueError where layers do not agree."""
    images, decided_by = 0, ""
    for path, seen in calls.items():
        if not (isinstance(seen.layer, QuantConv2d) or seen.layer.recurrent):
            continue
        count = sum(len(codes) for codes in seen.codes)
        if images and count != images:
            raise ValueError(f"{path}: a layer must see {images} images, as {decided_by} did, not {count}")
        images, decided_by = count, path
    if images:
        return images
    first = next(iter(calls.values()))
    return sum(len(codes) if codes.dim() > 1 else 1 for codes in first.codes)


def _built(path: str, seen: _Calls, images: int) -> tuple[Layer, LayerTensors]:
    layer = seen.layer
    codes, output = _integers(seen.codes, np.int16), _integers(seen.outputs, np.int64)
    mask = _integers(seen.masks, np.bool_) if seen.masks else None
    weight = seen.weight.to(torch.int16).contiguous().numpy()
    if isinstance(layer, QuantConv2d):
        geometry = Geometry(
            LayerKind.CONV, layer.in_channels, layer.out_channels, codes.shape[2], codes.shape[3], layer.kernel_size,
            layer.stride, layer.padding, layer.dilation, layer.groups,
        )  # fmt: skip
    else:
        out_features, in_features = weight.shape
        total = codes.size // in_features
        if total % images:
            raise ValueError(f"{path}: rows of a linear layer must be a multiple of {images} images, not {total}")
        rows = total // images
        kind = LayerKind.LINEAR if rows == 1 else LayerKind.MATMUL
        geometry = Geometry(kind, in_features, out_features, rows, 1)
        codes, output = _as_pixels(codes, images, rows), _as_pixels(output, images, rows)
        mask = None if mask is None else _as_pixels(mask, images, rows)
        weight = weight[:, :, None, None]
    gate = None
    if layer.gating is not None and layer.delta is not None:
        delta = layer.delta.detach().cpu().double()
        unit = seen.act_step * seen.weight_step
        real = integer_threshold(delta, unit, layer.gating.update_bits(layer.act_bits)).numpy()
        gate = Gate(layer.gating.pred_bits, _int64(real), layer.gating.policy.traced, delta.numpy())
    act = layer.quantiser().format
    built = Layer(
        path, geometry, act, layer.weights.format, weight, seen.act_step, seen.weight_step.numpy(), gate,
        recurrent=layer.recurrent,
    )  # fmt: skip
    return built, LayerTensors(codes, output, mask)


def _integers(parts: list[Tensor], dtype: type[np.generic]) -> NDArray[Any]:
    """Join the calls' tensors: along the batch where they have one shape, else as rows."""
    if parts[0].dim() == 1 or len({part.shape[1:] for part in parts}) > 1:
        parts = [part.reshape(-1, part.shape[-1]) for part in parts]
    return torch.cat(parts).contiguous().numpy().astype(dtype)


def _as_pixels(rows: NDArray[Any], images: int, count: int) -> NDArray[Any]:
    """[..., C] of images * count rows to [N, C, M, 1]."""
    shaped = rows.reshape(images, count, rows.shape[-1])
    return np.ascontiguousarray(shaped.transpose(0, 2, 1)[..., None])


def _int64(whole: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers as int64, clamped: no accumulator is out there."""
    inside = np.where(np.abs(whole) < 2.0**63, whole, 0.0).astype(np.int64)
    inside[whole >= 2.0**63], inside[whole <= -(2.0**63)] = INT64_MAX, INT64_MIN
    return inside
