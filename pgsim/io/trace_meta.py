"""The metadata of a trace: from plain JSON values and checked arrays to frozen layers, and back.

Nothing here looks beyond one layer; how layers refer to one another is checked in `pgsim.io.trace_graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import Encoding, GatePolicy, NumberFormat, check_codes
from pgsim.errors import InputError
from pgsim.io.strict import Section, refuse, show
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Gate,
    Geometry,
    Layer,
    LayerKind,
    Logits,
    MaxPool,
    PostStep,
    Requantise,
    SaveShortcut,
    SumPool,
)

MAX_CHANNELS = 1 << 20
MAX_SIDE = 1 << 20
MAX_WINDOW = 255
MAX_REDUCTION = 1 << 30  # so that int64 holds any sum of 16-bit products
MAX_BITS = {Encoding.UNSIGNED: 15, Encoding.SIGN_MAGNITUDE: 15, Encoding.TWOS_COMPLEMENT: 16}
MIN_BITS = {Encoding.UNSIGNED: 1, Encoding.SIGN_MAGNITUDE: 1, Encoding.TWOS_COMPLEMENT: 2}
INT64_MAX = 2**63 - 1

LAYER_KEYS = ("name", "kind", "in_channels", "out_channels", "activation", "weight", "gate", "input", "post")
OPTIONAL_KEYS = ("recurrent",)
CONV_KEYS = ("in_height", "in_width", "kernel", "stride", "padding", "dilation", "groups")
POST_KEYS = {
    "bias": (),
    "fixed_point": ("shift",),
    "add": ("source", "stride", "pad_before", "pad_after"),
    "clamp": ("low", "high"),
    "save": ("name", "bits", "signed"),
    "sum_pool": ("kernel", "stride"),
    "max_pool": ("kernel", "stride", "padding"),
    "requantise": ("name", "encoding", "bits", "base"),
    "logits": ("name", "scale"),
}
OPTIONAL_POST_KEYS = {"requantise": ("shifted",)}

ReadArray = Callable[[str, Sequence[str], Sequence[tuple[int, ...]]], NDArray[Any]]
"""Reads a member whose dtype is one of the names and whose shape is one of the tuples; raises InputError."""


def parse_layer(where: str, path: str, value: object, prefix: str, read: ReadArray, optional: set[str]) -> Layer:
    """Return the layer that `value` (key path `path`) and the arrays named `prefix`.* describe.

    `optional` holds the names of the archive's members, to find those that need not be there. Raises InputError.
    """
    kind = _kind(where, path, value)
    keys = {LayerKind.CONV: CONV_KEYS, LayerKind.LINEAR: (), LayerKind.MATMUL: ("rows",)}[kind]
    section = Section(where, path, value, required=(*LAYER_KEYS, *keys), optional=OPTIONAL_KEYS)
    geometry = _geometry(section, kind)
    act_section = section.section("activation", required=("encoding", "bits", "scale"))
    act = _number_format(act_section)
    weight_format = _number_format(section.section("weight", required=("encoding", "bits")), signed=True)
    channels = geometry.out_channels
    flat = geometry.weight_shape if kind is LayerKind.CONV else geometry.weight_shape[:2]
    weight = read(f"{prefix}.weight", ("int8", "int16"), [flat])
    check_codes(weight, weight_format, f"{where}: {prefix}.weight")
    weight_scale = read(f"{prefix}.weight_scale", ("float64",), _one_or(channels))
    act_scale = act_section.positive("scale")
    if not (np.isfinite(weight_scale).all() and (weight_scale > 0).all()):
        bad = weight_scale[~(np.isfinite(weight_scale) & (weight_scale > 0))][0]
        refuse(where, f"{prefix}.weight_scale", "hold finite numbers above 0", str(bad))
    with np.errstate(over="ignore", under="ignore"):
        smallest, largest = act_scale * weight_scale.min(), act_scale * weight_scale.max() * 2.0**act.bits
    if smallest == 0 or not np.isfinite(largest):
        refuse(where, f"{prefix}.weight_scale", "give units within float64", "beyond its range")
    return Layer(
        name=section.identifier("name"),
        geometry=geometry,
        act=act,
        weight_format=weight_format,
        weight=weight.astype(np.int16).reshape(geometry.weight_shape),
        act_scale=act_scale,
        weight_scale=weight_scale,
        gate=_gate(section, act, prefix, channels, read, optional),
        input_name=None if section.raw("input") is None else section.identifier("input"),
        post=tuple(
            _post_step(where, step_path, step, f"{prefix}.post.{number}", channels, read)
            for number, (step_path, step) in enumerate(section.items("post"))
        ),
        recurrent=section.boolean("recurrent") if section.has("recurrent") else False,
    )


def _kind(where: str, path: str, value: object) -> LayerKind:
    if not isinstance(value, dict):
        refuse(where, path, "be a mapping", show(value))
    if "kind" not in value:
        raise InputError(f"{where}: {path}.kind must be there, not missing")
    section = Section(where, path, value, required=("kind",), optional=value)
    return LayerKind(section.choice("kind", [kind.value for kind in LayerKind]))


def _geometry(section: Section, kind: LayerKind) -> Geometry:
    in_channels = section.integer("in_channels", 1, MAX_CHANNELS)
    out_channels = section.integer("out_channels", 1, MAX_CHANNELS)
    if kind is LayerKind.LINEAR:
        return Geometry(kind, in_channels, out_channels)
    if kind is LayerKind.MATMUL:
        return Geometry(kind, in_channels, out_channels, in_height=section.integer("rows", 1, MAX_SIDE))
    geometry = Geometry(
        kind,
        in_channels,
        out_channels,
        in_height=section.integer("in_height", 1, MAX_SIDE),
        in_width=section.integer("in_width", 1, MAX_SIDE),
        kernel=_pair(section, "kernel"),
        stride=_pair(section, "stride"),
        padding=_padding(section),
        dilation=_pair(section, "dilation"),
        groups=section.integer("groups", 1, MAX_CHANNELS),
    )
    for name, size in (("in_channels", in_channels), ("out_channels", out_channels)):
        if size % geometry.groups:
            section.refuse("groups", f"divide {name} = {size}")
    if geometry.out_height < 1 or geometry.out_width < 1:
        top, bottom, left, right = geometry.padding
        padded = f"{geometry.in_height + top + bottom} x {geometry.in_width + left + right}"
        span = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, geometry.kernel, strict=True)]
        refuse(section.where, section.at("kernel"), f"fit the padded input of {padded}", f"span {span[0]} x {span[1]}")
    if geometry.reduction >= MAX_REDUCTION:
        refuse(section.where, section.path, f"sum fewer than {MAX_REDUCTION} products", str(geometry.reduction))
    return geometry


def _pair(section: Section, key: str) -> tuple[int, int]:
    first, second = section.integers(key, 2, 1, MAX_WINDOW)
    return first, second


def _padding(section: Section) -> tuple[int, int, int, int]:
    top, bottom, left, right = section.integers("padding", 4, 0, MAX_WINDOW)
    return top, bottom, left, right


def _number_format(section: Section, *, signed: bool = False) -> NumberFormat:
    encodings = [e for e in Encoding if not (signed and e is Encoding.UNSIGNED)]
    encoding = Encoding(section.choice("encoding", [e.value for e in encodings]))
    return NumberFormat(encoding, section.integer("bits", MIN_BITS[encoding], MAX_BITS[encoding]))


def _gate(
    section: Section, act: NumberFormat, prefix: str, channels: int, read: ReadArray, optional: set[str]
) -> Gate | None:
    if section.raw("gate") is None:
        return None
    gate = section.section("gate", required=("pred_bits", "policy"))
    if act.bits < 2:
        refuse(section.where, gate.path, "be null for activations of 1 bit", "a mapping")
    delta = None
    if f"{prefix}.delta" in optional:
        delta = read(f"{prefix}.delta", ("float64",), [(channels,)])
        if np.isnan(delta).any():
            refuse(section.where, f"{prefix}.delta", "hold numbers", "nan")
    return Gate(
        pred_bits=gate.integer("pred_bits", 1, act.bits - 1),
        policy=GatePolicy(gate.choice("policy", [policy.value for policy in GatePolicy])),
        threshold=read(f"{prefix}.threshold", ("int64",), [(channels,)]),
        delta=delta,
    )


def _one_or(channels: int) -> list[tuple[int, ...]]:
    return [(1,), (channels,)]


def _post_step(where: str, path: str, value: object, prefix: str, channels: int, read: ReadArray) -> PostStep:
    if not isinstance(value, dict):
        refuse(where, path, "be a mapping", show(value))
    op = Section(where, path, value, required=("op",), optional=value).choice("op", POST_KEYS)
    step = Section(where, path, value, required=("op", *POST_KEYS[op]), optional=OPTIONAL_POST_KEYS.get(op, ()))

    def integers(name: str) -> NDArray[np.int64]:
        return read(f"{prefix}.{name}", ("int64",), _one_or(channels))

    match op:
        case "bias":
            return Bias(integers("bias"))
        case "fixed_point":
            return FixedPoint(integers("multiplier"), integers("bias"), step.integer("shift", 0, 62))
        case "add":
            return AddShortcut(
                step.identifier("source"),
                step.integer("stride", 1, MAX_WINDOW),
                step.integer("pad_before", 0, MAX_CHANNELS),
                step.integer("pad_after", 0, MAX_CHANNELS),
            )
        case "clamp":
            low = step.integer("low", -INT64_MAX, INT64_MAX)
            return Clamp(low, step.integer("high", low, INT64_MAX))
        case "save":
            return SaveShortcut(step.identifier("name"), step.integer("bits", 1, 63), step.boolean("signed"))
        case "sum_pool":
            return SumPool(_pair(step, "kernel"), _pair(step, "stride"))
        case "max_pool":
            return _max_pool(step)
        case "requantise":
            return parse_requantise(step, prefix, channels, read)
        case _:
            return Logits(step.identifier("name"), step.positive("scale"))


def _max_pool(step: Section) -> MaxPool:
    pool = MaxPool(_pair(step, "kernel"), _pair(step, "stride"), _padding(step))
    top, bottom, left, right = pool.padding
    if max(top, bottom) >= pool.kernel[0] or max(left, right) >= pool.kernel[1]:
        refuse(
            step.where, step.at("padding"), f"be smaller than the kernel {list(pool.kernel)}", str(list(pool.padding))
        )
    return pool


def parse_requantise(step: Section, prefix: str, channels: int, read: ReadArray) -> Requantise:
    """Return the requantisation that `step` and the arrays `prefix`.threshold and .direction describe; InputError."""
    form = _number_format(step)
    base = step.integer("base", form.min_code, form.max_code - 1)
    levels = form.max_code - base
    threshold = read(f"{prefix}.threshold", ("int64",), [(1, levels), (channels, levels)])
    falls = threshold[:, 1:] < threshold[:, :-1]
    if falls.any():
        row, column = (int(i) for i in np.argwhere(falls)[0])
        got = f"{threshold[row, column]} before {threshold[row, column + 1]} in row {row}"
        refuse(step.where, f"{prefix}.threshold", "be sorted in each row", got)
    direction = read(f"{prefix}.direction", ("int8",), _one_or(channels))
    if (np.abs(direction.astype(np.int16)) != 1).any():
        refuse(step.where, f"{prefix}.direction", "hold 1 or -1", str(direction[np.abs(direction) != 1][0]))
    shift = None
    if step.has("shifted") and step.boolean("shifted"):
        shift = read(f"{prefix}.shift", ("int8",), [(channels, 2)])
    return Requantise(step.identifier("name"), form, threshold, direction, base, shift)


def layer_record(layer: Layer) -> dict[str, Any]:
    """Return the JSON mapping of `layer`, keys in the order of docs/trace-format.md."""
    geometry = layer.geometry
    record: dict[str, Any] = {
        "name": layer.name,
        "kind": geometry.kind.value,
        "in_channels": geometry.in_channels,
        "out_channels": geometry.out_channels,
    }
    if geometry.kind is LayerKind.MATMUL:
        record["rows"] = geometry.in_height
    if geometry.kind is LayerKind.CONV:
        for key in CONV_KEYS:
            value = getattr(geometry, key)
            record[key] = list(value) if isinstance(value, tuple) else value
    record["activation"] = {**_format_record(layer.act), "scale": layer.act_scale}
    record["weight"] = _format_record(layer.weight_format)
    gate = layer.gate
    record["gate"] = {"pred_bits": gate.pred_bits, "policy": gate.policy.value} if gate else None
    record["input"] = layer.input_name
    if layer.recurrent:
        record["recurrent"] = True
    record["post"] = [_post_record(step) for step in layer.post]
    return record


def layer_arrays(layer: Layer) -> dict[str, NDArray[Any]]:
    """Return the arrays of `layer` itself by the part of the member's name that follows the layer's number."""
    shape = layer.geometry.weight_shape
    arrays: dict[str, NDArray[Any]] = {
        "weight": layer.weight.reshape(shape if layer.geometry.kind is LayerKind.CONV else shape[:2]),
        "weight_scale": layer.weight_scale,
    }
    if layer.gate:
        arrays["threshold"] = layer.gate.threshold
        if layer.gate.delta is not None:
            arrays["delta"] = layer.gate.delta
    for number, step in enumerate(layer.post):
        for name, array in _post_arrays(step).items():
            arrays[f"post.{number}.{name}"] = array
    return arrays


def requantise_record(step: Requantise) -> dict[str, Any]:
    """Return the JSON mapping of a requantisation, without `op`."""
    shifted = {} if step.shift is None else {"shifted": True}
    return {"name": step.name, **_format_record(step.format), "base": step.base, **shifted}


def requantise_arrays(step: Requantise) -> dict[str, NDArray[Any]]:
    """Return the arrays of a requantisation by the part of the member's name that follows its prefix."""
    arrays: dict[str, NDArray[Any]] = {"threshold": step.threshold, "direction": step.direction}
    return arrays if step.shift is None else arrays | {"shift": step.shift}


def _format_record(form: NumberFormat) -> dict[str, Any]:
    return {"encoding": form.encoding.value, "bits": form.bits}


def _post_record(step: PostStep) -> dict[str, Any]:
    match step:
        case Bias():
            return {"op": "bias"}
        case FixedPoint():
            return {"op": "fixed_point", "shift": step.shift}
        case AddShortcut():
            pads = {"pad_before": step.pad_before, "pad_after": step.pad_after}
            return {"op": "add", "source": step.source, "stride": step.stride, **pads}
        case Clamp():
            return {"op": "clamp", "low": step.low, "high": step.high}
        case SaveShortcut():
            return {"op": "save", "name": step.name, "bits": step.bits, "signed": step.signed}
        case SumPool():
            return {"op": "sum_pool", "kernel": list(step.kernel), "stride": list(step.stride)}
        case MaxPool():
            shape = {"kernel": list(step.kernel), "stride": list(step.stride), "padding": list(step.padding)}
            return {"op": "max_pool", **shape}
        case Requantise():
            return {"op": "requantise", **requantise_record(step)}
        case Logits():
            return {"op": "logits", "name": step.name, "scale": step.scale}


def _post_arrays(step: PostStep) -> Mapping[str, NDArray[Any]]:
    match step:
        case Bias():
            return {"bias": step.bias}
        case FixedPoint():
            return {"multiplier": step.multiplier, "bias": step.bias}
        case Requantise():
            return requantise_arrays(step)
        case _:
            return {}
