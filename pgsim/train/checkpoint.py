"""Write and read training checkpoints; a reader never sees half a file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.io.atomic import replacing
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
    """

    recipe: Recipe
    step: int
    model: dict[str, Any]
    averaged: dict[str, Any]
    targets: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    finished: bool
    epoch_so_far: tuple[float, float] = (0.0, 0.0)


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
    text = json.dumps(meta, sort_keys=True).encode()
    with replacing(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, meta=np.frombuffer(text, np.uint8), **arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; anything else is an InputError. Loads tensors and plain values only, never code."""
    raw = load_tensors(path)
    if raw.get("format") != FORMAT:
        raise InputError(f"{path} must be a checkpoint of pgsim train (format {FORMAT}), not another file")
    return Checkpoint(
        recipe=parse_recipe(raw["recipe"], str(path)),
        step=raw["step"],
        model=raw["model"],
        averaged=raw["averaged"],
        targets=raw["targets"],
        optimiser=raw["optimiser"],
        finished=raw["finished"],
        epoch_so_far=tuple(raw.get("epoch_so_far", (0.0, 0.0))),
    )


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what a checkpoint of any network holds; a missing or broken file, or one of others, is an InputError."""
    try:
        raw = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise InputError(f"{path} must be a checkpoint, not missing") from None
    except Exception as error:  # torch raises many kinds for a broken file, and documents none
        raise InputError(f"{path} must be a checkpoint of pgsim train, not {type(error).__name__}") from None
    if not isinstance(raw, dict) or "format" not in raw:
        raise InputError(f"{path} must be a checkpoint of pgsim train (format {FORMAT}), not another file")
    return raw
