"""The backward pass's products: their MACs with and without sparse back-propagation, and the one that the mask thins.

A gated layer of M MACs (images * outputs * reduction) has four products in its backward pass (equation 7 of Precision
Gating and what it leaves out):

    weights, prediction phase    g        with q_h    M MACs
    weights, update phase        g * mask with q_l    M MACs; updated outputs * reduction where mask 0 is skipped
    activations, from O_hb       g        with w      M MACs, where the layer's input needs a gradient
    activations, from O_lb       none: truncation passes no gradient

Where an output that is not updated is 0 (Policy.ZERO), no gradient passes it, and every product is thinned alike.
A dense layer has weights (M) and activations (M).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pgsim.nn.functional import Policy
from pgsim.nn.kernels import compiled_loops
from pgsim.nn.layers import CodedLayer, coded_layers
from pgsim.workload.layer import Geometry

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BackwardMacs:
    """Exact MACs of a backward pass by product; they add."""

    weight_pred: int  # weights from O_hb, or from all bits of a layer without a gate
    weight_update: int  # weights from O_lb
    activation: int  # the layer's input, from O_hb or from all bits

    @property
    def total(self) -> int:
        """All products."""
        return self.weight_pred + self.weight_update + self.activation

    def __add__(self, other: BackwardMacs) -> BackwardMacs:
        return BackwardMacs(
            self.weight_pred + other.weight_pred,
            self.weight_update + other.weight_update,
            self.activation + other.activation,
        )


def layer_backward_macs(
    outputs: int,
    updated: int | None,
    reduction: int,
    *,
    sparse: bool,
    input_gradient: bool = True,
    zeroed: bool = False,
) -> BackwardMacs:
    """Count one layer's backward MACs, padding taps included.

    Args:
        outputs: outputs over all images; `updated` those whose mask is 1, None for a layer without a gate.
        reduction: MACs of one output, Geometry.reduction.
        sparse: the update phase's product skips outputs whose mask is 0, and so do the others if `zeroed`.
        input_gradient: False for a first layer, whose input needs no gradient.
        zeroed: an output whose mask is 0 is 0.

    Raises ValueError unless 0 <= updated <= outputs.
    """
    macs = outputs * reduction
    on_input = macs if input_gradient else 0
    if updated is None:
        return BackwardMacs(macs, 0, on_input)
    if not 0 <= updated <= outputs:
        raise ValueError(f"updated must be 0 .. {outputs} outputs, not {updated}")
    thinned = updated * reduction if sparse else macs
    if zeroed:
        return BackwardMacs(thinned, thinned, thinned if input_gradient else 0)
    return BackwardMacs(macs, thinned, on_input)


def backward_macs(model: nn.Module, *, sparse: bool, first: str | None = None) -> BackwardMacs:
    """Count the backward MACs of what the layers of `model` saw since `reset_counts`; layers left float are not in it.

    `first` is the path of a layer whose input needs no gradient. Raises ValueError for a path that is none.
    """
    layers = coded_layers(model)
    if first is not None and first not in layers:
        raise ValueError(f"first must be a path of {', '.join(layers)}, not {first!r}")
    total = BackwardMacs(0, 0, 0)
    for path, layer in layers.items():
        total += layer_backward_macs(
            layer.outputs,
            _updated(layer),
            layer.reduction,
            sparse=sparse,
            input_gradient=path != first,
            zeroed=layer.gating is not None and layer.gating.policy is Policy.ZERO,
        )
    return total


def _updated(layer: CodedLayer) -> int | None:
    return None if layer.gating is None else layer.updated


def masked_weight_gradient(
    grad: Floats,
    mask: NDArray[np.bool_],
    codes: Floats,
    geometry: Geometry,
    *,
    kernel: Callable[..., None] = compiled_loops,
) -> Floats:
    """Return sum over n, p, q with mask of grad * codes: a convolution's weight gradient from its updated outputs only.

    The update phase's share of the weight gradient, in units of the codes; its work is sum(mask) * reduction MACs.
    Sums run in float32 over images, then rows, then columns of pixels; exact for integers below 2^24.

    Args:
        grad: float32 [N, K, P, Q], `mask` bool of the same shape, `codes` float32 [N, C, H, W], the low plane.
        geometry: the layer's; a linear layer is a convolution over one pixel.
        kernel: the compiled loops or their plain twin `weight_gradient_loops`; compiled by default.

    Returns float32 [K, C/G, R, S]. Raises ValueError for shapes that are not the geometry's.
    """
    images = len(codes)
    for name, array, shape in (
        ("grad", grad, (images, *geometry.output_shape)),
        ("mask", mask, (images, *geometry.output_shape)),
        ("codes", codes, (images, *geometry.activation_shape)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    top, bottom, left, right = geometry.padding
    padded = np.pad(codes.astype(np.float32), ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = np.ascontiguousarray(padded.transpose(0, 2, 3, 1)).reshape(images, padded.shape[2], -1)
    out_channels, group_in, height, width = geometry.weight_shape
    whole_rows = geometry.groups == 1 and geometry.dilation[1] == 1
    runs, length = (1, width * group_in) if whole_rows else (width, group_in)
    found = np.zeros((out_channels, height, runs, length), np.float32)
    kernel(
        np.ascontiguousarray(grad, np.float32), np.ascontiguousarray(mask), rows, geometry.in_channels,
        geometry.stride, geometry.dilation, group_in, geometry.group_out_channels, found,
    )  # fmt: skip
    return np.ascontiguousarray(found.reshape(out_channels, height, width, group_in).transpose(0, 3, 1, 2))
