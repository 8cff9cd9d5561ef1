"""A model's graph by torch.fx, kept only where running it is running the model.

fx records what forward does with proxies for tensors. What it cannot see (hooks on the model, conditions on an
argument's type, a state that is kept from call to call, an alias of a value) may make the graph another function:
so both are run, and must give every layer the same codes, and the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pgsim.nn.calibrate import looking, run_model
from pgsim.nn.layers import CodedLayer, coded_layers
from pgsim.nn.quantisers import Quantiser

Edge = tuple[fx.Node, fx.Node]
"""A value and who reads it."""


class _Tracer(fx.Tracer):
    """Keeps layers and quantisers whole, as fx does torch's own modules."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, CodedLayer | Quantiser) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Followed:
    """A model's graph, tensors that forward made, and reads of values that were overwritten in between."""

    graph: fx.Graph
    constants: dict[str, Any]
    stale: frozenset[Edge]


def follow(model: nn.Module, inputs: Any) -> Followed | None:
    """Return the graph of `model` in evaluation mode, None where fx finds none or it is not what the model computes.

    The model's forward is called with proxies for tensors, then on the inputs (a tensor, or a tuple of positional
    arguments), and so is the graph; attributes and buffers of its modules are left as they were.
    """
    with looking(model), torch.inference_mode(False), torch.no_grad():
        return _follow(model, inputs)


def _follow(model: nn.Module, inputs: Any) -> Followed | None:
    before = set(vars(model))
    try:
        with _restored(model):
            graph = _Tracer().trace(model)
            constants = {name: vars(model)[name] for name in set(vars(model)) - before}
    except Exception:  # whatever a user's forward raises at a proxy: control flow on values, len, a foreign module
        return None
    with _restored(model) as state:
        wanted = _codes_of(model, lambda: run_model(model, _copied(inputs)))
        if state.changed():  # a graph keeps nothing of what it saw
            return None
    check = _Check(model, graph, constants)
    try:
        args = _copied(inputs)
        with _restored(model):
            found = _codes_of(model, lambda: check.run(*(args if isinstance(args, tuple) else (args,))))
        same = _alike(wanted, found)
    except Exception:  # forward asked something that a proxy answers otherwise, or returns what cannot be compared
        return None
    return Followed(graph, constants, frozenset(check.stale)) if same else None


def _codes_of(model: nn.Module, run: Callable[[], Any]) -> tuple[list[tuple[str, Tensor]], Any]:
    """Run; return the codes of every call of a layer, in order, and what `run` returned."""
    seen: list[tuple[str, Tensor]] = []
    layers = coded_layers(model)
    for path, layer in layers.items():
        layer.watch = lambda _layer, codes, *_, path=path: seen.append((path, codes))
    try:
        return seen, run()
    finally:
        for layer in layers.values():
            layer.watch = None


class GraphRun(fx.Interpreter):
    """Runs a model's graph; tensors that forward made are in `constants`, by the name that the graph has for them."""

    def __init__(self, model: nn.Module, graph: fx.Graph, constants: Mapping[str, Any]) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False  # errors of the model's modules stay as they are
        self.constants = constants

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.constants[target] if target in self.constants else super().get_attr(target, args, kwargs)


class _Check(GraphRun):
    """Notes in `stale` who reads a tensor that was overwritten since its node computed it, through an alias too."""

    def __init__(self, model: nn.Module, graph: fx.Graph, constants: Mapping[str, Any]) -> None:
        super().__init__(model, graph, constants)
        self.versions: dict[fx.Node, int] = {}
        self.stale: set[Edge] = set()

    def run_node(self, n: fx.Node) -> Any:
        for source in n.all_input_nodes:
            if source in self.versions and self.versions[source] != self.env[source]._version:
                self.stale.add((source, n))
        result = super().run_node(n)
        if isinstance(result, Tensor) and not result.is_inference():
            self.versions[n] = result._version
        return result


def _copied(inputs: Any) -> Any:
    if isinstance(inputs, tuple):
        return tuple(_copied(each) for each in inputs)
    return inputs.clone() if isinstance(inputs, Tensor) else inputs


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two results are equal to the bit, whatever holds their tensors; NaN is unlike itself."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return _alike(vars(one), vars(other)) if hasattr(one, "__dict__") else bool(one == other)


class _State:
    """The attributes of a model's modules and the values of its buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.attributes = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
        buffers = [buffer for buffer in model.buffers() if not buffer.is_inference()]
        self.buffers = [(buffer, buffer._version, buffer.clone()) for buffer in buffers]

    def changed(self) -> bool:
        """Tell whether the model keeps something that it did not have; the counts of layers are none of it."""
        return any(buffer._version != version for buffer, version, _ in self.buffers) or any(
            not _same_objects(vars(module), named) or not _same_objects(module._buffers, held)
            for module, named, held in self.attributes
            if not isinstance(module, CodedLayer)
        )

    def restore(self) -> None:
        """Give everything back as it was."""
        for module, named, held in self.attributes:
            for mine, kept in ((vars(module), named), (module._buffers, held)):
                mine.clear()
                mine.update(kept)
        for buffer, version, value in self.buffers:
            if buffer._version != version:
                buffer.copy_(value)


def _same_objects(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)


@contextmanager
def _restored(model: nn.Module) -> Iterator[_State]:
    state = _State(model)
    try:
        yield state
    finally:
        state.restore()
