"""The smallest post-processing unit that runs what follows every layer of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from pgsim.rtl.post import KIND_OF, compile_post
from pgsim.rtl.post_regions import Lanes, plan_regions
from pgsim.rtl.post_unit import MAX_VALUE_BITS, Kind, PostUnit, Select
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import Layer, MaxPool, SumPool


def unit_for(
    layers: Sequence[Layer],
    columns: int,
    psum_bits: int,
    images: int = 1,
    boundaries: Sequence[Boundary] = (),
    lanes: Sequence[Lanes] | None = None,
    segments: int | None = None,
) -> PostUnit:
    """Return the smallest unit that runs what follows each of `layers`, their tensors laid out by `plan_regions`.

    `segments` is the largest number that a layer and batch has; where it is not given, those of an image are its tiles.
    Its stages do one kind of step each, in an order in which every layer's steps stand. Raises InputError for what no
    unit holds: values past 62 bits.
    """
    regions, words = plan_regions(layers, images, boundaries)
    order: list[Kind] = []
    for layer in layers:
        order = _merged(order, [KIND_OF[type(step)] for step in layer.post])
    pools = [step for layer in layers for step in layer.post if isinstance(step, SumPool | MaxPool)]
    overlap = max([1] + [-(-k // s) for pool in pools for k, s in zip(pool.kernel, pool.stride, strict=True)])
    huge = dict.fromkeys((f.name for f in fields(PostUnit)[2:]), 2**30)
    limits = {"psum_bits": psum_bits, "value_bits": MAX_VALUE_BITS, "shortcut_bits": MAX_VALUE_BITS - 1}
    widths = {"map_bits": 20, "pool_count": 16, "code_bits": 16, "levels": 17, "pool_overlap": overlap}
    stages = tuple(frozenset({kind}) for kind in order) or (frozenset({Kind.PASS}),)
    ideal = PostUnit(columns, stages, **(huge | limits | widths))
    needs: dict[str, int] = {}
    for index, layer in enumerate(layers):
        program = compile_post(layer, ideal, regions, lanes[index] if lanes else None, images)
        for name, amount in program.needs.items():
            needs[name] = max(amount, needs.get(name, 1))
    sizes = {f.name: needs.get(f.name, 1) for f in fields(PostUnit)[2:]}
    sizes |= {"psum_bits": psum_bits, "pool_overlap": overlap, "shortcut_words": max(1, words[Select.SHORTCUTS])}
    sizes["value_bits"] = max(sizes["value_bits"], psum_bits, sizes["shortcut_bits"] + 1)
    sizes["segments"] = segments or sizes["tiles"] * images
    return PostUnit(columns, stages, **sizes)


def _merged(a: Sequence[Kind], b: Sequence[Kind]) -> list[Kind]:
    """Return a shortest sequence in which both stand, in their orders."""
    best: list[list[list[Kind]]] = [[[]] * (len(b) + 1) for _ in range(len(a) + 1)]  # of a[i:] and b[j:]
    for i in range(len(a), -1, -1):
        for j in range(len(b), -1, -1):
            if i == len(a) or j == len(b):
                best[i][j] = [*a[i:], *b[j:]]
            elif a[i] is b[j]:
                best[i][j] = [a[i], *best[i + 1][j + 1]]
            else:
                best[i][j] = min([a[i], *best[i + 1][j]], [b[j], *best[i][j + 1]], key=len)
    return best[0][0]
