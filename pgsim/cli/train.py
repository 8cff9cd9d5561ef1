"""pgsim train: fine-tune a precision-gated network after a recipe."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from pgsim.cli import interrupt
from pgsim.cli.trace_options import MAX_THREADS, natural_number, up_to
from pgsim.cli.train_list import ListRecipes
from pgsim.errors import InputError

if TYPE_CHECKING:
    from pgsim.train.language.loop import LanguageRun
    from pgsim.train.language.recipe import LanguageRecipe
    from pgsim.train.recipe import Recipe
    from pgsim.train.shufflenet.loop import ShuffleNetRun
    from pgsim.train.shufflenet.recipe import ShuffleNetRecipe


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of one that pgsim ships")
    parser.add_argument(
        "--list", action=ListRecipes, nargs=0, help="print the shipped recipes, one line each, and exit"
    )
    parser.add_argument(
        "--data", metavar="DIR", required=True, help="folder with the CIFAR-10 and float weight npz files, or ptb.npz"
    )
    parser.add_argument("--out", metavar="DIR", default=".", help="where checkpoint and log go (default: here)")
    parser.add_argument(
        "--seed",
        metavar="N",
        type=natural_number,
        help="train under this seed in place of the recipe's; the run and its files are named NAME_seedN",
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        type=natural_number,
        help="train for N epochs in place of the recipe's; the run and its files are named NAME_epochsN. 0 calibrates"
        " an image network of the recipe, and trains nothing",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="where the network is trained (default: cuda where torch finds one)"
    )
    parser.add_argument(
        "--minutes", metavar="M", type=float, help="stop after M minutes with a checkpoint that --resume continues"
    )


class Step(Protocol):
    """What a training loop tells of a step."""

    @property
    def step(self) -> int:
        """Steps done."""
        ...

    @property
    def words(self) -> str:
        """The loss so far, for the progress bar."""
        ...


@dataclass(frozen=True)
class Job:
    """A run of either kind, ready to go on: steps wanted and done, how to train on, how to keep the result.

    `best` is the file of the best epoch so far; `finish` writes what a finished run leaves and says it in a line.
    """

    steps: int
    done: Callable[[], int]
    train: Callable[[Callable[[Step], None], Callable[[], bool]], bool]
    best: Path
    finish: Callable[[], str]


def run(args: argparse.Namespace) -> int:
    """Train; return 0 when the run is finished or its time is up, 130 when it was interrupted (a checkpoint is
    written)."""
    # Before torch loads: its threads would spin on for long after each operation, on cores that kernels want then.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        from pgsim.train import loop
    except ModuleNotFoundError as error:
        raise InputError(
            f"pgsim train must have torch installed (pip install 'pgsim[train]'), not lack {error.name}"
        ) from None
    from pgsim.train.any_recipe import parse_any_recipe, with_epochs, with_seed
    from pgsim.train.language.recipe import LanguageRecipe
    from pgsim.train.recipe import find_recipe
    from pgsim.train.shufflenet.recipe import ShuffleNetRecipe

    up_to("--threads", args.threads, MAX_THREADS)
    if args.minutes is not None and not args.minutes > 0:
        raise InputError(f"--minutes must be more than 0, not {args.minutes:g}")
    deadline = time.monotonic() + 60 * args.minutes if args.minutes is not None else math.inf
    recipe = parse_any_recipe(*find_recipe(args.recipe))
    if args.epochs is not None:
        recipe = with_epochs(recipe, args.epochs)
    if args.seed is not None:
        recipe = with_seed(recipe, args.seed)
    out = Path(args.out)
    checkpoint = out / f"{recipe.name}.pt"
    if args.resume and not checkpoint.exists():
        raise InputError(f"{checkpoint} must exist for --resume, not be missing")
    if not args.resume:
        _refuse_leftovers(checkpoint)
    loop.prepare_process(args.threads)
    args.device = loop.check_device(args.device)
    with _folder(out), _alone(checkpoint):
        if isinstance(recipe, LanguageRecipe):
            job = _language_job(recipe, args, out, checkpoint)
        elif isinstance(recipe, ShuffleNetRecipe):
            job = _shufflenet_job(recipe, args, out, checkpoint)
        else:
            job = _image_job(recipe, args, out, checkpoint)
        return _train(job, recipe.name, args.minutes, deadline)


def _train(job: Job, name: str, minutes: float | None, deadline: float) -> int:
    """Train with a progress bar, until the deadline or Ctrl-C at most; return the exit code."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    interrupted = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    interrupt.check()  # compiled code may have swallowed one as the run began
    previous = signal.signal(signal.SIGINT, note)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    try:
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=job.steps, completed=job.done())

            def report(p: Step) -> None:
                bar.update(task, completed=p.step, description=f"{name} {p.words}")

            finished = job.train(report, lambda: interrupted or time.monotonic() > deadline)
    finally:
        signal.signal(signal.SIGINT, previous)
    if not finished:
        why = "interrupted" if interrupted else f"{minutes:g} minutes are up"
        words = f"; the best epoch so far is in {job.best}" if job.best.exists() else ""
        print(f"{why} at step {job.done()} of {job.steps}; continue with --resume{words}", file=sys.stderr)
        return 130 if interrupted else 0
    print(job.finish(), file=sys.stderr)
    return 0


def _refuse_leftovers(checkpoint: Path) -> None:
    """Refuse to begin a run where an earlier one of its name left a file: log and weights would pass for its own."""
    if checkpoint.exists():
        raise InputError(f"{checkpoint} must not exist yet for a new run; continue it with --resume, or move it away")
    for suffix in (".jsonl", ".best.weights.npz", ".weights.npz"):
        left = checkpoint.with_name(checkpoint.name.removesuffix(".pt") + suffix)
        if left.exists():
            raise InputError(f"{left} must not exist yet for a new run; it is an earlier one's, move it away")


@contextmanager
def _alone(checkpoint: Path) -> Iterator[None]:
    """Keep a second run of the same name, whose files would mix with this one's, from the folder."""
    from filelock import FileLock, Timeout

    place = checkpoint.with_name(f".{checkpoint.stem}.lock")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{checkpoint} must be one run's at a time, and another is training it now") from None
    except OSError as error:
        raise InputError(f"{checkpoint.parent} must be writable, not refused: {error.strerror or error}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # of Windows, where an open file stays; elsewhere it goes while the lock is held
            place.unlink()
        lock.release()


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Make the folder for what follows; where that fails, remove what was made and is still empty."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written, not {out} ({error.strerror})") from None
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty: another's
            for folder in made:
                folder.rmdir()
        raise


def _image_job(recipe: Recipe, args: argparse.Namespace, out: Path, checkpoint: Path) -> Job:
    from pgsim.train import loop
    from pgsim.train.data import read_train
    from pgsim.train.weights import save_weights

    data = Path(args.data)
    job = loop.Run(recipe, data, out, read_train(data), args.device)
    if args.resume:
        job.restore(checkpoint)
    else:
        job.start(data)
    weights = out / f"{recipe.name}.weights.npz"

    def finish() -> str:
        save_weights(weights, job.averaged, recipe, {"step": job.step, "finished": True})
        return f"wrote {checkpoint} and {weights}"

    return Job(
        job.steps,
        lambda: job.step,
        lambda report, stop: loop.train(job, out, report, stop),
        out / f"{recipe.name}.best.weights.npz",
        finish,
    )


def _language_job(recipe: LanguageRecipe, args: argparse.Namespace, out: Path, checkpoint: Path) -> Job:
    from pgsim.train.language.corpus import read_corpus
    from pgsim.train.language.loop import LanguageRun, train_language

    job = LanguageRun(recipe, read_corpus(Path(args.data)), args.device)

    def result() -> str:
        perplexity = job.test()
        valid = job.best_history["valid_perplexity"]
        return f"perplexity {valid:.2f} on the validation words, {perplexity:.2f} on the test words"

    return _best_epoch_job(job, lambda report, stop: train_language(job, out, report, stop), args, checkpoint, result)


def _shufflenet_job(recipe: ShuffleNetRecipe, args: argparse.Namespace, out: Path, checkpoint: Path) -> Job:
    from pgsim.train.data import read_train
    from pgsim.train.shufflenet.loop import ShuffleNetRun, train_shufflenet

    job = ShuffleNetRun(recipe, read_train(Path(args.data)), args.device)

    def result() -> str:
        return f"{100 * job.best_history['held_out_accuracy']:.2f} % of held-out images"

    return _best_epoch_job(job, lambda report, stop: train_shufflenet(job, out, report, stop), args, checkpoint, result)


def _best_epoch_job(
    job: LanguageRun | ShuffleNetRun,
    train: Callable[[Callable[[Step], None], Callable[[], bool]], bool],
    args: argparse.Namespace,
    checkpoint: Path,
    result: Callable[[], str],
) -> Job:
    """A run that leaves its best epoch's weights, begun or resumed; `result` says what that epoch reached."""
    out = checkpoint.parent
    if args.resume:
        job.restore(checkpoint)
    else:
        job.start(out, Path(args.data))
    weights = out / f"{job.recipe.name}.weights.npz"

    def finish() -> str:
        said = result()
        job.save_best(weights)
        return f"wrote {checkpoint} and {weights} (epoch {job.best_history['epoch']}): {said}"

    return Job(job.steps, lambda: job.step, train, weights, finish)
