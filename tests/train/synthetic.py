"""A tiny data folder in the format of the real one: random images, random float ResNet-20 weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pgsim.train.recipe import Recipe, parse_recipe

RECIPE = """
name: tiny
act_bits: 3
pred_bits: 2
gating: release
float_weights: weights.npz
epochs: 2
batch_size: 8
learning_rate: 0.01
momentum: 0.9
weight_decay: 0.0001
warmup_steps: 2
sparse_bp: true
sigma: 0.001
delta_target: start
start_sparsity: 0.8
start_scope: layer
hold_epochs: 1
hold_sparsity: 0.85
teacher: weights.npz
distill_weight: 0.5
temperature: 2.0
views: 1
ema_decay: 0.9
holdout: 8
seed: 3
"""


def recipe(**changes: object) -> Recipe:
    """Return the tiny recipe with some fields changed."""
    lines = [line for line in RECIPE.strip().splitlines() if line.split(":")[0] not in changes]
    return parse_recipe("\n".join(lines + [f"{k}: {v}" for k, v in changes.items()]), "tiny.yaml")


def residual(pixels: np.ndarray) -> np.ndarray:
    """Encode images uint8 [N, 32, 32, 3] as the data files do: differences modulo 256, [N, 3, 32, 32]."""
    x = pixels.transpose(0, 3, 1, 2).copy()
    x[:, [0, 2]] -= x[:, 1:2]
    rows = np.diff(x, axis=2, prepend=np.zeros_like(x[:, :, :1]))
    return np.diff(rows, axis=3, prepend=np.zeros_like(rows[..., :1]))


def write_images(path: Path, count: int, seed: int) -> np.ndarray:
    """Write one file of random images; return their pixels."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    np.savez(path, residual=residual(pixels), labels=generator.integers(0, 10, count).astype(np.uint8))
    return pixels


def write_weights(path: Path, seed: int) -> None:
    """Write a random float ResNet-20 under PyTorch's names."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}

    def conv(name: str, norm: str, c_out: int, c_in: int) -> None:
        scale = np.sqrt(2 / (9 * c_in))
        arrays[f"{name}.weight"] = (generator.normal(size=(c_out, c_in, 3, 3)) * scale).astype(np.float32)
        for key, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            arrays[f"{norm}.{key}"] = np.full(c_out, value, np.float32)

    conv("conv1", "bn1", 16, 3)
    c_in = 16
    for stage, c_out in enumerate((16, 32, 64), start=1):
        for block in range(3):
            conv(f"layer{stage}.{block}.conv1", f"layer{stage}.{block}.bn1", c_out, c_in)
            conv(f"layer{stage}.{block}.conv2", f"layer{stage}.{block}.bn2", c_out, c_out)
            c_in = c_out
    arrays["linear.weight"] = generator.normal(size=(10, 64)).astype(np.float32) * 0.1
    arrays["linear.bias"] = np.zeros(10, np.float32)
    np.savez(path, **arrays)


def write_folder(folder: Path) -> Path:
    """Write the whole folder: five training files of 8 images, 8 test images, weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(1, 6):
        write_images(folder / f"cifar10_train_{k}.npz", 8, k)
    write_images(folder / "cifar10_test.npz", 8, 9)
    write_weights(folder / "weights.npz", 4)
    return folder
