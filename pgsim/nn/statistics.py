"""What a model's gates did since the counts were reset: sparsity, average bits; and the penalty that moves thresholds.

Two weightings, both exact counts: by output feature, as the paper prints, and by MAC, as hardware pays (every output
of a layer has the layer's `reduction` MACs, padding taps included).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from pgsim.nn.functional import Policy
from pgsim.nn.layers import CodedLayer, coded_layers


@dataclass(frozen=True)
class Sparsity:
    """Sp, the share of outputs whose mask is 0, of gated layers: over all by output and by MAC, and of each by path."""

    by_output: float
    by_mac: float
    layers: Mapping[str, float]


@dataclass(frozen=True)
class AverageBits:
    """B_avg over the gated layers and over all quantised ones (dense layers at B bits), by output and by MAC."""

    gated_by_output: float
    gated_by_mac: float
    all_by_output: float
    all_by_mac: float


def reset_counts(model: nn.Module) -> None:
    """Forget the outputs that the layers of `model` counted so far."""
    for layer in coded_layers(model).values():
        layer.reset_counts()


def sparsity(model: nn.Module) -> Sparsity:
    """Return the sparsity of the gated layers since the last `reset_counts`; NaN where nothing was counted."""
    gated = {path: layer for path, layer in coded_layers(model).items() if layer.gating is not None}
    return Sparsity(
        _mean(gated.values(), _layer_sparsity, by_mac=False),
        _mean(gated.values(), _layer_sparsity, by_mac=True),
        {path: _mean([layer], _layer_sparsity, by_mac=False) for path, layer in gated.items()},
    )


def b_avg(model: nn.Module) -> AverageBits:
    """Return average activation bits since the last `reset_counts`; NaN where nothing was counted.

    A gated layer has h + (1 - Sp) * (B - h) (equation 8), and h + (1 - Sp) * B where it computes anew (SEERNET).
    Layers left float are not in it.
    """
    every = list(coded_layers(model).values())
    gated = [layer for layer in every if layer.gating is not None]
    return AverageBits(
        _mean(gated, layer_bits, by_mac=False),
        _mean(gated, layer_bits, by_mac=True),
        _mean(every, layer_bits, by_mac=False),
        _mean(every, layer_bits, by_mac=True),
    )


def layer_bits(layer: CodedLayer) -> Fraction:
    """Return the average bits of one layer that counted outputs: B where it is dense."""
    if layer.gating is None:
        return Fraction(layer.act_bits)
    h = layer.gating.pred_bits
    more = layer.act_bits if layer.gating.policy is Policy.SEERNET else layer.act_bits - h
    return h + Fraction(layer.updated, layer.outputs) * more


def penalty(model: nn.Module, sigma: float, target: float, *, squared: bool = True) -> Tensor:
    """Return sigma * sum over gated layers of ||Delta - target||^2, a scalar to add to the loss.

    The paper's objective has the square, the authors' code the norm (`squared=False`). A model without gated layers
    gives 0.
    """
    total = torch.zeros(())
    for layer in coded_layers(model).values():
        if layer.delta is not None:
            distance = layer.delta - target
            term = distance.square().sum() if squared else torch.linalg.vector_norm(distance)
            total = total.to(term.device) + term
    return sigma * total


def _layer_sparsity(layer: CodedLayer) -> Fraction:
    return 1 - Fraction(layer.updated, layer.outputs)


def _mean(layers: Iterable[CodedLayer], value: Callable[[CodedLayer], Fraction], *, by_mac: bool) -> float:
    total, weights = Fraction(0), 0
    for layer in layers:
        if layer.outputs:
            weight = layer.outputs * (layer.reduction if by_mac else 1)
            total += weight * value(layer)
            weights += weight
    return float(total / weights) if weights else float("nan")
