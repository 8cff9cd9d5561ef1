"""A training recipe: a YAML file becomes one frozen record, and all doubt about it ends here.

A file may say `base: NAME`, one of the recipes that pgsim ships, and give `name` and the fields that differ; the base
has none itself. The record, and what a checkpoint keeps, is the recipe in full.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import yaml

from pgsim.errors import InputError
from pgsim.io.strict import show
from pgsim.io.yaml_file import plain_yaml, yaml_text

T = typing.TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run's result, apart from the data.

    Attributes:
        name: also the name of the run's files.
        act_bits, pred_bits: B and B_hb; 2 <= act_bits <= 12, 1 <= pred_bits < act_bits.
        gating: "release" gates the first convolution of each block, "all" gates both, "none" none of them: a uniform
            network of act_bits, whose pred_bits are the same.
        float_weights: npz of a float ResNet in the data folder to start from, or the name of a run of the same network
            in the output or data folder, or "" for random weights.
        epochs, batch_size, warmup_steps, seed: integers; the learning rate rises over `warmup_steps`, then follows a
            cosine to 0, or where there are `rate_drops` stays, and is a tenth after each of these epochs. 0 epochs
            calibrate clips, batch norms and thresholds, and train nothing.
        learning_rate, momentum, weight_decay: of SGD; thresholds take no weight decay.
        sparse_bp: sparse back-propagation to the thresholds.
        sigma: factor of the penalty sigma * ||delta - target|| per gated layer.
        delta_target: the penalty's target in real units, or "start": each threshold's own starting value.
        start_sparsity, start_scope: thresholds start at this quantile of the prediction outputs, pooled over the
            "network", a "layer" or a "channel".
        hold_epochs, hold_sparsity: after each of the first `hold_epochs` epochs thresholds and penalty targets are set
            anew to the `hold_sparsity` quantile, pooled in the same way; later they are only learned.
        teacher: npz in the data folder of the float network whose logits are distilled, or "" for none.
        distill_weight, temperature: share of the distillation loss in [0, 1], and its softmax temperature.
        views: how many fixed random views (crop, flip) each image has; epochs take them in turn, and the teacher's
            logits of a view are computed once. 0 draws a new view every epoch.
        ema_decay: of the averaged weights that are evaluated and kept; 0 keeps the last ones.
        holdout: training images (the last ones) kept out of training for model selection.
        network: resnet20, resnet32, resnet56 or shiftnet20.
        clip: "pact", a learned bound (PACT), or "max", the running maximum of what is quantised (uniform quantisation).
        thresholds: "learned", or "fixed" at `delta_target`, a number (Fix-Threshold).
        policy: what becomes of an output that is not updated: "keep" its prediction, or "zero". "seernet" has the
            values of "keep", but an update counts all B bits, computed anew (SeerNet), not the B - B_hb that are left.
    """

    name: str
    act_bits: int
    pred_bits: int
    gating: str
    float_weights: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup_steps: int
    sparse_bp: bool
    sigma: float
    delta_target: float | str
    start_sparsity: float
    start_scope: str
    hold_epochs: int
    hold_sparsity: float
    teacher: str
    distill_weight: float
    temperature: float
    views: int
    ema_decay: float
    holdout: int
    seed: int
    network: str = "resnet20"
    clip: str = "pact"
    thresholds: str = "learned"
    policy: str = "keep"
    rate_drops: tuple[int, ...] = ()


_WORDS = {
    "network": ("resnet20", "resnet32", "resnet56", "shiftnet20"),
    "gating": ("release", "all", "none"),
    "start_scope": ("network", "layer", "channel"),
    "clip": ("pact", "max"),
    "thresholds": ("learned", "fixed"),
    "policy": ("keep", "zero", "seernet"),
}
_POSITIVE = ("batch_size", "learning_rate", "temperature")
_NOT_NEGATIVE = ("epochs", "hold_epochs", "views", "weight_decay", "warmup_steps", "sigma", "holdout", "seed")
_SHARES = ("hold_sparsity", "momentum", "start_sparsity", "distill_weight", "ema_decay")
LARGEST = 10**9  # of any number of a recipe: beyond it float32 trains nothing
MOST_VIEWS = 1000
MOST_ACT_BITS = 12  # SeerNet's in the paper; thresholds of a trace are 2^bits - 1 a channel
MOST_NAME_BYTES = 200


def parse_recipe(text: str, where: str) -> Recipe:
    """Turn YAML text into a Recipe.

    Args:
        text: a YAML mapping with exactly the fields of `Recipe`; those with a default, or from a base, may be left out.
        where: named in error messages.

    Raises:
        InputError: unknown, missing or duplicate key, a wrong type, or a value out of range.
    """
    recipe = read_record(Recipe, read_fields(text, where), where)
    _check_ranges(recipe, where)
    return recipe


def read_fields(text: str, where: str) -> dict[str, object]:
    """Read the YAML text of any recipe as a mapping whose keys stand once, a base's fields among them.

    Raises InputError for anything else, and for a base that is not shipped or has a base itself.
    """
    own = _read_mapping(text, where)
    if "base" not in own:
        return own
    base = own.pop("base")
    if base not in shipped_recipes():
        raise InputError(f"{where}: base must be a recipe that pgsim ships (pgsim train --list), not {show(base)}")
    fields = _read_mapping(*find_shipped(str(base)))
    if "base" in fields:
        raise InputError(f"{where}: base must be a recipe without a base, not {base} (base: {fields['base']})")
    del fields["name"]
    return {**fields, **own}


def _read_mapping(text: str, where: str) -> dict[str, object]:
    loaded = plain_yaml(text, where, "recipe").data
    if not isinstance(loaded, dict):
        raise InputError(f"{where}: the recipe must be a mapping of its fields, not {show(loaded)}")
    return loaded


def read_record(kind: type[T], loaded: dict[str, object], where: str) -> T:
    """Return the dataclass `kind` of these fields, typed as it says; those with a default may be left out.

    Raises InputError for an unknown or missing key or a wrong type.
    """
    hints = typing.get_type_hints(kind)
    for key in loaded:
        if key not in hints:
            raise InputError(f"{where}: {key} must be a recipe field (one of {', '.join(hints)}), not an unknown key")
    values: dict[str, typing.Any] = {}
    record: typing.Any = kind
    optional = {f.name for f in dataclasses.fields(record) if f.default is not dataclasses.MISSING}
    for key, hint in hints.items():
        if key not in loaded and key in optional:
            continue
        if key not in loaded:
            raise InputError(f"{where}: {key} must be given, not missing")
        values[key] = _typed(loaded[key], hint, f"{where}: {key}")
    return kind(**values)


def _typed(value: object, hint: object, where: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint == tuple[int, ...]:
        if not isinstance(value, list) or any(type(one) is not int for one in value):
            raise InputError(f"{where} must be a list of integers, not {show(value)}")
        return tuple(value)
    wanted = typing.get_args(hint) or (hint,)
    if float in wanted and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) not in wanted:
        names = " or ".join(getattr(w, "__name__", str(w)) for w in wanted)
        raise InputError(f"{where} must be of type {names}, not {show(value)}")
    return value


def _check_ranges(recipe: Recipe, where: str) -> None:
    if not 2 <= recipe.act_bits <= MOST_ACT_BITS:
        raise InputError(f"{where}: act_bits must be in 2..{MOST_ACT_BITS}, not {recipe.act_bits}")
    check_words(recipe, where, _WORDS)
    if recipe.gating == "none" and recipe.pred_bits != recipe.act_bits:
        raise InputError(f"{where}: pred_bits must be act_bits where gating is 'none', not {recipe.pred_bits}")
    if recipe.gating != "none" and not 1 <= recipe.pred_bits < recipe.act_bits:
        raise InputError(f"{where}: pred_bits must be in 1..{recipe.act_bits - 1}, not {recipe.pred_bits}")
    check_gate(recipe, where, "gating", ("none",))
    if isinstance(recipe.delta_target, str) and recipe.delta_target != "start":
        raise InputError(f"{where}: delta_target must be a number or 'start', not {show(recipe.delta_target)}")
    check_numbers(recipe, where, _POSITIVE, _NOT_NEGATIVE, _SHARES)
    if recipe.views > MOST_VIEWS:
        raise InputError(f"{where}: views must be at most {MOST_VIEWS}, not {recipe.views}")
    if list(recipe.rate_drops) != sorted({epoch for epoch in recipe.rate_drops if 0 < epoch < recipe.epochs}):
        last = recipe.epochs - 1
        must = f"rising epochs in 1..{last}" if last > 0 else f"empty where epochs is {recipe.epochs}"
        raise InputError(f"{where}: rate_drops must be {must}, not {list(recipe.rate_drops)}")


class Named(Protocol):
    """A recipe of any kind, as far as its checks need to know."""

    @property
    def name(self) -> str:
        """The run's name, and that of its files."""
        ...


def check_words(recipe: object, where: str, words: Mapping[str, Sequence[str]]) -> None:
    """Refuse a field whose value is none of its words, with an InputError that lists them."""
    for key, known in words.items():
        if getattr(recipe, key) not in known:
            *others, last = (f"'{word}'" for word in known)
            listed = f"{', '.join(others)} or {last}" if others else last
            raise InputError(f"{where}: {key} must be {listed}, not {show(getattr(recipe, key))}")


class WithGate(Protocol):
    """A recipe of an image network, as far as the fields of its gate go."""

    @property
    def thresholds(self) -> str:
        """Whether they are learned or fixed."""
        ...

    @property
    def delta_target(self) -> float | str:
        """What pulls learned thresholds, or where fixed ones stand."""
        ...

    @property
    def policy(self) -> str:
        """What becomes of an output that is not updated, and what an update computes."""
        ...


def check_gate(recipe: WithGate, where: str, field: str, without_gate: Sequence[str]) -> None:
    """Refuse, with an InputError, fields of a gate where `field` has a word of no gate, or that exclude each other."""
    for key, plain in (("thresholds", "learned"), ("policy", "keep")):
        if getattr(recipe, field) in without_gate and getattr(recipe, key) != plain:
            must = f"{key} must be '{plain}' (or left out) where {field} is '{getattr(recipe, field)}'"
            raise InputError(f"{where}: {must}, not '{getattr(recipe, key)}'")
    if recipe.policy == "seernet" and recipe.thresholds == "fixed":
        raise InputError(f"{where}: thresholds must be 'learned' where policy is 'seernet', not 'fixed'")
    if recipe.thresholds == "fixed" and isinstance(recipe.delta_target, str):
        found = show(recipe.delta_target)
        raise InputError(f"{where}: delta_target must be a number where thresholds are 'fixed', not {found}")


def check_run_name(name: str, where: str) -> None:
    """Refuse, with an InputError, a name that no run's files can have."""
    if name in ("", "..") or Path(name).name != name or not name.isprintable():
        raise InputError(f"{where}: name must be a file's name without folders, not {show(name)}")
    if len(name.encode()) > MOST_NAME_BYTES:
        raise InputError(f"{where}: name must have at most {MOST_NAME_BYTES} bytes, not {len(name.encode())}")


def check_numbers(
    recipe: Named, where: str, positive: Iterable[str], not_negative: Iterable[str], shares: Iterable[str]
) -> None:
    """Refuse a recipe of any kind whose fields of these names are not above 0, not 0 or more, not in [0, 1].

    No number may be NaN, infinite or, but for the seed, beyond 10^9; and `name`, which names the run's files, is no
    path, and leaves room for their endings.
    """
    for key, value in vars(recipe).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{where}: {key} must be finite, not {value}")
        if isinstance(value, int | float) and key != "seed" and abs(value) > LARGEST:
            raise InputError(f"{where}: {key} must be at most {LARGEST} in magnitude, not {show(value)}")
    check_run_name(recipe.name, where)
    for key in positive:
        if not getattr(recipe, key) > 0:
            raise InputError(f"{where}: {key} must be more than 0, not {getattr(recipe, key)}")
    for key in not_negative:
        if not getattr(recipe, key) >= 0:
            raise InputError(f"{where}: {key} must be 0 or more, not {getattr(recipe, key)}")
    for key in shares:
        if not 0 <= getattr(recipe, key) <= 1:
            raise InputError(f"{where}: {key} must be in [0, 1], not {getattr(recipe, key)}")


def find_recipe(name: str) -> tuple[str, str]:
    """Return text and origin of a recipe: a path first, then the bare name of one that pgsim ships."""
    path = Path(name)
    if path.is_file():
        return yaml_text(path, "recipe"), str(path)
    if name in shipped_recipes():
        return find_shipped(name)
    close = difflib.get_close_matches(name, shipped_recipes(), 3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise InputError(f"recipe must be a file or one that pgsim ships (pgsim train --list), not {name!r}{hint}")


def find_shipped(name: str) -> tuple[str, str]:
    """Return text and file name of a recipe that pgsim ships."""
    return (resources.files("pgsim.train") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml"


def shipped_recipes() -> list[str]:
    """Return the names of the recipes inside the package, sorted."""
    folder = resources.files("pgsim.train") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe as YAML that `parse_recipe` reads back to an equal record."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)
