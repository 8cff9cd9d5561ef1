"""A tiny corpus in the format of the real one: words that follow one another by a rule, with some noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pgsim.train.language.recipe import LanguageRecipe, parse_language_recipe

RECIPE = """
name: tiny
task: language_model
cell: gated
hidden_units: 12
tied: true
input_dropout: 0.1
output_dropout: 0.2
epochs: 2
batch_size: 4
sequence_length: 6
learning_rate: 0.01
warmup_steps: 3
clip_norm: 1.0
seed: 5
act_bits: 4
pred_bits: 2
start_sparsity: 0.5
sigma: 0.001
"""
FLOAT = {"cell": "float", "act_bits": 0, "pred_bits": 0}
WORDS = 23


def recipe(**changes: object) -> LanguageRecipe:
    """Return the tiny recipe with some fields changed."""
    lines = [line for line in RECIPE.strip().splitlines() if line.split(":")[0] not in changes]
    return parse_language_recipe("\n".join(lines + [f"{k}: {v}" for k, v in changes.items()]), "tiny.yaml")


def words(count: int, seed: int) -> np.ndarray:
    """Return word ids uint16 [count]: mostly three times the last one plus 1, modulo the vocabulary."""
    generator = np.random.default_rng(seed)
    ids = [0]
    for _ in range(count - 1):
        ids.append(int(generator.integers(WORDS)) if generator.random() < 0.2 else (3 * ids[-1] + 1) % WORDS)
    return np.array(ids, np.uint16)


def write_corpus(folder: Path, **changes: np.ndarray) -> Path:
    """Write `ptb.npz` with some arrays changed; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train": words(403, 1),
        "valid": words(90, 2),
        "test": words(80, 3),
        "vocab": np.array([f"word{k}" for k in range(WORDS)]),
    }
    np.savez(folder / "ptb.npz", **{**arrays, **changes})
    return folder
