"""The training loop: steps, averaged weights, per-epoch evaluation, checkpoints."""

from __future__ import annotations

import copy
import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pgsim.errors import InputError
from pgsim.train.calibrate import recalibrate_batch_norm, start_clips, start_thresholds
from pgsim.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, sgd_groups
from pgsim.train.data import Images, Views, as_tensor, augment, draw_views, image_codes
from pgsim.train.epochs import (
    RECENT,
    append_line,
    check_data,
    check_finite,
    check_recipe,
    check_step,
    digest_of,
    finite,
    read_log,
)
from pgsim.train.network import PGResNet, build_network
from pgsim.train.recipe import Recipe
from pgsim.train.schedule import warm_cosine, warm_steps
from pgsim.train.teacher import TaughtViews, read_teacher, start_from_float
from pgsim.train.weights import save_weights, start_at, start_from_run

EVAL_BATCH = 250
CALIBRATION_IMAGES = 256
EPOCH_BN_BATCHES = 15
FINAL_BN_BATCHES = 80


@dataclass(frozen=True)
class Progress:
    """What a step reports: steps done and wanted, running loss and accuracy, seconds a step."""

    step: int
    steps: int
    loss: float
    accuracy: float
    seconds_per_step: float

    @property
    def words(self) -> str:
        """Loss, accuracy and pace, as the progress bar shows them."""
        return f"loss {self.loss:.3f} acc {100 * self.accuracy:.1f} % {self.seconds_per_step:.2f} s/step"


def prepare_process(threads: int) -> None:
    """Set torch's threads, flush denormals, and keep glibc from returning large buffers to the system every step."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its largest
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-4, 0)  # M_MMAP_MAX: larger buffers, too, would come page by page from the system every step
    except (OSError, AttributeError, TypeError):
        pass  # not glibc: only speed is lost


def check_device(device: str | None) -> str:
    """Return the device asked for, cuda where none was and torch finds one. On CUDA: full float32, and repeatable.

    Raises InputError for a device that torch does not find here.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cuda":
        return device
    if not torch.cuda.is_available():
        raise InputError("--device must be cpu where torch finds no CUDA device, not cuda")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return device


def split_holdout(images: Images, holdout: int) -> tuple[Images, Images]:
    """Return the images to train on and the last `holdout` ones, kept for model selection."""
    if not 0 < holdout < len(images):
        raise InputError(f"holdout must be in 1..{len(images) - 1}, not {holdout}")
    return images.take(slice(0, len(images) - holdout)), images.take(slice(len(images) - holdout, len(images)))


@dataclass(frozen=True)
class Batch:
    """One step's images: int8 codes as float32 [N, 3, 32, 32], labels [N], and which images and view they are."""

    codes: Tensor
    labels: Tensor
    index: NDArray[np.int64]
    view: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        return replace(self, codes=self.codes.to(device), labels=self.labels.to(device))


@lru_cache(maxsize=2)
def epoch_draws(seed: int, epoch: int, view: int, count: int) -> tuple[NDArray[np.int64], Views]:
    """Return the order of an epoch's images, int64 [N], and one view of each."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    return order, draw_views(count, np.random.default_rng([seed, 2, view]))


def batch_of(images: Images, recipe: Recipe, step: int) -> Batch:
    """Return the augmented batch of one step: a function of the recipe's seed and the step only."""
    epoch, position = divmod(step, len(images) // recipe.batch_size)
    view = epoch % recipe.views if recipe.views else epoch
    order, views = epoch_draws(recipe.seed, epoch, view, len(images))
    index = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
    codes = as_tensor(image_codes(augment(images.pixels, views, index)))
    return Batch(codes, torch.from_numpy(images.labels[index]), index, view)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to zero, or the recipe's drops to a tenth."""
    if recipe.rate_drops:
        drops = [epoch * (steps // recipe.epochs) for epoch in recipe.rate_drops]
        return warm_steps(recipe.learning_rate, recipe.warmup_steps, step, drops)
    return warm_cosine(recipe.learning_rate, recipe.warmup_steps, step, steps)


def penalty(net: PGResNet, targets: dict[str, Tensor], sigma: float) -> Tensor:
    """Return sigma * sum over gated layers of ||delta - target|| (the norm, not its square)."""
    terms = [torch.linalg.vector_norm(cast(Tensor, c.delta) - targets[n]) for n, c in net.gated_convs()]
    return sigma * torch.stack(terms).sum() if terms else torch.zeros(())


def distilled_loss(logits: Tensor, labels: Tensor, taught: Tensor | None, recipe: Recipe) -> Tensor:
    """Return cross-entropy, mixed with the teacher's soft targets where there are any (Hinton et al. 2015)."""
    hard = F.cross_entropy(logits, labels)
    if taught is None:
        return hard
    t = recipe.temperature
    soft = F.kl_div(F.log_softmax(logits / t, 1), F.softmax(taught / t, 1), reduction="batchmean") * t * t
    return (1.0 - recipe.distill_weight) * hard + recipe.distill_weight * soft


class Run:
    """One training run: network, averaged network, optimiser and step count."""

    def __init__(self, recipe: Recipe, data: Path, out: Path, train: Images, device: str = "cpu") -> None:
        self.recipe, self.out, self.device = recipe, out, torch.device(device)
        self.train, self.held_out = split_holdout(train, recipe.holdout)
        self.data = digest_of(train.pixels, train.labels)
        if len(self.train) < recipe.batch_size:
            raise InputError(f"batch_size must be at most {len(self.train)}, not {recipe.batch_size}")
        self.steps_per_epoch = len(self.train) // recipe.batch_size
        self.steps = self.steps_per_epoch * recipe.epochs
        self.step = 0
        self.net = build_network(recipe).to(self.device)
        self.teacher: TaughtViews | None = None
        if recipe.teacher:
            kept = out / f"{Path(recipe.teacher).stem}_views{recipe.views}_seed{recipe.seed}.npz"
            teacher = read_teacher(data / recipe.teacher, device)
            self.teacher = TaughtViews(teacher, kept, recipe.views, len(self.train), self.data)
        self.averaged = copy.deepcopy(self.net)
        self.targets: dict[str, Tensor] = {}
        groups = sgd_groups(self.net, recipe.momentum, recipe.weight_decay)
        self.optimiser = torch.optim.SGD(groups, lr=recipe.learning_rate)
        self.epoch_so_far = 0.0, 0.0

    def start(self, data: Path) -> None:
        """Begin from what the recipe names, or from random weights: clips, batch norm and thresholds calibrated on the
        first training images."""
        self._starting_weights(data)
        start_clips(self.net, self._calibration_codes())
        self._place_thresholds(self.recipe.start_sparsity)
        recalibrate_batch_norm(self.net, self._plain_batches(EPOCH_BN_BATCHES))
        self._place_thresholds(self.recipe.start_sparsity)
        self.averaged.load_state_dict(self.net.state_dict())

    def _starting_weights(self, data: Path) -> None:
        name = self.recipe.float_weights
        if name.endswith(".npz"):
            start_from_float(self.net, data / name)
        elif name:
            start_at(name, self.out, data, partial(start_from_run, self.net))

    def hold_sparsity(self) -> None:
        """Set thresholds and targets anew where the recipe asks for it: between its first epochs."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if position == 0 and 1 <= epoch <= self.recipe.hold_epochs:
            self._place_thresholds(self.recipe.hold_sparsity)

    def _place_thresholds(self, sparsity: float) -> None:
        if self.recipe.thresholds == "learned":
            start_thresholds(self.net, self._calibration_codes(), sparsity, self.recipe.start_scope)
        for name, conv in self.net.gated_convs():
            delta = cast(Tensor, conv.delta).detach()
            wanted = self.recipe.delta_target
            self.targets[name] = delta.clone() if isinstance(wanted, str) else torch.full_like(delta, wanted)
            if self.recipe.thresholds == "fixed":
                delta.copy_(self.targets[name])

    def _calibration_codes(self) -> Tensor:
        return as_tensor(image_codes(self.train.pixels[:CALIBRATION_IMAGES])).to(self.device)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe."""
        state = load_checkpoint(path)
        check_recipe(state.recipe, self.recipe, path)
        check_data(state.data, self.data, path)
        check_step(state.step, self.steps, path)
        _best_so_far(self.out / f"{self.recipe.name}.jsonl")  # a broken log is refused now, not after an epoch of work
        self.net.load_state_dict(state.model)
        self.averaged.load_state_dict(state.averaged)
        self.targets = {name: target.to(self.device) for name, target in state.targets.items()}
        self.optimiser.load_state_dict(state.optimiser)
        self.step, self.epoch_so_far = state.step, state.epoch_so_far

    def checkpoint(self, finished: bool = False) -> Checkpoint:
        """Return the run's state."""
        return Checkpoint(
            self.recipe,
            self.step,
            self.net.state_dict(),
            self.averaged.state_dict(),
            self.targets,
            self.optimiser.state_dict(),
            finished,
            self.epoch_so_far,
            self.data,
        )

    def _plain_batches(self, count: int) -> Iterator[Tensor]:
        size = self.recipe.batch_size
        for start in range(0, min(count * size, len(self.train)), size):
            yield as_tensor(image_codes(self.train.pixels[start : start + size])).to(self.device)

    def one_step(self) -> tuple[float, float]:
        """Take one optimiser step; return its loss and its accuracy on the batch."""
        recipe = self.recipe
        self.hold_sparsity()
        batch = batch_of(self.train, recipe, self.step).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, self.step, self.steps)
        self.net.train()
        taught = self.teacher(batch.codes, batch.view, batch.index) if self.teacher else None
        self.optimiser.zero_grad(set_to_none=True)
        with np.errstate(invalid="ignore", over="ignore"):  # of a run that diverges, which its loss will tell
            logits = self.net(batch.codes)
            loss = distilled_loss(logits, batch.labels, taught, recipe) + penalty(self.net, self.targets, recipe.sigma)
            loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for _, pact in self.net.pacts():
                pact.alpha.clamp_(min=1e-2)
            self._average()
        self.step += 1
        return float(loss.detach()), float((logits.argmax(1) == batch.labels).float().mean())

    def _average(self) -> None:
        """Move the averaged weights towards the current ones; the decay rises from 0 over the first steps."""
        decay = min(self.recipe.ema_decay, (self.step + 1) / (self.step + 10)) if self.recipe.ema_decay else 0.0
        mine: list[Tensor] = list(self.averaged.parameters())
        theirs: list[Tensor] = list(self.net.parameters())
        torch._foreach_lerp_(mine, theirs, 1.0 - decay)

    def evaluate(self, bn_batches: int) -> dict[str, Any]:
        """Recalibrate the averaged network's batch norm and measure it on the held-out images.

        The statistics are those of augmented images, as in training: those of plain ones, without the crops' black
        borders, cost a trained 3/2 network about 4 points.
        """
        batches = (batch_of(self.train, self.recipe, step).codes.to(self.device) for step in range(bn_batches))
        recalibrate_batch_norm(self.averaged, batches)
        self.averaged.reset_counts()
        right = 0
        with torch.no_grad():
            for start in range(0, len(self.held_out), EVAL_BATCH):
                part = self.held_out.take(slice(start, start + EVAL_BATCH))
                codes = as_tensor(image_codes(part.pixels)).to(self.device)
                logits = self.averaged.fake_quantised(codes)
                right += int((logits.argmax(1).cpu().numpy() == part.labels).sum())
        overall, layers = self.averaged.sparsity()
        return {
            "held_out_accuracy": right / len(self.held_out),
            "sparsity": overall,
            "layer_sparsity": [round(s, 4) for s in layers],
            "clips": [round(float(p.alpha.detach()), 4) for _, p in self.averaged.pacts()],
            "mean_thresholds": [
                round(float(cast(Tensor, c.delta).detach().mean()), 4) for _, c in self.averaged.gated_convs()
            ],
        }


def _best_so_far(log: Path) -> float:
    """Return the highest held-out accuracy in a log, 0 where there is none."""
    best = 0.0
    for line in read_log(log):
        accuracy = line.get("held_out_accuracy")
        if not isinstance(accuracy, int | float):
            raise InputError(f"{log}: held_out_accuracy must be a number in every line, not {accuracy!r}")
        best = max(best, accuracy)
    return best


def train(run: Run, out: Path, report: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
    """Train to the end, or until `stop()`; return whether the run is finished.

    Writes `NAME.pt` (checkpoint, at every epoch's end and on stop) and appends a line per epoch to `NAME.jsonl`. The
    averaged weights of the epoch with the highest held-out accuracy so far are in `NAME.best.weights.npz`. A run of no
    epochs is measured as it starts; an epoch whose end was not written whole, once more.
    """
    path = out / f"{run.recipe.name}.pt"
    ended = run.step % run.steps_per_epoch == 0
    if (run.steps == 0 and not path.exists()) or (ended and run.epoch_so_far != (0.0, 0.0)):
        _end_epoch(run, path)
    recent: list[tuple[float, float]] = []
    started = time.perf_counter()
    first = run.step
    while run.step < run.steps:
        loss, accuracy = run.one_step()
        recent.append((finite(loss, "loss", run.step), accuracy))
        recent = recent[-RECENT:]
        run.epoch_so_far = run.epoch_so_far[0] + loss, run.epoch_so_far[1] + accuracy
        pace = (time.perf_counter() - started) / (run.step - first)
        mean_loss, mean_accuracy = np.mean(recent, axis=0).tolist()
        report(Progress(run.step, run.steps, mean_loss, mean_accuracy, pace))
        if run.step % run.steps_per_epoch == 0:
            _end_epoch(run, path, pace)
            if run.teacher:
                run.teacher.save()
        elif stop():
            save_checkpoint(path, run.checkpoint())
            return False
        if stop():
            break
    return run.step == run.steps


def _end_epoch(run: Run, path: Path, pace: float | None = None) -> None:
    """Measure the run, write the weights where they are the best so far, a log's line, and the checkpoint to `path`.

    Before all that the checkpoint is written as of before it, the epoch's sums not yet told: where the disk is full or
    the process killed in between, a resumed run ends the epoch once more.
    """
    check_finite(run.net, run.step)
    if run.step:
        save_checkpoint(path, run.checkpoint())
    last = run.step == run.steps
    measured = run.evaluate(FINAL_BN_BATCHES if last else EPOCH_BN_BATCHES)
    log = path.with_name(f"{run.recipe.name}.jsonl")
    if measured["held_out_accuracy"] >= _best_so_far(log):
        history = {"step": run.step, "finished": last, **measured}
        save_weights(path.with_name(f"{run.recipe.name}.best.weights.npz"), run.averaged, run.recipe, history)
    trained = {}
    if run.step:
        loss, accuracy = (round(total / run.steps_per_epoch, 5) for total in run.epoch_so_far)
        trained = {"loss": loss, "train_accuracy": accuracy}
    if pace is not None:
        trained["seconds_per_step"] = round(pace, 4)
    if all(line.get("step") != run.step for line in read_log(log)):
        append_line(log, {"epoch": run.step // run.steps_per_epoch, "step": run.step, **trained, **measured})
    run.epoch_so_far = 0.0, 0.0
    save_checkpoint(path, run.checkpoint(finished=last))
