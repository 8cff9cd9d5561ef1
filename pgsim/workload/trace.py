"""A trace in memory: the network's layers, and its recorded tensors on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsim.workload.boundary import Boundary
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
    """Hands out recorded tensors, one layer's or one boundary's; a file reads them when asked, so a long trace
    streams."""

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index`."""
        ...

    def boundary(self, index: int) -> NDArray[np.int64]:
        """Return the recorded values of boundary `index`, int64 [N, C, H, W]."""
        ...


@dataclass(frozen=True)
class InMemory:
    """A TensorSource that holds everything."""

    items: tuple[LayerTensors, ...]
    boundaries: tuple[NDArray[np.int64], ...] = ()

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index`."""
        return self.items[index]

    def boundary(self, index: int) -> NDArray[np.int64]:
        """Return the recorded values of boundary `index`, int64 [N, C, H, W]."""
        return self.boundaries[index]


@dataclass(frozen=True)
class Trace:
    """A network traced over N images.

    `sha256` identifies the trace by its contents (the digest of its metadata, which names every array's digest).
    `info` is the free part of the metadata: model, data set, sample ids, accuracy, how it was made.
    `boundaries` are the fixed-point tensors that enter from outside; any layer may read any of them.
    """

    layers: tuple[Layer, ...]
    images: int
    source: TensorSource
    info: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    boundaries: tuple[Boundary, ...] = ()

    def tensors(self, index: int) -> LayerTensors:
        """Return the recorded tensors of layer `index`."""
        return self.source.tensors(index)

    def boundary(self, index: int) -> NDArray[np.int64]:
        """Return the recorded values of boundary `index`, int64 [N, C, H, W]."""
        return self.source.boundary(index)
