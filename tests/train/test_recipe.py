"""Recipes: what is read, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.errors import InputError  # noqa: E402
from pgsim.train.language.recipe import parse_any_recipe  # noqa: E402
from pgsim.train.recipe import find_recipe, parse_recipe, recipe_text, shipped_recipes  # noqa: E402
from tests.train.synthetic import RECIPE, recipe  # noqa: E402


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_carry_their_file_name(name: str) -> None:
    assert parse_any_recipe(*find_recipe(name)).name == name


def test_a_recipe_survives_being_written_and_read() -> None:
    first = recipe()
    assert parse_recipe(recipe_text(first), "again") == first


def test_a_path_goes_before_a_shipped_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    assert parse_recipe(*find_recipe(str(path))).name == "tiny"


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"recipe must be a file or one of .*resnet20_3-2_release.*, not 'nonsense'"):
        find_recipe("nonsense")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_bits": 9}, "act_bits must be in 2..8, not 9"),
        ({"pred_bits": 3}, "pred_bits must be in 1..2, not 3"),
        ({"gating": "some"}, "gating must be 'release', 'all' or 'none', not 'some'"),
        ({"start_scope": "pixel"}, "start_scope must be 'network', 'layer' or 'channel', not 'pixel'"),
        ({"delta_target": "end"}, "delta_target must be a number or 'start', not 'end'"),
        ({"gating": "none"}, "pred_bits must be act_bits where gating is 'none', not 2"),
        ({"network": "resnet18"}, "network must be 'resnet20', 'resnet32', 'resnet56' or 'shiftnet20', not 'resnet18'"),
        ({"clip": "mean"}, "clip must be 'pact' or 'max', not 'mean'"),
        ({"policy": "drop"}, "policy must be 'keep', 'zero' or 'seernet', not 'drop'"),
        ({"thresholds": "fixed"}, "delta_target must be a number where thresholds are 'fixed', not 'start'"),
        ({"epochs": 0}, "epochs must be more than 0, not 0"),
        ({"learning_rate": "1e-3"}, "learning_rate must be of type float, not '1e-3'"),
        ({"sparse_bp": 1}, "sparse_bp must be of type bool, not 1"),
        ({"seed": "true"}, "seed must be of type int, not True"),
        ({"ema_decay": 1.5}, r"ema_decay must be in \[0, 1\], not 1.5"),
        ({"colour": 1}, "colour must be a recipe field .*, not an unknown key"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"tiny.yaml: {message}"):
        recipe(**changes)


def test_what_later_versions_added_may_be_left_out() -> None:
    first = recipe()
    assert (first.network, first.clip, first.thresholds, first.policy) == ("resnet20", "pact", "learned", "keep")
    assert recipe(gating="none", pred_bits=3).pred_bits == 3


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InputError, match="here: sigma must be given, not missing"):
        parse_recipe(RECIPE.replace("sigma: 0.001\n", ""), "here")


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(InputError, match="here: a recipe's keys must be unique, not 'seed' twice"):
        parse_recipe(RECIPE + "seed: 4\n", "here")


def test_a_list_is_no_recipe() -> None:
    with pytest.raises(InputError, match="here must be a mapping of recipe fields, not list"):
        parse_recipe("- 1", "here")


def test_a_number_is_a_valid_penalty_target() -> None:
    assert recipe(delta_target=2).delta_target == 2.0
