"""Run a network under another arithmetic: the rewritten layers, and accumulators that saturate or wrap.

    codes int16 [N, C, H, W] --rewritten layers, engine--> Values: logits; codes, output and mask of each layer

`plain_arithmetic.plain_run` computes value by value what each choice means, on the network as it is; `run` rewrites the
network and takes the fast engines. They agree on every integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.arith import overflow
from pgsim.arith.overflow import Accumulator
from pgsim.model.inference import Chain, Engine, LayerValues, fast_engine
from pgsim.workload.arithmetic import Arithmetic, Exported, rewritten
from pgsim.workload.layer import Layer
from pgsim.workload.trace import InMemory, LayerTensors, Trace


@dataclass(frozen=True)
class Values:
    """What a network computed of some images.

    `logits` int64 [N, classes]; of each layer its tensors: the codes that it read, its output and its mask.
    """

    logits: NDArray[np.int64]
    layers: tuple[LayerTensors, ...]


def engine_of(accumulator: Accumulator | None) -> Engine:
    """Return the engine whose partial sums are an accumulator's, walked in the machine's order where they may overflow;
    the exact one for None."""
    if accumulator is None:
        return fast_engine
    register = accumulator

    def engine(layer: Layer, codes: NDArray[np.int16]) -> LayerValues:
        if layer.gate is None:
            sums = overflow.dense_layer(codes, layer.weight, layer.geometry, register, layer.name)
            return LayerValues(sums, None)
        gate = layer.gate
        numbers = (layer.act.encoding, layer.act.bits, gate.pred_bits, gate.threshold, gate.policy)
        values = overflow.gated_layer(codes, layer.weight, layer.geometry, *numbers, register, layer.name)
        return LayerValues(values.a, values.mask)

    return engine


def run(network: Exported, arithmetic: Arithmetic, codes: NDArray[np.int16]) -> Values:
    """Return what `network` computes of image codes under an arithmetic.

    `codes` int16 [N, C, H, W] feeds the first layer, the only one that may read from outside; the network ends in one
    vector of logits. Raises InputError for what cannot be written so (`workload.arithmetic.rewritten`).
    """
    return run_layers(rewritten(network, arithmetic).layers, codes, engine_of(arithmetic.accumulator))


def run_layers(layers: Sequence[Layer], codes: NDArray[np.int16], engine: Engine = fast_engine) -> Values:
    """Return what layers compute of image codes int16 [N, C, H, W] by an engine, every layer's tensors among it."""
    chain = Chain(Trace(tuple(layers), len(codes), InMemory(())))
    tensors = []
    for index, layer in enumerate(layers):
        fed = chain.codes_for(index)
        read = codes if fed is None else fed
        values = engine(layer, read)
        chain.follow(index, values.output)
        tensors.append(LayerTensors(read, values.output, values.mask))
    (logits,) = chain.logits.values()
    return Values(logits.reshape(len(codes), -1), tuple(tensors))


def partial_sums(layer: Layer, codes: NDArray[np.int16], word: int, known: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return the smallest and largest partial sum of an exact layer in words of `word` channels, and of `known`."""
    gate = None
    if layer.gate is not None:
        gated = layer.gate
        gate = (layer.act.encoding, layer.act.bits, gated.pred_bits, gated.threshold, gated.policy)
    return overflow.extremes(codes, layer.weight, layer.geometry, gate, word, known)
