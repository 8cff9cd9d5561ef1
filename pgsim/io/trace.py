"""Read and write traces (docs/trace-format.md). All doubt about a trace file ends here.

write_trace: Trace --> arrays, one layer at a time --> sealed .npz, whole or not at all
load_trace:  .npz --> directory and headers --> metadata --> layers --> graph --> Trace
                                          activations, outputs and masks stay in the file until asked for
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import check_codes
from pgsim.errors import InputError
from pgsim.io.npz import DEFAULT_MAX_BYTES, Npz, array_sha256, open_npz, write_npz
from pgsim.io.strict import Section, refuse, show
from pgsim.io.trace_graph import check_graph
from pgsim.io.trace_meta import layer_arrays, layer_record, parse_layer
from pgsim.workload.layer import Layer, LayerKind
from pgsim.workload.trace import LayerTensors, Trace

FORMAT = "pgsim-trace"
VERSION = 1
MAX_IMAGES = 1 << 20
MAX_LAYERS = 1000
MAX_META_BYTES = 64 << 20
ACTIVATION_DTYPES = ("int8", "uint8", "int16")
WEIGHT_DTYPES = ("int8", "int16")
OUTPUT_DTYPES = ("int8", "int16", "int32", "int64")


@dataclass(frozen=True)
class TraceFile:
    """The TensorSource of a trace in a file: reads one layer's tensors when asked, and checks their codes.

    `digests` maps each member to its SHA-256, or is None where digests are not to be checked.
    """

    npz: Npz
    layers: tuple[Layer, ...]
    images: int
    digests: Mapping[str, str] | None

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index` in canonical layout; raises InputError."""
        layer, prefix = self.layers[index], _prefix(index)
        geometry = layer.geometry
        activation = self.read(f"{prefix}.activation")
        check_codes(activation, layer.act, f"{self.npz.shown}: {prefix}.activation")
        return LayerTensors(
            activation=_canonical(activation.astype(np.int16), geometry.kind, geometry.activation_shape),
            output=_canonical(self.read(f"{prefix}.output").astype(np.int64), geometry.kind, geometry.output_shape),
            mask=_canonical(self.read(f"{prefix}.mask"), geometry.kind, geometry.output_shape) if layer.gate else None,
        )

    def read(self, name: str) -> NDArray[Any]:
        """Return member `name`, its digest checked where digests are."""
        array = self.npz.read(self.npz.members[name])
        if self.digests is not None:
            _check_digest(self.npz.shown, name, array, self.digests)
        return array


def load_trace(path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES, digests: bool = True) -> Trace:
    """Return the trace at `path`: container, metadata, weights, thresholds, post arrays and graph checked and loaded.

    Activations, outputs and masks are checked against their headers and stay in the file; `Trace.tensors` reads them
    layer by layer and refuses codes that the format does not have. `digests=False` leaves the SHA-256 of the arrays
    unchecked (CRC-32 is always checked). The seal is `check_trace_file`'s business.

    Raises InputError, one line: file, member or key path, what it must be, what it is.
    """
    npz = open_npz(path, max_bytes=max_bytes)
    where = npz.shown
    meta, section = _metadata(npz, digests)
    images = section.integer("images", 1, MAX_IMAGES)
    sums = _digest_table(section)
    called: set[str] = {"meta", "meta_sha256"}

    def read(name: str, dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
        called.add(name)
        array = npz.read(npz.expect(name, dtypes, shapes))
        if digests:
            _check_digest(where, name, array, sums)
        return array

    layers: list[Layer] = []
    entries = section.items("layers")
    if not 1 <= len(entries) <= MAX_LAYERS:
        section.refuse("layers", f"be a list of 1 to {MAX_LAYERS} layers")
    for number, (key_path, value) in enumerate(entries):
        layer = parse_layer(where, key_path, value, _prefix(number), read, set(npz.members))
        called |= _expect_tensors(npz, layer, _prefix(number), images)
        layers.append(layer)
    check_graph(where, layers)
    extra = sorted(set(npz.members) - called)
    if extra:
        refuse(where, "the archive", "hold only members that the metadata calls for", extra[0])
    named = called - {"meta", "meta_sha256"}
    for name in sorted(named ^ set(sums)):
        must = "be there, not missing" if name in named else "not be there: the archive has no such member"
        raise InputError(f"{where}: sha256.{name} must {must}")
    info = _info(section, images)
    source = TraceFile(npz, tuple(layers), images, sums if digests else None)
    return Trace(tuple(layers), images, source, info, hashlib.sha256(meta).hexdigest())


def write_trace(path: str | os.PathLike[str], trace: Trace, *, info: Mapping[str, Any] | None = None) -> None:
    """Write `trace` to `path`, whole or not at all; the same trace gives the same bytes.

    `info` is the free part of the metadata (JSON values), `trace.info` where it is None. Tensors are asked of the
    trace one layer at a time. Raises InputError where the file cannot be written, ValueError for a trace that
    `load_trace` would refuse.
    """
    free = dict(trace.info if info is None else info)
    json.dumps(free, allow_nan=False)  # before any byte is written
    write_npz(path, _all_members(trace, free), check=_readable)


def check_trace_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether the trace's metadata says that the file is sealed; raises InputError where it cannot be read."""
    _, section = _metadata(open_npz(path), digests=False)
    return section.has("sealed") and section.boolean("sealed")


def digest_faults(path: str | os.PathLike[str]) -> list[str]:
    """Return one line for each array, `meta` included, whose SHA-256 is not the recorded one; raises InputError."""
    trace = load_trace(path, digests=False)
    assert isinstance(trace.source, TraceFile)
    npz = trace.source.npz
    faults = []
    try:
        _, section = _metadata(npz, digests=True)
    except InputError as error:
        faults.append(str(error))
        _, section = _metadata(npz, digests=False)
    for name, member in npz.members.items():
        if name not in ("meta", "meta_sha256"):
            try:
                _check_digest(npz.shown, name, npz.read(member), section.raw("sha256"))
            except InputError as error:
                faults.append(str(error))
    return faults


def _readable(path: str) -> None:
    try:
        load_trace(path, digests=False)
    except InputError as error:
        raise ValueError(f"the trace is not one that can be read back: {error}") from error


def _all_members(trace: Trace, info: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every member of the file; the metadata comes last because it holds the digests of the others."""
    sums: dict[str, str] = {}
    for index, layer in enumerate(trace.layers):
        for part, array in (_tensor_arrays(layer, trace.tensors(index), trace.images) | layer_arrays(layer)).items():
            name = f"{_prefix(index)}.{part}"
            stored = np.ascontiguousarray(_stored(name, part, array))
            sums[name] = array_sha256(stored)
            yield name, stored
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "sealed": True,
        "images": trace.images,
        "info": dict(info),
        "layers": [layer_record(layer) for layer in trace.layers],
        "sha256": sums,
    }
    text = json.dumps(meta, allow_nan=False, separators=(",", ":")).encode()
    yield "meta", np.frombuffer(text, np.uint8)
    yield "meta_sha256", np.frombuffer(hashlib.sha256(text).digest(), np.uint8)


def _stored(name: str, part: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in the dtype that the file gives it: the narrowest of its list, or the fixed one."""
    lists = {"activation": ACTIVATION_DTYPES, "weight": WEIGHT_DTYPES, "output": OUTPUT_DTYPES}
    if part in lists:
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        for dtype in lists[part]:
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
        raise ValueError(f"{name} reaches from {low} to {high}, beyond {lists[part][-1]}")
    if part == "mask":
        return array.astype(np.bool_, casting="safe")
    if part in ("weight_scale", "delta"):
        return array.astype(np.float64, casting="safe")
    return array.astype(np.int8 if part.endswith("direction") else np.int64, casting="safe")


def _tensor_arrays(layer: Layer, tensors: LayerTensors, images: int) -> dict[str, NDArray[Any]]:
    """Return the recorded tensors of a layer in the file's layout; raises ValueError where they do not fit it."""
    geometry, kind = layer.geometry, layer.geometry.kind
    activation_shape, output_shape = (images, *geometry.activation_shape), (images, *geometry.output_shape)
    if tensors.activation.shape != activation_shape or tensors.output.shape != output_shape:
        got = f"{tensors.activation.shape} and {tensors.output.shape}"
        raise ValueError(f"{layer.name}: tensors must have shapes {activation_shape} and {output_shape}, not {got}")
    if (tensors.mask is None) != (layer.gate is None):
        raise ValueError(f"{layer.name}: a mask must be there for a gated layer, and only there")
    check_codes(tensors.activation, layer.act, f"{layer.name}: activation")
    arrays = {"activation": _in_file(tensors.activation, kind), "output": _in_file(tensors.output, kind)}
    if tensors.mask is not None:
        arrays["mask"] = _in_file(tensors.mask, kind)
    return arrays


def _in_file(array: NDArray[Any], kind: LayerKind) -> NDArray[Any]:
    if kind is LayerKind.CONV:
        return array
    return array[:, :, 0, 0] if kind is LayerKind.LINEAR else array[:, :, :, 0].transpose(0, 2, 1)


def _canonical(array: NDArray[Any], kind: LayerKind, shape: tuple[int, int, int]) -> NDArray[Any]:
    if kind is LayerKind.MATMUL:
        array = np.ascontiguousarray(array.transpose(0, 2, 1))
    return array.reshape(-1, *shape)


def _file_shape(kind: LayerKind, images: int, shape: tuple[int, int, int]) -> tuple[int, ...]:
    channels, height, _ = shape
    if kind is LayerKind.CONV:
        return (images, *shape)
    return (images, channels) if kind is LayerKind.LINEAR else (images, height, channels)


def _expect_tensors(npz: Npz, layer: Layer, prefix: str, images: int) -> set[str]:
    geometry = layer.geometry
    output_shape = _file_shape(geometry.kind, images, geometry.output_shape)
    activation_shape = _file_shape(geometry.kind, images, geometry.activation_shape)
    npz.expect(f"{prefix}.activation", ACTIVATION_DTYPES, [activation_shape])
    npz.expect(f"{prefix}.output", OUTPUT_DTYPES, [output_shape])
    parts = {f"{prefix}.{part}" for part in ("activation", "output", *layer_arrays(layer))}
    if layer.gate:
        npz.expect(f"{prefix}.mask", ("bool",), [output_shape])
        parts.add(f"{prefix}.mask")
    return parts


def _prefix(index: int) -> str:
    return f"{index:03d}"


def _metadata(npz: Npz, digests: bool) -> tuple[bytes, Section]:
    """Return the bytes of `meta` and the document in it, its own digest, format and version checked."""
    where = npz.shown
    member = npz.expect("meta", ("uint8",), None)
    if member.size > MAX_META_BYTES:
        refuse(where, "meta", f"have at most {MAX_META_BYTES} bytes", f"{member.size}")
    meta = npz.read(member).tobytes()
    recorded = npz.read(npz.expect("meta_sha256", ("uint8",), [(32,)])).tobytes().hex()
    digest = hashlib.sha256(meta).hexdigest()
    if digests and digest != recorded:
        refuse(where, "meta_sha256", f"be {digest}, the SHA-256 of meta", recorded)
    value = _parse_json(where, meta)
    if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
        refuse(where, "format", f"be {FORMAT}", show(value["format"]))
    if isinstance(value, dict) and "version" in value:
        version = value["version"]
        if version != VERSION or isinstance(version, bool) or not isinstance(version, int):
            refuse(where, "version", f"be {VERSION}", show(version))
    required = ("format", "version", "images", "info", "layers", "sha256")
    return meta, Section(where, "", value, required=required, optional=("sealed",))


def _parse_json(where: str, text: bytes) -> object:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            refuse(where, "meta", "have each key once in a mapping", f"{show(twice)} twice")
        return mapping

    def no_constants(name: str) -> object:
        refuse(where, "meta", "hold finite numbers", name)

    try:
        return json.loads(text.decode(), object_pairs_hook=no_duplicates, parse_constant=no_constants)
    except UnicodeDecodeError as error:
        refuse(where, "meta", "be UTF-8", f"byte {text[error.start]:#04x} at {error.start}")
    except json.JSONDecodeError as error:
        refuse(where, "meta", "be JSON", f"what it is ({error.msg} at {error.pos})")
    except (RecursionError, ValueError):  # brackets without end; an integer of more than 4300 digits
        refuse(where, "meta", "be JSON of modest depth and numbers", "deeper or longer")


def _digest_table(section: Section) -> dict[str, str]:
    table = section.raw("sha256")
    if not isinstance(table, dict):
        section.refuse("sha256", "be a mapping")
    for name, digest in table.items():
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            refuse(section.where, f"sha256.{show(name)[1:-1]}", "be 64 hex digits", show(digest))
    return table


def _check_digest(where: str, name: str, array: NDArray[Any], sums: Mapping[str, str]) -> None:
    if name not in sums:
        raise InputError(f"{where}: sha256.{name} must be there, not missing")
    digest = array_sha256(array)
    if digest != sums[name]:
        refuse(where, name, f"have the SHA-256 of the metadata, {sums[name]}", digest)


def _info(section: Section, images: int) -> dict[str, Any]:
    """Return the free part; the keys that pgsim reads are held to their types."""
    if section.has("sealed"):
        section.boolean("sealed")
    info = section.raw("info")
    if not isinstance(info, dict):
        section.refuse("info", "be a mapping")
    where = section.where
    for key, kinds, what in (("labels", int, "class numbers"), ("samples", int | str, "sample ids")):
        if key in info:
            values = info[key]
            whole = isinstance(values, list) and len(values) == images
            if not whole or any(isinstance(v, bool) or not isinstance(v, kinds) for v in values):
                refuse(where, f"info.{key}", f"be a list of {images} {what}", show(values))
    if "top1" in info:
        top1 = info["top1"]
        if isinstance(top1, bool) or not isinstance(top1, int | float) or not 0 <= top1 <= 100 or math.isnan(top1):
            refuse(where, "info.top1", "be a percentage from 0 to 100", show(top1))
    return info
