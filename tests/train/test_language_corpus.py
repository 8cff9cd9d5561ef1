"""The corpus file, and how it is cut into streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.errors import InputError  # noqa: E402
from pgsim.train.language.corpus import UNSCORED, read_corpus, scoring_streams, training_streams  # noqa: E402
from tests.train.tiny_corpus import WORDS, words, write_corpus  # noqa: E402


def test_the_file_is_read_as_ids(tmp_path: Path) -> None:
    corpus = read_corpus(write_corpus(tmp_path))
    assert corpus.vocabulary == WORDS
    for name, seed, count in (("train", 1, 403), ("valid", 2, 90), ("test", 3, 80)):
        split = getattr(corpus, name)
        assert split.dtype == np.int64
        np.testing.assert_array_equal(split, words(count, seed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": np.array([1.0, 2.0])}, r"valid must be integers \[words\], at least 2 words, not float64 \[2\]"),
        ({"valid": np.array([[1, 2]])}, r"valid must be integers \[words\], at least 2 words, not int64 \[1, 2\]"),
        ({"test": np.array([1], np.uint16)}, r"test must be .* not uint16 \[1\]"),
        ({"train": np.array([1, WORDS], np.uint16)}, f"train must hold word ids 0 .. {WORDS - 1}, not {WORDS}"),
        ({"train": np.array([1, 2**64 - 1], np.uint64)}, f"train must hold word ids 0 .. {WORDS - 1}, not {2**64 - 1}"),
        ({"train": np.array([1, -1])}, f"train must hold word ids 0 .. {WORDS - 1}, not -1"),
        ({"vocab": np.arange(3)}, r"vocab must be str \[V\], V >= 1, not int64 \[3\]"),
    ],
)
def test_a_wrong_array_is_refused_by_name(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=rf"ptb\.npz: {message}"):
        read_corpus(write_corpus(tmp_path, **changes))


def test_a_missing_array_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ptb\.npz must be an npz file, not missing"):
        read_corpus(tmp_path)
    np.savez(tmp_path / "ptb.npz", train=words(9, 1))
    with pytest.raises(InputError, match=r"ptb\.npz must hold an array 'valid', not only \['train'\]"):
        read_corpus(tmp_path)


def test_training_streams_are_contiguous_and_targets_follow() -> None:
    streams = training_streams(np.arange(24), 3, "batch_size")
    np.testing.assert_array_equal(streams.inputs, [np.arange(7), np.arange(7, 14), np.arange(14, 21)])
    np.testing.assert_array_equal(streams.targets, streams.inputs + 1)
    windows = list(streams.all_windows(3))
    assert [ids.shape for ids, _ in windows] == [(3, 3), (3, 3), (1, 3)]
    assert streams.windows(3) == 3
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in windows]).T, streams.inputs)
    with pytest.raises(InputError, match="batch_size must be at most 23, one less than the training words, not 24"):
        training_streams(np.arange(24), 24, "batch_size")


@pytest.mark.parametrize("count", [1, 3, 4])
def test_every_word_but_the_first_is_scored_once(count: int) -> None:
    streams = scoring_streams(np.arange(100, 112), count)
    scored = streams.targets != UNSCORED
    np.testing.assert_array_equal(streams.targets[scored], np.arange(101, 112))
    np.testing.assert_array_equal(streams.inputs[scored], np.arange(100, 111))
