"""Train step by step to the end of each epoch: what the runs that keep their best epoch share."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pgsim.errors import InputError
from pgsim.io.strict import show

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECENT = 50
P = TypeVar("P")


def finite(value: float, what: str, step: int) -> float:
    """Return what was measured after a step; raise InputError for NaN or infinity: nothing is learned any more."""
    if not math.isfinite(value):
        raise diverged(f"the {what}", step, str(value))
    return value


def check_finite(net: nn.Module, step: int) -> None:
    """Refuse, with an InputError, a network that holds NaN or infinity, with which its loss may still be finite."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise diverged(name, step, "with NaN or infinity")


def diverged(what: str, step: int, found: str) -> InputError:
    """Return the error of a run that left the numbers."""
    files = "the run diverged; its files, where it has any, are those of an epoch before"
    return InputError(
        f"{what} after step {step} must be finite, not {found}: {files}, and a lower learning_rate may help"
    )


def read_log(log: Path) -> list[dict[str, Any]]:
    """Return a log's lines, none where there is no log; what a run that was killed wrote of a last one is left out.

    Raises InputError for another line that is no JSON object.
    """
    if not log.exists():
        return []
    *whole, tail = log.read_bytes().split(b"\n")
    for number, line in enumerate(whole, start=1):
        if line.strip() and _json_object(line) is None:
            raise InputError(f"{log}: line {number} must be a JSON object, as pgsim train writes it, not a broken one")
    return [value for value in map(_json_object, [*whole, tail]) if value is not None]


def append_line(log: Path, line: dict[str, Any]) -> None:
    """Append a line to a log; it takes the place of what a run that was killed wrote of its last one.

    Raises InputError where the log cannot be written.
    """
    try:
        with log.open("a+b") as stream:
            stream.seek(0)
            tail = stream.read().rpartition(b"\n")[2]
            if _json_object(tail) is None:
                stream.truncate(stream.tell() - len(tail))
            elif tail:
                stream.write(b"\n")
            stream.write(json.dumps(line).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{log} must be writable, not refused: {error.strerror or error}") from None


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_step(step: int, steps: int, path: Path) -> None:
    """Refuse, with an InputError, a checkpoint of a step beyond the run's last one, as those of more data are."""
    if step > steps:
        raise InputError(f"{path}: step must be at most {steps}, the last one on these data, not {step}")


def digest_of(*arrays: NDArray[Any]) -> str:
    """Return the SHA-256 of arrays: of their dtypes, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_recipe(kept: DataclassInstance, recipe: DataclassInstance, path: Path) -> None:
    """Refuse, with an InputError that tells the first field that differs, a checkpoint of another recipe."""
    for each in fields(recipe):
        was, now = getattr(kept, each.name), getattr(recipe, each.name)
        if was != now:
            raise InputError(f"{path} must come from the same recipe, with {each.name} {show(now)}, not {show(was)}")


def check_data(kept: str, data: str, path: Path) -> None:
    """Refuse, with an InputError, a checkpoint of other training data; those of before have no digest and pass."""
    if kept not in ("", data):
        raise InputError(f"{path} must be resumed with the data that it began with, not with others")


class EpochRun(Protocol):
    """A training run that is measured after each epoch and knows its best one."""

    step: int
    steps: int
    steps_per_epoch: int
    best_history: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's name, and that of its files."""
        ...

    def one_step(self) -> float:
        """Take one optimiser step; return its loss."""
        ...

    def end_of_epoch(self) -> dict[str, Any]:
        """Measure, keep the epoch where it is the best so far, return the log's line (`epoch`, ...)."""
        ...

    def save_checkpoint(self, path: Path) -> None:
        """Write all that goes on from here."""
        ...

    def save_best(self, path: Path) -> None:
        """Write the best epoch's weights."""
        ...


def train_epochs(
    run: EpochRun,
    out: Path,
    progress: Callable[[int, int, float, float], P],
    report: Callable[[P], None],
    stop: Callable[[], bool],
) -> bool:
    """Train to the end, or until `stop()`; return whether the run is finished.

    Writes `NAME.pt` (checkpoint, at every epoch's end and on stop), appends a line per epoch to `NAME.jsonl`, and keeps
    the weights of the best epoch so far in `NAME.weights.npz`. A run that goes on from an epoch's end whose line the
    log lacks (the disk was full, the process killed) measures it once more. `progress` makes what `report` takes of
    steps done and wanted, the recent loss and seconds a step.
    """
    log = out / f"{run.name}.jsonl"
    if run.step and run.step % run.steps_per_epoch == 0 and all(line.get("step") != run.step for line in read_log(log)):
        _end_epoch(run, out)
    recent: list[float] = []
    started, first = time.perf_counter(), run.step
    while run.step < run.steps:
        recent.append(finite(run.one_step(), "loss", run.step))
        recent = recent[-RECENT:]
        pace = (time.perf_counter() - started) / (run.step - first)
        report(progress(run.step, run.steps, float(np.mean(recent)), pace))
        ended = run.step % run.steps_per_epoch == 0
        if ended:
            _end_epoch(run, out, seconds_per_step=round(pace, 4))
        if run.step < run.steps and stop():
            if not ended:
                run.save_checkpoint(out / f"{run.name}.pt")
            return False
    return True


def _end_epoch(run: EpochRun, out: Path, **more: float) -> None:
    """Measure the run and write what is kept of its epoch, the log's line last."""
    line = {**run.end_of_epoch(), **more}
    run.save_checkpoint(out / f"{run.name}.pt")
    if run.best_history["epoch"] == line["epoch"]:
        run.save_best(out / f"{run.name}.weights.npz")
    append_line(out / f"{run.name}.jsonl", line)
