"""Run a trace's network on its own integers: from codes through sums and post steps to codes, and to logits.

recorded codes ----------------.
recorded boundary --requantise-+
codes kept by an earlier layer +--> sums --> A [N, K, P, Q] int64 --post--> codes, shortcuts, logits
recorded boundary, or shortcut kept by an earlier layer ------------^        kept until their last reader
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import fast, post, reference
from pgsim.errors import InputError
from pgsim.results.mismatch import Mismatch
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import (
    AddShortcut,
    Bias,
    Clamp,
    FixedPoint,
    Layer,
    Logits,
    MaxPool,
    Requantise,
    SaveShortcut,
    SumPool,
)
from pgsim.workload.trace import InMemory, Trace


@dataclass(frozen=True)
class LayerValues:
    """What an engine computes for a layer: A int64 [N, K, P, Q], and the mask (bool) where the layer is gated."""

    output: NDArray[np.int64]
    mask: NDArray[np.bool_] | None


Engine = Callable[[Layer, NDArray[np.int16]], LayerValues]
"""Computes a layer's outputs from its codes, int16 [N, C, H, W]. A simulator with values is one, too."""


def reference_engine(layer: Layer, codes: NDArray[np.int16]) -> LayerValues:
    """Compute a layer by the scalar reference: nested loops over integers."""
    if layer.gate is None:
        return LayerValues(reference.dense_layer(codes, layer.weight, layer.geometry), None)
    gate = layer.gate
    numbers = (layer.act.encoding, layer.act.bits, gate.pred_bits, gate.threshold, gate.policy)
    values = reference.gated_layer(codes, layer.weight, layer.geometry, *numbers)
    return LayerValues(values.a, values.mask)


def fast_engine(layer: Layer, codes: NDArray[np.int16]) -> LayerValues:
    """Compute a layer by the fast kernels: predictions through BLAS, updates through SDDMM."""
    if layer.gate is None:
        return LayerValues(fast.dense_layer(codes, layer.weight, layer.geometry), None)
    gate = layer.gate
    numbers = (layer.act.encoding, layer.act.bits, gate.pred_bits, gate.threshold, gate.policy)
    values = fast.gated_layer(codes, layer.weight, layer.geometry, *numbers)
    return LayerValues(values.a, values.mask)


ENGINES: dict[str, Engine] = {"reference": reference_engine, "fast": fast_engine}


@dataclass
class Chain:
    """What boundaries and the layers so far hand on, freed after its last reader.

    Call `codes_for` and then `follow` for each layer in order. `logits` maps a name to int64 [N, K, P, Q]. Of the
    trace's recorded tensors only its boundaries are read, when their first reader comes.
    """

    trace: Trace
    logits: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kept: dict[str, NDArray[np.int64]] = {}
        self._last: dict[str, int] = {}  # the last layer that reads a name
        self._boundaries = {boundary.name: number for number, boundary in enumerate(self.trace.boundaries)}
        self._from_boundary = {b.requantise.name: b for b in self.trace.boundaries if b.requantise}
        for number, layer in enumerate(self.trace.layers):
            if layer.input_name is not None:
                self._last[layer.input_name] = number
                if layer.input_name in self._from_boundary:
                    self._last[self._from_boundary[layer.input_name].name] = number
            for step in layer.post:
                if isinstance(step, AddShortcut):
                    self._last[step.source] = number

    def codes_for(self, index: int) -> NDArray[np.int16] | None:
        """Return the codes that feed layer `index`, int16 [N, C, H, W]; None where only the recorded ones are known.

        Raises InputError for a boundary that cannot be read or requantised.
        """
        layer = self.trace.layers[index]
        if layer.input_name is None:
            return None
        boundary = self._from_boundary.get(layer.input_name)
        codes = self._kept[layer.input_name] if boundary is None else self._requantised(boundary)
        return codes.reshape(len(codes), *layer.geometry.activation_shape).astype(np.int16)

    def origin(self, index: int) -> str:
        """Return what gives the codes of layer `index`, in the words of a mismatch."""
        boundary = self._from_boundary.get(self.trace.layers[index].input_name or "")
        return "post steps" if boundary is None else f"boundary {boundary.name}"

    def _requantised(self, boundary: Boundary) -> NDArray[np.int64]:
        step, values = boundary.requantise, self.shortcut(boundary.name)
        assert step is not None
        try:
            return codes_of(step, values)
        except InputError as error:
            raise InputError(f"boundaries[{self._boundaries[boundary.name]}].requantise: {error}") from error

    def shortcut(self, name: str) -> NDArray[np.int64]:
        """Return what is kept under `name`; a boundary is read by the first who asks."""
        if name in self._boundaries and name not in self._kept:
            self._kept[name] = self.trace.boundary(self._boundaries[name])
        return self._kept[name]

    def follow(self, index: int, output: NDArray[np.int64]) -> None:
        """Take the accumulator of layer `index`, int64 [N, K, P, Q], through its post steps and keep what they keep.

        Raises InputError, with the step's key path, where a value leaves int64 or does not fit its shortcut, and for a
        boundary that cannot be read.
        """
        kept = self.kept_by(index, output, lambda name: self._last.get(name, -1) > index)
        for step in self.trace.layers[index].post:
            if isinstance(step, Logits):
                self.logits[step.name] = kept[step.name]
            elif isinstance(step, SaveShortcut | Requantise) and step.name in kept:
                self._keep(step.name, kept[step.name], index)
        for name in [name for name in self._kept if self._last[name] <= index]:
            del self._kept[name]

    def kept_by(
        self,
        index: int,
        output: NDArray[np.int64],
        wants: Callable[[str], bool] = lambda name: True,
        *,
        any_width: bool = False,
    ) -> dict[str, NDArray[np.int64]]:
        """Return what the post steps of layer `index` keep of an accumulator, by name, and keep nothing.

        Codes are left out where `wants` does not want their name. Raises InputError as `follow` does; with `any_width`
        not for a shortcut that does not fit its bits, unless the layer adds it itself.
        """
        own = {step.source for step in self.trace.layers[index].post if isinstance(step, AddShortcut)}
        kept: dict[str, NDArray[np.int64]] = {}
        value = output
        for position, step in enumerate(self.trace.layers[index].post):
            if isinstance(step, AddShortcut):  # a boundary that cannot be read is no fault of the step
                source = kept[step.source] if step.source in kept else self.shortcut(step.source)
            try:
                match step:
                    case AddShortcut():
                        value = post.add_shortcut(value, source, step.stride, step.pad_before, step.pad_after)
                    case SaveShortcut():
                        if not any_width or step.name in own:
                            post.check_width(value, step.bits, step.signed, step.name)
                        kept[step.name] = value
                    case Requantise():
                        if wants(step.name):
                            kept[step.name] = codes_of(step, value)
                    case Logits():
                        kept[step.name] = value
                    case _:
                        value = _after(step, value)
            except InputError as error:
                raise InputError(f"layers[{index}].post[{position}]: {error}") from error
        return kept

    def _keep(self, name: str, value: NDArray[np.int64], index: int) -> None:
        if self._last.get(name, -1) >= index:  # else nobody reads it
            self._kept[name] = value


def codes_of(step: Requantise, v: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes that a requantisation keeps of v, int64 [N, K, P, Q], where they are kept. Raises InputError."""
    codes = post.requantise(v, step.threshold, step.direction, step.base)
    return codes if step.shift is None else post.move_channels(codes, step.shift)


def _after(step: Bias | FixedPoint | Clamp | SumPool | MaxPool, v: NDArray[np.int64]) -> NDArray[np.int64]:
    match step:
        case Bias():
            return post.add_bias(v, step.bias)
        case FixedPoint():
            return post.fixed_point(v, step.multiplier, step.bias, step.shift)
        case Clamp():
            return post.clamp(v, step.low, step.high)
        case SumPool():
            return post.sum_pool(v, step.kernel, step.stride)
        case MaxPool():
            return post.max_pool(v, step.kernel, step.stride, step.padding)


@dataclass(frozen=True)
class Inference:
    """A network run on a trace's images: logits by name, int64 [N, K, P, Q], and where it left the recording.

    `mismatches` holds, for each layer whose recorded codes are not those computed, the first difference.
    """

    logits: dict[str, NDArray[np.int64]]
    mismatches: tuple[Mismatch, ...]

    @property
    def equal(self) -> bool:
        """Tell whether every computed activation is the recorded one."""
        return not self.mismatches


def infer(trace: Trace, engine: Engine = fast_engine) -> Inference:
    """Run the network of `trace` from its input codes to its logits, comparing each activation to the recorded one.

    Only layers without an input name read recorded codes; every other layer reads what was computed before it, or
    what a boundary's recorded values requantise to, even where the recording differs. One layer's recorded tensors are
    in memory at a time, and the boundaries that are still to be read again.
    Raises InputError for tensors that cannot be read or post steps that overflow.
    """
    chain = Chain(trace)
    mismatches = []
    for index, layer in enumerate(trace.layers):
        recorded = trace.tensors(index).activation
        codes = chain.codes_for(index)
        if codes is not None:
            found = first_code_mismatch(layer, recorded, codes, chain.origin(index))
            mismatches += [found] if found else []
        chain.follow(index, engine(layer, recorded if codes is None else codes).output)
    return Inference(chain.logits, tuple(mismatches))


def logits_of(
    layers: Sequence[Layer], codes: NDArray[np.int16], engine: Engine = fast_engine
) -> dict[str, NDArray[np.int64]]:
    """Run a network on new images; return its logits by name, int64 [N, K, P, Q].

    `codes` int16 [N, C, H, W] feeds the first layer, which must be the only one that reads a boundary (ValueError).
    """
    boundaries = [layer.name for layer in layers[1:] if layer.input_name is None]
    if boundaries or layers[0].input_name is not None:
        raise ValueError(f"only the first layer may read a boundary, not {boundaries or layers[0].name}")
    chain = Chain(Trace(tuple(layers), len(codes), InMemory(())))
    for index, layer in enumerate(layers):
        fed = chain.codes_for(index)
        chain.follow(index, engine(layer, codes if fed is None else fed).output)
    return chain.logits


def first_code_mismatch(
    layer: Layer, recorded: NDArray[np.int16], computed: NDArray[np.int16], origin: str
) -> Mismatch | None:
    """Return the first code, in C order, in which a layer's recorded activation differs from the computed one.

    `origin` says what computed it: the post steps, or a boundary.
    """
    differs = recorded != computed
    if not differs.any():
        return None
    where = tuple(int(i) for i in np.unravel_index(int(differs.argmax()), differs.shape))
    return Mismatch(origin, layer.name, "codes", where, int(recorded[where]), int(computed[where]))
