"""Read a state dict of the Precision Gating authors' public PyTorch release: its ResNet-20 for CIFAR-10.

The release (cornell-zhang/dnn-gating) saves `net.state_dict()` alone: weights, batch norm, thresholds and clips, but no
bit widths. `expected_shapes` is the whole table of its names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgsim.errors import InputError
from pgsim.io.strict import show
from pgsim.train.checked import checked_tensor
from pgsim.train.checkpoint import unpickled

STAGES = (("layer1", 16, 1), ("layer2", 32, 2), ("layer3", 64, 2))  # name, channels, stride of the first block
BLOCKS = 3  # a stage
IMAGE_CHANNELS, CLASSES = 3, 10
REPLICATED = "module."  # what torch.nn.DataParallel puts before every name
NORM = ("weight", "bias", "running_mean", "running_var")
COUNTER = ".num_batches_tracked"  # of batch norm; of no use in evaluation, and absent from some files
CLIP = "relu.upper_bound"  # of a PactReLU: there where the network was trained with -pact
MARK = "layer1.0.conv1.weight"  # in every state dict of a CIFAR ResNet, in no checkpoint of pgsim train
WRAPPERS = ("state_dict", "model_state_dict", "net", "model")  # where training scripts keep one beside other things


@dataclass(frozen=True)
class Norm:
    """Batch norm in evaluation: four float32 [K]."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Block:
    """A basic block: conv1 gated by the real thresholds `delta` [K], conv2 not; one clip for both activations.

    `weight1` [K, C, 3, 3] and `weight2` [K, K, 3, 3] are float32; `clip` is None where the activation is a plain ReLU.
    """

    name: str
    stride: int
    weight1: Tensor
    delta: Tensor
    norm1: Norm
    weight2: Tensor
    norm2: Norm
    clip: float | None


@dataclass(frozen=True)
class ReleaseNet:
    """The network: float stem [16, 3, 3, 3], nine blocks, float classifier [10, 64] with its bias [10]."""

    stem: Tensor
    stem_norm: Norm
    stem_clip: float | None
    blocks: tuple[Block, ...]
    classifier: Tensor
    classifier_bias: Tensor


def block_shapes() -> list[tuple[str, int, int, int]]:
    """Return (name, input channels, output channels, stride) of every block, in network order."""
    blocks, channels = [], STAGES[0][1]
    for stage, out, stride in STAGES:
        for number in range(BLOCKS):
            blocks.append((f"{stage}.{number}", channels, out, stride if number == 0 else 1))
            channels = out
    return blocks


def expected_shapes(pact: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a state dict of the release, by name; batch norm's counters left out."""
    first, last = STAGES[0][1], STAGES[-1][1]
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (first, IMAGE_CHANNELS, 3, 3)}
    norms = {"bn1": first}
    clips = [CLIP]
    for name, channels, out, _ in block_shapes():
        shapes[f"{name}.conv1.weight"] = (out, channels, 3, 3)
        shapes[f"{name}.conv1.threshold"] = (1, out, 1, 1)
        shapes[f"{name}.conv2.weight"] = (out, out, 3, 3)
        norms |= {f"{name}.bn1": out, f"{name}.bn2": out}
        clips.append(f"{name}.{CLIP}")
    shapes |= {f"{norm}.{part}": (out,) for norm, out in norms.items() for part in NORM}
    if pact:
        shapes |= dict.fromkeys(clips, ())
    return shapes | {"linear.weight": (CLASSES, last), "linear.bias": (CLASSES,)}


def is_release(path: Path) -> bool:
    """Return whether a file holds a state dict with a CIFAR ResNet's names; False for one that torch cannot load."""
    if path.suffix == ".npz":
        return False
    try:
        raw = unpickled(path)
    except Exception:  # torch raises many kinds; the readers of other checkpoints tell the user
        return False
    return _unwrapped(raw) is not None


def refuse_other_file(path: Path) -> None:
    """Raise the InputError of a file that was said to be a state dict of the release and is none.

    Returns for what pgsim train writes, whose readers tell more.
    """
    if path.suffix == ".npz":
        return
    must = f"{path} must be a state dict of the release (tensors under names such as {MARK})"
    if not path.exists():
        raise InputError(f"{must}, not missing")
    try:
        raw = unpickled(path)
    except Exception as error:  # torch raises many kinds, and documents none
        raise InputError(
            f"{must}, not a file that torch cannot load as tensors alone ({type(error).__name__})"
        ) from None
    if isinstance(raw, Mapping) and isinstance(raw.get("format"), int | str):
        return
    if isinstance(raw, Mapping):
        names = ", ".join(show(str(key)) for key in list(raw)[:3]) or "nothing"
        raise InputError(f"{must}, not one of {names}{', ...' if len(raw) > 3 else ''}")
    raise InputError(f"{must}, not a pickled {type(raw).__name__}")


def _unwrapped(raw: object) -> Mapping[str, Any] | None:
    """Return the state dict that a file holds, alone or under one of WRAPPERS, None where there is none."""
    held = [raw, *(raw.get(name) for name in WRAPPERS)] if isinstance(raw, Mapping) else []
    for each in held:
        if isinstance(each, Mapping) and (MARK in each or REPLICATED + MARK in each):
            return each
    return None


def read_release(path: Path) -> ReleaseNet:
    """Read the network of a state dict for which `is_release` holds.

    Raises InputError for missing or unknown names, wrong shapes, tensors that are not float32 or not finite, a negative
    variance and a clip that is not above 0. Loads tensors and plain values only, never code.
    """
    state = _unwrapped(unpickled(path))
    assert state is not None
    return parse_state(state, str(path))


def parse_state(raw: Mapping[str, Any], where: str) -> ReleaseNet:
    """Return the network of a state dict; `where` names it in an InputError (see `read_release`)."""
    state = {str(key).removeprefix(REPLICATED): value for key, value in raw.items()}
    if len(state) < len(raw):
        raise InputError(f"{where} must hold every tensor once, not with and without {REPLICATED!r}")
    state = {key: value for key, value in state.items() if not key.endswith(COUNTER)}
    pact = any(key.endswith(CLIP) for key in state)
    shapes = expected_shapes(pact)
    for key in shapes:
        if key not in state:
            raise InputError(f"{where} must hold {key} (the release's ResNet-20, trained with -pg), not lack it")
    for key, value in state.items():
        if key not in shapes:
            raise InputError(f"{where} must hold the names of the release's ResNet-20 only, not {key!r}")
        state[key] = _checked(where, key, value, shapes[key])

    def norm(name: str) -> Norm:
        return Norm(*(state[f"{name}.{part}"] for part in NORM))

    def clip(name: str) -> float | None:
        return float(state[name]) if pact else None

    blocks = tuple(
        Block(
            name,
            stride,
            state[f"{name}.conv1.weight"],
            state[f"{name}.conv1.threshold"].flatten(),
            norm(f"{name}.bn1"),
            state[f"{name}.conv2.weight"],
            norm(f"{name}.bn2"),
            clip(f"{name}.{CLIP}"),
        )
        for name, _, _, stride in block_shapes()
    )
    return ReleaseNet(
        state["conv1.weight"], norm("bn1"), clip(CLIP), blocks, state["linear.weight"], state["linear.bias"]
    )


def _checked(where: str, key: str, value: object, shape: tuple[int, ...]) -> Tensor:
    """Return what a name holds, a parameter without its gradient; raise InputError for what it must not."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{where}: {key} must be a float32 tensor, not {kind}")
    if value.layout is not torch.strided or value.device.type != "cpu":
        kind = value.device.type if value.layout is torch.strided else str(value.layout).removeprefix("torch.")
        raise InputError(f"{where}: {key} must be a dense tensor with its values, not a {kind} one")
    value = checked_tensor(value, f"{where}: {key}", shape, torch.float32)
    if key.endswith("running_var") and bool((value < 0).any()):
        raise InputError(f"{where}: {key} must be 0 or more, not {float(value.min()):g}")
    if key.endswith(CLIP) and not float(value) > 0:
        raise InputError(f"{where}: {key} must be above 0, not {float(value):g}")
    return value
