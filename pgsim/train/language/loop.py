"""Train a language model: truncated back-propagation, perplexity on the validation words, checkpoints."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pgsim.errors import InputError
from pgsim.nn import QuantLSTMCell
from pgsim.train.epochs import check_data, check_finite, check_recipe, check_step, digest_of, finite, train_epochs
from pgsim.train.language.calibrate import place_thresholds, start_clips
from pgsim.train.language.corpus import UNSCORED, Corpus, scoring_streams, training_streams
from pgsim.train.language.model import LanguageModel, build_model
from pgsim.train.language.recipe import LanguageRecipe
from pgsim.train.language.weights import (
    LanguageCheckpoint,
    load_language_checkpoint,
    optimiser_groups,
    save_language_checkpoint,
    save_language_weights,
    start_from,
)
from pgsim.train.schedule import warm_cosine
from pgsim.train.weights import start_at

VALID_STREAMS = 20
SCORED_ROWS = 700
"""Words whose logits are held at once while a split is scored."""
CALIBRATION_WINDOWS = 3


@dataclass(frozen=True)
class LanguageProgress:
    """What a step reports: steps done and wanted, running loss (nats a word), seconds a step."""

    step: int
    steps: int
    loss: float
    seconds_per_step: float

    @property
    def words(self) -> str:
        """Perplexity and pace, as the progress bar shows them."""
        return f"perplexity {math.exp(min(self.loss, 99.0)):.1f} {self.seconds_per_step:.2f} s/step"


@dataclass(frozen=True)
class Score:
    """A model on a split of words.

    Attributes:
        words: predicted, each word of the split but the first.
        nats: the sum of -ln p over them.
        outputs, updated: pre-activations of the cell, and those whose mask was 1; equal where nothing is gated. With
            several streams the padding that ends the last ones counts, too: fewer words than there are streams.
    """

    words: int
    nats: float
    outputs: int
    updated: int

    @property
    def perplexity(self) -> float:
        """exp of the mean of -ln p a word."""
        return perplexity(self.nats / self.words)

    @property
    def sparsity(self) -> float:
        """Share of pre-activations that were not updated."""
        return 1.0 - self.updated / self.outputs if self.outputs else 0.0


def perplexity(nats: float) -> float:
    """Return exp(nats); infinity past the range of a float."""
    return math.exp(nats) if nats < math.log(sys.float_info.max) else math.inf


def score(
    model: LanguageModel,
    words: NDArray[np.int64],
    streams: int = 1,
    report: Callable[[int], None] = lambda _: None,
) -> Score:
    """Score every word but the first by those before it, the state carried from window to window.

    With one stream that is the whole split in order; more are faster, and each begins with the zero state at its part
    of the split. `report` is told how many words are done.
    """
    parts = scoring_streams(words, streams)
    device = model.bias.device
    cell = model.cell if isinstance(model.cell, QuantLSTMCell) else None
    outputs, updated = (cell.outputs, cell.updated) if cell else (0, 0)
    state, nats, done = model.zero_state(streams), 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for ids, targets in parts.all_windows(max(1, SCORED_ROWS // streams)):
            logits, state = model(_tensor(ids, device), state)
            wanted = _tensor(targets, device).flatten()
            each = F.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=UNSCORED, reduction="none")
            nats += float(each.sum(dtype=torch.float64))
            done += int((targets != UNSCORED).sum())
            report(done)
    model.train(was_training)
    if cell:
        outputs, updated = cell.outputs - outputs, cell.updated - updated
    return Score(done, nats, outputs, updated)


def _tensor(ids: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids)).to(device)


def step_draws(recipe: LanguageRecipe, step: int) -> torch.Generator:
    """Return the generator of a step's dropout: a function of the recipe's seed and the step only."""
    seed = np.random.SeedSequence([recipe.seed, 1, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


class LanguageRun:
    """One training run: network, optimiser, carried state, step count, and the best epoch so far."""

    def __init__(self, recipe: LanguageRecipe, corpus: Corpus, device: str = "cpu") -> None:
        self.recipe, self.corpus, self.device = recipe, corpus, torch.device(device)
        self.streams = training_streams(corpus.train, recipe.batch_size, "batch_size")
        self.steps_per_epoch = self.streams.windows(recipe.sequence_length)
        self.steps = self.steps_per_epoch * recipe.epochs
        self.step = 0
        self.model = build_model(recipe, corpus.vocabulary).to(self.device)
        self.state = self.model.zero_state(recipe.batch_size)
        self.targets: Tensor | None = None
        self.loss = 0.0
        self.data = digest_of(corpus.train, corpus.valid)
        self.best: dict[str, Any] = {}
        self.best_history: dict[str, Any] = {}
        self.optimiser = torch.optim.Adam(optimiser_groups(self.model, recipe), lr=recipe.learning_rate, fused=True)

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def start(self, out: Path, data: Path) -> None:
        """Begin from the recipe's `start_from`, or from random weights; calibrate clips and thresholds."""
        if self.recipe.start_from:
            start_at(self.recipe.start_from, out, data, partial(start_from, self.model))
        start_clips(self.model, self._calibration_windows(), self.recipe.clip)
        self._place_thresholds()

    def _delta(self) -> torch.nn.Parameter | None:
        return self.model.cell.delta if isinstance(self.model.cell, QuantLSTMCell) else None

    def _calibration_windows(self) -> list[Tensor]:
        length = self.recipe.sequence_length
        count = min(CALIBRATION_WINDOWS, self.steps_per_epoch)
        return [_tensor(self.streams.window(k, length)[0], self.device) for k in range(count)]

    def _place_thresholds(self) -> None:
        place_thresholds(
            self.model, self._calibration_windows(), self.recipe.start_sparsity, self.recipe.start_scope
        )  # fmt: skip
        delta = self._delta()
        self.targets = None if delta is None else delta.detach().clone()

    def one_step(self) -> float:
        """Take one optimiser step; return its loss, in nats a word, without the penalty."""
        recipe = self.recipe
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if position == 0:
            self.state, self.loss = self.model.zero_state(recipe.batch_size), 0.0
            if 1 <= epoch <= recipe.hold_epochs:
                self._place_thresholds()
        ids, targets = self.streams.window(position, recipe.sequence_length)
        rate = warm_cosine(recipe.learning_rate, recipe.warmup_steps, self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        logits, self.state = self.model(_tensor(ids, self.device), self.state, step_draws(recipe, self.step))
        loss = F.cross_entropy(logits.flatten(0, 1), _tensor(targets, self.device).flatten())
        (loss + self._penalty()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimiser.step()
        self.step += 1
        nats = float(loss.detach())
        self.loss += nats
        return nats

    def _penalty(self) -> Tensor:
        delta = self._delta()
        if delta is None or self.targets is None or not self.recipe.sigma:
            return torch.zeros((), device=self.device)
        # Smooth at 0, where thresholds start: the norm's own gradient is not defined there.
        distance = torch.sqrt((delta - self.targets).square().sum() + 1e-12)
        return self.recipe.sigma * distance

    def end_of_epoch(self) -> dict[str, Any]:
        """Measure the model on the validation words, keep it where it is the best so far, return the log's line."""
        check_finite(self.model, self.step)
        valid = score(self.model, self.corpus.valid, min(VALID_STREAMS, len(self.corpus.valid) - 1))
        train_loss = self.loss / self.steps_per_epoch
        line: dict[str, Any] = {
            "epoch": self.step // self.steps_per_epoch,
            "step": self.step,
            "loss": round(train_loss, 5),
            "train_perplexity": round(finite(perplexity(train_loss), "training perplexity", self.step), 3),
            "valid_perplexity": round(finite(valid.perplexity, "validation perplexity", self.step), 4),
        }
        cell = self.model.cell
        if isinstance(cell, QuantLSTMCell):
            line["clips"] = [round(cell.input.clip, 5), round(cell.hidden.clip, 5)]
            if cell.delta is not None:
                line["sparsity"] = round(valid.sparsity, 5)
                line["mean_threshold"] = round(float(cell.delta.detach().mean()), 5)
        if line["valid_perplexity"] < self.best_history.get("valid_perplexity", math.inf):
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
            self.best_history = copy.deepcopy(line)
        return line

    def test(self) -> float:
        """Return the best epoch's perplexity on the test words, read when a run is over, and keep it in its history."""
        model = build_model(self.recipe, self.corpus.vocabulary)
        model.load_state_dict(self.best)
        measured = score(model.to(self.device), self.corpus.test)
        self.best_history["test_perplexity"] = round(finite(measured.perplexity, "test perplexity", self.step), 4)
        return measured.perplexity

    def save_best(self, path: Path) -> None:
        """Write the best epoch's weights and what was measured then."""
        save_language_weights(path, self.best, self.recipe, self.corpus.vocabulary, self.best_history)

    def save_checkpoint(self, path: Path) -> None:
        """Write all that a run goes on from."""
        kept = LanguageCheckpoint(
            recipe=self.recipe,
            vocabulary=self.corpus.vocabulary,
            step=self.step,
            model=self.model.state_dict(),
            best=self.best,
            best_history=self.best_history,
            targets=self.targets,
            optimiser=self.optimiser.state_dict(),
            state=self.state,
            loss=self.loss,
            finished=self.step == self.steps,
            data=self.data,
        )
        save_language_checkpoint(path, kept)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe and vocabulary."""
        kept = load_language_checkpoint(path)
        check_recipe(kept.recipe, self.recipe, path)
        if kept.vocabulary != self.corpus.vocabulary:
            raise InputError(f"{path} must be of {self.corpus.vocabulary} words, as the data, not {kept.vocabulary}")
        check_data(kept.data, self.data, path)
        check_step(kept.step, self.steps, path)
        self.model.load_state_dict(kept.model)
        self.optimiser.load_state_dict(kept.optimiser)
        self.targets = None if kept.targets is None else kept.targets.to(self.device)
        self.state = (kept.state[0].to(self.device), kept.state[1].to(self.device))
        self.best, self.best_history, self.step, self.loss = kept.best, kept.best_history, kept.step, kept.loss


def train_language(
    run: LanguageRun, out: Path, report: Callable[[LanguageProgress], None], stop: Callable[[], bool]
) -> bool:
    """Train to the end, or until `stop()`; see `train_epochs`, the best epoch being that of the lowest perplexity."""
    return train_epochs(run, out, LanguageProgress, report, stop)
