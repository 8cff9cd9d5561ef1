"""Record a model's quantised and gated layers as a trace: codes, weights, integer thresholds, outputs and masks.

Where a layer's sums become another's codes by monotone functions of one channel (pgsim.nn.links), the trace has them as
thresholds and names them as the reader's input. What else lies between layers stays torch's: the codes behind it are
recorded boundaries, and what leads there leaves as codes, where its readers share one format, or as sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.arith.gating import clamped_int64
from pgsim.nn.functional import integer_threshold
from pgsim.nn.integers import IntegerRun, LayerSums
from pgsim.nn.layers import CodedLayer, QuantConv2d
from pgsim.workload.layer import Gate, Geometry, Layer, LayerKind
from pgsim.workload.names import NAME_RULE, is_name
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
    """Run `model` in evaluation mode on `inputs` and return what its quantised and gated layers did, as a trace.

    `inputs` is a tensor, or a tuple of positional arguments. Layers are named by their module paths and stand in the
    order in which they first ran; one that did not run is left out. Write the trace with pgsim.io.trace.write_trace;
    `pgsim verify` and `pgsim run` take it.

    Linked codes are those of integer thresholds on the sums before them, on this run, too; `float32_code_differences`
    in the trace's info tells how many torch's float32 functions give otherwise for the same sums (`count` of `of`
    codes, by at most `largest`). Links are found by torch.fx, which calls the model's forward with proxies, and are
    kept if its graph gives every layer the codes that the model gives it on these inputs; where it cannot follow, every
    layer stands alone, and so does one with forward hooks.

    Images: convolutions have those of their batch, and an LSTM cell the steps of one sequence (`recurrent`; call it on
    batches of 1), over all calls. Where both occur they must be as many. A linear layer whose input has more rows than
    that becomes a matmul of rows / images rows an image. Without either, images are the first layer's first dimension.

    `info` becomes the free part of the trace's metadata. Counts are left as they were. Raises ValueError, with the
    layer's path, for a count of images or rows that does not fit, a convolution called at two sizes, a sequence of more
    than one, an input or a threshold that is NaN, weights that are not finite, a path that a trace cannot have as a
    name, and for a model whose layers did not run.
    """
    record = _Recorder()
    run = IntegerRun(model, record)
    run(inputs)
    calls = record.calls
    if not calls:
        raise ValueError("model must run at least one quantised or gated layer on these inputs, not 0")
    images = _images(calls)
    built = [_built(path, seen, images) for path, seen in calls.items()]
    layers = tuple(
        replace(layer, post=run.post(layer.name), input_name=run.input_name(layer.name)) for layer, _ in built
    )
    free = {"made_by": "pgsim.nn.trace", **(info or {})}
    if run.thresholds:
        free = {"float32_code_differences": run.compared.as_info(), **free}
    return Trace(layers, images, InMemory(tuple(tensors for _, tensors in built)), free)


class _Recorder:
    """Adds each call of a layer to `calls`, with the integers that it gives."""

    def __init__(self) -> None:
        self.calls: dict[str, _Calls] = {}

    def __call__(self, path: str, sums: LayerSums) -> None:
        layer, codes = sums.layer, sums.codes
        if not is_name(f"{path}.stored"):  # the longest name that is made of it
            shown = path if len(path) <= 40 else f"{path[:40]}..."
            raise ValueError(f"{shown!r}: a traced layer's path, and '.stored' behind it, must be {NAME_RULE}")
        if not bool(sums.weight.isfinite().all() and sums.weight_step.isfinite().all()):
            raise ValueError(f"{path}: weights must be finite, not NaN or infinity")
        if bool(codes.isnan().any()):
            raise ValueError(f"{path}: inputs must be numbers, not NaN")
        if layer.recurrent and codes.shape[0] != 1:
            raise ValueError(f"{path}: a traced sequence must have batch 1, not {codes.shape[0]}")
        seen = self.calls.setdefault(path, _Calls(layer, sums.weight.cpu(), sums.weight_step.cpu(), sums.act_step))
        if layer.delta is not None and bool(layer.delta.isnan().any()):
            raise ValueError(f"{path}: delta must be a number, not NaN")
        if sums.mask is not None:
            seen.masks.append(sums.mask.cpu())
        seen.codes.append(_without_border(layer, codes).cpu())
        seen.outputs.append(sums.output.cpu())


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
    return len(first.codes[0]) if first.codes[0].dim() > 1 else 1


def _built(path: str, seen: _Calls, images: int) -> tuple[Layer, LayerTensors]:
    layer = seen.layer
    sizes = {tuple(part.shape[2:]) for part in seen.codes}
    if isinstance(layer, QuantConv2d) and len(sizes) > 1:
        shown = " and ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise ValueError(f"{path}: inputs of a traced convolution must have one size, not {shown}")
    weight = seen.weight.to(torch.int16).contiguous().numpy()
    if isinstance(layer, QuantConv2d):
        height, width = seen.codes[0].shape[2:]
        geometry = Geometry(
            LayerKind.CONV, layer.in_channels, layer.out_channels, height, width, layer.kernel_size,
            layer.stride, layer.padding, layer.dilation, layer.groups,
        )  # fmt: skip
    else:
        out_features, in_features = weight.shape
        total = sum(part.numel() for part in seen.codes) // in_features
        if total % images:
            raise ValueError(f"{path}: rows of a linear layer must be a multiple of {images} images, not {total}")
        rows = total // images
        kind = LayerKind.LINEAR if rows == 1 else LayerKind.MATMUL
        geometry = Geometry(kind, in_features, out_features, rows, 1)
        weight = weight[:, :, None, None]
    gate = None
    if layer.gating is not None and layer.delta is not None:
        delta = layer.delta.detach().cpu().double()
        unit = seen.act_step * seen.weight_step
        real = integer_threshold(delta, unit, layer.gating.update_bits(layer.act_bits)).numpy()
        gate = Gate(layer.gating.pred_bits, clamped_int64(real), layer.gating.policy.traced, delta.numpy())
    act = layer.quantiser().format
    built = Layer(
        path, geometry, act, layer.weights.format, weight, seen.act_step, seen.weight_step.numpy(), gate,
        recurrent=layer.recurrent,
    )  # fmt: skip
    join = _maps if isinstance(layer, QuantConv2d) else _pixels
    mask = join(seen.masks, images, np.bool_) if seen.masks else None
    return built, LayerTensors(join(seen.codes, images, np.int16), join(seen.outputs, images, np.int64), mask)


def _maps(parts: list[Tensor], images: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Join the calls' tensors [N, C, H, W] along the batch, to `images` in all."""
    return torch.cat(parts).contiguous().numpy().astype(dtype)


def _pixels(parts: list[Tensor], images: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Join the calls' rows [..., C] as [N, C, M, 1]: each image's from every call that has some of all images, else in
    the order of the calls."""
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    if all(len(part) % images == 0 for part in rows):
        rows = [part.reshape(images, -1, part.shape[-1]) for part in rows]
    joined = torch.cat(rows, -2)
    shaped = joined.reshape(images, -1, joined.shape[-1]).transpose(1, 2)[..., None]
    return shaped.contiguous().numpy().astype(dtype)
