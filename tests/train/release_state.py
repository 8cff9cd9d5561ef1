"""A random state dict under the names of the authors' release, and its network once more in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]
STAGES = {"layer1": 16, "layer2": 32, "layer3": 64}


def arrays(seed: int, *, pact: bool = True) -> dict[str, Floats]:
    """Return the tensors of a random ResNet-20: batch norms that turn a channel round and flatten one."""
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}

    def conv(name: str, norm: str, out: int, channels: int) -> None:
        made[f"{name}.weight"] = random.normal(size=(out, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        gamma = random.uniform(0.5, 1.5, out)
        gamma[:2] = -gamma[0], 0
        made[f"{norm}.weight"], made[f"{norm}.bias"] = gamma, random.normal(0.3, 0.3, out)
        made[f"{norm}.running_mean"] = random.normal(0, 0.3, out)
        made[f"{norm}.running_var"] = random.uniform(0.2, 1.5, out)
        made[f"{norm}.num_batches_tracked"] = 7

    conv("conv1", "bn1", 16, 3)
    channels, clips = 16, ["relu"]
    for stage, out in STAGES.items():
        for number in range(3):
            block = f"{stage}.{number}"
            conv(f"{block}.conv1", f"{block}.bn1", out, channels)
            conv(f"{block}.conv2", f"{block}.bn2", out, out)
            made[f"{block}.conv1.threshold"] = random.uniform(-0.5, 1.0, (1, out, 1, 1))
            clips.append(f"{block}.relu")
            channels = out
    if pact:
        made |= {f"{name}.upper_bound": random.uniform(1.5, 2.5) for name in clips}
    made["linear.weight"], made["linear.bias"] = random.normal(size=(10, 64)), random.normal(size=10)
    return {name: np.asarray(array, np.float32) for name, array in made.items()}


def state_dict(seed: int, *, pact: bool = True) -> dict[str, Any]:
    """Return `arrays` as torch.save of the release has them."""
    import torch

    made = {name: torch.from_numpy(array.copy()) for name, array in arrays(seed, pact=pact).items()}
    return {name: value.long() if name.endswith("tracked") else value for name, value in made.items()}


def conv(x: Floats, weight: Floats, stride: int = 1) -> Floats:
    """3 x 3 with padding 1, by windows."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    picked = windows[:, :, ::stride, ::stride]
    return np.tensordot(picked, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2).astype(np.float32)


def codes_of(x: Floats, bits: int) -> tuple[NDArray[np.int64], np.float32]:
    """Return sign times rounded magnitude at the tensor's own scale, and the scale, in float32."""
    scale = np.float32(np.abs(x).max() + np.float32(1e-7))
    codes = np.rint(np.minimum(np.abs(x) / scale, np.float32(1)) * np.float32(2**bits - 1)) * np.sign(x)
    return codes.astype(np.int64), scale


def real(codes: NDArray[np.int64], bits: int, scale: np.float32) -> Floats:
    """Return what codes stand for."""
    return codes.astype(np.float32) / np.float32(2**bits - 1) * scale


class Run:
    """The network over images float32 [N, 3, H, W]: every convolution's codes, outputs and masks; features; logits."""

    def __init__(self, state: dict[str, Floats], images: Floats, act_bits: int, pred_bits: int, weight_bits: int):
        self.state, self.codes, self.weights, self.outputs, self.masks = state, [], [], [], []  # type: ignore[var-annotated]
        low = act_bits - pred_bits
        x = self.activated(self.norm(conv(images, state["conv1.weight"]), "bn1"), "relu")
        self.stem = x
        for stage in STAGES:
            for number in range(3):
                block, stride = f"{stage}.{number}", 2 if number == 0 and stage != "layer1" else 1
                w = self.weight(f"{block}.conv1", weight_bits)
                q, scale = codes_of(x, act_bits)
                high = real(q >> low << low, act_bits, scale)
                predicted = conv(high, w, stride)
                mask = predicted > state[f"{block}.conv1.threshold"]
                output = predicted + mask * conv(real(q, act_bits, scale) - high, w, stride)
                self.keep(q, output, mask)
                q, scale = codes_of(self.activated(self.norm(output, f"{block}.bn1"), f"{block}.relu"), act_bits)
                output = conv(real(q, act_bits, scale), self.weight(f"{block}.conv2", weight_bits))
                self.keep(q, output, None)
                pad = (output.shape[1] - x.shape[1]) // 2
                shortcut = np.pad(x[:, :, ::stride, ::stride], ((0, 0), (pad, pad), (0, 0), (0, 0)))
                x = self.activated(self.norm(output, f"{block}.bn2") + shortcut, f"{block}.relu")
        self.features = x
        self.logits = x.mean(axis=(2, 3)) @ state["linear.weight"].T + state["linear.bias"]

    def keep(self, codes: NDArray[np.int64], output: Floats, mask: NDArray[np.bool_] | None) -> None:
        self.codes.append(codes)
        self.outputs.append(output)
        self.masks.append(mask)

    def weight(self, name: str, bits: int) -> Floats:
        codes, scale = codes_of(self.state[f"{name}.weight"], bits)
        self.weights.append(codes)
        return real(codes, bits, scale)

    def norm(self, x: Floats, name: str) -> Floats:
        gamma, beta, mean, variance = (
            self.state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return ((x - mean) / np.sqrt(variance + np.float32(1e-5)) * gamma + beta).astype(np.float32)

    def activated(self, x: Floats, name: str) -> Floats:
        return np.clip(x, 0, self.state.get(f"{name}.upper_bound"))
