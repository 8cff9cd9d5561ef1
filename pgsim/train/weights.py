"""Keep a trained network's weights as an npz (no pickle) with the recipe that made them; read them or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pgsim.errors import InputError
from pgsim.io.strict import show
from pgsim.train.checked import SKIPPED, load_arrays
from pgsim.train.checkpoint import load_checkpoint, save_arrays, stored_meta
from pgsim.train.data import open_npz
from pgsim.train.network import PGResNet, build_network
from pgsim.train.recipe import Recipe, parse_recipe, recipe_text

FORMAT = "pgsim-weights-1"


def save_weights(path: Path, net: PGResNet, recipe: Recipe, history: dict[str, Any]) -> None:
    """Write float32 master weights, batch norm, clips and thresholds under their PyTorch names, and `meta` (JSON)."""
    arrays = {n: t.detach().cpu().numpy() for n, t in net.state_dict().items() if not n.endswith(SKIPPED)}
    save_arrays(path, {"format": FORMAT, "recipe": recipe_text(recipe), "history": history}, arrays)


def read_network(path: Path) -> tuple[PGResNet, Recipe, dict[str, Any]]:
    """Read a trained network from a checkpoint (.pt) or from weights (.npz).

    Returns:
        The averaged network in evaluation mode, its recipe, and what is known of its training (`step`, `finished`).
    """
    if path.suffix != ".npz":
        state = load_checkpoint(path)
        net = build_network(state.recipe)
        net.load_state_dict(state.averaged)
        return net.eval(), state.recipe, {"step": state.step, "finished": state.finished}
    arrays = open_npz(path)
    if "meta" not in arrays:
        raise InputError(f"{path} must hold weights of pgsim train (an array 'meta'), not another npz")
    meta = stored_meta(arrays)
    if meta.get("format", FORMAT) != FORMAT:
        must = f"must hold weights of a ResNet or ShiftNet ({FORMAT})"
        raise InputError(f"{path} {must}, not of another network ({show(meta['format'])})")
    text, history = meta.get("recipe"), meta.get("history")
    if not isinstance(text, str) or not isinstance(history, dict):
        raise InputError(f"{path}: meta must be the JSON that pgsim train writes, not something else")
    recipe = parse_recipe(text, str(path))
    net = build_network(recipe)
    del arrays["meta"]
    load_arrays(net.state_dict(), arrays, str(path), recipe.name)
    return net.eval(), recipe, history


def find_start(name: str, out: Path, data: Path) -> Path:
    """Return the file that a recipe names to start from: a path, or a run's weights or checkpoint in `out` or `data`.

    A bare run name stands for NAME.weights.npz, then NAME.pt. Raises InputError where there is none.
    """
    named = Path(name).suffix in (".npz", ".pt")
    names = (name,) if named else (f"{name}.weights.npz", f"{name}.pt")
    for candidate in [*([Path(name)] if named else []), *(folder / each for folder in (out, data) for each in names)]:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"a recipe must start from a run of pgsim train in {out} or {data} ({' or '.join(names)}), not {name!r}; "
        f"train it first, or copy it there"
    )


def start_at(name: str, out: Path, data: Path, copy: Callable[[Path], Mapping[str, Any]]) -> None:
    """Start from the file that `find_start` has for a recipe's name; `copy` takes it and returns the run's history.

    Raises InputError where there is none, and for a run that is not finished: a bare name promises all of its epochs. A
    recipe that names a file has its way.
    """
    path = find_start(name, out, data)
    history = copy(path)
    if path.name != Path(name).name and history.get("finished") is not True:
        way = "go on with --resume, or let the recipe name the file"
        raise InputError(f"{path} must be of a finished run, not of one short of its end; {way}")


def start_from_run(net: PGResNet, path: Path) -> dict[str, Any]:
    """Copy another run's weights and batch norms; clips and thresholds stay as they are. Return its history.

    Raises InputError where the networks differ.
    """
    given_net, _, history = read_network(path)
    state, source = net.state_dict(), given_net.state_dict()
    for name, tensor in state.items():
        if name.endswith((".alpha", ".delta")):
            continue
        given = source.get(name)
        if given is None or given.shape != tensor.shape:
            found = "missing" if given is None else str(list(given.shape))
            raise InputError(f"{path}: {name} must be {list(tensor.shape)}, as in the recipe's network, not {found}")
        tensor.copy_(given)
    return history
