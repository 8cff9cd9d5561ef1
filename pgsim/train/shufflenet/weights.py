"""Read a float trunk of ShuffleNet V2 0.5x, keep and read trained networks: checkpoints (.pt) and weights (.npz)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pgsim.errors import InputError
from pgsim.io.strict import show
from pgsim.nn import Gating, Policy, coded_layers
from pgsim.train.checked import (
    SKIPPED,
    check_best,
    check_optimiser,
    checked_fields,
    checked_tensors,
    load_arrays,
    load_state,
)
from pgsim.train.checkpoint import load_tensors, save_arrays, save_tensors, sgd_groups, stored_meta
from pgsim.train.data import open_npz
from pgsim.train.recipe import read_fields
from pgsim.train.shufflenet.network import ShuffleNetV2, quantised
from pgsim.train.shufflenet.recipe import TASK, ShuffleNetRecipe, parse_shufflenet_recipe, shufflenet_recipe_text

CLASSES = 10
CHECKPOINT_FORMAT = "pgsim-shufflenet-checkpoint-1"
WEIGHTS_FORMAT = "pgsim-shufflenet-weights-1"
QUANTISERS = (".alpha", ".bound", ".delta")
"""What a quantised network has beside its weights: clips, fixed scales, thresholds."""


@dataclass(frozen=True)
class ShuffleNetCheckpoint:
    """State of a run after `step` optimiser steps.

    The random draws of a step depend on the recipe's seed and the step's number only, so no generator state is kept.

    Attributes:
        model: state dict of the network in training; `best` that of the epoch with the highest held-out accuracy.
        best_history: what was measured then (`epoch`, `held_out_accuracy`, ...).
        targets: of the thresholds' penalty, by layer.
        loss: sum of the losses of this epoch's steps.
        finished: the run is over and `best` is its result.
        data: digest of the training data, empty in older checkpoints.
    """

    recipe: ShuffleNetRecipe
    step: int
    model: dict[str, Any]
    best: dict[str, Any]
    best_history: dict[str, Any]
    targets: dict[str, Tensor]
    optimiser: dict[str, Any]
    loss: float
    finished: bool
    data: str = ""


def build_shufflenet(recipe: ShuffleNetRecipe) -> ShuffleNetV2:
    """Return the recipe's network with random weights, drawn from its seed; clips are not set."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        net = ShuffleNetV2(CLASSES)
    if recipe.gated == "float":
        return net
    gating = None
    if recipe.gated != "none":
        gating = Gating(recipe.pred_bits, Policy(recipe.policy), recipe.sparse_bp)
    net = quantised(net, recipe.act_bits, gating, recipe.gated, learned_clips=recipe.clip == "pact")
    for layer in coded_layers(net).values():
        if layer.delta is not None:
            layer.delta.requires_grad_(recipe.thresholds == "learned")
    return net


def read_trunk(net: nn.Module, path: Path) -> None:
    """Copy the arrays of an npz into the stem and the stages of a network; all else stays as it is.

    Raises InputError for a file that lacks an array, holds another, or has one of another shape.
    """
    arrays = open_npz(path)
    state = {
        name: tensor
        for name, tensor in net.state_dict().items()
        if name.startswith(("first_conv.", "stage")) and not name.endswith((SKIPPED, *QUANTISERS))
    }
    load_arrays(state, arrays, str(path), "a ShuffleNet V2 0.5x trunk")


def start_from(net: ShuffleNetV2, path: Path) -> dict[str, Any]:
    """Copy weights and norms of another run's best epoch, or of a float trunk; clips and thresholds stay.

    Returns what is known of that run's training; a trunk counts as finished.
    """
    if path.suffix == ".npz" and "meta" not in open_npz(path):
        read_trunk(net, path)
        return {"finished": True}
    source, _, history = read_shufflenet(path)
    state = {n: t for n, t in net.state_dict().items() if not n.endswith(QUANTISERS)}
    _copy(state, source.state_dict(), path)
    return history


def save_shufflenet_checkpoint(path: Path, kept: ShuffleNetCheckpoint) -> None:
    """Write the state, whole or not at all."""
    save_tensors(path, {**vars(kept), "recipe": shufflenet_recipe_text(kept.recipe), "format": CHECKPOINT_FORMAT})


def load_shufflenet_checkpoint(path: Path) -> ShuffleNetCheckpoint:
    """Read a checkpoint of a ShuffleNet; anything else is an InputError. Loads tensors and plain values only."""
    raw = load_tensors(path)
    if raw.pop("format", None) != CHECKPOINT_FORMAT:
        raise InputError(f"{path} must be a checkpoint of a ShuffleNet, not another file")
    tensors = {"model": dict, "best": dict, "best_history": dict, "targets": dict, "optimiser": dict}
    kinds = {"recipe": str, "step": int, "loss": float, "finished": bool, "data": str, **tensors}
    fields = checked_fields({"data": "", **raw}, kinds, str(path))
    recipe = parse_shufflenet_recipe(fields["recipe"], str(path))
    check_best(fields["best"], fields["best_history"], "held_out_accuracy", str(path))
    with torch.random.fork_rng(devices=()):
        net = build_shufflenet(recipe)
    for key in ("model", "best"):
        if fields[key] or key == "model":
            load_state(net, fields[key], f"{path}: {key}", recipe.name)
    thresholds = {name: layer.delta for name, layer in coded_layers(net).items() if layer.delta is not None}
    fields["targets"] = checked_tensors(fields["targets"], thresholds, f"{path}: targets", recipe.name)
    kept = ["momentum_buffer"] if recipe.momentum else []
    check_optimiser(fields["optimiser"], f"{path}: optimiser", optimiser_groups(net, recipe), kept, fields["step"])
    return ShuffleNetCheckpoint(**{**fields, "recipe": recipe})


def optimiser_groups(net: nn.Module, recipe: ShuffleNetRecipe) -> list[dict[str, Any]]:
    """Return the parameter groups of a run's SGD, `share` being their part of the rate; thresholds do not decay."""
    others, thresholds = sgd_groups(net, recipe.momentum, recipe.weight_decay)
    return [{**others, "share": 1.0}, {**thresholds, "share": recipe.threshold_rate}]


def save_shufflenet_weights(
    path: Path, state: dict[str, Any], recipe: ShuffleNetRecipe, history: dict[str, Any]
) -> None:
    """Write a state dict under PyTorch's names, and `meta` (JSON: format, recipe, history), whole or not at all."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in state.items() if not name.endswith(SKIPPED)}
    save_arrays(path, {"format": WEIGHTS_FORMAT, "recipe": shufflenet_recipe_text(recipe), "history": history}, arrays)


def is_shufflenet(path: Path) -> bool:
    """Return whether a checkpoint or weights file holds a ShuffleNet; raises InputError for a broken file."""
    if path.suffix == ".npz":
        return bool(stored_meta(open_npz(path)).get("format") == WEIGHTS_FORMAT)
    recipe = load_tensors(path).get("recipe")
    return isinstance(recipe, str) and read_fields(recipe, str(path)).get("task") == TASK


def read_shufflenet(path: Path) -> tuple[ShuffleNetV2, ShuffleNetRecipe, dict[str, Any]]:
    """Read the best epoch of a run from its checkpoint (.pt) or weights (.npz).

    Returns the network in evaluation mode, its recipe, and what is known of its training; `finished` where the run was
    at its end when the file was written, be its best epoch an earlier one.
    Raises InputError for another file, wrong arrays, or a checkpoint before its first epoch's end.
    """
    if path.suffix != ".npz":
        kept = load_shufflenet_checkpoint(path)
        if not kept.best:
            raise InputError(f"{path} must hold a finished epoch, not stop at step {kept.step} of the first")
        net = build_shufflenet(kept.recipe)
        net.load_state_dict(kept.best)
        return net.eval(), kept.recipe, {**kept.best_history, "finished": kept.finished}
    arrays = open_npz(path)
    meta = stored_meta(arrays)
    text, history = meta.get("recipe"), meta.get("history")
    if not isinstance(text, str) or not isinstance(history, dict):
        raise InputError(f"{path} must hold weights of a ShuffleNet of pgsim train, not another npz")
    recipe = parse_shufflenet_recipe(text, str(path))
    finished = history.get("finished", history.get("epoch") == recipe.epochs)  # older files do not say it
    if not isinstance(finished, bool):
        raise InputError(f"{path}: finished must be true or false, not {show(finished)}")
    del arrays["meta"]
    net = build_shufflenet(recipe)
    load_arrays(net.state_dict(), arrays, str(path), recipe.name)
    return net.eval(), recipe, {**history, "finished": finished}


def _copy(state: dict[str, Tensor], source: dict[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if name not in source or source[name].shape != tensor.shape:
            found = list(source[name].shape) if name in source else "missing"
            raise InputError(f"{path}: {name} must be {list(tensor.shape)}, not {found}")
        with torch.no_grad():
            tensor.copy_(source[name])
