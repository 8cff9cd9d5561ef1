"""Measure a trained network under other arithmetics, image by image beside its exact run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.overflow import bits_needed, proven_bits
from pgsim.errors import InputError, MismatchError
from pgsim.model.arithmetic import Values, engine_of, partial_sums, run_layers
from pgsim.train.data import Images, image_codes
from pgsim.train.evaluate import labels_of
from pgsim.train.exact import run_exact
from pgsim.train.export import exported
from pgsim.train.frozen import FrozenNet
from pgsim.train.paired import Paired
from pgsim.workload.arithmetic import Arithmetic, rewritten
from pgsim.workload.layer import Layer
from pgsim.workload.trace import InMemory, Trace

BATCH = 25


@dataclass(frozen=True)
class Measured:
    """One arithmetic on a set of images, beside the exact one.

    Attributes:
        paired: accuracy against the exact network, which is the first of the two.
        differing: for each layer after the first, the share of its input codes that differ.
        sparsity: share of the gated layers' outputs with mask 0, counted by outputs.
        proved_equal: images that were not run, as no partial sum of the exact run leaves the accumulator.
    """

    paired: Paired
    differing: Mapping[str, float]
    sparsity: float
    proved_equal: int

    @property
    def first_differing(self) -> tuple[str, float] | None:
        """The first layer that reads another code, and the share of them."""
        return next(((name, share) for name, share in self.differing.items() if share), None)

    @property
    def last_share(self) -> float:
        """Share of the last layer's input codes that differ."""
        return [*self.differing.values()][-1]


@dataclass(frozen=True)
class PartialSums:
    """What a layer's accumulator held over the set, (least, largest), and the bits that any image's needs at most."""

    least: int
    largest: int
    proven_bits: int

    @property
    def bits(self) -> int:
        """Bits of two's complement that held every partial sum of the set."""
        return max(bits_needed(self.least), bits_needed(self.largest))


@dataclass(frozen=True)
class Survey:
    """A network under several arithmetics. `exact` is the network itself; every logit of it equals torch's."""

    exact: Measured
    options: Mapping[str, Measured]
    partial_sums: Mapping[str, PartialSums]


class _Counts:
    """Counts of one arithmetic, batch by batch."""

    def __init__(self, layers: int) -> None:
        self.labels: list[NDArray[np.int64]] = []
        self.differing, self.codes = np.zeros(layers, np.int64), np.zeros(layers, np.int64)
        self.updated = self.outputs = self.proved_equal = 0

    def add(self, values: Values, exact: Values) -> None:
        self.labels.append(labels_of(values.logits))
        for number, (ours, theirs) in enumerate(zip(values.layers, exact.layers, strict=True)):
            if ours is not theirs:
                self.differing[number] += np.count_nonzero(ours.activation != theirs.activation)
            self.codes[number] += theirs.activation.size
            if ours.mask is not None:
                self.updated += int(np.count_nonzero(ours.mask))
                self.outputs += ours.mask.size

    def measured(self, exact: NDArray[np.int64], truth: NDArray[np.int64], names: list[str]) -> Measured:
        labels = np.concatenate(self.labels)
        right, exact_right = labels == truth, exact == truth
        paired = Paired(
            images=len(truth),
            right=int(exact_right.sum()),
            other_right=int(right.sum()),
            only_first=int((exact_right & ~right).sum()),
            only_second=int((right & ~exact_right).sum()),
            changed=int((labels != exact).sum()),
        )
        shares = (self.differing / self.codes).tolist()
        sparsity = 1.0 - self.updated / self.outputs if self.outputs else 0.0
        return Measured(paired, dict(zip(names[1:], shares[1:], strict=True)), sparsity, self.proved_equal)


def survey(
    net: FrozenNet,
    images: Images,
    options: Mapping[str, Arithmetic],
    word: int,
    report: Callable[[int], None] = lambda _: None,
) -> Survey:
    """Run every image through the exact network and through each arithmetic of `options`.

    An arithmetic that only has a narrower accumulator is not run on images whose exact partial sums, in words of `word`
    channels, fit it. `report` takes the number of images done. Raises MismatchError where the exported layers' logits
    are not torch's, InputError for an arithmetic that the network cannot be written in.
    """
    network = exported(net)
    names = [layer.name for layer in network.layers]
    runs = {name: (rewritten(network, x).layers, engine_of(x.accumulator)) for name, x in options.items()}
    counts = {name: _Counts(len(names)) for name in options}
    exact_counts = _Counts(len(names))
    known = [(0, 0)] * len(names)
    for start in range(0, len(images), BATCH):
        codes = image_codes(images.pixels[start : start + BATCH])
        exact = run_layers(network.layers, codes.astype(np.int16))
        wrong = np.flatnonzero((exact.logits != run_exact(net, codes).logits).any(axis=1))
        if wrong.size:
            raise MismatchError(
                f"image {start + wrong[0]}: logits of the exported layers must be torch's, not {exact.logits[wrong[0]]}"
            )
        exact_counts.add(exact, exact)
        known = [
            partial_sums(layer, tensors.activation, word, so_far)
            for layer, tensors, so_far in zip(network.layers, exact.layers, known, strict=True)
        ]
        widest = max(bits_needed(end) for ends in known for end in ends)
        for name, (layers, engine) in runs.items():
            if _fits(options[name], word, widest):
                counts[name].proved_equal += len(codes)
                counts[name].add(exact, exact)
            else:
                counts[name].add(run_layers(layers, codes.astype(np.int16), engine), exact)
        report(start + len(codes))
    labels = np.concatenate(exact_counts.labels)
    sums = zip(network.layers, known, strict=True)
    return Survey(
        exact_counts.measured(labels, images.labels, names),
        {name: count.measured(labels, images.labels, names) for name, count in counts.items()},
        {layer.name: PartialSums(*ends, _proven(layer)) for layer, ends in sums},
    )


def _fits(arithmetic: Arithmetic, word: int, widest: int) -> bool:
    """Tell whether an arithmetic is exact but for an accumulator that holds sums of `widest` bits."""
    register = arithmetic.accumulator
    if register is None or register.word != word or register.psum_bits < widest:
        return False
    return arithmetic == Arithmetic(accumulator=register)


def _proven(layer: Layer) -> int:
    return proven_bits(layer.weight, min(layer.act.min_code, 0), layer.act.max_code)


def option_trace(net: FrozenNet, codes: NDArray[np.int8], arithmetic: Arithmetic, info: Mapping[str, object]) -> Trace:
    """Return the trace of image codes int8 [N, 3, 32, 32] through a network in another arithmetic.

    `predictions` are added to `info`. Raises InputError for an accumulator: a trace records exact sums.
    """
    if arithmetic.accumulator is not None:
        raise InputError("a trace must record exact sums, not those of an accumulator that saturates or wraps")
    layers = rewritten(exported(net), arithmetic).layers
    values = run_layers(layers, codes.astype(np.int16))
    predictions = labels_of(values.logits).tolist()
    return Trace(layers, len(codes), InMemory(values.layers), {**info, "predictions": predictions})
