"""The recipe of a language model: a record of its own, with its own checks, beside that of the image networks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import yaml

from pgsim.arith.formats import Encoding
from pgsim.errors import InputError
from pgsim.train.recipe import check_numbers, check_words, read_fields, read_record

TASK = "language_model"


@dataclass(frozen=True)
class LanguageRecipe:
    """Everything that decides the training of an LSTM language model, apart from the data.

    Attributes:
        name: also the name of the run's files.
        task: "language_model"; tells this recipe from one of an image network, which has no such key.
        cell: "float", "dense" (uniform quantisation to act_bits) or "gated".
        hidden_units: width of embedding, hidden state and cell state.
        tied: the projection to words uses the embedding's matrix; its bias is its own.
        input_dropout, output_dropout: of the embedding's and of the LSTM's output, in [0, 1).
        epochs, batch_size, sequence_length, warmup_steps, seed: integers. The training words are cut into `batch_size`
            contiguous streams, read `sequence_length` words a step (truncated back-propagation, state carried).
        learning_rate: of Adam; it rises over `warmup_steps`, then follows a cosine to 0.
        clip_norm: the gradient's largest norm, over all parameters.
        start_from: run, weights or checkpoint to start from; "" for random weights.
        act_bits, pred_bits: B and B_hb; 2 <= act_bits <= 8, 1 <= pred_bits < act_bits. A dense cell's pred_bits are its
            act_bits, a float cell has neither (0).
        weight_bits: of the cell's weights, 2 .. 16, two's complement, one scale.
        encoding: of activations, "sign_magnitude" (bits count the magnitude) or "twos_complement".
        clip: bounds of x and h, fixed from the first training words: their "max", or the one with the "least_squares".
        start_sparsity, start_scope: thresholds start at this quantile of the prediction outputs, over the "layer" or
            each "channel".
        hold_epochs: after each of the first `hold_epochs` epochs thresholds are set anew in the same way.
        sparse_bp: sparse back-propagation to the thresholds.
        sigma: factor of the penalty sigma * ||delta - target||, the target being where thresholds were last set.
        threshold_rate: the thresholds' share of the learning rate; 0 leaves them where they were set.
    """

    name: str
    task: str
    cell: str
    hidden_units: int
    tied: bool
    input_dropout: float
    output_dropout: float
    epochs: int
    batch_size: int
    sequence_length: int
    learning_rate: float
    warmup_steps: int
    clip_norm: float
    seed: int
    start_from: str = ""
    act_bits: int = 0
    pred_bits: int = 0
    weight_bits: int = 8
    encoding: str = "sign_magnitude"
    clip: str = "least_squares"
    start_sparsity: float = 0.5
    start_scope: str = "layer"
    hold_epochs: int = 0
    sparse_bp: bool = True
    sigma: float = 0.0
    threshold_rate: float = 1.0


_WORDS = {
    "task": (TASK,),
    "cell": ("float", "dense", "gated"),
    "encoding": (Encoding.SIGN_MAGNITUDE.value, Encoding.TWOS_COMPLEMENT.value),
    "clip": ("max", "least_squares"),
    "start_scope": ("layer", "channel"),
}
_POSITIVE = ("hidden_units", "epochs", "batch_size", "sequence_length", "learning_rate", "clip_norm")
_NOT_NEGATIVE = ("warmup_steps", "seed", "hold_epochs", "sigma", "threshold_rate")


def parse_language_recipe(text: str, where: str) -> LanguageRecipe:
    """Turn YAML text into a LanguageRecipe; `where` is named in errors. Raises InputError as `parse_recipe` does."""
    recipe = read_record(LanguageRecipe, read_fields(text, where), where)
    _check_ranges(recipe, where)
    return recipe


def language_recipe_text(recipe: LanguageRecipe) -> str:
    """Return the recipe as YAML that `parse_language_recipe` reads back to an equal record."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)


def _check_ranges(recipe: LanguageRecipe, where: str) -> None:
    check_words(recipe, where, _WORDS)
    check_numbers(recipe, where, _POSITIVE, _NOT_NEGATIVE, ())
    for key in ("input_dropout", "output_dropout"):
        if not 0 <= getattr(recipe, key) < 1:
            raise InputError(f"{where}: {key} must be in [0, 1), not {getattr(recipe, key)}")
    if not 0 <= recipe.start_sparsity <= 1:
        raise InputError(f"{where}: start_sparsity must be in [0, 1], not {recipe.start_sparsity}")
    if recipe.cell == "float":
        lowest = highest = 0
    else:
        lowest, highest = 2, 8
    if not lowest <= recipe.act_bits <= highest:
        wanted = f"in {lowest}..{highest}" if highest else "0 (or left out)"
        raise InputError(f"{where}: act_bits must be {wanted} where cell is '{recipe.cell}', not {recipe.act_bits}")
    if not 2 <= recipe.weight_bits <= 16:
        raise InputError(f"{where}: weight_bits must be in 2..16, not {recipe.weight_bits}")
    if recipe.cell == "gated" and not 1 <= recipe.pred_bits < recipe.act_bits:
        raise InputError(f"{where}: pred_bits must be in 1..{recipe.act_bits - 1}, not {recipe.pred_bits}")
    if recipe.cell != "gated" and recipe.pred_bits != recipe.act_bits:
        raise InputError(f"{where}: pred_bits must be act_bits where cell is '{recipe.cell}', not {recipe.pred_bits}")
