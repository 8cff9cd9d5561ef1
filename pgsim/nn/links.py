"""Find where a coded layer's sums become the codes of others: torch.fx's graph of the model, walked from each layer.

    layer --bias, norm, ReLU, max-pool, flatten--> layer            linked: thresholds on the sums give its codes
    layer --the same--> value --concat, slices, shuffle--> readers  stored: codes that readers of one format find there
    layer --> anything else: an addition, a mean, the output        raw: its sums leave as they are

Only what is a function of one channel, monotone in the sum, stands on the way to codes; it commutes with moving
elements, so that codes may be stored before a concatenation. Where fx cannot follow the model nothing is found.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from pgsim.arith.formats import NumberFormat
from pgsim.nn.graph import Edge, Followed, follow
from pgsim.nn.layers import CodedLayer, GatedConv2d, GatedLinear, QuantConv2d, QuantLinear, coded_layers
from pgsim.nn.quantisers import Pact, QuantiseInput, Quantiser


@dataclass(frozen=True)
class Norm:
    """y = gamma * (x - mean) / sqrt(variance + eps) + beta, of the module's running statistics."""

    module: nn.BatchNorm2d


@dataclass(frozen=True)
class Bound:
    """y = min(max(x, low), high)."""

    low: float
    high: float


@dataclass(frozen=True)
class Pool:
    """The maximum of each window; padding (top, bottom, left, right) never wins."""

    node: fx.Node
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class Flat:
    """[N, C, H, W] to [N, C * H * W]."""


Step = Norm | Bound | Pool | Flat

RELU = Bound(0.0, float("inf"))
RELU6 = Bound(0.0, 6.0)
CHAINED = (QuantConv2d, GatedConv2d, QuantLinear, GatedLinear)
QUANTISERS = (Pact, QuantiseInput)
KEEPS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # in evaluation mode
MOVES_MODULES = (*KEEPS, nn.Flatten, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle, nn.MaxPool2d)
MOVES_FUNCTIONS = (
    torch.cat, torch.concat, torch.stack, torch.chunk, torch.split, torch.flatten, torch.reshape, torch.transpose,
    torch.permute, torch.squeeze, torch.unsqueeze, torch.channel_shuffle, F.channel_shuffle, operator.getitem,
)  # fmt: skip
MOVES_METHODS = (
    "chunk", "split", "flatten", "reshape", "view", "transpose", "permute", "squeeze", "unsqueeze", "contiguous",
)  # fmt: skip
SHAPE_METHODS = ("size", "dim", "numel")
SHAPE_ATTRIBUTES = ("shape", "ndim", "dtype", "device")


@dataclass(eq=False)
class Link:
    """Sums of the layer `producer` that become codes of `quantiser` through `steps`, from the value of `source` on.

    `readers` are the layers whose codes these are; none where the codes are stored for readers behind a concatenation.
    """

    producer: str
    source: fx.Node
    steps: tuple[Step, ...]
    quantiser: Quantiser
    readers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Links:
    """A model's graph, the link of every (value, user) whose codes follow from integers, and layers with raw sums.

    `raw` holds layers whose real output something else needs, too; `constants` tensors that forward made, by the name
    that the graph has for them.
    """

    graph: fx.Graph
    constants: dict[str, Any]
    edges: dict[Edge, Link]
    raw: frozenset[str]

    @property
    def all(self) -> list[Link]:
        """Every link once, producers in the order in which they run."""
        return list(dict.fromkeys(self.edges.values()))


def find_links(model: nn.Module, inputs: Any) -> Links | None:
    """Return the links of `model` as it is now (scales set, evaluation mode), None where fx cannot follow it.

    See `pgsim.nn.graph.follow`; a layer by itself has no links.
    """
    followed = None if isinstance(model, CodedLayer) else follow(model, inputs)
    return None if followed is None else _Walk(model, followed).links()


class _Walk:
    """Walks the graph from each layer that is called once."""

    def __init__(self, model: nn.Module, followed: Followed) -> None:
        self.modules = dict(model.named_modules())
        self.paths = {id(layer): path for path, layer in coded_layers(model).items()}
        self.graph, self.constants, self.stale = followed.graph, followed.constants, followed.stale
        self.calls = Counter(id(self.modules[str(n.target)]) for n in self.graph.nodes if n.op == "call_module")
        self.edges: dict[Edge, Link] = {}
        self.raw: set[str] = set()
        self.pools: dict[str, fx.Node] = {}

    def links(self) -> Links:
        """Walk from every layer."""
        for node in self.graph.nodes:
            layer = self._chained(node)
            if layer is not None:
                self._walk(self.paths[id(layer)], layer, node, ())
        return Links(self.graph, self.constants, self.edges, frozenset(self.raw))

    def _walk(self, path: str, layer: CodedLayer, value: fx.Node, steps: tuple[Step, ...]) -> None:
        """Follow the users of `value`, which `steps` make of the sums of `layer`."""
        users = [user for user in value.users if not _asks_shape(user)]
        if any((value, user) in self.stale for user in users):
            self.raw.add(path)  # what such a user sees is no longer what the steps give
            return
        others = []
        for user in users:
            reader = self._chained(user)
            further = self._further(path, layer, user, value, steps)
            if reader is not None and user.args == (value,) and _fits(layer, reader, steps):
                self._add(path, value, [user], steps, reader.quantiser(), [self.paths[id(reader)]])
            elif further is not None:
                self._walk(path, layer, user, (*steps, *further))
            else:
                others.append(user)
        if not others:
            return
        quantiser = self._behind(value, others)
        if quantiser is None:
            self.raw.add(path)
        else:
            self._add(path, value, others, steps, quantiser, [])

    def _add(
        self,
        path: str,
        value: fx.Node,
        users: Iterable[fx.Node],
        steps: tuple[Step, ...],
        quantiser: Quantiser,
        readers: list[str],
    ) -> None:
        """Add a link, or readers to one of the same value and format."""
        for link in set(self.edges.values()):
            if readers and link.readers and link.source is value and _same(link.quantiser, quantiser):
                link.readers += readers
                break
        else:
            link = Link(path, value, steps, quantiser, readers)
        for user in users:
            self.edges[value, user] = link

    def _chained(self, node: fx.Node) -> CodedLayer | None:
        """Return the layer that the node calls, if it may be part of a chain: called once, unhooked, its own class."""
        layer = self._module(node)
        if isinstance(layer, CodedLayer) and type(layer) in CHAINED and self.calls[id(layer)] == 1:
            return layer if type(layer.quantiser()) in QUANTISERS else None
        return None

    def _module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that the node calls, None where it calls none or forward hooks may change what it gives."""
        if node.op != "call_module" or node.kwargs:
            return None
        module = self.modules[str(node.target)]
        return None if module._forward_hooks or module._forward_pre_hooks else module

    def _further(
        self, path: str, layer: CodedLayer, user: fx.Node, value: fx.Node, steps: tuple[Step, ...]
    ) -> tuple[Step, ...] | None:
        """Return the steps that `user` takes on `value`, none for an identity; None where it does something else."""
        if user.all_input_nodes != [value] or not user.args or user.args[0] is not value:
            return None
        module, mapped = self._module(user), isinstance(layer, QuantConv2d) and Flat() not in steps
        if type(module) in KEEPS or _calls(user, (), ("contiguous",)):
            return ()
        if type(module) is nn.ReLU or _calls(user, (torch.relu, F.relu, torch.relu_), ("relu", "relu_")):
            return (RELU,)
        if type(module) is nn.ReLU6 or _calls(user, (F.relu6,), ()):
            return (RELU6,)
        if not mapped:
            return None
        if type(module) is nn.BatchNorm2d and module.running_mean is not None:
            return (Norm(module),)
        if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            return (Flat(),)
        if _calls(user, (torch.flatten,), ("flatten",)) and user.args[1:] == (1,) and not user.kwargs:
            return (Flat(),)
        pool = _pool(user, module) if type(module) is nn.MaxPool2d else None
        return (pool,) if pool is not None and self.pools.setdefault(path, user) is user else None

    def _behind(self, value: fx.Node, users: Iterable[fx.Node]) -> Quantiser | None:
        """Return the quantiser that all readers of `value` share behind what moves elements; None where one differs."""
        found: list[Quantiser] = []
        seen: set[Edge] = set()
        ahead = [(value, user) for user in users]
        while ahead:
            source, user = ahead.pop()
            if (source, user) in seen or _asks_shape(user):
                continue
            if (source, user) in self.stale:
                return None
            seen.add((source, user))
            quantiser = self._reads(user) if user.args == (source,) else None
            if quantiser is not None:
                found.append(quantiser)
            elif self._moves(source, user):
                ahead += [(user, further) for further in user.users]
            else:
                return None
        return found[0] if found and all(_same(found[0], each) for each in found) else None

    def _reads(self, node: fx.Node) -> Quantiser | None:
        """Return the quantiser through which a layer, or a quantiser by itself, reads its input."""
        module = self._module(node)
        if isinstance(module, CodedLayer):
            module = module.quantiser() if type(module) in CHAINED else None
        return module if isinstance(module, Quantiser) and type(module) in QUANTISERS else None

    def _moves(self, source: fx.Node, user: fx.Node) -> bool:
        """Tell whether `user` only moves the elements of its first argument, `source` or a list with it."""
        module = self._module(user)
        moves = type(module) in MOVES_MODULES or _calls(user, MOVES_FUNCTIONS, MOVES_METHODS)
        first = user.args[0] if user.args else None
        tensors = first if isinstance(first, list | tuple) else (first,)
        inside = any(each is source for each in tensors)
        if isinstance(module, nn.MaxPool2d) and module.return_indices:
            return False
        return moves and inside and not any(each is source for each in _nodes((user.args[1:], user.kwargs)))


def _fits(producer: CodedLayer, reader: CodedLayer, steps: tuple[Step, ...]) -> bool:
    """Tell whether a trace can feed `reader` with codes in the producer's layout."""
    mapped = isinstance(producer, QuantConv2d)
    return isinstance(reader, QuantConv2d) == (mapped and Flat() not in steps)


def _same(one: Quantiser, other: Quantiser) -> bool:
    return _spec(one) == _spec(other)


def _spec(quantiser: Quantiser) -> tuple[NumberFormat, float]:
    return quantiser.format, quantiser.clip


def _calls(node: fx.Node, functions: tuple[Any, ...], methods: tuple[str, ...]) -> bool:
    if node.op == "call_function":
        return any(node.target is function for function in functions)
    return node.op == "call_method" and node.target in methods


def _asks_shape(node: fx.Node) -> bool:
    """Tell whether a node reads a tensor's shape or type, not its values."""
    attribute = _calls(node, (getattr,), ()) and node.args[1] in SHAPE_ATTRIBUTES
    return attribute or _calls(node, (), SHAPE_METHODS)


def _nodes(arguments: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, found.append)
    return found


def _pool(node: fx.Node, module: nn.MaxPool2d) -> Pool | None:
    kernel, stride, padding, dilation = (
        _pair(value) for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    if dilation != (1, 1) or module.ceil_mode or module.return_indices:
        return None
    return Pool(node, kernel, stride, (padding[0], padding[0], padding[1], padding[1]))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
