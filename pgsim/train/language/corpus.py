"""Read a corpus of word ids from an npz file and cut it into contiguous streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgsim.errors import InputError
from pgsim.train.data import open_npz

CORPUS_FILE = "ptb.npz"
SPLITS = ("train", "valid", "test")
UNSCORED = -100
"""Target of a position that no word stands on: torch's cross-entropy leaves it out."""


@dataclass(frozen=True)
class Corpus:
    """Word ids int64 [words] of each split, all in 0 .. vocabulary - 1. Line ends are words of their own."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    vocabulary: int


def read_corpus(folder: Path) -> Corpus:
    """Read `ptb.npz`: `train`, `valid`, `test` unsigned integers [words], `vocab` [V] of str.

    Raises InputError for a missing or broken file or array, a split of fewer than 2 words, or an id beyond `vocab`.
    """
    path = folder / CORPUS_FILE
    arrays = open_npz(path)
    for name in (*SPLITS, "vocab"):
        if name not in arrays:
            raise InputError(f"{path} must hold an array '{name}', not only {sorted(arrays)}")
    vocab = arrays["vocab"]
    if vocab.ndim != 1 or vocab.dtype.kind != "U" or not len(vocab):
        raise InputError(f"{path}: vocab must be str [V], V >= 1, not {vocab.dtype} {list(vocab.shape)}")
    ids = {}
    for name in SPLITS:
        split = arrays[name]
        if split.dtype.kind not in "iu" or split.ndim != 1 or len(split) < 2:
            raise InputError(
                f"{path}: {name} must be integers [words], at least 2 words, not {split.dtype} {list(split.shape)}"
            )
        for word in (int(split.min()), int(split.max())):
            if not 0 <= word < len(vocab):
                raise InputError(f"{path}: {name} must hold word ids 0 .. {len(vocab) - 1}, not {word}")
        ids[name] = split.astype(np.int64)
    return Corpus(**ids, vocabulary=len(vocab))


@dataclass(frozen=True)
class Streams:
    """Contiguous streams: each word of `inputs` int64 [streams, length] is followed by that of `targets`."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]

    def windows(self, length: int) -> int:
        """Return how many windows of `length` words a stream has; the last may be shorter."""
        return -(-self.inputs.shape[1] // length)

    def window(self, index: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return inputs and targets of window `index`, time first: int64 [time, streams]."""
        part = slice(index * length, (index + 1) * length)
        return self.inputs[:, part].T, self.targets[:, part].T

    def all_windows(self, length: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Give every window in order."""
        return (self.window(index, length) for index in range(self.windows(length)))


def training_streams(words: NDArray[np.int64], count: int, where: str) -> Streams:
    """Cut words into `count` streams of equal length; fewer than `count` words at the end are left out.

    Raises InputError where a stream would be empty.
    """
    length = (len(words) - 1) // count
    if length < 1:
        raise InputError(f"{where} must be at most {len(words) - 1}, one less than the training words, not {count}")
    kept = count * length
    return Streams(words[:kept].reshape(count, length), words[1 : kept + 1].reshape(count, length))


def scoring_streams(words: NDArray[np.int64], count: int) -> Streams:
    """Cut words into `count` streams so that each word but the first is the target exactly once.

    The last streams may be shorter: there the input is word 0 and the target UNSCORED.
    """
    length = -(-(len(words) - 1) // count)
    inputs, targets = np.zeros(count * length, np.int64), np.full(count * length, UNSCORED, np.int64)
    inputs[: len(words) - 1], targets[: len(words) - 1] = words[:-1], words[1:]
    return Streams(inputs.reshape(count, length), targets.reshape(count, length))
