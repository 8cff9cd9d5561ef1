"""What follows every layer of a trace on one accelerator: the post-processing unit, its memories and its programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pgsim.arith.split import join, split
from pgsim.model.schedule import Schedule
from pgsim.rtl.post import compile_post
from pgsim.rtl.post_regions import Region, lanes_of_segments, plan_regions, segment_writes
from pgsim.rtl.post_size import unit_for
from pgsim.rtl.post_unit import WRITE, PostUnit, Select
from pgsim.workload.boundary import Boundary
from pgsim.workload.layer import AddShortcut, Layer, Logits, Requantise, SaveShortcut

Ints = NDArray[np.int64]
Keeper = SaveShortcut | Requantise | Logits


@dataclass(frozen=True)
class PostPlan:
    """A unit for every layer of a network, and where its memories keep the tensors of `images` images."""

    unit: PostUnit
    regions: Mapping[str, Region]
    images: int

    def program(self, layer: Layer, schedule: Schedule, first: int, shortcuts: Mapping[str, Ints]) -> NDArray[np.void]:
        """Return the host writes before a layer and batch, whose first image is number `first` of those in memory.

        `shortcuts` are put into memory before, int64 [N, K, P, Q] over the batch's images.
        """
        lanes = lanes_of_segments(schedule.segment_first_channel, schedule.segment_columns)
        complete = schedule.segment_first_step + schedule.segment_steps == schedule.steps
        image = schedule.segment_image + first
        return np.concatenate(
            [
                compile_post(layer, self.unit, self.regions, lanes, self.images).writes,
                segment_writes(self.unit, lanes, image, schedule.segment_first_channel, complete),
                *(self._loads(name, values, first) for name, values in shortcuts.items()),
            ]
        )

    def _loads(self, name: str, values: Ints, first: int) -> NDArray[np.void]:
        writes = np.zeros(values.size, WRITE)
        writes["select"] = Select.SHORTCUTS
        writes["address"] = self.addresses(name, first, len(values)).ravel()
        writes["data"] = values.ravel()
        return writes

    def addresses(self, name: str, first: int, images: int) -> Ints:
        """Return where a tensor's images lie, int64 [N, K, P, Q]."""
        return self.regions[name].addresses(first + images)[first:]

    def words(self, step: Keeper, values: Ints) -> dict[Select, Ints]:
        """Return what a step keeps as the words of each memory that holds it."""
        region = self.regions[step.name]
        if not isinstance(step, Requantise):
            return {region.memory: values}
        form, low = step.format, region.low_bits
        planes = split(values, form.encoding, form.bits, form.bits - low) if low else (values, np.zeros_like(values))
        return dict(zip((Select.HIGH_PLANE, Select.LOW_PLANE), planes, strict=True))

    def numbers(self, name: str, memory: Select, words: Ints) -> Ints:
        """Return a memory's words as numbers: shortcuts have a sign where their tensor has one."""
        if memory is not Select.SHORTCUTS or not self.regions[name].signed:
            return words
        half = 1 << (self.unit.shortcut_bits - 1)
        return (words ^ half) - half

    def codes(self, name: str, high: Ints, low: Ints) -> Ints:
        """Return the codes of two planes' words."""
        return join(high, low, self.regions[name].low_bits)


def keepers(layer: Layer) -> list[Keeper]:
    """Return the steps of a layer that keep a tensor."""
    return [step for step in layer.post if isinstance(step, Keeper)]


def added(layer: Layer) -> list[str]:
    """Return the names of the shortcuts that a layer adds, those that it keeps itself left out."""
    own = {step.name for step in keepers(layer)}
    return [step.source for step in layer.post if isinstance(step, AddShortcut) and step.source not in own]


def plan_post(
    layers: Sequence[Layer],
    boundaries: Sequence[Boundary],
    schedules: Sequence[Schedule],
    columns: int,
    psum_bits: int,
    images: int,
) -> PostPlan:
    """Plan the unit behind `columns` ports for a network of which `images` images are in memory together.

    `schedules` are the layers' own, of a whole batch. Raises InputError for what no unit does: values past 62 bits.
    """
    regions, _ = plan_regions(layers, images, boundaries)
    lanes = [lanes_of_segments(s.segment_first_channel, s.segment_columns) for s in schedules]
    segments = 1 << (max(s.segments for s in schedules) - 1).bit_length()
    return PostPlan(unit_for(layers, columns, psum_bits, images, boundaries, lanes, max(2, segments)), regions, images)
