"""A whole network through the RTL on integers of its own: what a layer's post-processing left feeds the next layer.

codes of the post-processing unit --image--> machine --ports--> post-processing unit --> codes, shortcuts, logits
network's input, recorded boundaries --^                                                    ==   integer inference
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.model.inference import Chain
from pgsim.rtl.bench import Bench
from pgsim.rtl.network import Expected, LayerComparison, Network, Work, compare_batch, machine_of, some_images
from pgsim.rtl.post_cosim import read_codes, read_logits
from pgsim.rtl.post_plan import PostPlan
from pgsim.workload.trace import Trace


@dataclass(frozen=True)
class NetworkRun:
    """Images first .. first + images - 1, every layer on the codes that the RTL left of the one before.

    `layers` ends early with a layer that differs, or whose shortcut does not fit its bits on this machine. `logits` are
    those that the RTL left, int64 [N, K, P, Q] by name.
    """

    first: int
    images: int
    layers: tuple[LayerComparison, ...]
    logits: Mapping[str, NDArray[np.int64]]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return all(layer.comparison.equal for layer in self.layers)

    @property
    def unfit(self) -> str:
        """Which shortcut does not fit its bits, so that there are no integers to go on with; nothing if all do."""
        return self.layers[-1].unfit


def run_network(
    network: Network,
    images: int,
    *,
    engine: str = "fast",
    bench: Bench | None = None,
    wave: Path | None = None,
    assertions: bool = False,
    cache: Path | None = None,
    started: Callable[[str, int, int], None] | None = None,
) -> Iterator[NetworkRun]:
    """Run the whole network layer into layer, as many images together as the machine takes; yield each such run.

    The RTL reads of the trace the codes of layers without an input name, and boundaries; all else is what its own
    post-processing unit left. It is compared with the integer inference of the machine's arithmetic, and with the
    recorded codes where that gives the recorded outputs. A run ends with the first layer that differs, or whose
    shortcut does not fit its bits, and is the last one. `bench`, `wave`, `assertions`, `started` and errors are those
    of `cosimulate`; raises InputError, too, where no post-processing unit runs what follows the layers.
    """
    if network.post is None:
        raise InputError(f"no post-processing unit runs what follows these layers: {network.no_post}")
    if not 1 <= images <= network.trace.images:
        raise InputError(f"--images must be 1 .. {network.trace.images}, the trace's images, not {images}")
    total = images * sum(layer.geometry.macs for layer in network.trace.layers)

    def report(done: int, total: int, what: str) -> None:
        if started is not None:
            started(what, done, total)

    report(0, total, "compiling the RTL")
    together = network.in_memory(images)
    with machine_of(network, bench, wave=wave, assertions=assertions, cache=cache) as machine:
        for first in range(0, images, together):
            part = some_images(network.trace, first, min(first + together, images))
            found = _run(network, network.post, part, machine, engine, partial(report, total * first // images, total))
            run = NetworkRun(first, part.images, *found)
            yield run
            if not run.equal or run.unfit:
                return


def _run(
    network: Network, plan: PostPlan, part: Trace, bench: Bench, engine: str, report: Callable[[str], None]
) -> tuple[tuple[LayerComparison, ...], dict[str, NDArray[np.int64]]]:
    chain = Chain(part)
    boundaries = {boundary.name for boundary in part.boundaries}
    layers: list[LayerComparison] = []
    logits: dict[str, NDArray[np.int64]] = {}
    bench.forget()
    for index, layer in enumerate(part.layers):
        recorded, inferred = part.tensors(index), chain.codes_for(index)
        work = Work.of(network, index, recorded.activation if inferred is None else inferred)
        expect = Expected.of(network, chain, work, recorded)
        own = {name: values for name, values in expect.shortcuts.items() if name in boundaries}
        expect = replace(expect, shortcuts=own)
        codes = work.activation
        if layer.input_name is not None and layer.input_name in plan.regions:
            codes = read_codes(bench, plan, layer.input_name, part.images).astype(np.int16).reshape(codes.shape)
        step, found = network.together(layer, part.images), []
        for first in range(0, part.images, step):
            last = min(first + step, part.images)
            tick = partial(report, layer.name)
            tick()
            fed = codes[first:last]
            found.append(compare_batch(network, work, expect, bench, (first, last), engine, tick, at=first, codes=fed))
        layers.append(reduce(add, found))
        logits |= read_logits(bench, plan, layer, part.images)
        if not layers[-1].comparison.equal or layers[-1].unfit:
            break
        chain.follow(index, work.outputs)
    return tuple(layers), logits
