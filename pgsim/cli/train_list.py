"""pgsim train --list: the shipped recipes, one line each."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgsim.train.any_recipe import AnyRecipe
    from pgsim.train.language.recipe import LanguageRecipe
    from pgsim.train.recipe import Recipe
    from pgsim.train.shufflenet.recipe import ShuffleNetRecipe


class ListRecipes(argparse.Action):
    """An option that prints the shipped recipes and ends the command, whatever else is missing; as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print to stdout and exit with 0."""
        print(recipe_table())
        parser.exit()


def recipe_table() -> str:
    """Return a line for each shipped recipe: name, network, bits, epochs, and what is trained."""
    from pgsim.cli.table import aligned
    from pgsim.train.any_recipe import parse_any_recipe
    from pgsim.train.recipe import find_recipe, shipped_recipes

    header = ("name", "network", "bits", "epochs", "what is trained")
    recipes = [parse_any_recipe(*find_recipe(name)) for name in shipped_recipes()]
    return aligned(header, [_cells(recipe) for recipe in recipes], left=("name", "network", "bits", header[-1]))


def _cells(recipe: AnyRecipe) -> tuple[str, ...]:
    from pgsim.train.recipe import Recipe
    from pgsim.train.shufflenet.recipe import ShuffleNetRecipe

    if isinstance(recipe, Recipe):
        network, what = recipe.network, _image_words(recipe)
    elif isinstance(recipe, ShuffleNetRecipe):
        network, what = "shufflenetv2_x0.5", _shufflenet_words(recipe)
    else:
        network, what = f"lstm{recipe.hidden_units}", _language_words(recipe)
    bits = "/".join(map(str, dict.fromkeys((recipe.act_bits, recipe.pred_bits)))) if recipe.act_bits else ""
    return recipe.name, network, bits, str(recipe.epochs), what


def _image_words(recipe: Recipe) -> str:
    if recipe.gating == "none":
        return _uniform_words(recipe)
    held = f"near {100 * recipe.hold_sparsity:g}" if recipe.hold_epochs else f"from {100 * recipe.start_sparsity:g}"
    words = _gated_words(recipe, held)
    if recipe.gating == "all":
        words.append("both convolutions gated")
    return ", ".join(words)


def _uniform_words(recipe: Recipe | ShuffleNetRecipe) -> str:
    return "PACT" if recipe.clip == "pact" else "uniform quantisation"


def _gated_words(recipe: Recipe | ShuffleNetRecipe, sparsity: str) -> list[str]:
    words = ["SeerNet" if recipe.policy == "seernet" else "PG", f"Sp {sparsity} %"]
    if recipe.thresholds == "fixed":
        words = [f"Fix-Threshold {recipe.delta_target:g}"]
    if recipe.policy == "zero":
        words.append("zeroed")
    if not recipe.sparse_bp:
        words.append("dense back-propagation")
    return words


def _shufflenet_words(recipe: ShuffleNetRecipe) -> str:
    if recipe.gated == "float":
        return "float"
    if recipe.gated == "none":
        return _uniform_words(recipe)
    words = _gated_words(recipe, f"near {100 * recipe.start_sparsity:g}")
    if recipe.gated == "pointwise":
        words.append("1x1 convolutions alone gated")
    return ", ".join(words)


def _language_words(recipe: LanguageRecipe) -> str:
    if recipe.cell != "gated":
        return "float" if recipe.cell == "float" else "uniform quantisation"
    return f"PG, Sp near {100 * recipe.start_sparsity:g} %"
