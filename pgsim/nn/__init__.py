"""Precision Gating for any torch network: quantised and gated layers, conversion, calibration, traces (docs/torch.md).

    model = pgsim.nn.convert(model, Recipe(...)) -> calibrate -> train as usual -> trace -> pgsim.io.trace.write_trace

On a CUDA device in torch's own operations, on a CPU partly in kernels that numba compiles; imports torch (the extra
`train`), which `import pgsim` does not.
"""

from __future__ import annotations

from pgsim.arith.formats import Encoding
from pgsim.nn.backward import BackwardMacs, backward_macs, masked_weight_gradient
from pgsim.nn.calibrate import calibrate
from pgsim.nn.codes import WeightFormat
from pgsim.nn.convert import Recipe, convert
from pgsim.nn.functional import (
    SURROGATE_SLOPE,
    Gating,
    MaskGradient,
    Policy,
    dense_conv2d,
    dense_linear,
    gated_conv2d,
    gated_linear,
)
from pgsim.nn.integers import run_integers
from pgsim.nn.layers import CodedLayer, GatedConv2d, GatedLinear, QuantConv2d, QuantLinear, coded_layers
from pgsim.nn.quantisers import Pact, QuantiseInput, Quantiser
from pgsim.nn.record import trace
from pgsim.nn.recurrent import GatedLSTMCell, QuantLSTMCell
from pgsim.nn.statistics import AverageBits, Sparsity, b_avg, penalty, reset_counts, sparsity

__all__ = [
    "SURROGATE_SLOPE",
    "AverageBits",
    "BackwardMacs",
    "CodedLayer",
    "Encoding",
    "GatedConv2d",
    "GatedLSTMCell",
    "GatedLinear",
    "Gating",
    "MaskGradient",
    "Pact",
    "Policy",
    "QuantConv2d",
    "QuantLSTMCell",
    "QuantLinear",
    "QuantiseInput",
    "Quantiser",
    "Recipe",
    "Sparsity",
    "WeightFormat",
    "b_avg",
    "backward_macs",
    "calibrate",
    "coded_layers",
    "convert",
    "dense_conv2d",
    "dense_linear",
    "gated_conv2d",
    "gated_linear",
    "masked_weight_gradient",
    "penalty",
    "reset_counts",
    "run_integers",
    "sparsity",
    "trace",
]
