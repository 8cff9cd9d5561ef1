"""How the layers of a trace refer to one another: names, shapes and formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgsim.arith.formats import NumberFormat
from pgsim.io.strict import refuse, show
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import (
    AddShortcut,
    Layer,
    LayerKind,
    Logits,
    MaxPool,
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)

Shape = tuple[int, int, int]  # (C, H, W) of one image


@dataclass
class Kept:
    """What boundaries and the layers so far have kept: codes with their format, shortcuts, and every name used."""

    codes: dict[str, tuple[Shape, NumberFormat]] = field(default_factory=dict)
    shortcuts: dict[str, Shape] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def check_graph(where: str, layers: Sequence[Layer], boundaries: Sequence[Boundary] = ()) -> None:
    """Raise InputError (key path, what it must be, what it is) where the layers do not form a network.

    Layer names are unique, and so are the names of boundaries, codes, shortcuts and logits together. An input or a
    shortcut names what a boundary or an earlier step keeps, with the same shape and, for codes, the same format.
    """
    seen: set[str] = set()
    kept = Kept()
    for number, boundary in enumerate(boundaries):
        _take(where, f"boundaries[{number}].name", boundary.name, kept)
        kept.shortcuts[boundary.name] = boundary.shape
        if boundary.requantise:
            _take(where, f"boundaries[{number}].requantise.name", boundary.requantise.name, kept)
            kept.codes[boundary.requantise.name] = (boundary.shape, boundary.requantise.format)
    for number, layer in enumerate(layers):
        path = f"layers[{number}]"
        if layer.name in seen:
            refuse(where, f"{path}.name", "differ from those before it", show(layer.name))
        seen.add(layer.name)
        _check_input(where, path, layer, kept)
        shape = layer.geometry.output_shape
        for position, step in enumerate(layer.post):
            shape = _after(where, f"{path}.post[{position}]", step, shape, kept)


def _check_input(where: str, path: str, layer: Layer, kept: Kept) -> None:
    if layer.input_name is None:
        return
    if layer.input_name not in kept.codes:
        refuse(where, f"{path}.input", "name codes of an earlier layer or of a boundary", show(layer.input_name))
    shape, form = kept.codes[layer.input_name]
    takes = layer.geometry.activation_shape
    if takes != shape and not (layer.geometry.kind is LayerKind.LINEAR and takes[0] == shape[0] * shape[1] * shape[2]):
        must = f"name codes of shape {list(takes)} an image"
        refuse(where, f"{path}.input", must, f"{show(layer.input_name)} of {list(shape)}")
    if form != layer.act:
        must = f"name {layer.act.bits}-bit {layer.act.encoding.value} codes"
        refuse(where, f"{path}.input", must, f"{form.bits}-bit {form.encoding.value} {show(layer.input_name)}")


def _take(where: str, path: str, name: str, kept: Kept) -> None:
    if name in kept.names:
        refuse(where, path, "differ from those before it", show(name))
    kept.names.add(name)


def _after(where: str, path: str, step: PostStep, shape: Shape, kept: Kept) -> Shape:
    """Return the shape after `step`; note what it keeps."""
    if isinstance(step, SaveShortcut | Requantise | Logits):
        _take(where, f"{path}.name", step.name, kept)
    match step:
        case AddShortcut():
            _check_add(where, path, step, shape, kept)
        case SaveShortcut():
            kept.shortcuts[step.name] = shape
        case Requantise():
            kept.codes[step.name] = (shape, step.format)
        case SumPool() | MaxPool():
            return _pooled(where, path, step, shape)
    return shape


def _check_add(where: str, path: str, step: AddShortcut, shape: Shape, kept: Kept) -> None:
    if step.source not in kept.shortcuts:
        refuse(where, f"{path}.source", "name a shortcut that an earlier step saves or a boundary", show(step.source))
    channels, height, width = kept.shortcuts[step.source]
    stepped = (-(-height // step.stride), -(-width // step.stride))
    gives = (step.pad_before + channels + step.pad_after, *stepped)
    if gives != shape:
        refuse(where, f"{path}.source", f"give shape {list(shape)} an image", str(list(gives)))


def _pooled(where: str, path: str, step: SumPool | MaxPool, shape: Shape) -> Shape:
    channels, height, width = shape
    if isinstance(step, MaxPool):
        top, bottom, left, right = step.padding
        height, width = height + top + bottom, width + left + right
    rows, columns = height - step.kernel[0], width - step.kernel[1]
    if rows < 0 or columns < 0:
        refuse(where, f"{path}.kernel", f"fit the map of {height} x {width}", f"{step.kernel[0]} x {step.kernel[1]}")
    return (channels, rows // step.stride[0] + 1, columns // step.stride[1] + 1)
