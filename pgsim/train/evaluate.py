"""Measure a trained network on a labelled set: accuracy and sparsity in integers, and where floats differ."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pgsim.model.inference import logits_of
from pgsim.train.data import Images, as_tensor, image_codes
from pgsim.train.exact import ExactRun, run_exact
from pgsim.train.export import integer_layers
from pgsim.train.frozen import FrozenConv, FrozenNet
from pgsim.train.network import PGResNet

BATCH = 50
IMAGE_SIZE = 32

MeasuredBatch = tuple[NDArray[np.int8], ExactRun, int]


@dataclass(frozen=True)
class LayerSparsity:
    """A layer's counts over the set: outputs, those updated (of a dense layer all), and MACs of one output."""

    name: str
    outputs: int
    updated: int
    macs_per_output: int

    @property
    def sparsity(self) -> float:
        """Share of outputs with mask 0."""
        return 1.0 - self.updated / self.outputs


@dataclass(frozen=True)
class Report:
    """What was measured on a set.

    Attributes:
        images, right: size of the set and labels that the integer network gets right.
        act_bits, pred_bits: B and B_hb.
        layers: each gated layer's counts.
        dense: those of the other convolutions at B bits; the stem is none of them.
        differing: ascending indices of images whose label differs between the integer network and the float32
            fake-quantised one (running batch-norm statistics, residual stream in float).
        float_right: labels that the float32 fake-quantised network gets right.
        logits_equal: images whose every logit the exported layers give as torch's integer network does.
        anew: an update computes all B bits anew (SeerNet), not the B - B_hb that are left.
    """

    images: int
    right: int
    act_bits: int
    pred_bits: int
    layers: tuple[LayerSparsity, ...]
    dense: tuple[LayerSparsity, ...]
    differing: tuple[int, ...]
    float_right: int
    logits_equal: int
    anew: bool = False

    @property
    def top1(self) -> float:
        """Accuracy of the integer network in percent."""
        return 100.0 * self.right / self.images

    @property
    def sparsity(self) -> float:
        """Share of the gated layers' outputs with mask 0, counted over all outputs (as the paper prints it)."""
        return sparsity_of(self.layers)

    @property
    def mac_sparsity(self) -> float:
        """The same share weighted by MACs: the part of the update phase's MACs that is skipped."""
        return sparsity_of(self.layers, by_macs=True)

    def b_avg(self, *, gated_only: bool, by_macs: bool) -> float:
        """Return B_avg of the gated convolutions, or of all but the stem (`average_bits`)."""
        dense = () if gated_only and self.layers else self.dense
        return average_bits(self.layers, dense, self.act_bits, self.pred_bits, anew=self.anew, by_macs=by_macs)

    def as_info(self, whole_set: bool) -> dict[str, object]:
        """Return the report as plain values for a trace's metadata; accuracies and sparsities in percent.

        Without `whole_set` there is no key `top1`, which stands for the full test set, but `top1_of_evaluated`.
        """
        return {
            "top1" if whole_set else "top1_of_evaluated": round(self.top1, 4),
            **(gating_info(self.layers, self.dense, self.act_bits, self.pred_bits, self.anew) if self.layers else {}),
            "evaluated_images": self.images,
            "images_with_all_logits_equal": self.logits_equal,
            "float32_top1": round(100.0 * self.float_right / self.images, 4),
            "float32_label_differences": {"count": len(self.differing), "images": list(self.differing)},
        }


def gating_info(
    gated: Sequence[LayerSparsity], dense: Sequence[LayerSparsity], act_bits: int, pred_bits: int, anew: bool
) -> dict[str, object]:
    """Return sparsities (percent) and average bits of a network with gated layers, as a trace's metadata have them."""
    return {
        "sparsity_percent": round(100 * sparsity_of(gated), 3),
        "mac_sparsity_percent": round(100 * sparsity_of(gated, by_macs=True), 3),
        "layer_sparsity_percent": {x.name: round(100 * x.sparsity, 3) for x in gated},
        "b_avg_bits": {
            f"{'gated' if only else 'all'}_by_{'macs' if macs else 'outputs'}": round(
                average_bits(gated, () if only else dense, act_bits, pred_bits, anew=anew, by_macs=macs), 4
            )
            for only in (True, False)
            for macs in (False, True)
        },
    }


def average_bits(
    gated: Sequence[LayerSparsity],
    dense: Sequence[LayerSparsity],
    act_bits: int,
    pred_bits: int,
    *,
    anew: bool,
    by_macs: bool,
) -> float:
    """Return B_avg over these layers, each output counted once or by its MACs; a dense one has B bits.

    A gated one has B_hb + (1 - Sp) (B - B_hb) (equation 8), or B_hb + (1 - Sp) B where an update begins `anew`.
    """
    more = act_bits if anew else act_bits - pred_bits
    bits = [(x, x.outputs * pred_bits + x.updated * more) for x in gated]
    bits += [(x, x.outputs * act_bits) for x in dense]
    weighted = [(x.macs_per_output if by_macs else 1, x.outputs, count) for x, count in bits]
    return sum(w * count for w, _, count in weighted) / sum(w * outputs for w, outputs, _ in weighted)


def sparsity_of(layers: Sequence[LayerSparsity], by_macs: bool = False) -> float:
    """Return the share of the layers' outputs with mask 0, each output counted once or by its MACs; 0 of no layers."""
    weighted = [(x.macs_per_output if by_macs else 1, x) for x in layers]
    total = sum(weight * x.outputs for weight, x in weighted)
    return 1.0 - sum(weight * x.updated for weight, x in weighted) / total if total else 0.0


def labels_of(logits: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the first largest logit's class of each row, int64 [N]."""
    return np.argmax(logits, axis=1)


@torch.no_grad()
def measure(
    net: PGResNet,
    frozen: FrozenNet,
    images: Images,
    report: Callable[[int], None] = lambda _: None,
    *,
    anew: bool = False,
) -> Report:
    """Run every image through torch's integer network, the exported layers and the float32 fake-quantised network.

    Integers run in batches side by side, on as many threads as torch has; the report does not depend on their number.
    `report` takes the number of images done. `anew`: an update counts all B bits (SeerNet).
    """
    logits_equal = 0
    net.eval()
    gated = [c for c in frozen.convs if c.threshold is not None]
    updated, outputs = np.zeros(len(gated), np.int64), np.zeros(len(gated), np.int64)
    exact: list[NDArray[np.int64]] = []
    floats: list[NDArray[np.int64]] = []
    with closing(_integer_runs(frozen, images)) as runs:
        for codes, run, equal in runs:
            updated += np.array(run.updated, np.int64)
            outputs += np.array(run.outputs, np.int64)
            logits_equal += equal
            exact.append(labels_of(run.logits))
            floats.append(labels_of(net.fake_quantised(as_tensor(codes)).numpy()))
            report(sum(map(len, exact)))
    integer_labels, float_labels = np.concatenate(exact), np.concatenate(floats)
    layers = (
        LayerSparsity(c.name, int(n), int(u), _macs_per_output(c))
        for c, n, u in zip(gated, outputs, updated, strict=True)
    )
    return Report(
        images=len(images),
        right=int((integer_labels == images.labels).sum()),
        act_bits=frozen.act_bits,
        pred_bits=frozen.pred_bits,
        layers=tuple(layers),
        dense=tuple(_dense_layers(frozen, len(images))),
        differing=tuple(np.flatnonzero(integer_labels != float_labels).tolist()),
        float_right=int((float_labels == images.labels).sum()),
        logits_equal=logits_equal,
        anew=anew,
    )


def _integer_runs(frozen: FrozenNet, images: Images) -> Generator[MeasuredBatch, None, None]:
    """Yield each batch's image codes, its run through torch's integer network, and how many of its images have every
    logit alike in the exported layers.

    Closed, it drops the batches that have not begun. Meanwhile torch and numpy's BLAS, whose threads would wait for
    each other on cores that batches want, have one thread in each of its own.
    """
    layers = integer_layers(frozen)

    def run_batch(start: int) -> MeasuredBatch:
        codes = image_codes(images.pixels[start : start + BATCH])
        run = run_exact(frozen, codes)
        exported = logits_of(layers, codes.astype(np.int16))["logits"].reshape(run.logits.shape)
        return codes, run, int((exported == run.logits).all(axis=1).sum())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            yield from pool.map(run_batch, range(0, len(images), BATCH))
    finally:
        torch.set_num_threads(threads)


def _dense_layers(frozen: FrozenNet, images: int) -> Iterator[LayerSparsity]:
    size = IMAGE_SIZE
    for conv in frozen.convs:
        size //= conv.stride
        if conv.threshold is None and conv.name != "stem":
            outputs = images * len(conv.weight) * size * size
            yield LayerSparsity(conv.name, outputs, outputs, _macs_per_output(conv))


def _macs_per_output(conv: FrozenConv) -> int:
    return int(np.prod(conv.weight.shape[1:]))
