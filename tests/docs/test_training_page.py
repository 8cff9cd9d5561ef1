"""docs/training.md: its recipes are shipped, its example can be read, its words are those of the recipes."""

from __future__ import annotations

import re
from pathlib import Path

from pgsim.cli.main import main
from pgsim.paper.stored import Result, load_results
from pgsim.paper.tables import rows
from pgsim.train.recipe import _WORDS, find_recipe, parse_recipe, read_fields, shipped_recipes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
ROWS = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", PAGE, flags=re.MULTILINE)]


def test_every_recipe_that_is_named_is_shipped() -> None:
    named = re.findall(r"(?:`|train )(resnet\w+_[-\w]+)(?!\S*npz)\b", PAGE)
    assert len(named) > 20
    assert set(named) <= set(shipped_recipes())


def test_the_example_is_a_recipe() -> None:
    (text,) = re.findall(r"<!-- recipe -->\n```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    found = parse_recipe(text, "page")
    assert (found.act_bits, found.pred_bits, found.policy, found.epochs) == (5, 3, "zero", 14)


def test_the_fields_words_are_all_there() -> None:
    for cells in ROWS:
        field = cells[0].strip("`")
        if field in _WORDS:
            assert [word for word in _WORDS[field] if f"`{word}`" not in cells[1]] == []


def test_the_runs_of_another_length_than_the_common_budget_are_all_named() -> None:
    epochs = {
        name: read_fields(*find_recipe(name))["epochs"] for name in shipped_recipes() if name.startswith("resnet")
    }
    longer = [name for name, count in epochs.items() if count != 4]
    gated = [
        "resnet20_2-1_longer",
        "resnet20_2-1_release",
        "resnet20_3-2_all",
        "resnet20_3-2_paper",
        "resnet20_3-2_release",
    ]
    assert longer == [*gated, "resnet20_4-3_release"]
    assert all(f"`{name}`" in PAGE for name in longer)


def test_the_list_can_be_printed() -> None:
    assert "pgsim train --list" in PAGE
    assert main(["train", "--list"]) == 0


def test_what_came_out_is_what_the_stored_results_say() -> None:
    for network, least in (("resnet20", 14), ("resnet32", 1), ("resnet56", 1), ("shiftnet20", 2)):
        expected = measured_rows(network, 4)
        assert len(expected) >= least
        assert [row for row in ROWS if len(row) == 6 and row[0].startswith(f"`{network}")] == expected


def test_the_sweep_of_fixed_thresholds_is_that_of_the_stored_results() -> None:
    cells: dict[str, dict[str, str]] = {}
    for row in rows(load_results([ROOT / "traces" / "results"]).results, 3):
        of = cells.setdefault(
            f"{row.claim.threshold:g}", {"paper": f"{row.claim.score:.1f} ({row.claim.sparsity:.1f})"}
        )
        if row.ours is not None:
            key = f"{row.ours.first.policy}, {row.ours.first.epochs} epochs"
            of[key] = f"{row.ours.score:.2f} ({row.ours.sparsity:.1f})"
    assert len(cells) == 7
    columns = "keep, 4 epochs", "zero, 4 epochs", "keep, 0 epochs", "zero, 0 epochs", "paper"
    expected = [[threshold, *(of.get(key, "-") for key in columns)] for threshold, of in cells.items()]
    assert [row for row in ROWS if re.fullmatch(r"-?\d", row[0])] == expected


def measured_rows(network: str, epochs: int) -> list[list[str]]:
    """Return the page's rows of a network's runs of so many epochs, by B_avg over all convolutions, the most first."""
    stored = load_results([ROOT / "traces", ROOT / "traces" / "results"]).results
    runs = [one for one in stored if one.network == network and one.epochs == epochs and one.bits is not None]
    return [measured_row(one) for one in sorted(runs, key=lambda one: (-one.b_avg["all_by_macs"], -one.score))]


def measured_row(one: Result) -> list[str]:
    """Recipe, bits, Sp, B_avg by outputs and over all convolutions by MACs, top-1: the cells of the page's table."""
    assert one.bits is not None
    bits = "/".join(map(str, dict.fromkeys(one.bits)))
    sparsity = "-" if one.sparsity is None else f"{one.sparsity:.1f}"
    averages = (one.b_avg[weighting] for weighting in ("gated_by_outputs", "all_by_macs"))
    name = f"`{one.recipe}`" + ("" if one.seed == 1 else f", seed {one.seed}")
    return [name, bits, sparsity, *(f"{b:.2f}" for b in averages), f"{one.score:.2f}"]
