"""Train ShuffleNet V2 0.5x on CIFAR-10: float, quantised or gated; accuracy on held-out images, checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pgsim import nn as pg
from pgsim.errors import InputError
from pgsim.nn.calibrate import looking
from pgsim.train.data import Images, augment
from pgsim.train.epochs import check_data, check_finite, check_recipe, check_step, digest_of, diverged, train_epochs
from pgsim.train.loop import EVAL_BATCH, epoch_draws, split_holdout
from pgsim.train.schedule import warm_cosine
from pgsim.train.shufflenet.calibrate import place_thresholds, start_clips
from pgsim.train.shufflenet.network import network_images
from pgsim.train.shufflenet.recipe import ShuffleNetRecipe
from pgsim.train.shufflenet.weights import (
    ShuffleNetCheckpoint,
    build_shufflenet,
    load_shufflenet_checkpoint,
    optimiser_groups,
    save_shufflenet_checkpoint,
    save_shufflenet_weights,
    start_from,
)
from pgsim.train.weights import start_at

CALIBRATION_IMAGES = 64
THRESHOLD_STEPS = 2
SMALLEST_CLIP = 1e-2


@dataclass(frozen=True)
class ShuffleNetProgress:
    """What a step reports: steps done and wanted, running loss, seconds a step."""

    step: int
    steps: int
    loss: float
    seconds_per_step: float

    @property
    def words(self) -> str:
        """Loss and pace, as the progress bar shows them."""
        return f"loss {self.loss:.3f} {self.seconds_per_step:.2f} s/step"


class ShuffleNetRun:
    """One training run: network, optimiser, step count, and the best epoch so far."""

    def __init__(self, recipe: ShuffleNetRecipe, train: Images, device: str = "cpu") -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.train, self.held_out = split_holdout(train, recipe.holdout)
        if len(self.train) < recipe.batch_size:
            raise InputError(f"batch_size must be at most {len(self.train)}, not {recipe.batch_size}")
        self.steps_per_epoch = len(self.train) // recipe.batch_size
        self.steps = self.steps_per_epoch * recipe.epochs
        self.step, self.loss = 0, 0.0
        self.data = digest_of(train.pixels, train.labels)
        self.net = build_shufflenet(recipe).to(self.device)
        self.targets: dict[str, Tensor] = {}
        self.best: dict[str, Any] = {}
        self.best_history: dict[str, Any] = {}
        self.optimiser = torch.optim.SGD(optimiser_groups(self.net, recipe), lr=recipe.learning_rate)

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def start(self, out: Path, data: Path) -> None:
        """Begin from the recipe's `start_from`, or from random weights; calibrate clips and thresholds."""
        if self.recipe.start_from:
            start_at(self.recipe.start_from, out, data, partial(start_from, self.net))
        if self.recipe.gated != "float":
            self._place_clips(learned=True)
        self._place_thresholds()

    def _calibration_images(self) -> list[Tensor]:
        pixels = self.train.pixels[:CALIBRATION_IMAGES]
        size = self.recipe.batch_size
        return [network_images(pixels[k : k + size]).to(self.device) for k in range(0, len(pixels), size)]

    def _place_clips(self, *, learned: bool) -> None:
        static: Literal["least_squares", "max"] = "max" if self.recipe.clip == "max" else "least_squares"
        start_clips(self.net, self._calibration_images(), static, learned=learned)

    def _place_thresholds(self) -> None:
        gated = self._gated()
        if self.recipe.thresholds == "fixed":
            for delta in gated.values():
                delta.detach().fill_(float(self.recipe.delta_target))
        elif gated:
            place_thresholds(self.net, self._calibration_images(), self.recipe.start_sparsity, THRESHOLD_STEPS)
        self.targets = {path: delta.detach().clone() for path, delta in gated.items()}

    def _gated(self) -> dict[str, Tensor]:
        layers = pg.coded_layers(self.net)
        return {path: layer.delta for path, layer in layers.items() if layer.delta is not None}

    def one_step(self) -> float:
        """Take one optimiser step; return its loss without the penalty."""
        recipe = self.recipe
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if position == 0:
            self.loss = 0.0
            if 1 <= epoch <= recipe.hold_epochs and recipe.gated != "float":
                try:
                    self._place_clips(learned=False)
                except ValueError as error:  # of a clip that is no number
                    raise diverged("clips", self.step, f"refused ({error})") from None
                self._place_thresholds()
        rate = warm_cosine(recipe.learning_rate, recipe.warmup_steps, self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        order, views = epoch_draws(recipe.seed, epoch, epoch, len(self.train))
        index = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
        x = network_images(augment(self.train.pixels, views, index)).to(self.device)
        labels = torch.from_numpy(self.train.labels[index]).to(self.device)
        self.net.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.net(x), labels)
        (loss + self._penalty()).backward()
        self.optimiser.step()
        with torch.no_grad():
            for quantiser in self.net.modules():
                if isinstance(quantiser, pg.Pact):
                    quantiser.alpha.clamp_(min=SMALLEST_CLIP)
        self.step += 1
        value = float(loss.detach())
        self.loss += value
        return value

    def _penalty(self) -> Tensor:
        terms = [
            # Smooth at 0, where thresholds start: the norm's own gradient is not defined there.
            torch.sqrt((delta - self.targets[path]).square().sum() + 1e-12)
            for path, delta in self._gated().items()
            if delta.requires_grad
        ]
        return self.recipe.sigma * torch.stack(terms).sum() if terms else torch.zeros((), device=self.device)

    def end_of_epoch(self) -> dict[str, Any]:
        """Measure the network on the held-out images, keep it where it is the best so far, return the log's line."""
        check_finite(self.net, self.step)
        right = 0
        with looking(self.net), torch.no_grad():
            pg.reset_counts(self.net)
            for start in range(0, len(self.held_out), EVAL_BATCH):
                part = self.held_out.take(slice(start, start + EVAL_BATCH))
                logits = self.net(network_images(part.pixels).to(self.device))
                right += int((logits.argmax(1).cpu().numpy() == part.labels).sum())
            sparsity = pg.sparsity(self.net).by_output
        line: dict[str, Any] = {
            "epoch": self.step // self.steps_per_epoch,
            "step": self.step,
            "loss": round(self.loss / self.steps_per_epoch, 5),
            "held_out_accuracy": right / len(self.held_out),
        }
        if self.targets:
            line["sparsity"] = round(sparsity, 5)
        if line["held_out_accuracy"] > self.best_history.get("held_out_accuracy", -1.0):
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}
            self.best_history = copy.deepcopy(line)
        return line

    def save_best(self, path: Path) -> None:
        """Write the best epoch's weights and what was measured then; `finished` where the run is at its end."""
        history = {**self.best_history, "finished": self.step == self.steps}
        save_shufflenet_weights(path, self.best, self.recipe, history)

    def save_checkpoint(self, path: Path) -> None:
        """Write all that a run goes on from."""
        save_shufflenet_checkpoint(
            path,
            ShuffleNetCheckpoint(
                recipe=self.recipe,
                step=self.step,
                model=self.net.state_dict(),
                best=self.best,
                best_history=self.best_history,
                targets=self.targets,
                optimiser=self.optimiser.state_dict(),
                loss=self.loss,
                finished=self.step == self.steps,
                data=self.data,
            ),
        )

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe."""
        kept = load_shufflenet_checkpoint(path)
        check_recipe(kept.recipe, self.recipe, path)
        check_data(kept.data, self.data, path)
        check_step(kept.step, self.steps, path)
        self.net.load_state_dict(kept.model)
        self.optimiser.load_state_dict(kept.optimiser)
        self.targets = {path: target.to(self.device) for path, target in kept.targets.items()}
        self.best, self.best_history, self.step, self.loss = kept.best, kept.best_history, kept.step, kept.loss


def train_shufflenet(
    run: ShuffleNetRun, out: Path, report: Callable[[ShuffleNetProgress], None], stop: Callable[[], bool]
) -> bool:
    """Train to the end, or until `stop()`; see `train_epochs`, the best epoch being that of the highest accuracy."""
    return train_epochs(run, out, ShuffleNetProgress, report, stop)
