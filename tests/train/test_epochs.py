"""Epoch by epoch: whatever cut a run off, the one that goes on from its checkpoint has a line for every epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.errors import InputError  # noqa: E402
from pgsim.train.epochs import train_epochs  # noqa: E402


class Counting:
    """A run of three epochs of two steps; its loss is its step, its second epoch the best."""

    name, steps, steps_per_epoch = "counting", 6, 2

    def __init__(self, kept: Path | None = None) -> None:
        self.step, self.measured = 0, 0
        self.best_history: dict[str, Any] = {}
        if kept is not None:
            self.step, self.best_history = json.loads(kept.read_text())

    def one_step(self) -> float:
        self.step += 1
        return float(self.step)

    def end_of_epoch(self) -> dict[str, Any]:
        self.measured += 1
        line = {"epoch": self.step // 2, "step": self.step, "score": [1, 3, 2][self.step // 2 - 1]}
        if line["score"] > self.best_history.get("score", 0):
            self.best_history = line
        return line

    def save_checkpoint(self, path: Path) -> None:
        path.write_text(json.dumps([self.step, self.best_history]))

    def save_best(self, path: Path) -> None:
        path.write_text(json.dumps(self.best_history))


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log's lines without the pace, which a line that is written later lacks."""
    found = [json.loads(line) for line in (folder / "counting.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("epoch", "step", "score")} for line in found]


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("place", ["append_line", "save_best", "save_checkpoint"])
def test_a_run_whose_epochs_end_was_cut_off_ends_in_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, epoch: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert train_epochs(Counting(), whole, lambda *_: None, lambda _: None, lambda: False)
    run = Counting()

    def full(*_: object) -> None:
        raise InputError("No space left on device")

    def nearly_full(_report: object) -> None:
        if run.step == 2 * epoch:
            if place == "append_line":
                patch.setattr("pgsim.train.epochs.append_line", full)
            else:
                patch.setattr(run, place, full)

    with monkeypatch.context() as patch:
        if (place, epoch) == ("save_best", 3):
            assert train_epochs(run, cut, lambda *_: None, nearly_full, lambda: False)  # not the best: nothing to write
        else:
            with pytest.raises(InputError, match="No space"):
                train_epochs(run, cut, lambda *_: None, nearly_full, lambda: False)
    kept = cut / "counting.pt"
    again = Counting(kept if kept.exists() else None)
    assert train_epochs(again, cut, lambda *_: None, lambda _: None, lambda: False)
    assert lines(cut) == lines(whole) == [{"epoch": k, "step": 2 * k, "score": s} for k, s in ((1, 1), (2, 3), (3, 2))]
    for name in ("counting.pt", "counting.weights.npz"):
        assert (cut / name).read_text() == (whole / name).read_text()


def test_a_run_that_goes_on_measures_no_epoch_twice(tmp_path: Path) -> None:
    first = Counting()
    assert not train_epochs(first, tmp_path, lambda *_: None, lambda _: None, lambda: first.step == 2)
    again = Counting(tmp_path / "counting.pt")
    assert train_epochs(again, tmp_path, lambda *_: None, lambda _: None, lambda: False)
    assert (first.measured, again.measured) == (1, 2)
    done = Counting(tmp_path / "counting.pt")
    assert train_epochs(done, tmp_path, lambda *_: None, lambda _: None, lambda: False)
    assert done.measured == 0
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3]
