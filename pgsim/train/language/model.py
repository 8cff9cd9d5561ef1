"""The LSTM language model of Precision Gating's Table 5: one layer, from words to words.

    ids [T, N] --embedding--> x [T, N, H] --dropout--> LSTM --> h [T, N, H] --dropout--> projection --> logits [T, N, V]

The cell is torch's, or quantised or gated (pgsim.nn.recurrent): there codes [x, h] go through one integer product a
step. Embedding, element-wise functions, projection and softmax are float: boundaries of a trace.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgsim.arith.formats import Encoding
from pgsim.nn import GatedLSTMCell, Gating, QuantiseInput, QuantLSTMCell, WeightFormat
from pgsim.train.language.recipe import LanguageRecipe
from pgsim.train.language.sequence import State, run_sequence, run_steps

EMBEDDING_RANGE = 0.1


class LanguageModel(nn.Module):
    """Embedding, LSTM and projection; `tied` projects with the embedding's matrix.

    Attributes:
        embedding: weight [V, H].
        cell: nn.LSTM of one layer, QuantLSTMCell or GatedLSTMCell.
        projection: [V, H], or None where tied; bias [V].
    """

    def __init__(self, recipe: LanguageRecipe, vocabulary: int) -> None:
        super().__init__()
        units = recipe.hidden_units
        self.units, self.vocabulary = units, vocabulary
        self.dropout = (recipe.input_dropout, recipe.output_dropout)
        self.embedding = nn.Embedding(vocabulary, units)
        self.cell = make_cell(recipe)
        self.projection = None if recipe.tied else nn.Parameter(torch.empty(vocabulary, units))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.uniform_(self.embedding.weight, -EMBEDDING_RANGE, EMBEDDING_RANGE)
        if self.projection is not None:
            nn.init.uniform_(self.projection, -EMBEDDING_RANGE, EMBEDDING_RANGE)

    def zero_state(self, streams: int) -> State:
        """Return h and c before the first word, [streams, H] each."""
        zeros = self.bias.new_zeros(streams, self.units)
        return zeros, zeros.clone()

    def forward(self, ids: Tensor, state: State, draws: torch.Generator | None = None) -> tuple[Tensor, State]:
        """Return logits [T, N, V] of the words after `ids` int64 [T, N], and the last state, without gradient.

        Dropout acts where `draws`, a generator on the CPU, is given.
        """
        x = drop(self.embedding(ids), self.dropout[0], draws)
        h, state = self.recur(x, state)
        h = drop(h, self.dropout[1], draws)
        return F.linear(h, self.embedding.weight if self.projection is None else self.projection, self.bias), state

    def recur(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the LSTM over x [T, N, H]; return h [T, N, H] and the last state, without gradient."""
        if isinstance(self.cell, QuantLSTMCell):
            return (run_sequence if self.cell.watch is None else run_steps)(self.cell, x, state)
        out, (h, c) = self.cell(x, (state[0][None], state[1][None]))
        return out, (h[0].detach(), c[0].detach())


def drop(x: Tensor, share: float, draws: torch.Generator | None) -> Tensor:
    """Zero that share of x and divide the rest by 1 - share; nothing without `draws`. The same draws on any device."""
    if draws is None or share == 0:
        return x
    kept = (torch.rand(x.shape, generator=draws) >= share).to(x.dtype).div_(1.0 - share)
    return x * kept.to(x.device)


def make_cell(recipe: LanguageRecipe) -> nn.LSTM | QuantLSTMCell:
    """Return the recipe's cell with random weights; quantisers wait for their clips."""
    units = recipe.hidden_units
    if recipe.cell == "float":
        return nn.LSTM(units, units)
    encoding = Encoding(recipe.encoding)
    inputs, hidden = QuantiseInput(recipe.act_bits, encoding), QuantiseInput(recipe.act_bits, encoding)
    weights = WeightFormat(recipe.weight_bits)
    if recipe.cell == "dense":
        return QuantLSTMCell(units, units, input=inputs, hidden=hidden, weights=weights)
    gating = Gating(recipe.pred_bits, sparse=recipe.sparse_bp)
    cell = GatedLSTMCell(units, units, input=inputs, hidden=hidden, weights=weights, gating=gating)
    if cell.delta is not None and recipe.threshold_rate == 0:
        cell.delta.requires_grad_(False)
    return cell


def build_model(recipe: LanguageRecipe, vocabulary: int) -> LanguageModel:
    """Return the recipe's network with the random weights of its seed; torch's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LanguageModel(recipe, vocabulary)
