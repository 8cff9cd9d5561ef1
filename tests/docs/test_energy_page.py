"""docs/energy.md names every part that is priced, and the ports it tells of are those of the shipped traces."""

from __future__ import annotations

from pathlib import Path

import pytest

import pgsim
from pgsim.io.energy import load_prices
from pgsim.io.hardware import load_accelerator, shipped_accelerators
from pgsim.model.cost import area
from pgsim.model.lanes import LaneWidths
from pgsim.model.post_unit import PostUnit, post_unit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
PRICED = PAGE[PAGE.index("## What is priced") : PAGE.index("## What is not")]


@pytest.mark.parametrize("name", shipped_accelerators())
def test_every_part_with_an_area_is_on_the_page(name: str) -> None:
    accelerator = load_accelerator(name)
    parts = area(accelerator, LaneWidths(2, 1, True), load_prices(accelerator))
    srams = set(accelerator.memory.buffers)
    assert [part for part in parts if part not in srams and f"`{part}`" not in PRICED] == []


def test_the_port_of_the_shipped_traces_is_the_one_on_the_page() -> None:
    # A channel of a gated layer: 7 thresholds of 24 + 1 bits and a direction. Ahead of the classifier: a clamp, and
    # 255 thresholds in 8 levels. Factors have 23 bits.
    trace = pgsim.load_trace(ROOT / "traces" / "resnet20_3-2_release.npz")
    unit = PostUnit((24,), (24 + 23, 24, 24), (24,) * (2 + 8), 7 * 25 + 1, 255 * 25 + 1)
    assert post_unit(trace.layers, 24) == unit
    words = " ".join(PRICED.split())
    assert "a multiplier of 24 bits, adders of 47, 24 and 24, ten comparators, 176 bits a channel, and 6376" in words
