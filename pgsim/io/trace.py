"""Read and write traces (docs/trace-format.md). All doubt about a trace file ends here.

write_trace: Trace --> arrays, one layer at a time --> sealed .npz, whole or not at all
load_trace:  .npz --> directory and headers --> metadata --> boundaries, layers --> graph --> Trace
                                  boundaries' values, activations, outputs and masks stay in the file until asked for
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.formats import check_codes
from pgsim.arith.post import check_width
from pgsim.errors import InputError
from pgsim.io.npz import DEFAULT_MAX_BYTES, Npz, array_sha256, check_npz_seal, open_npz, write_npz
from pgsim.io.strict import refuse, show_path
from pgsim.io.trace_boundary import boundary_arrays, boundary_record, parse_boundary
from pgsim.io.trace_document import FORMAT, VERSION, DigestError, digest_table, read_document, read_info
from pgsim.io.trace_graph import check_graph
from pgsim.io.trace_meta import layer_arrays, layer_record, parse_layer
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import Layer, LayerKind
from pgsim.workload.trace import LayerTensors, Trace

MAX_IMAGES = 1 << 20
MAX_LAYERS = 1000
MAX_BOUNDARIES = 1000
ACTIVATION_DTYPES = ("int8", "uint8", "int16")
WEIGHT_DTYPES = ("int8", "int16")
OUTPUT_DTYPES = ("int8", "int16", "int32", "int64")
BOUNDARY_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "int64")


@dataclass(frozen=True)
class TraceFile:
    """The TensorSource of a trace in a file: reads a layer's or a boundary's tensors when asked, and checks them.

    `digests` maps each member to its SHA-256; they are checked at each reading where `checking`.
    """

    npz: Npz
    layers: tuple[Layer, ...]
    boundaries: tuple[Boundary, ...]
    sealed: bool
    digests: Mapping[str, str]
    checking: bool

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

    def boundary(self, index: int) -> NDArray[np.int64]:
        """Return the recorded values of boundary `index`, int64 [N, C, H, W]; raises InputError."""
        boundary, name = self.boundaries[index], _boundary_prefix(index)
        values = self.read(name).astype(np.int64)
        check_width(values, boundary.bits, boundary.signed, f"{self.npz.shown}: {name}")
        return values

    def read(self, name: str) -> NDArray[Any]:
        """Return member `name`, its digest checked where digests are."""
        array = self.npz.read(self.npz.members[name])
        if self.checking:
            _check_digest(self.npz.shown, name, array, self.digests)
        return array


def load_trace(path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES, digests: bool = True) -> Trace:
    """Return the trace at `path`: container, metadata, weights, thresholds, post arrays and graph checked and loaded.

    Activations, outputs, masks and boundaries are checked against their headers and stay in the file; `Trace.tensors`
    and `Trace.boundary` read them one by one and refuse values that their format does not have. `digests=False` leaves
    the SHA-256 of the arrays unchecked (CRC-32 is always checked). The seal is `check_seal`'s business.

    Raises InputError, one line: file, member or key path, what it must be, what it is.
    """
    npz = open_npz(path, max_bytes=max_bytes)
    where = npz.shown
    meta, section = read_document(npz, digests)
    images = section.integer("images", 1, MAX_IMAGES)
    sums = digest_table(section)
    called: set[str] = {"meta", "meta_sha256"}

    def read(name: str, dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> NDArray[Any]:
        called.add(name)
        array = npz.read(npz.expect(name, dtypes, shapes))
        if digests:
            _check_digest(where, name, array, sums)
        return array

    boundaries: list[Boundary] = []
    outside = section.items("boundaries") if section.has("boundaries") else []
    if len(outside) > MAX_BOUNDARIES:
        section.refuse("boundaries", f"be a list of at most {MAX_BOUNDARIES} boundaries")
    for number, (key_path, value) in enumerate(outside):
        prefix = _boundary_prefix(number)
        boundary = parse_boundary(where, key_path, value, prefix, read)
        npz.expect(prefix, BOUNDARY_DTYPES, [(images, *boundary.shape)])
        called.add(prefix)
        boundaries.append(boundary)
    layers: list[Layer] = []
    entries = section.items("layers")
    if not 1 <= len(entries) <= MAX_LAYERS:
        section.refuse("layers", f"be a list of 1 to {MAX_LAYERS} layers")
    for number, (key_path, value) in enumerate(entries):
        layer = parse_layer(where, key_path, value, _prefix(number), read, set(npz.members))
        called |= _expect_tensors(npz, layer, _prefix(number), images)
        layers.append(layer)
    check_graph(where, layers, boundaries)
    extra = sorted(set(npz.members) - called)
    if extra:
        refuse(where, "the archive", "hold only members that the metadata calls for", extra[0])
    named = called - {"meta", "meta_sha256"}
    for name in sorted(named ^ set(sums)):
        must = "be there, not missing" if name in named else "not be there: the archive has no such member"
        raise InputError(f"{where}: sha256.{name} must {must}")
    info = read_info(section, images)
    sealed = section.has("sealed") and section.boolean("sealed")
    source = TraceFile(npz, tuple(layers), tuple(boundaries), sealed, sums, digests)
    return Trace(tuple(layers), images, source, info, hashlib.sha256(meta).hexdigest(), tuple(boundaries))


def write_trace(path: str | os.PathLike[str], trace: Trace, *, info: Mapping[str, Any] | None = None) -> None:
    """Write `trace` to `path`, whole or not at all; the same trace gives the same bytes.

    `info` is the free part of the metadata (JSON values), `trace.info` where it is None. Tensors are asked of the
    trace one layer at a time. Raises InputError where the file cannot be written, ValueError for a trace that
    `load_trace` would refuse.
    """
    free = dict(trace.info if info is None else info)
    json.dumps(free, allow_nan=False)  # before any byte is written
    write_npz(path, _all_members(trace, free), check=_readable)


def check_seal(trace: Trace) -> None:
    """Raise InputError where the metadata of a loaded trace says that the file is sealed and the seal is not right."""
    file = trace_file(trace)
    if file.sealed:
        check_npz_seal(file.npz.path, file.npz.shown)


def digest_faults(trace: Trace) -> list[str]:
    """Return one line for each array of a loaded trace, `meta` included, whose SHA-256 is not the recorded one.

    Raises InputError for an array that cannot be read.
    """
    file = trace_file(trace)
    faults = []
    for name, member in file.npz.members.items():
        try:
            if name == "meta":
                read_document(file.npz, digests=True)
            elif name != "meta_sha256":
                _check_digest(file.npz.shown, name, file.npz.read(member), file.digests)
        except DigestError as error:
            faults.append(str(error))
    return faults


def trace_file(trace: Trace) -> TraceFile:
    """Return the file behind a trace that `load_trace` returned; ValueError for another trace."""
    if not isinstance(trace.source, TraceFile):
        raise ValueError("trace must come from load_trace")
    return trace.source


def _readable(path: str) -> None:
    try:
        check_seal(load_trace(path, digests=False))
    except InputError as error:
        fault = str(error).removeprefix(f"{show_path(path)}: ")  # which is a hidden file's name
        raise ValueError(f"the trace is not one that can be read back: {fault}") from error


def _all_members(trace: Trace, info: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every member of the file; the metadata comes last because it holds the digests of the others."""
    sums: dict[str, str] = {}
    for name, part, array in _arrays(trace):
        stored = np.ascontiguousarray(_stored(name, part, array))
        sums[name] = array_sha256(stored)
        yield name, stored
    outside = {"boundaries": [boundary_record(boundary) for boundary in trace.boundaries]}
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "sealed": True,
        "images": trace.images,
        "info": dict(info),
        **(outside if trace.boundaries else {}),
        "layers": [layer_record(layer) for layer in trace.layers],
        "sha256": sums,
    }
    text = json.dumps(meta, allow_nan=False, separators=(",", ":")).encode()
    yield "meta", np.frombuffer(text, np.uint8)
    yield "meta_sha256", np.frombuffer(hashlib.sha256(text).digest(), np.uint8)


def _arrays(trace: Trace) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Yield each array of the trace with its member's name and the part that decides its dtype."""
    for index, boundary in enumerate(trace.boundaries):
        name = _boundary_prefix(index)
        yield name, "boundary", _boundary_values(boundary, trace.boundary(index), trace.images)
        for part, array in boundary_arrays(boundary).items():
            yield f"{name}.{part}", part, array
    for index, layer in enumerate(trace.layers):
        for part, array in (_tensor_arrays(layer, trace.tensors(index), trace.images) | layer_arrays(layer)).items():
            yield f"{_prefix(index)}.{part}", part, array


def _stored(name: str, part: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in the dtype that the file gives it: the narrowest of its list, or the fixed one."""
    lists = {
        "activation": ACTIVATION_DTYPES,
        "weight": WEIGHT_DTYPES,
        "output": OUTPUT_DTYPES,
        "boundary": BOUNDARY_DTYPES,
    }
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
    return array.astype(np.int8 if part.endswith(("direction", "shift")) else np.int64, casting="safe")


def _boundary_values(boundary: Boundary, values: NDArray[np.int64], images: int) -> NDArray[np.int64]:
    """Return the values of a boundary; raises ValueError for another shape, InputError where they do not fit it."""
    shape = (images, *boundary.shape)
    if values.shape != shape:
        raise ValueError(f"{boundary.name}: values must have shape {shape}, not {values.shape}")
    check_width(values, boundary.bits, boundary.signed, boundary.name)
    return values


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


def _boundary_prefix(index: int) -> str:
    return f"boundary.{index}"


def _check_digest(where: str, name: str, array: NDArray[Any], sums: Mapping[str, str]) -> None:
    if name not in sums:
        raise InputError(f"{where}: sha256.{name} must be there, not missing")
    digest = array_sha256(array)
    if digest != sums[name]:
        raise DigestError(f"{where}: {name} must have the SHA-256 of the metadata, {sums[name]}, not {digest}")
