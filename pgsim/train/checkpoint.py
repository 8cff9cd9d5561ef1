"""Write and read training checkpoints; a reader never sees half a file, and refuses what does not fit its network."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pgsim.errors import InputError
from pgsim.io.atomic import replacing
from pgsim.io.strict import check_regular, show
from pgsim.train.checked import check_optimiser, checked_fields, checked_tensors, is_of, load_state
from pgsim.train.network import build_network
from pgsim.train.recipe import Recipe, parse_recipe, recipe_text

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `step` optimiser steps.

    The random draws of a step depend on the recipe's seed and the step's number only, so no generator state is kept.

    Attributes:
        model: state dict of the network in training.
        averaged: state dict of the averaged network, batch norm recalibrated when the run is finished.
        targets: penalty target of each threshold tensor, by parameter name.
        optimiser: state dict of SGD.
        finished: the run is over and `averaged` is its result.
        epoch_so_far: sums of the losses and of the batches' accuracies since the epoch began.
        data: digest of the training data, empty in older checkpoints.
    """

    recipe: Recipe
    step: int
    model: dict[str, Any]
    averaged: dict[str, Any]
    targets: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    finished: bool
    epoch_so_far: tuple[float, float] = (0.0, 0.0)
    data: str = ""


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write the state, whole or not at all."""
    save_tensors(path, {**vars(state), "recipe": recipe_text(state.recipe), "format": FORMAT})


def save_tensors(path: Path, values: dict[str, Any]) -> None:
    """Write what `load_tensors` reads, whole or not at all."""
    content = io.BytesIO()
    torch.save(values, content)  # to a file it would hide a full disk behind an error of its own
    with replacing(path) as stream:
        stream.write(content.getbuffer())


def save_arrays(path: Path, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as an npz (no pickle), and `meta` as JSON bytes under that name, whole or not at all."""
    text = json.dumps(meta, sort_keys=True, allow_nan=False).encode()
    with replacing(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, meta=np.frombuffer(text, np.uint8), **arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; anything else is an InputError. Loads tensors and plain values only, never code.

    Every state dict is known to fit the recipe's network and its optimiser then, and to be finite.
    """
    raw = load_tensors(path)
    if raw["format"] != FORMAT:
        raise InputError(f"{path} must be a checkpoint of pgsim train (format {FORMAT}), not another file")
    kinds = {"step": int, "model": dict, "averaged": dict, "targets": dict, "optimiser": dict, "finished": bool}
    fields = checked_fields({"data": "", **raw}, {"recipe": str, "data": str, **kinds}, str(path))
    sums = checked_fields({"epoch_so_far": (0.0, 0.0), **raw}, {"epoch_so_far": tuple}, str(path))["epoch_so_far"]
    if len(sums) != 2 or any(not is_of(value, float) for value in sums):
        raise InputError(f"{path}: epoch_so_far must be two finite numbers, not {show(sums)}")
    recipe = parse_recipe(fields["recipe"], str(path))
    with torch.random.fork_rng(devices=()):
        net = build_network(recipe)
    for key in ("model", "averaged"):
        load_state(net, fields[key], f"{path}: {key}", recipe.name)
    momentum = ["momentum_buffer"] if recipe.momentum else []
    groups = sgd_groups(net, recipe.momentum, recipe.weight_decay)
    check_optimiser(fields["optimiser"], f"{path}: optimiser", groups, momentum, fields["step"])
    thresholds = {name: conv.delta for name, conv in net.gated_convs() if conv.delta is not None}
    return Checkpoint(
        recipe=recipe,
        step=fields["step"],
        model=fields["model"],
        averaged=fields["averaged"],
        targets=checked_tensors(fields["targets"], thresholds, f"{path}: targets", recipe.name),
        optimiser=fields["optimiser"],
        finished=fields["finished"],
        epoch_so_far=(sums[0], sums[1]),
        data=fields["data"],
    )


def sgd_groups(net: nn.Module, momentum: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameter groups of a run's SGD, without the rate, thresholds last: these take no weight decay."""
    named = list(net.named_parameters())
    settings = {"momentum": momentum, "dampening": 0}
    return [
        {"params": [p for n, p in named if not n.endswith(".delta")], "weight_decay": weight_decay, **settings},
        {"params": [p for n, p in named if n.endswith(".delta")], "weight_decay": 0.0, **settings},
    ]


def unpickled(path: Path) -> Any:
    """Return what torch.load makes of a file on the CPU: tensors and plain values only, never code, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickles in another protocol than torch's own
        return torch.load(path, weights_only=True, map_location="cpu")


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what a checkpoint of any network holds; a missing or broken file, or one of others, is an InputError."""
    check_regular(path)
    try:
        raw = unpickled(path)
    except FileNotFoundError:
        raise InputError(f"{path} must be a checkpoint, not missing") from None
    except Exception as error:  # torch raises many kinds for a broken file, and documents none
        raise InputError(f"{path} must be a checkpoint of pgsim train, not {type(error).__name__}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int | str):
        raise InputError(f"{path} must be a checkpoint of pgsim train (format {FORMAT}), not another file")
    return raw


def stored_meta(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what `save_arrays` kept as `meta` beside the arrays; nothing where that is no JSON object, or missing."""
    try:
        meta = json.loads(arrays["meta"].tobytes(), parse_constant=_refuse, parse_float=_finite)
    except (KeyError, ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)
