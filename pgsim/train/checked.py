"""Refuse what a file says of a run before it reaches the run's network and optimiser: types, names, shapes, numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgsim.errors import InputError
from pgsim.io.strict import show

SKIPPED = "num_batches_tracked"
"""Of batch norm, and of no use after training: weights do not keep it."""
SMALLEST_CLIP = 1e-30
"""Below it the number of codes in 1.0 may be none that float32 has."""
KINDS = {
    int: "a whole number from 0",
    float: "a finite number",
    bool: "True or False",
    str: "text",
    dict: "a mapping",
    tuple: "a tuple",
}
"""What `checked_fields` asks of a value of each type, in words."""


def checked_fields(raw: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> dict[str, Any]:
    """Return the values of these keys, each of its type (one of KINDS); others are left out.

    Raises InputError for a missing key, another type, a negative whole number, and NaN or infinity.
    """
    for key, kind in kinds.items():
        if key not in raw:
            raise InputError(f"{where}: {key} must be given, not missing")
        if not is_of(raw[key], kind):
            raise InputError(f"{where}: {key} must be {KINDS[kind]}, not {_found(raw[key])}")
    return {key: raw[key] for key in kinds}


def is_of(value: object, kind: type) -> bool:
    """Tell whether a value is what KINDS says of its type."""
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
    infinity; and for a clip (alpha, bound) below SMALLEST_CLIP or a variance below 0.
    """
    odd = sorted(values.keys() ^ wanted.keys(), key=str)
    if odd:
        raise InputError(f"{where} must hold exactly the arrays of {of}, not differ in {show(odd[0])}")
    found = {}
    for name, like in wanted.items():
        tensor = found[name] = checked_tensor(values[name], f"{where}: {name}", like.shape, like.dtype)
        if name.endswith((".alpha", ".bound")) and not bool((tensor >= SMALLEST_CLIP).all()):
            raise InputError(f"{where}: {name} must be {SMALLEST_CLIP:g} or more, not {float(tensor.min()):g}")
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
        if not is_of(index, int) or index >= len(shapes):
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
