"""Show what a trace holds: layers, bits, gates, sparsity, MACs and accuracy; or what a hardware file says."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pgsim.cli.trace_options import add_trace_options

if TYPE_CHECKING:
    from pgsim.workload.boundary import Boundary
    from pgsim.workload.layer import Geometry, Layer, NumberFormat
    from pgsim.workload.summary import LayerSparsity
    from pgsim.workload.trace import Trace

CODES = {"unsigned": "u", "sign_magnitude": "sm", "twos_complement": "s"}
LEFT = ("layer", "kind", "kernel", "activation", "gate", "weight")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_trace_options(parser, "a trace (.npz), a hardware file (.yaml) or the name of a shipped one")


def run(args: argparse.Namespace) -> int:
    """Print the trace's description, its layers and their means; return 0. Raises InputError."""
    from pgsim.io.shipped import is_hardware

    if is_hardware(args.file):
        from pgsim.cli import hw

        return hw.run(argparse.Namespace(action="show", name=args.file, bits=None, yaml=False))
    from pgsim.cli.table import aligned
    from pgsim.io.trace import load_trace
    from pgsim.workload.summary import layer_sparsity

    trace = load_trace(args.file, max_bytes=args.max_bytes)
    counts = layer_sparsity(trace)
    for key, value in _description(trace):
        print(f"{key:<10} {value}")
    header = ("#", *LEFT[:2], "input", "output", *LEFT[2:], "MACs/image", "sparsity")
    print()
    print(aligned(header, [_row(number, count) for number, count in enumerate(counts)], LEFT))
    print()
    print("u unsigned, s two's complement, sm sign-magnitude; 3/2: 3 bits, 2 of them predict")
    for line in _totals(counts):
        print(line)
    return 0


def _description(trace: Trace) -> list[tuple[str, str]]:
    from pgsim.io.trace import trace_file

    info = trace.info
    npz = trace_file(trace).npz
    lines = [("trace", npz.shown)]
    for label, key in (("model", "model"), ("data set", "dataset"), ("made by", "made_by"), ("notes", "notes")):
        if key in info:
            lines.append((label, _words(info[key])))
    samples = f": {', '.join(map(_words, info['samples'][:8]))}" if "samples" in info else ""
    lines.append(("images", f"{trace.images}{samples}{', ...' if samples and trace.images > 8 else ''}"))
    accuracy = [f"{info['top1']:.2f} % top-1 on the full test set"] if "top1" in info else []
    if "labels" in info and "predictions" in info:
        right = sum(label == guess for label, guess in zip(info["labels"], info["predictions"], strict=True))
        accuracy.append(f"{right} of {trace.images} images of the trace as recorded")
    if accuracy:
        lines.append(("accuracy", "; ".join(accuracy)))
    lines += [("boundary", _boundary(trace, boundary)) for boundary in trace.boundaries]
    sealed = "sealed" if trace_file(trace).sealed else "not sealed"
    size = f"{npz.file_bytes:,} bytes, {npz.expanded_bytes:,} expanded, {len(npz.members)} members, {sealed}"
    return [*lines, ("size", size), ("sha256", trace.sha256)]


def _boundary(trace: Trace, boundary: Boundary) -> str:
    """Shape and format of a boundary, and who reads it."""
    from pgsim.workload.layer import AddShortcut

    words = f"{boundary.name}: {'x'.join(map(str, boundary.shape))}, "
    words += f"{boundary.bits} {'signed' if boundary.signed else 'unsigned'} bits"
    if step := boundary.requantise:
        readers = [layer.name for layer in trace.layers if layer.input_name == step.name]
        words += f"; {_bits(step.format)} codes {step.name} read by {', '.join(readers) or 'no layer'}"
    adders = [
        layer.name
        for layer in trace.layers
        if any(isinstance(step, AddShortcut) and step.source == boundary.name for step in layer.post)
    ]
    return f"{words}; added by {', '.join(adders) or 'no layer'}"


def _words(value: Any) -> str:
    from pgsim.io.strict import show

    return value if isinstance(value, str) and value.isprintable() else show(value)


def _row(number: int, count: LayerSparsity) -> tuple[str, ...]:
    layer = count.layer
    geometry = layer.geometry
    sparsity = count.sparsity
    return (
        str(number),
        layer.name,
        geometry.kind.value,
        "x".join(map(str, geometry.activation_shape)),
        "x".join(map(str, geometry.output_shape)),
        _kernel(geometry),
        _bits(layer.act, layer),
        layer.gate.policy.value if layer.gate else "-",
        _bits(layer.weight_format),
        f"{geometry.macs:,}",
        "-" if sparsity is None else f"{float(100 * sparsity):.2f} %",
    )


def _bits(form: NumberFormat, gated: Layer | None = None) -> str:
    predicted = f"/{gated.pred_bits}" if gated and gated.gate else ""
    return f"{CODES[form.encoding.value]}{form.bits}{predicted}"


def _kernel(geometry: Geometry) -> str:
    def pair(values: tuple[int, ...]) -> str:
        return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))

    text = f"{geometry.kernel[0]}x{geometry.kernel[1]}"
    text += f" stride {pair(geometry.stride)}" if geometry.stride != (1, 1) else ""
    text += f" pad {pair(geometry.padding)}" if any(geometry.padding) else ""
    text += f" dilation {pair(geometry.dilation)}" if geometry.dilation != (1, 1) else ""
    return text + (f" groups {geometry.groups}" if geometry.groups > 1 else "")


def _totals(counts: tuple[LayerSparsity, ...]) -> list[str]:
    from pgsim.workload.summary import gated_averages

    macs = sum(count.layer.geometry.macs for count in counts)
    gated = [count.layer.geometry for count in counts if count.layer.gate]
    gated_macs = sum(geometry.macs for geometry in gated)
    share = f"{100 * gated_macs / macs:.2f} %"
    lines = [f"{macs:,} MACs an image in {len(counts)} layers, {share} of them in {len(gated)} gated layers"]
    means = gated_averages(counts)
    if means:
        per_output, per_mac = float(100 * means.sparsity_by_output), float(100 * means.sparsity_by_mac)
        bits, mac_bits = float(means.bits_by_output), float(means.bits_by_mac)
        lines.append(f"sparsity of the gated layers: {per_output:.2f} % of outputs, {per_mac:.2f} % by MACs")
        lines.append(f"mean activation bits of the gated layers: {bits:.3f} by outputs, {mac_bits:.3f} by MACs")
    return lines
