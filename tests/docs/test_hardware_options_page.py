"""docs/hardware-options.md: its tables hold what traces/options holds, its choices are those that there are."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgsim.arith import post
from pgsim.arith.overflow import reachable
from pgsim.workload.arithmetic_forms import FORMS, USUAL
from pgsim.workload.arithmetic_names import parse_arithmetic
from pgsim.workload.layer import Clamp, FixedPoint, Requantise

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hardware-options.md").read_text(encoding="utf-8")
NAMES = ("resnet20_3-2_release", "resnet20_4-3_release", "resnet20_3-2_all")
RESULTS: dict[str, Any] = {
    name: json.loads((ROOT / "traces" / "options" / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES
}


def rows_of(result: dict[str, Any]) -> list[str]:
    """A table's rows for one network."""
    rows = []
    for name, row in {"exact": result["exact"], **result["options"]}.items():
        low, high = row["interval_95_points"]
        layer, share = row["first_differing_layer"], row["first_differing_percent"]
        cells = [
            f"`{name}`" if name != "exact" else name,
            f"{row['top1']:.2f}",
            f"{row['difference_points']:+.2f}",
            f"{low:+.2f} .. {high:+.2f}",
            str(row["labels_changed"]),
            f"{row['right_only_exact']} / {row['right_only_option']}",
            f"{layer} {share:.2g} %" if layer else "none",
            f"{row['last_differing_percent']:.1f} %",
            f"{row['sparsity_percent']:.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def sums_of(results: dict[str, Any]) -> list[str]:
    """The rows of the accumulators' table: a layer, and for each network least, largest and bits."""
    rows = []
    for layer in results[NAMES[0]]["partial_sums"]:
        found = [results[name]["partial_sums"][layer] for name in NAMES]
        cells = [f"{x['least']:,} .. {x['largest']:,} | {x['bits']} / {x['proven_bits']}" for x in found]
        rows.append(f"| {layer} | {' | '.join(cells)} |")
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_what_was_measured(name: str) -> None:
    section = PAGE[PAGE.index(f"### {name}") :].split("\n#", 1)[0]
    assert re.findall(r"^\| (?:`\S+`|exact) \|.*$", section, flags=re.MULTILINE) == rows_of(RESULTS[name])


def test_the_table_of_partial_sums_is_what_was_measured() -> None:
    section = PAGE[PAGE.index("## Bits that the accumulators need") : PAGE.index("## Limits")]
    assert [line for line in section.splitlines() if " .. " in line] == sums_of(RESULTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_of_the_shipped_weights_and_of_every_usual_option(name: str) -> None:
    result, weights = RESULTS[name], ROOT / "traces" / "checkpoints" / f"{name}.npz"
    assert result["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert tuple(result["options"]) == USUAL
    assert f"first {result['images']:,} test images" in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_multipliers_of_24_bits_give_reachable_accumulators_their_codes(name: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from pgsim.train.export import exported
    from pgsim.train.frozen import freeze
    from pgsim.train.weights import read_network
    from pgsim.workload.arithmetic import Arithmetic, rewritten

    network = exported(freeze(read_network(ROOT / "traces" / "checkpoints" / f"{name}.npz")[0]))
    other = 0
    for layer, after in zip(network.layers, rewritten(network, Arithmetic(block_bits=24)).layers, strict=True):
        step = layer.post[0]
        if not isinstance(step, Requantise):
            continue
        scaling, limits = after.post[:2]
        assert isinstance(scaling, FixedPoint)
        assert isinstance(limits, Clamp)
        low, high = (ends[:, None] for ends in reachable(layer.weight, 0, layer.act.max_code))
        turned = step.direction[:, None].astype(np.int64)
        for v in (turned * step.threshold, turned * (step.threshold - 1)):  # where the code changes, both sides
            v = np.clip(v, low, high)[None, :, :, None]
            exact = post.requantise(v, step.threshold, step.direction)
            scaled = post.fixed_point(v, scaling.multiplier, scaling.bias, scaling.shift)
            other += int((post.clamp(scaled, limits.low, limits.high) != exact).sum())
    assert other == {"resnet20_4-3_release": 1}.get(name, 0)
    assert "every accumulator that an image can reach, but one of the 4/3 network" in " ".join(PAGE.split())


def test_the_table_of_choices_names_every_form() -> None:
    section = PAGE[PAGE.index("## The choices") : PAGE.index("## What was measured")]
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    assert sorted(row.replace("`", "") for row in rows) == sorted(FORMS)


def test_the_commands_on_the_page_name_options_that_there_are() -> None:
    found = re.findall(r"--(?:option|trace) (\S+)", PAGE)
    assert len(found) == 2
    for name in found:
        parse_arithmetic(name, 8)
