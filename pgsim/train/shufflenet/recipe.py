"""The recipe of ShuffleNet V2 0.5x on CIFAR-10: a record of its own, with its own checks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import yaml

from pgsim.errors import InputError
from pgsim.io.strict import show
from pgsim.train.recipe import check_gate, check_numbers, check_words, read_fields, read_record

TASK = "shufflenet_cifar"


@dataclass(frozen=True)
class ShuffleNetRecipe:
    """Everything that decides the training of a ShuffleNet V2 0.5x on CIFAR-10, apart from the data.

    Attributes:
        name: also the name of the run's files.
        task: "shufflenet_cifar"; tells this recipe from those of other networks.
        gated: "float", not quantised; "none", quantised without a gate; "pointwise", the 1x1 convolutions are gated;
            "all", the depthwise ones, too.
        epochs, batch_size, warmup_steps, seed: integers; the learning rate rises over `warmup_steps`, then follows a
            cosine to 0.
        learning_rate, momentum, weight_decay: of SGD; thresholds take no weight decay.
        holdout: training images (the last ones) kept out of training for model selection.
        start_from: run, weights or checkpoint to start from, or the npz of a float trunk; "" for random weights.
        act_bits, pred_bits: B and B_hb; 2 <= act_bits <= 8, 1 <= pred_bits < act_bits. Without a gate pred_bits are
            act_bits; a float network has neither (0).
        start_sparsity: thresholds start where this share of all gated outputs is not updated.
        hold_epochs: after each of the first `hold_epochs` epochs thresholds and fixed scales are set anew in that way.
        sparse_bp: sparse back-propagation to the thresholds.
        sigma: factor of the penalty sigma * ||delta - target|| per gated layer, the target being where they were set.
        threshold_rate: the thresholds' share of the learning rate.
        clip: "pact", learned bounds behind ReLUs (PACT), or "max", fixed ones at the largest value (uniform
            quantisation); where no ReLU precedes they are fixed anyway, at the least squared error or as "max" says.
        thresholds: "learned", or "fixed" at `delta_target`, a number in real units (Fix-Threshold).
        delta_target: "start", the penalty pulls learned thresholds to where they were set; fixed ones: a number.
        policy: what becomes of an output that is not updated: "keep" its prediction, or "zero"; "seernet" has the
            values of "keep", but an update counts all B bits, computed anew (SeerNet).
    """

    name: str
    task: str
    gated: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    warmup_steps: int
    holdout: int
    seed: int
    start_from: str = ""
    act_bits: int = 0
    pred_bits: int = 0
    start_sparsity: float = 0.5
    hold_epochs: int = 0
    sparse_bp: bool = True
    sigma: float = 0.0
    threshold_rate: float = 1.0
    clip: str = "pact"
    thresholds: str = "learned"
    delta_target: float | str = "start"
    policy: str = "keep"


_WORDS = {
    "task": (TASK,),
    "gated": ("float", "none", "pointwise", "all"),
    "clip": ("pact", "max"),
    "thresholds": ("learned", "fixed"),
    "policy": ("keep", "zero", "seernet"),
}
_POSITIVE = ("epochs", "batch_size", "learning_rate", "holdout")
_NOT_NEGATIVE = ("weight_decay", "warmup_steps", "seed", "hold_epochs", "sigma", "threshold_rate")
_SHARES = ("momentum", "start_sparsity")


def parse_shufflenet_recipe(text: str, where: str) -> ShuffleNetRecipe:
    """Turn YAML text into a ShuffleNetRecipe; `where` is named in errors. Raises InputError as `parse_recipe` does."""
    recipe = read_record(ShuffleNetRecipe, read_fields(text, where), where)
    check_words(recipe, where, _WORDS)
    check_numbers(recipe, where, _POSITIVE, _NOT_NEGATIVE, _SHARES)
    _check_bits(recipe, where)
    check_gate(recipe, where, "gated", ("float", "none"))
    _check_method(recipe, where)
    return recipe


def shufflenet_recipe_text(recipe: ShuffleNetRecipe) -> str:
    """Return the recipe as YAML that `parse_shufflenet_recipe` reads back to an equal record."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)


def _check_bits(recipe: ShuffleNetRecipe, where: str) -> None:
    if recipe.gated == "float":
        if recipe.act_bits or recipe.pred_bits:
            bits = f"{recipe.act_bits}/{recipe.pred_bits}"
            raise InputError(f"{where}: act_bits and pred_bits must be left out where gated is 'float', not {bits}")
        return
    if not 2 <= recipe.act_bits <= 8:
        raise InputError(f"{where}: act_bits must be in 2..8, not {recipe.act_bits}")
    if recipe.gated == "none" and recipe.pred_bits != recipe.act_bits:
        raise InputError(f"{where}: pred_bits must be act_bits where gated is 'none', not {recipe.pred_bits}")
    if recipe.gated != "none" and not 1 <= recipe.pred_bits < recipe.act_bits:
        raise InputError(f"{where}: pred_bits must be in 1..{recipe.act_bits - 1}, not {recipe.pred_bits}")


def _check_method(recipe: ShuffleNetRecipe, where: str) -> None:
    if recipe.gated == "float" and recipe.clip != "pact":
        raise InputError(f"{where}: clip must be 'pact' (or left out) where gated is 'float', not '{recipe.clip}'")
    if recipe.thresholds == "learned" and recipe.delta_target != "start":
        found = show(recipe.delta_target)
        raise InputError(f"{where}: delta_target must be 'start' where thresholds are 'learned', not {found}")
