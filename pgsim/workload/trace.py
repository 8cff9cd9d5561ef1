"""A trace in memory: the network's layers, and its recorded tensors on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsim.workload.layer import Layer


@dataclass(frozen=True)
class LayerTensors:
    """What one layer read and wrote when it was recorded, in canonical layout.

    activation int16 [N, C, H, W]; output int64 [N, K, P, Q], the accumulator A before any post step;
    mask bool [N, K, P, Q] for a gated layer, None for one that is not.
    """

    activation: NDArray[np.int16]
    output: NDArray[np.int64]
    mask: NDArray[np.bool_] | None


class TensorSource(Protocol):
    """Hands out one layer's recorded tensors; a file reads them when asked, so a long trace streams."""

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index`."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A TensorSource that holds everything."""

    items: tuple[LayerTensors, ...]

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index`."""
        return self.items[index]


@dataclass(frozen=True)
class Trace:
    """A network traced over N images.

    `sha256` identifies the trace by its contents (the digest of its metadata, which names every array's digest).
    `info` is the free part of the metadata: model, data set, sample ids, accuracy, how it was made.
    """

    layers: tuple[Layer, ...]
    images: int
    source: TensorSource
    info: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index`."""
        return self.source.tensors(index)
