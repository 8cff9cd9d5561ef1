"""Write and read training checkpoints; a reader never sees half a file, and refuses what does not fit its network."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.errors import InputError
from pgsim.io.atomic import replacing
from pgsim.io.strict import show
from pgsim.train.network import build_network
from pgsim.train.recipe import Recipe, parse_recipe, recipe_text

FORMAT = 1
SKIPPED = "num_batches_tracked"
"""Of batch norm, and of no use after training: weights do not keep it."""
KINDS = {
    int: "a whole number from 0",
    float: "a finite number",
    bool: "True or False",
    str: "text",
    dict: "a mapping",
    tuple: "a tuple",
}
"""What `checked_fields` asks of a value of each type, in words."""


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
    """Read a checkpoint; anything else is an InputError. Loads tensors and plain values only, never code.

    Every state dict is known to fit the recipe's network and its optimiser then, and to be finite.
    """
    raw = load_tensors(path)
    if raw["format"] != FORMAT:
        raise InputError(f"{path} must be a checkpoint of pgsim train (format {FORMAT}), not another file")
    kinds = {"step": int, "model": dict, "averaged": dict, "targets": dict, "optimiser": dict, "finished": bool}
    fields = checked_fields(raw, {"recipe": str, **kinds}, str(path))
    sums = checked_fields({"epoch_so_far": (0.0, 0.0), **raw}, {"epoch_so_far": tuple}, str(path))["epoch_so_far"]
    if len(sums) != 2 or any(not _is(value, float) for value in sums):
        raise InputError(f"{path}: epoch_so_far must be two finite numbers, not {show(sums)}")
    recipe = parse_recipe(fields["recipe"], str(path))
    with torch.random.fork_rng(devices=()):
        net = build_network(recipe)
    for key in ("model", "averaged"):
        load_state(net, fields[key], f"{path}: {key}", recipe.name)
    momentum = ["momentum_buffer"] if recipe.momentum else []
    check_optimiser(fields["optimiser"], f"{path}: optimiser", optimiser_groups(net, recipe), momentum, fields["step"])
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
    )


def optimiser_groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameter groups of a run's SGD, without the rate; thresholds take no weight decay."""
    named = list(net.named_parameters())
    settings = {"momentum": recipe.momentum, "dampening": 0}
    return [
        {"params": [p for n, p in named if not n.endswith(".delta")], "weight_decay": recipe.weight_decay, **settings},
        {"params": [p for n, p in named if n.endswith(".delta")], "weight_decay": 0.0, **settings},
    ]


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what a checkpoint of any network holds; a missing or broken file, or one of others, is an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles in another protocol than torch's own
            raw = torch.load(path, weights_only=True, map_location="cpu")
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
        meta = json.loads(arrays["meta"].tobytes())
    except (KeyError, ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def checked_fields(raw: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> dict[str, Any]:
    """Return the values of these keys, each of its type (one of KINDS); others are left out.

    Raises InputError for a missing key, another type, a negative whole number, and NaN or infinity.
    """
    for key, kind in kinds.items():
        if key not in raw:
            raise InputError(f"{where}: {key} must be given, not missing")
        if not _is(raw[key], kind):
            raise InputError(f"{where}: {key} must be {KINDS[kind]}, not {_found(raw[key])}")
    return {key: raw[key] for key in kinds}


def _is(value: object, kind: type) -> bool:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    return value >= 0 if isinstance(value, int) else not isinstance(value, float) or math.isfinite(value)


def _found(value: object) -> str:
    """Return a value in a few words, one of many numbers (a tensor) or keys by its type."""
    if value is None:
        return "None"
    return show(value) if isinstance(value, int | float | str | list) else type(value).__name__


def check_best(best: dict[str, Any], history: dict[str, Any], measure: str, where: str) -> None:
    """Refuse a best epoch's state dict and what was measured then where one is there without the other.

    Raises InputError for a history without a whole number `epoch` and a finite `measure`, or one that is no JSON, too.
    """
    if not best and not history:
        return
    if not best:
        raise InputError(f"{where}: best must be the state of epoch {_found(history.get('epoch'))}, not empty")
    checked_fields(history, {"epoch": int, measure: float}, f"{where}: best_history")
    try:
        json.dumps(history, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        raise InputError(f"{where}: best_history must be plain numbers, words and lists, not others") from None


def load_state(net: nn.Module, values: Mapping[str, Any], where: str, of: str) -> None:
    """Copy a checkpoint's state dict into a network; `of` is the recipe's name.

    Raises InputError for what does not fit, as `checked_tensors` does.
    """
    state = net.state_dict()
    for name, tensor in checked_tensors(values, state, where, of).items():
        state[name].copy_(tensor)


def load_arrays(state: Mapping[str, Tensor], arrays: Mapping[str, Any], where: str, of: str) -> None:
    """Copy an npz's arrays into a network's tensors of their names; SKIPPED ones are left alone, here and there.

    Raises InputError for what does not fit, as `checked_tensors` does.
    """
    wanted, given = ({n: v for n, v in each.items() if not n.endswith(SKIPPED)} for each in (state, arrays))
    for name, tensor in checked_tensors(given, wanted, where, of).items():
        wanted[name].copy_(tensor)


def checked_tensors(values: Mapping[str, Any], wanted: Mapping[str, Tensor], where: str, of: str) -> dict[str, Tensor]:
    """Return tensors, or arrays, of these names as tensors of the wanted ones' dtypes.

    Raises InputError, which names the first odd one, for other names, another shape, what are no numbers, NaN or
    infinity; and for a clip (alpha, bound) that is not above 0 or a variance below it.
    """
    odd = sorted(values.keys() ^ wanted.keys(), key=str)
    if odd:
        raise InputError(f"{where} must hold exactly the arrays of {of}, not differ in {show(odd[0])}")
    found = {}
    for name, like in wanted.items():
        tensor = found[name] = checked_tensor(values[name], f"{where}: {name}", like.shape, like.dtype)
        if name.endswith((".alpha", ".bound")) and not bool((tensor > 0).all()):
            raise InputError(f"{where}: {name} must be more than 0, not {float(tensor.min()):g}")
        if name.endswith(".running_var") and not bool((tensor >= 0).all()):
            raise InputError(f"{where}: {name} must be 0 or more, not {float(tensor.min()):g}")
    return found


def checked_tensor(value: object, where: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor, or an array, of this shape as a tensor of this dtype.

    Raises InputError for another shape, integers in place of real numbers or the reverse, and NaN or infinity.
    """
    if not isinstance(value, Tensor | np.ndarray):
        raise InputError(f"{where} must be a tensor, not {_found(value)}")
    if list(value.shape) != list(shape):
        raise InputError(f"{where} must be {list(shape)}, not {list(value.shape)}")
    what = "real numbers" if dtype.is_floating_point else "integers"
    if isinstance(value, np.ndarray):
        real = np.issubdtype(value.dtype, np.floating)
        if real != dtype.is_floating_point or not (real or np.issubdtype(value.dtype, np.integer)):
            raise InputError(f"{where} must be {what}, not {value.dtype}")
        value = torch.from_numpy(value.astype(np.float64 if real else np.int64))
    elif value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise InputError(f"{where} must be a plain tensor, not a sparse, quantised or empty one")
    elif value.is_floating_point() != dtype.is_floating_point or value.is_complex() or value.dtype == torch.bool:
        raise InputError(f"{where} must be {what}, not {str(value.dtype).removeprefix('torch.')}")
    tensor = value.detach().to(dtype)
    if dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{where} must be finite, not hold NaN or infinity")
    return tensor


def check_optimiser(
    values: Mapping[str, Any], where: str, groups: Sequence[Mapping[str, Any]], kept: Sequence[str], step: int
) -> None:
    """Refuse, with an InputError, a state dict that is not of an optimiser of these groups after `step` steps.

    Args:
        groups: as torch takes them: `params`, tensors, and the settings that the state dict must have, too.
        kept: names of what is kept of a parameter from the first step on, in its shape; `step` is a number.
    """
    found, stored = checked_fields(values, {"state": dict}, where)["state"], values.get("param_groups")
    if not isinstance(stored, list) or len(stored) != len(groups) or not all(isinstance(g, Mapping) for g in stored):
        raise InputError(f"{where}: param_groups must be a list of {len(groups)} mappings, not {_found(stored)}")
    shapes = [parameter.shape for group in groups for parameter in group["params"]]
    first = 0
    for number, (given, group) in enumerate(zip(stored, groups, strict=True)):
        wanted = {**group, "params": list(range(first, first + len(group["params"])))}
        first += len(group["params"])
        for key, value in wanted.items():
            if not _equal(given.get(key), value):
                must = f"{key} must be {show(value)}"
                raise InputError(f"{where}: param_groups[{number}]: {must}, not {_found(given.get(key))}")
    if step and kept and not found:
        raise InputError(f"{where}: state must be that of {len(shapes)} parameters, not empty")
    for index, entry in found.items():
        if not _is(index, int) or index >= len(shapes):
            raise InputError(f"{where}: state must be that of parameters 0..{len(shapes) - 1}, not of {_found(index)}")
        if not isinstance(entry, Mapping) or set(entry) != set(kept):
            names = sorted(map(str, entry)) if isinstance(entry, Mapping) else _found(entry)
            raise InputError(f"{where}: state[{index}] must hold {list(kept)}, not {names}")
        for name in kept:
            shape = () if name == "step" else shapes[index]
            checked_tensor(entry[name], f"{where}: state[{index}]: {name}", shape, torch.float32)


def _equal(value: object, wanted: object) -> bool:
    """Compare plain values; one that is a tensor, or holds one, is none."""
    return repr(value) == repr(wanted) or (isinstance(value, int | float) and value == wanted)
