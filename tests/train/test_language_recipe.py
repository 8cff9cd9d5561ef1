"""Recipes of language models, and how a file says which kind it is."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.errors import InputError  # noqa: E402
from pgsim.train.any_recipe import parse_any_recipe, with_epochs, with_seed  # noqa: E402
from pgsim.train.language.recipe import (  # noqa: E402
    LanguageRecipe,
    language_recipe_text,
    parse_language_recipe,
)
from pgsim.train.recipe import Recipe  # noqa: E402
from tests.train.synthetic import RECIPE as IMAGE_RECIPE  # noqa: E402
from tests.train.tiny_corpus import FLOAT, RECIPE, recipe  # noqa: E402


def test_a_recipe_survives_being_written_and_read() -> None:
    for first in (recipe(), recipe(**FLOAT), recipe(cell="dense", pred_bits=4)):
        assert parse_language_recipe(language_recipe_text(first), "again") == first


def test_another_seed_changes_seed_and_name_alone() -> None:
    assert with_seed(recipe(), 12) == recipe(seed=12, name=f"{recipe().name}_seed12")
    assert with_seed(recipe(name="x" * 194), 1).name == "x" * 194 + "_seed1"
    with pytest.raises(InputError, match=r"^--seed: name must have at most 200 bytes, not 201$"):
        with_seed(recipe(name="x" * 194), 12)


def test_another_number_of_epochs_changes_it_and_the_name_alone() -> None:
    assert with_epochs(recipe(), 3) == recipe(epochs=3, name=f"{recipe().name}_epochs3")
    with pytest.raises(InputError, match=r"^--epochs: epochs must be more than 0, not 0$"):
        with_epochs(recipe(), 0)
    with pytest.raises(InputError, match=r"^--epochs: name must have at most 200 bytes, not 201$"):
        with_epochs(recipe(name="x" * 193), 1)


def test_the_file_says_which_kind_of_recipe_it_is() -> None:
    assert isinstance(parse_any_recipe(RECIPE, "x"), LanguageRecipe)
    assert isinstance(parse_any_recipe(IMAGE_RECIPE, "x"), Recipe)
    with pytest.raises(InputError, match="x: task must be 'language_model', 'shufflenet_cifar' or left out, not 'y'"):
        parse_any_recipe("task: y", "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "gru"}, "cell must be 'float', 'dense' or 'gated', not 'gru'"),
        ({"encoding": "unsigned"}, "encoding must be 'sign_magnitude' or 'twos_complement', not 'unsigned'"),
        ({"act_bits": 9}, r"act_bits must be in 2\.\.8 where cell is 'gated', not 9"),
        ({"act_bits": 1}, r"act_bits must be in 2\.\.8 where cell is 'gated', not 1"),
        ({"cell": "float"}, r"act_bits must be 0 \(or left out\) where cell is 'float', not 4"),
        ({"cell": "float", "act_bits": 0}, "pred_bits must be act_bits where cell is 'float', not 2"),
        ({"cell": "dense"}, "pred_bits must be act_bits where cell is 'dense', not 2"),
        ({"pred_bits": 4}, r"pred_bits must be in 1\.\.3, not 4"),
        ({"pred_bits": 0}, r"pred_bits must be in 1\.\.3, not 0"),
        ({"weight_bits": 1}, r"weight_bits must be in 2\.\.16, not 1"),
        ({"output_dropout": 1}, r"output_dropout must be in \[0, 1\), not 1"),
        ({"start_sparsity": -0.1}, r"start_sparsity must be in \[0, 1\], not -0\.1"),
        ({"start_scope": "network"}, "start_scope must be 'layer' or 'channel', not 'network'"),
        ({"clip": "pact"}, "clip must be 'max' or 'least_squares', not 'pact'"),
        ({"sequence_length": 0}, "sequence_length must be more than 0, not 0"),
        ({"threshold_rate": -1}, r"threshold_rate must be 0 or more, not -1"),
        ({"tied": 1}, "tied must be of type bool, not 1"),
        ({"momentum": 0.9}, "momentum must be a recipe field .*, not an unknown key"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"tiny.yaml: {message}"):
        recipe(**changes)
