"""pgsim train: fine-tune a precision-gated network after a recipe."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from pgsim.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, or the name of one that pgsim ships")
    parser.add_argument(
        "--data", metavar="DIR", required=True, help="folder with the CIFAR-10 and float weight npz files"
    )
    parser.add_argument("--out", metavar="DIR", default=".", help="where checkpoint and log go (default: here)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument(
        "--minutes", metavar="M", type=float, help="stop after M minutes with a checkpoint that --resume continues"
    )


def run(args: argparse.Namespace) -> int:
    """Train; return 0 when the run is finished or its time is up, 130 when it was interrupted (a checkpoint is
    written)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        from pgsim.train import loop
    except ModuleNotFoundError as error:
        raise InputError(
            f"pgsim train must have torch installed (pip install 'pgsim[train]'), not lack {error.name}"
        ) from None
    from pgsim.train.data import read_train
    from pgsim.train.recipe import find_recipe, parse_recipe
    from pgsim.train.weights import save_weights

    if args.threads < 1:
        raise InputError(f"--threads must be 1 or more, not {args.threads}")
    if args.minutes is not None and not args.minutes > 0:
        raise InputError(f"--minutes must be more than 0, not {args.minutes:g}")
    deadline = time.monotonic() + 60 * args.minutes if args.minutes is not None else math.inf
    recipe = parse_recipe(*find_recipe(args.recipe))
    data, out = Path(args.data), Path(args.out)
    checkpoint = out / f"{recipe.name}.pt"
    if checkpoint.exists() and not args.resume:
        raise InputError(f"{checkpoint} must not exist yet for a new run; continue it with --resume, or move it away")
    if args.resume and not checkpoint.exists():
        raise InputError(f"{checkpoint} must exist for --resume, not be missing")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written, not {out} ({error.strerror})") from None
    loop.prepare_process(args.threads)
    job = loop.Run(recipe, data, out, read_train(data))
    if args.resume:
        job.restore(checkpoint)
    else:
        job.start(data)

    interrupted = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    previous = signal.signal(signal.SIGINT, note)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    try:
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(recipe.name, total=job.steps, completed=job.step)

            def report(p: loop.Progress) -> None:
                text = f"{recipe.name} loss {p.loss:.3f} acc {100 * p.accuracy:.1f} % {p.seconds_per_step:.2f} s/step"
                bar.update(task, completed=p.step, description=text)

            finished = loop.train(job, out, report, lambda: interrupted or time.monotonic() > deadline)
    finally:
        signal.signal(signal.SIGINT, previous)
    best = out / f"{recipe.name}.best.weights.npz"
    if not finished:
        why = "interrupted" if interrupted else f"{args.minutes:g} minutes are up"
        words = f"; the best epoch so far is in {best}" if best.exists() else ""
        print(f"{why} at step {job.step} of {job.steps}; continue with --resume{words}", file=sys.stderr)
        return 130 if interrupted else 0
    weights = out / f"{recipe.name}.weights.npz"
    save_weights(weights, job.averaged, recipe, {"step": job.step, "finished": True})
    print(f"wrote {checkpoint} and {weights}", file=sys.stderr)
    return 0
