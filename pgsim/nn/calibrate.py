"""Choose scales and thresholds from data: what training starts from, and the static scales that a trace needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.arith.formats import Encoding
from pgsim.nn.codes import split_codes, weight_codes
from pgsim.nn.functional import gated_phases
from pgsim.nn.layers import CodedLayer, coded_layers
from pgsim.nn.product import Product
from pgsim.nn.quantisers import Pact, Quantiser

SCOPES = ("channel", "layer")
STATIC = ("max", "least_squares", "keep")
CLIP_SHARES = tuple(0.15 + 0.025 * step for step in range(35))
"""Shares of the largest value that are tried as a PACT clip."""
EMPTY = "batches must hold at least one value for each layer, not an empty tensor"


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    sparsity: float | None = None,
    scope: Literal["channel", "layer"] = "layer",
    pact: bool = True,
    static: Literal["max", "least_squares", "keep"] = "max",
) -> None:
    """Set the model's scales, and with `sparsity` its thresholds, from `batches`; the model runs in evaluation mode.

    With `pact`, a PACT clip becomes the mean over batches of the clip with the least squared error (over those with a
    value that has a code above 0; 1 without any); leave it False once clips are trained. A fixed scale becomes, by
    `static`, the largest input of all batches (the largest |input| where codes are signed), such a mean of the bounds
    with the least squared error, or stays; one that is `fixed` stays anyway. Where `sparsity` is given (0 .. 1),
    thresholds are placed so that at least that share of the prediction-phase outputs over all batches is not updated,
    per output channel or per layer. Later layers see what the earlier ones give with the values found so far.

    Args:
        batches: tensors, or tuples of positional arguments of the model; at least one.

    Counts (`outputs`, `updated`) are left as they were. Raises ValueError for no batches, an empty one, a sparsity
    outside 0 .. 1, a word that `scope` or `static` does not know, and, with its path, for a quantiser or gated layer
    that did not run (its scale and thresholds would stay as they are); TypeError for a batch that is a list and for
    one tensor in the place of `batches`.
    """
    if sparsity is not None and not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be 0 .. 1, not {sparsity}")
    for name, word, words in (("scope", scope, SCOPES), ("static", static, STATIC)):
        if word not in words:
            raise ValueError(f"{name} must be {', '.join(words)}, not {word!r}")
    kept = list(each_batch(batches))
    if not kept:
        raise ValueError("batches must hold at least one batch, not 0")
    watch = _Scales(static)
    moved = [m for m in model.modules() if isinstance(m, Quantiser) and not m.fixed]
    moved = [m for m in moved if (pact if isinstance(m, Pact) else static != "keep")]
    with looking(model), torch.no_grad():
        for quantiser in moved:
            quantiser.watch = watch
        try:
            _run(model, kept if moved else [])
        finally:
            for quantiser in moved:
                quantiser.watch = None
        _refuse_unreached(model, [quantiser for quantiser in moved if id(quantiser) not in watch.seen])
        if sparsity is None:
            return
        layers = [layer for layer in coded_layers(model).values() if layer.gating is not None]
        watches = [_Thresholds(sparsity, scope) for _ in layers]
        for layer, each in zip(layers, watches, strict=True):
            layer.watch = each
        try:
            _run(model, kept)
        finally:
            for layer in layers:
                layer.watch = None
        _refuse_unreached(model, [layer for layer, each in zip(layers, watches, strict=True) if not each.seen])


def _refuse_unreached(model: nn.Module, unreached: Sequence[nn.Module]) -> None:
    """Raise ValueError with the path of the first of these modules, which did not run."""
    if unreached:
        path = next(path for path, module in model.named_modules() if module is unreached[0])
        raise ValueError(
            f"{path or 'model'}: must run on these batches in evaluation mode, not be passed by; "
            "leave a layer float that the model does not call (float_layers)"
        )


class _Scales:
    """Sets each quantiser's clip from all it has seen."""

    def __init__(self, static: str) -> None:
        self.static = static
        self.seen: dict[int, list[float]] = {}

    def __call__(self, quantiser: Quantiser, x: Tensor) -> None:
        if not x.numel():
            raise ValueError(EMPTY)
        seen = self.seen.setdefault(id(quantiser), [])
        values = x.clamp_min(0) if quantiser.format.encoding is Encoding.UNSIGNED else x.abs()
        if not isinstance(quantiser, Pact) and self.static == "max":
            seen.append(float(values.max()))
            quantiser.set_clip(max(seen) or 1.0)
            return
        if bool((values > 0).any()):  # else every clip has the same error, and none is the best
            seen.append(best_clip(values, quantiser.format.max_code))
        quantiser.set_clip(sum(seen) / len(seen) if seen else 1.0)


class Ranked:
    """Numbers to be asked for by rank: their sorted distinct values, and how often each came."""

    def __init__(self) -> None:
        self.values, self.counts = np.empty(0), np.empty(0, np.int64)

    def add(self, numbers: NDArray[np.float64]) -> None:
        values, counts = np.unique(numbers, return_counts=True)
        at = np.searchsorted(self.values, values)
        known = at < len(self.values)
        known[known] = self.values[at[known]] == values[known]
        self.counts[at[known]] += counts[known]
        self.values = np.insert(self.values, at[~known], values[~known])
        self.counts = np.insert(self.counts, at[~known], counts[~known])

    def at(self, rank: int) -> float:
        """Return the `rank`-th smallest number; the smallest is the first."""
        return float(self.values[np.searchsorted(self.counts.cumsum(), rank)])


class _Thresholds:
    """Sets one layer's thresholds from all prediction-phase outputs it has seen."""

    def __init__(self, sparsity: float, scope: str) -> None:
        self.sparsity, self.scope = sparsity, scope
        self.seen: list[Ranked] = []  # one of the layer, or of each channel

    def __call__(self, layer: CodedLayer, codes: Tensor, weight: Tensor, act_step: float, product: Product) -> None:
        if not codes.numel():
            raise ValueError(EMPTY)
        assert layer.gating is not None
        assert layer.delta is not None
        act = layer.quantiser().format
        update_bits = layer.gating.update_bits(act.bits)
        planes = split_codes(codes, act.encoding, update_bits)
        weights = weight_codes(weight, layer.weights)
        phases = gated_phases(product, planes, weights, layer.delta, act_step, act, layer.gating)
        unit = (phases.unit * 2.0**update_bits).expand(layer.delta.numel())
        real = phases.a_h.double() * product.along(unit)
        lines = product.by_channel(real).cpu().numpy() if self.scope == "channel" else [real.cpu().numpy()]
        self.seen = self.seen or [Ranked() for _ in lines]
        for ranked, line in zip(self.seen, lines, strict=True):
            ranked.add(line)
        rank = int(-(-self.sparsity * int(self.seen[0].counts.sum()) // 1))
        chosen = torch.tensor([ranked.at(max(rank, 1)) for ranked in self.seen], dtype=unit.dtype).to(unit.device)
        half = (unit if self.scope == "channel" else unit.min()) / 2
        delta = _above(chosen, half, layer.delta.dtype) if rank else chosen - half
        layer.delta.copy_(delta.expand(layer.delta.numel()))


def _above(stays: Tensor, margin: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `stays` (float64) + margin in another dtype, at least one step of its own above `stays`.

    So that no rounding, of Delta or of Delta divided by a unit, has an output of the value `stays` updated: the margin
    may be lost beside it, where the channels of a layer have units far apart.
    """
    above = torch.full_like(stays, torch.inf, dtype=dtype)
    return torch.maximum((stays + margin).to(dtype), stays.to(dtype).nextafter(above).nextafter(above))


def best_clip(values: Tensor, levels: int) -> float:
    """Return the clip in (0, max] with the least squared error of an unsigned quantiser of `levels` codes above 0."""
    top = float(values.max())
    if top <= 0:
        return 1.0
    positive = values.clamp_min(0)
    errors = []
    for share in CLIP_SHARES:
        clip = top * share
        quantised = torch.round(positive.clamp_max(clip) * (levels / clip)) * (clip / levels)
        errors.append((float((positive - quantised).square().mean()), clip))
    return min(errors)[1]


def each_batch(batches: Iterable[Any]) -> Iterable[Any]:
    """Return `batches`; raises TypeError for a tensor, which would be taken apart along its first dimension."""
    if isinstance(batches, Tensor):
        raise TypeError("batches must be a list of tensors or tuples ([x] for one), not a tensor")
    return batches


def run_model(model: nn.Module, inputs: Any) -> Any:
    """Call the model on a tensor, or on a tuple of positional arguments; raises TypeError for a list of them."""
    if isinstance(inputs, list):  # what a DataLoader yields, labels included
        raise TypeError("inputs must be a tensor, or a tuple of the model's positional arguments, not a list")
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _run(model: nn.Module, batches: list[Any]) -> None:
    for batch in batches:
        run_model(model, batch)


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode and give modes and counts back as they were."""
    modes = [(module, module.training) for module in model.modules()]
    counts = [(layer, layer.outputs, layer.updated) for layer in coded_layers(model).values()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for layer, outputs, updated in counts:
            layer.outputs, layer.updated = outputs, updated
