"""Recipes of every kind: the `task` of a YAML file decides which record it becomes."""

from __future__ import annotations

import dataclasses

import yaml

from pgsim.errors import InputError
from pgsim.train.language.recipe import TASK as LANGUAGE_TASK
from pgsim.train.language.recipe import LanguageRecipe, parse_language_recipe
from pgsim.train.recipe import Recipe, parse_recipe, read_fields
from pgsim.train.shufflenet.recipe import TASK as SHUFFLENET_TASK
from pgsim.train.shufflenet.recipe import ShuffleNetRecipe, parse_shufflenet_recipe

AnyRecipe = Recipe | LanguageRecipe | ShuffleNetRecipe


def parse_any_recipe(text: str, where: str) -> AnyRecipe:
    """Turn YAML text into the record that its `task` calls for: a ResNet's where it has none."""
    task = read_fields(text, where).get("task")
    if task is None:
        return parse_recipe(text, where)
    if task == LANGUAGE_TASK:
        return parse_language_recipe(text, where)
    if task == SHUFFLENET_TASK:
        return parse_shufflenet_recipe(text, where)
    raise InputError(f"{where}: task must be '{LANGUAGE_TASK}', '{SHUFFLENET_TASK}' or left out, not {task!r}")


def with_seed(recipe: AnyRecipe, seed: int) -> AnyRecipe:
    """Return the recipe under another seed, named NAME_seedN, so that runs of several seeds fit one folder.

    Raises InputError for a name that becomes too long for a file's.
    """
    return _changed(recipe, "seed", seed)


def with_epochs(recipe: AnyRecipe, epochs: int) -> AnyRecipe:
    """Return the recipe of another number of epochs, named NAME_epochsN.

    Raises InputError where such a recipe cannot have that many, and for a name that becomes too long for a file's.
    """
    return _changed(recipe, "epochs", epochs)


def _changed(recipe: AnyRecipe, field: str, value: int) -> AnyRecipe:
    """Return the recipe with another value in a field, which its name tells, and checked as one from a file."""
    changed = {**dataclasses.asdict(recipe), field: value, "name": f"{recipe.name}_{field}{value}"}
    return parse_any_recipe(yaml.safe_dump(changed), f"--{field}")
