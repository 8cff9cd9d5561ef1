"""Keep and read language models: a training's checkpoint (.pt) and the best epoch's weights (.npz, no pickle)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgsim.errors import InputError
from pgsim.train.checked import check_best, check_optimiser, checked_fields, checked_tensor, load_arrays, load_state
from pgsim.train.checkpoint import load_tensors, save_arrays, save_tensors, stored_meta
from pgsim.train.data import open_npz
from pgsim.train.language.model import LanguageModel, build_model
from pgsim.train.language.recipe import TASK, LanguageRecipe, language_recipe_text, parse_language_recipe
from pgsim.train.recipe import read_fields

CHECKPOINT_FORMAT = "pgsim-language-checkpoint-1"
WEIGHTS_FORMAT = "pgsim-language-weights-1"


@dataclass(frozen=True)
class LanguageCheckpoint:
    """State of a run after `step` optimiser steps.

    The random draws of a step depend on the recipe's seed and the step's number only, so no generator state is kept.

    Attributes:
        model: state dict of the network in training.
        best: state dict of the epoch with the lowest perplexity on the validation words; empty before the first.
        best_history: what was measured then (`epoch`, `valid_perplexity`, ...).
        targets: of the thresholds' penalty, or None.
        state: h and c after the last step, [batch_size, hidden_units].
        loss: sum of the losses of this epoch's steps.
        finished: the run is over and `best` is its result.
        data: digest of the training data, empty in older checkpoints.
    """

    recipe: LanguageRecipe
    vocabulary: int
    step: int
    model: dict[str, Any]
    best: dict[str, Any]
    best_history: dict[str, Any]
    targets: Tensor | None
    optimiser: dict[str, Any]
    state: tuple[Tensor, Tensor]
    loss: float
    finished: bool
    data: str = ""


def save_language_checkpoint(path: Path, kept: LanguageCheckpoint) -> None:
    """Write the state, whole or not at all."""
    save_tensors(path, {**vars(kept), "recipe": language_recipe_text(kept.recipe), "format": CHECKPOINT_FORMAT})


def load_language_checkpoint(path: Path) -> LanguageCheckpoint:
    """Read a checkpoint of a language model; anything else is an InputError. Loads tensors and plain values only."""
    raw = load_tensors(path)
    if raw.pop("format", None) != CHECKPOINT_FORMAT:
        raise InputError(f"{path} must be a checkpoint of a language model, not another file")
    tensors = {"model": dict, "best": dict, "best_history": dict, "optimiser": dict, "state": tuple}
    kinds = {"recipe": str, "vocabulary": int, "step": int, "loss": float, "finished": bool, "data": str, **tensors}
    fields = checked_fields({"data": "", **raw}, kinds, str(path))
    recipe = parse_language_recipe(fields["recipe"], str(path))
    check_best(fields["best"], fields["best_history"], "valid_perplexity", str(path))
    model = _network(fields["model"], recipe, fields["vocabulary"], f"{path}: model")
    for key in ("model", "best"):
        if fields[key]:
            load_state(model, fields[key], f"{path}: {key}", recipe.name)
    delta = dict(model.named_parameters()).get("cell.delta")
    if (delta is None) != (raw.get("targets") is None):
        raise InputError(f"{path}: targets must be there for a gated cell, and for no other, not the reverse")
    if delta is not None:
        fields["targets"] = checked_tensor(raw["targets"], f"{path}: targets", delta.shape, delta.dtype)
    if len(fields["state"]) != 2:
        raise InputError(f"{path}: state must be two tensors (h and c), not {len(fields['state'])}")
    for name, value in zip("hc", fields["state"], strict=True):
        checked_tensor(value, f"{path}: state: {name}", (recipe.batch_size, recipe.hidden_units), torch.float32)
    kept = ("step", "exp_avg", "exp_avg_sq")
    check_optimiser(fields["optimiser"], f"{path}: optimiser", optimiser_groups(model, recipe), kept, fields["step"])
    return LanguageCheckpoint(**{"targets": None, **fields, "recipe": recipe})


def _network(values: Mapping[str, Any], recipe: LanguageRecipe, vocabulary: int, where: str) -> LanguageModel:
    """Build the recipe's network once the array whose shape sets all sizes is known to have it.

    Raises InputError otherwise: a size that is only said could be beyond all memory.
    """
    if "embedding.weight" not in values:
        raise InputError(f"{where} must hold exactly the arrays of {recipe.name}, not differ in 'embedding.weight'")
    wanted, found = [vocabulary, recipe.hidden_units], list(getattr(values["embedding.weight"], "shape", ()))
    if found != wanted:
        raise InputError(f"{where}: embedding.weight must be {wanted}, not {found}")
    return build_model(recipe, vocabulary)


def optimiser_groups(model: LanguageModel, recipe: LanguageRecipe) -> list[dict[str, Any]]:
    """Return the parameter groups of a run's Adam, `share` being their part of the rate."""
    learned = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    settings = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
    groups = [{"params": [p for n, p in learned if n != "cell.delta"], "share": 1.0, **settings}]
    thresholds = [p for n, p in learned if n == "cell.delta"]
    return [*groups, {"params": thresholds, "share": recipe.threshold_rate, **settings}] if thresholds else groups


def save_language_weights(
    path: Path, state: dict[str, Any], recipe: LanguageRecipe, vocabulary: int, history: dict[str, Any]
) -> None:
    """Write a state dict under PyTorch's names, and `meta` (JSON: format, recipe, vocabulary, history), atomically."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
    meta = {
        "format": WEIGHTS_FORMAT,
        "recipe": language_recipe_text(recipe),
        "vocabulary": vocabulary,
        "history": history,
    }
    save_arrays(path, meta, arrays)


def is_language_model(path: Path) -> bool:
    """Return whether a checkpoint or weights file holds a language model; raises InputError for a file that is neither
    of pgsim train's."""
    if path.suffix == ".npz":
        return bool(stored_meta(open_npz(path)).get("format") == WEIGHTS_FORMAT)
    raw = load_tensors(path)
    recipe = raw.get("recipe")
    return isinstance(recipe, str) and read_fields(recipe, str(path)).get("task") == TASK


def read_language_model(path: Path) -> tuple[LanguageModel, LanguageRecipe, dict[str, Any]]:
    """Read the best epoch of a run from its checkpoint (.pt) or weights (.npz).

    Returns the network in evaluation mode, its recipe, and what is known of its training; `finished` where the run was
    at its end, whose test words it has read then.
    Raises InputError for another file, wrong arrays, or a checkpoint before its first epoch's end.
    """
    if path.suffix != ".npz":
        kept = load_language_checkpoint(path)
        if not kept.best:
            raise InputError(f"{path} must hold a finished epoch, not stop at step {kept.step} of the first")
        model = build_model(kept.recipe, kept.vocabulary)
        model.load_state_dict(kept.best)
        return model.eval(), kept.recipe, {**kept.best_history, "finished": kept.finished}
    arrays = open_npz(path)
    if "meta" not in arrays:
        raise InputError(f"{path} must hold weights of pgsim train (an array 'meta'), not another npz")
    meta = stored_meta(arrays)
    text, vocabulary, history = meta.get("recipe"), meta.get("vocabulary"), meta.get("history")
    if not isinstance(text, str) or type(vocabulary) is not int or not isinstance(history, dict):
        raise InputError(f"{path}: meta must be the JSON of a language model's weights, not something else")
    recipe = parse_language_recipe(text, str(path))
    del arrays["meta"]
    model = _network(arrays, recipe, vocabulary, str(path))
    load_arrays(model.state_dict(), arrays, str(path), recipe.name)
    return model.eval(), recipe, {**history, "finished": "test_perplexity" in history}


def start_from(model: LanguageModel, path: Path) -> dict[str, Any]:
    """Copy embedding, cell and projection of another run's best epoch; clips and thresholds stay as they are.

    Returns what is known of that run's training. Raises InputError where the networks differ in size or in `tied`.
    """
    given_model, _, history = read_language_model(path)
    source = {name.removesuffix("_l0"): value for name, value in given_model.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if name.endswith((".bound", ".delta")):
            continue
        given = source.get(name.removesuffix("_l0"))
        if given is None or given.shape != tensor.shape:
            found = "missing" if given is None else str(list(given.shape))
            raise InputError(
                f"{path}: {name} must be {list(tensor.shape)}, as the recipe's network has it, not {found}"
            )
        tensor.copy_(given)
    if model.projection is None and "projection" in source:
        raise InputError(f"{path} must be of a network with tied words, as the recipe's, not of one with a projection")
    return history
