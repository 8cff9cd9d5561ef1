"""Turn a float torch model into a quantised, precision-gated one by a recipe: weights copied, structure kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pgsim.arith.formats import Encoding, check_member
from pgsim.nn.calibrate import each_batch, looking, run_model
from pgsim.nn.codes import WeightFormat
from pgsim.nn.functional import Gating
from pgsim.nn.layers import CodedLayer, GatedConv2d, GatedLinear, QuantConv2d, QuantLinear
from pgsim.nn.quantisers import Pact, QuantiseInput, Quantiser
from pgsim.nn.recurrent import GatedLSTMCell, QuantLSTMCell

Fate = Literal["gated", "dense", "float"]
CONVERTIBLE = (nn.Conv2d, nn.Linear, nn.LSTMCell)
UNSUPPORTED = (nn.RNNBase, nn.RNNCell, nn.GRUCell)


@dataclass(frozen=True)
class Recipe:
    """How `convert` treats the Conv2d, Linear and LSTMCell modules of a model.

    Patterns are matched against module paths as in a shell ("layer1.*", "*.conv2"); the first of `float_layers`,
    `dense`, `gated` that matches decides, and a module that none matches stays float, unless it is the first or the
    last one.

    Attributes:
        act_bits: B, bits of activation codes.
        gating: pred_bits, policy and gradients of gated layers.
        weights: bits, encoding and scales of weights.
        gated, dense, float_layers: patterns of the layers that are gated, quantised without a gate, left as they are.
        first, last: what becomes of the first and the last convertible module, in the order in which the model has
            them, where no pattern but "*" names it; also where `gated` lacks "*".
        edge_bits: bits of activation codes of a dense first or last layer, named by `dense` or not.
        activation: "pact" gives inputs that are never negative a learned clip, "static" a fixed scale.
        signed: patterns of layers whose inputs may be negative; with examples `convert` finds them itself.
        encoding: of signed inputs.
        delta: thresholds to begin with, on the real output before the bias.
    """

    act_bits: int = 4
    gating: Gating = field(default_factory=lambda: Gating(2))
    weights: WeightFormat = field(default_factory=WeightFormat)
    gated: tuple[str, ...] = ("*",)
    dense: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    first: Fate = "dense"
    last: Fate = "dense"
    edge_bits: int = 8
    activation: Literal["pact", "static"] = "pact"
    signed: tuple[str, ...] = ()
    encoding: Encoding = Encoding.TWOS_COMPLEMENT
    delta: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gated", "dense", "float_layers", "signed"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a tuple of patterns, not a string: ({getattr(self, name)!r},)")
        for name, words in (("first", ("gated", "dense", "float")), ("last", ("gated", "dense", "float")),
                            ("activation", ("pact", "static"))):  # fmt: skip
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be {', '.join(words)}, not {getattr(self, name)!r}")
        check_member("encoding", self.encoding, Encoding)
        if self.encoding is Encoding.UNSIGNED:
            raise ValueError("encoding of signed inputs must be twos_complement or sign_magnitude, not unsigned")


def convert(model: nn.Module, recipe: Recipe, examples: Iterable[Any] | None = None) -> nn.Module:
    """Return a copy of `model` whose Conv2d, Linear and LSTMCell modules are quantised or gated by `recipe`.

    Weights, biases, devices, training modes and tied parameters are kept; `model` is not changed. With `examples`
    (tensors, or tuples of positional arguments) the float model is run on them first: a layer whose input was negative
    gets signed codes, as do those that `recipe.signed` names, and LSTM cells. Without them the first module does, which
    reads what the model is given. Clips are not set yet: `calibrate` does.

    Raises ValueError, with the module's path, for a pattern that matches no convertible module, padding other than
    zeros, parametrised weights, forward hooks, weights that are not float32 or float64, a module under two paths that
    the recipe treats differently, LSTM, GRU and RNN modules that are not left float, and bits that do not fit;
    TypeError for bits that are no integers, and for one tensor in the place of `examples`.
    """
    paths = _paths(model)
    fates = _fates(model, paths, recipe)
    named = {path for path in paths if _any(recipe.signed, path)}
    named |= set(paths[:1]) if examples is None else _negative(model, paths, examples)
    result = copy.deepcopy(model)
    modules = dict(result.named_modules(remove_duplicate=False))
    signed = {id(modules[path]) for path in named}
    made: dict[int, tuple[str, CodedLayer]] = {}
    for path, (fate, bits) in fates.items():
        if fate == "float":
            continue
        old = modules[path]
        if id(old) not in made:
            with _named(path):
                made[id(old)] = (path, _converted(old, recipe, fate == "gated", bits, id(old) in signed))
        new = made[id(old)][1]
        if not path:
            return new
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, new)
    return result


def _paths(model: nn.Module) -> list[str]:
    """Return the paths of all convertible modules, of one that is shared every path.

    A subclass is someone's own module and stays; a parametrised module is one that torch made, and is refused later.
    """
    return [
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if type(module) in CONVERTIBLE or (isinstance(module, CONVERTIBLE) and parametrize.is_parametrized(module))
    ]


def _fates(model: nn.Module, paths: list[str], recipe: Recipe) -> dict[str, tuple[Fate, int]]:
    """Return what becomes of each module, and the bits of its activations."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        if isinstance(module, UNSUPPORTED) and not _any(recipe.float_layers, path):
            kind = type(module).__name__
            raise ValueError(
                f"{path or 'model'}: {kind} must be left float (float_layers) or be made of LSTMCell modules"
            )
    every = [*paths, *(path for path, module in modules.items() if isinstance(module, UNSUPPORTED))]
    for name in ("gated", "dense", "float_layers", "signed"):
        for pattern in getattr(recipe, name):
            candidates = every if name == "float_layers" else paths
            if pattern != "*" and not _any((pattern,), *candidates):
                near = ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "")
                raise ValueError(f"{name} must match Conv2d, Linear or LSTMCell modules ({near}), not {pattern!r}")
    order = list(dict.fromkeys(id(modules[path]) for path in paths))
    fates: dict[str, tuple[Fate, int]] = {}
    for path in paths:
        at_edge = id(modules[path]) in (order[0], order[-1])
        fate: Fate = "gated" if _any(recipe.gated, path) else "float"
        if _any(recipe.float_layers, path):
            fate = "float"
        elif _any(recipe.dense, path):
            fate = "dense"
        elif at_edge and not _any([p for p in recipe.gated if p != "*"], path):
            fate = recipe.first if id(modules[path]) == order[0] else recipe.last
        fates[path] = (fate, recipe.edge_bits if at_edge and fate == "dense" else recipe.act_bits)
    shared: dict[int, str] = {}
    for path in paths:
        before = shared.setdefault(id(modules[path]), path)
        if fates[path] != fates[before]:
            raise ValueError(f"{path}: a module shared with {before} must be {fates[before][0]}, not {fates[path][0]}")
    return fates


def _negative(model: nn.Module, paths: list[str], examples: Iterable[Any]) -> set[str]:
    """Run the float model on examples; return the paths of layers whose input is somewhere negative."""
    found: set[str] = set()
    modules = dict(model.named_modules(remove_duplicate=False))

    def looker(path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def look(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = args[0] if args else kwargs.get("input")
            if isinstance(given, Tensor) and bool((given < 0).any()):
                found.add(path)

        return look

    handles = [modules[path].register_forward_pre_hook(looker(path), with_kwargs=True) for path in paths]
    try:
        with looking(model), torch.no_grad():
            for example in each_batch(examples):
                run_model(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _converted(old: nn.Module, recipe: Recipe, gated: bool, bits: int, signed: bool) -> CodedLayer:
    """Return the layer that stands in for `old`, with its parameters (the same objects)."""
    if old._forward_hooks or old._forward_pre_hooks:
        raise ValueError("forward hooks must be removed first: the new layer would not have them")
    if parametrize.is_parametrized(old):
        raise ValueError("weights must be plain parameters, not parametrised ones")
    for name, parameter in old.named_parameters(recurse=False):
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} must be float32 or float64, not {parameter.dtype}")
    new: CodedLayer
    options: dict[str, Any] = {"weights": recipe.weights}
    if gated:
        options |= {"gating": recipe.gating, "delta": recipe.delta}
    if isinstance(old, nn.Conv2d):
        if old.padding_mode != "zeros":
            raise ValueError(f"padding_mode must be zeros, not {old.padding_mode}")
        kernel, stride, dilation = ((t[0], t[1]) for t in (old.kernel_size, old.stride, old.dilation))
        padding = old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1])
        conv = GatedConv2d if gated else QuantConv2d
        new = conv(
            old.in_channels, old.out_channels, kernel, stride, padding, dilation, old.groups, old.bias is not None,
            input=_quantiser(recipe, bits, signed), **options,
        )  # fmt: skip
    elif isinstance(old, nn.Linear):
        linear = GatedLinear if gated else QuantLinear
        new = linear(
            old.in_features, old.out_features, old.bias is not None,
            input=_quantiser(recipe, bits, signed), **options,
        )  # fmt: skip
    else:
        assert isinstance(old, nn.LSTMCell)
        cell = GatedLSTMCell if gated else QuantLSTMCell
        quantisers = [QuantiseInput(bits, recipe.encoding) for _ in range(2)]
        new = cell(
            old.input_size, old.hidden_size, old.bias, input=quantisers[0], hidden=quantisers[1], **options
        )  # fmt: skip
    first = next(old.parameters())
    new.to(first.device, first.dtype)
    for name, parameter in old.named_parameters(recurse=False):
        setattr(new, name, parameter)
    new.train(old.training)
    return new


def _quantiser(recipe: Recipe, bits: int, signed: bool) -> Quantiser:
    if signed:
        return QuantiseInput(bits, recipe.encoding)
    return Pact(bits) if recipe.activation == "pact" else QuantiseInput(bits, Encoding.UNSIGNED)


def _any(patterns: Iterable[str], *paths: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns for path in paths)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Put the module's path in front of what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path or 'model'}: {error}") from error
