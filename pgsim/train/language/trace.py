"""Trace the LSTM of a language model: one recurrent layer over the codes of [x, h], a step an image.

The trace begins behind the embedding and ends before the biases: words, element-wise functions, projection and
softmax stay outside, and no word or word id is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgsim import nn
from pgsim.train.language.loop import Score
from pgsim.train.language.model import LanguageModel
from pgsim.train.language.recipe import LanguageRecipe, language_recipe_text
from pgsim.workload.trace import Trace

LAYER = "lstm"


def build_language_trace(model: LanguageModel, words: NDArray[np.int64], info: Mapping[str, Any]) -> Trace:
    """Return the trace of the cell over `words` int64 [steps], one sequence from the zero state.

    The model must have a quantised or gated cell. The layer is called "lstm"; its images are the steps, in order.
    """
    ids = torch.from_numpy(words)[:, None].to(model.bias.device)
    recorded = nn.trace(model, (ids, model.zero_state(1)), info={**info, "samples": list(range(len(words)))})
    (layer,) = recorded.layers
    return replace(recorded, layers=(replace(layer, name=LAYER),))


def measured_info(recipe: LanguageRecipe, measured: Score, whole_set: bool) -> dict[str, Any]:
    """Return what a trace's metadata say of the model: recipe, perplexity, sparsity in percent, average bits.

    A float cell has no bits. Without `whole_set` there is no key `perplexity`, which stands for the full test set, but
    `perplexity_of_evaluated`.
    """
    info: dict[str, Any] = {
        "model": f"lstm{recipe.hidden_units}",
        "recipe": language_recipe_text(recipe),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "perplexity" if whole_set else "perplexity_of_evaluated": round(measured.perplexity, 4),
        "evaluated_words": measured.words,
    }
    if recipe.cell == "float":
        return info
    bits = recipe.pred_bits + (1.0 - measured.sparsity) * (recipe.act_bits - recipe.pred_bits)
    # One layer, all of whose outputs have the same MACs: both weightings are one.
    weightings = [f"{kind}_by_{by}" for kind in ("gated", "all") for by in ("outputs", "macs")]
    if recipe.cell == "gated":
        info["sparsity_percent"] = info["mac_sparsity_percent"] = round(100 * measured.sparsity, 3)
    else:
        weightings = weightings[2:]
    info["b_avg_bits"] = {name: round(bits, 4) for name in weightings}
    return info
