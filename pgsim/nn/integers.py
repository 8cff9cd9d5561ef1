"""Run a model so that codes follow from integers wherever its layers are linked, as a trace's network computes them.

    codes --integer sums--> A --(max-pool)--> thresholds --> codes --times step--> readers, through what moves elements
                            `--torch's own functions--> everything that no link feeds

Thresholds are bisected on the float64 function of the steps between: what it gives is the integer network's code, and
torch's float32 may round a few to the other side. Those are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pgsim.arith import post
from pgsim.arith.formats import Encoding
from pgsim.arith.overflow import bits_needed, reachable
from pgsim.arith.thresholds import bisect_thresholds
from pgsim.nn.calibrate import each_batch, looking, run_model
from pgsim.nn.codes import max_magnitude, split_codes, weight_codes
from pgsim.nn.functional import gated_phases
from pgsim.nn.graph import GraphRun
from pgsim.nn.layers import CodedLayer, QuantConv2d, coded_layers
from pgsim.nn.links import Bound, Link, Links, Norm, Pool, Step, find_links
from pgsim.nn.product import Product, exact_dtype, exact_sum
from pgsim.workload.layer import FixedPoint, MaxPool, PostStep, Requantise, SaveShortcut

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LayerSums:
    """One call of a layer: codes with their border, weights and their step, exact sums A and mask, as torch has them.

    `weight_step` float64 [1] or [K]; `mask` is None for a dense layer.
    """

    layer: CodedLayer
    codes: Tensor
    weight: Tensor
    weight_step: Tensor
    act_step: float
    output: Tensor
    mask: Tensor | None


@dataclass
class Compared:
    """Codes that links gave, how many of them torch's float32 functions give otherwise, and the largest difference."""

    codes: int = 0
    differing: int = 0
    largest: int = 0

    def as_info(self) -> dict[str, int]:
        """Return plain values for a trace's metadata."""
        return {"count": self.differing, "of": self.codes, "largest": self.largest}


@dataclass(frozen=True)
class Threshold:
    """What follows a layer's sums up to the codes of one link: its steps, codes' name included, in trace order."""

    before_pool: tuple[PostStep, ...]
    step: Requantise

    @property
    def steps(self) -> tuple[PostStep, ...]:
        """All steps."""
        return (*self.before_pool, self.step)

    def codes(self, sums: Ints) -> Ints:
        """Return the codes of sums int64 [N, K, P, Q]."""
        for each in self.before_pool:
            if isinstance(each, FixedPoint):
                sums = post.fixed_point(sums, each.multiplier, each.bias, each.shift)
            elif isinstance(each, MaxPool):
                sums = post.max_pool(sums, each.kernel, each.stride, each.padding)
        return post.requantise(sums, self.step.threshold, self.step.direction, self.step.base)


def layer_sums(layer: CodedLayer, codes: Tensor, weight: Tensor, act_step: float, product: Product) -> LayerSums:
    """Compute a layer's integers from its codes, as pgsim.nn.functional does."""
    w_codes, w_step = weight_codes(weight, layer.weights)
    act, mask = layer.quantiser().format, None
    if layer.gating is None or layer.delta is None:
        output = exact_sum(product, codes, w_codes, exact_dtype(w_codes, max_magnitude(act)))
    else:
        planes = split_codes(codes, act.encoding, layer.gating.update_bits(act.bits))
        phases = gated_phases(product, planes, (w_codes, w_step), layer.delta, act_step, act, layer.gating)
        output, mask = phases.a, phases.mask
    return LayerSums(layer, codes, w_codes, w_step, act_step, output, mask)


class IntegerRun:
    """A model and its links; `look` is called with (path, sums) for every layer as it runs.

    `thresholds` has what follows a link's sums, from its first use on; scales, norms and weights must stay as they are.
    """

    def __init__(self, model: nn.Module, look: Callable[[str, LayerSums], None] = lambda path, sums: None) -> None:
        self.model, self.look = model, look
        self.links: Links | None = None
        self.thresholds: dict[Link, Threshold] = {}
        self.compared = Compared()
        self._sums: dict[str, LayerSums] = {}
        self._reach: dict[str, tuple[Ints, Ints]] = {}
        self._kinds: tuple[type, ...] | None = None
        self._needed: set[str] = set()

    def __call__(self, inputs: Any) -> Any:
        """Run the model in evaluation mode, without gradients, and return what it returns.

        The first call, and one whose arguments are of other kinds than the last one's, also finds the links.
        """
        kinds = tuple(map(type, inputs)) if isinstance(inputs, tuple) else (type(inputs),)
        if kinds != self._kinds:
            self._kinds, self.links, self.thresholds = kinds, find_links(self.model, inputs), {}
            self._needed = {link.producer for link in self.links.all} if self.links else set()
        layers = coded_layers(self.model)
        with looking(self.model), torch.no_grad():
            for path, layer in layers.items():
                layer.watch = self._watch(path)
            try:
                if self.links is None or not self.links.edges:
                    return run_model(self.model, inputs)
                args = inputs if isinstance(inputs, tuple) else (inputs,)
                return _Interpreter(self.model, self.links, self._linked).run(*args)
            finally:
                self._sums.clear()
                for layer in layers.values():
                    layer.watch = None

    def post(self, path: str) -> tuple[PostStep, ...]:
        """Return the steps that follow the sums of a layer that ran: () where they leave as they are."""
        mine = [self.thresholds[link] for link in self.thresholds if link.producer == path]
        if not mine:
            return ()
        assert self.links is not None
        sums = (self._raw_sums(path),) if path in self.links.raw else ()
        pooled = [each for each in mine if each.before_pool]
        at_once = [each.step for each in mine if not each.before_pool]
        return (*sums, *at_once, *(pooled[0].before_pool if pooled else ()), *(each.step for each in pooled))

    def input_name(self, path: str) -> str | None:
        """Return the name of the codes that feed a layer, None where they are recorded."""
        return next((t.step.name for link, t in self.thresholds.items() if path in link.readers), None)

    def _watch(self, path: str) -> Callable[[CodedLayer, Tensor, Tensor, float, Product], None]:
        def watch(layer: CodedLayer, codes: Tensor, weight: Tensor, act_step: float, product: Product) -> None:
            sums = layer_sums(layer, codes, weight, act_step, product)
            if path in self._needed:
                self._sums[path] = sums
            self.look(path, sums)

        return watch

    def _linked(self, link: Link, real: Tensor) -> Tensor:
        """Return codes * step in the place of the real value that torch computed; count where its codes differ."""
        floats = link.quantiser.codes(real)
        sums = self._sums[link.producer]
        if link not in self.thresholds:
            reach = self._reach.setdefault(link.producer, _reach(sums))
            self.thresholds[link] = _threshold(link, sums, reach, self._name(link))
        codes = self.thresholds[link].codes(_as_map(sums))
        if not isinstance(sums.layer, QuantConv2d):
            codes = codes[:, :, 0, 0]
        exact = torch.from_numpy(codes.reshape(tuple(real.shape))).to(real.device, real.dtype)
        difference = (floats - exact).abs()
        self.compared.codes += difference.numel()
        self.compared.differing += int(torch.count_nonzero(difference))
        if difference.numel():
            self.compared.largest = max(self.compared.largest, int(difference.max()))
        return exact * link.quantiser.step

    def _name(self, link: Link) -> str:
        before = [x for x in self.thresholds if x.producer == link.producer and bool(x.readers) == bool(link.readers)]
        return f"{link.producer}.{'codes' if link.readers else 'stored'}{len(before) + 1 if before else ''}"

    def _raw_sums(self, path: str) -> SaveShortcut:
        """Keep the sums for whoever needs the real output, in the bits that they can need."""
        low, high = self._reach[path]
        return SaveShortcut(f"{path}.sums", max(bits_needed(int(low.min())), bits_needed(int(high.max()))), signed=True)


def run_integers(model: nn.Module, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield what `model` returns for each batch (a tensor, or a tuple of arguments) where linked codes are exact.

    That is the function which a trace of the model computes: integers between recorded boundaries, torch's own
    functions elsewhere. The layers count their outputs no more than in `trace`. Raises TypeError for one tensor in the
    place of `batches`.
    """
    run = IntegerRun(model)
    for batch in each_batch(batches):
        yield run(batch)


class _Interpreter(GraphRun):
    """Runs the graph; a linked user of a value gets what `linked` gives instead, once a link."""

    def __init__(self, model: nn.Module, links: Links, linked: Callable[[Link, Tensor], Tensor]) -> None:
        super().__init__(model, links.graph, links.constants)
        self.links, self.linked = links, linked
        self.values: dict[Link, Tensor] = {}

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        return fx.node.map_arg(args, lambda source: self._value(source, n))

    def _value(self, source: fx.Node, user: fx.Node) -> Any:
        link = self.links.edges.get((source, user))
        if link is None:
            return self.env[source]
        if link not in self.values:
            self.values[link] = self.linked(link, self.env[source])
        return self.values[link]


def _as_map(sums: LayerSums) -> Ints:
    """Sums [N, K, P, Q], or [..., K] of a linear layer, as int64 [N, K, P, Q]."""
    whole = sums.output.to("cpu", torch.int64).numpy()
    return whole if isinstance(sums.layer, QuantConv2d) else whole.reshape(-1, whole.shape[-1], 1, 1)


def _reach(sums: LayerSums) -> tuple[Ints, Ints]:
    """Return the least and the largest sum of each channel, int64 [K] each.

    They bound a gated layer, too: its high plane alone stands for codes between 0 and the code, or for the lowest one.
    """
    act = sums.layer.quantiser().format
    return reachable(sums.weight.cpu().numpy().astype(np.int64), act.min_code, act.max_code)


def _threshold(link: Link, sums: LayerSums, reach: tuple[Ints, Ints], name: str) -> Threshold:
    """Bisect the thresholds of a link on the sums within `reach`."""
    form = link.quantiser.format
    base = 0 if form.encoding is Encoding.UNSIGNED else -form.max_code
    functions, sign, sign_at_pool, pool = _float64_steps(link.steps, sums)
    least, largest = reach
    low, high = np.where(sign < 0, -largest, least), np.where(sign < 0, -least, largest)
    factor = form.max_code / link.quantiser.clip

    def codes_of(turned: Floats) -> Floats:
        y = turned * sign[:, None]
        for function in functions:
            y = function(y)
        return np.clip(np.rint(y * factor), base, form.max_code) - base

    thresholds = bisect_thresholds(codes_of, low, high, form.max_code - base)
    before: tuple[PostStep, ...] = ()
    if pool is not None:
        before = (MaxPool(pool.kernel, pool.stride, pool.padding),)
        if (sign_at_pool < 0).any():
            before = (FixedPoint(sign_at_pool.astype(np.int64), np.zeros(1, np.int64), 0), *before)
            sign = sign * sign_at_pool
    return Threshold(before, Requantise(name, form, thresholds, sign.astype(np.int8), base))


def _float64_steps(
    steps: tuple[Step, ...], sums: LayerSums
) -> tuple[list[Callable[[Floats], Floats]], Floats, Floats, Pool | None]:
    """Return the steps as functions of [K, ...] sums, the sign of the whole and up to the pool, [K], and the pool."""
    channels = len(sums.weight)
    bias = getattr(sums.layer, "bias", None)
    unit = sums.act_step * np.broadcast_to(sums.weight_step.cpu().numpy(), channels)
    functions = [_affine(unit, np.zeros(channels) if bias is None else _float64(bias))]
    sign, sign_at_pool, pool = np.ones(channels), np.ones(channels), None
    for step in steps:
        if isinstance(step, Norm):
            slope, offset = _norm(step.module)
            functions.append(_affine(slope, offset))
            sign = np.where(slope < 0, -sign, sign)
        elif isinstance(step, Bound):
            functions.append(_bound(step))
        elif isinstance(step, Pool):
            sign_at_pool, pool = sign, step
    return functions, sign, sign_at_pool, pool


def _affine(slope: Floats, offset: Floats) -> Callable[[Floats], Floats]:
    return lambda y: y * slope[:, None] + offset[:, None]


def _bound(step: Bound) -> Callable[[Floats], Floats]:
    return lambda y: np.clip(y, step.low, step.high)


def _norm(module: nn.BatchNorm2d) -> tuple[Floats, Floats]:
    """Return slope and offset of batch norm in evaluation mode, float64 [K]."""
    assert module.running_mean is not None
    assert module.running_var is not None
    mean, variance = _float64(module.running_mean), _float64(module.running_var)
    gamma = np.ones_like(mean) if module.weight is None else _float64(module.weight)
    beta = np.zeros_like(mean) if module.bias is None else _float64(module.bias)
    slope = gamma / np.sqrt(variance + module.eps)
    return slope, beta - mean * slope


def _float64(tensor: Tensor) -> Floats:
    values: Floats = tensor.detach().cpu().double().numpy()
    return values
