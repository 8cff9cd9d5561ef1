"""ShuffleNet V2 0.5x (Ma et al. 2018), named as the authors' code names it, in float; quantised with shared clips.

    image [N, 3, H, W] --first_conv, maxpool--> 24 --stage2--> 48 --stage3--> 96 --stage4--> 192 channels
                                                                   CIFAR-10 form: --conv_last--> 1024 --mean--> classes

    unit 0 of a stage:  x -+-- branch_proj: depthwise / 2, 1x1 --.
                           `-- branch_main: 1x1, depthwise / 2, 1x1 --concat-->
    the others:         x[:, 0::2] ------------------------------.
                        x[:, 1::2] -- branch_main: 1x1, depthwise, 1x1 --concat-->   (shuffle and split in one)

Batch norm after each convolution, ReLU after each 1x1. What a stage's units concatenate is one stream: its readers, the
1x1 of its further units and both branches of the next stage, share one clip. So every unit can write its codes as its
last convolution ends, and no concatenation or shuffle changes one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgsim.arith.formats import Encoding
from pgsim.nn import Gating, Pact, QuantConv2d, QuantiseInput, Quantiser, Recipe, WeightFormat, coded_layers, convert

STEM, LAST = 24, 1024
STAGES = {"stage2": (48, 4), "stage3": (96, 8), "stage4": (192, 4)}
"""Channels and units of each stage of the 0.5x network."""
FEATURE_BITS = 8
"""Of the features between the last convolution and the classifier, as at the other edge."""


def _norm_after(conv: nn.Conv2d, relu: bool) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels), *([nn.ReLU()] if relu else [])]


def _pointwise(channels: int, out: int) -> list[nn.Module]:
    return _norm_after(nn.Conv2d(channels, out, 1, bias=False), True)


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return _norm_after(nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), False)


class Unit(nn.Module):
    """A unit of a stage: [N, C, H, W] to [N, K, H, W], or halved in H and W at stride 2."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        inside = channels if stride == 2 else half
        self.branch_main = nn.Sequential(
            *_pointwise(inside, half),
            *_depthwise(half, stride),
            *_pointwise(half, half if stride == 1 else out - channels),
        )
        self.branch_proj: nn.Sequential | None = None
        if stride == 2:
            self.branch_proj = nn.Sequential(*_depthwise(channels, 2), *_pointwise(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.branch_proj is not None:
            return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)
        return torch.cat([x[:, 0::2], self.branch_main(x[:, 1::2])], 1)


class ShuffleNetV2(nn.Module):
    """The network in float, or what `quantised` makes of it.

    With `classes` 0 it is the trunk for 224 x 224 images: stem at stride 2, max-pool, [N, 192, H/32, W/32] out. With
    classes it is the CIFAR-10 form: stem at stride 1, no max-pool, the last convolution, mean and classifier, [N,
    classes] out. Images are BGR in [0, 1].
    """

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        stride = 1 if classes else 2
        self.first_conv = nn.Sequential(*_norm_after(nn.Conv2d(3, STEM, 3, stride, 1, bias=False), True))
        self.maxpool: nn.Module = nn.Identity() if classes else nn.MaxPool2d(3, 2, 1)
        channels = STEM
        for name, (out, units) in STAGES.items():
            strides = [2] + [1] * (units - 1)
            self.add_module(name, nn.Sequential(*(Unit(channels if s == 2 else out, out, s) for s in strides)))
            channels = out
        self.conv_last: nn.Module = nn.Sequential(*_pointwise(channels, LAST)) if classes else nn.Identity()
        self.features: nn.Module = nn.Identity()  # a quantiser, where the network is quantised
        self.classifier: nn.Module = nn.Sequential(nn.Linear(LAST, classes, bias=False)) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.first_conv(x))
        for name in STAGES:
            x = self.get_submodule(name)(x)
        x = self.features(self.conv_last(x))
        return self.classifier(x.mean((2, 3))) if self.classes else x


IMAGE_FORM = {"order": "BGR", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
"""What `network_images` makes of pixels in 0 .. 1, in the words of a trace's `info.image`."""


def network_images(pixels: NDArray[np.uint8]) -> Tensor:
    """Return images uint8 [N, H, W, 3] (RGB) as the network takes them: float32 [N, 3, H, W], BGR in [0, 1].

    They lie channels last in memory, and so does what convolutions make of them: that is what they are fastest on.
    """
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(0, 3, 1, 2).float() / 255


def gated_paths(net: nn.Module, scope: str) -> tuple[str, ...]:
    """Return the convolutions that `scope` gates: "none", "pointwise" (every 1x1) or "all" (the depthwise ones, too).

    The stem is never gated.
    """
    if scope == "none":
        return ()
    return tuple(
        path
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and path != "first_conv.0" and (scope == "all" or module.groups == 1)
    )


def quantised(
    net: ShuffleNetV2,
    act_bits: int,
    gating: Gating | None,
    scope: str,
    weights: WeightFormat | None = None,
    *,
    learned_clips: bool = True,
) -> ShuffleNetV2:
    """Return a copy of a float network whose convolutions are quantised and, within `scope`, gated.

    Activations have `act_bits` bits: learned clips (PACT) behind ReLUs, or fixed ones without `learned_clips`, one for
    each stream; sign-magnitude codes at a fixed scale behind depthwise convolutions, whose norm no ReLU follows. The
    image has 8 bits, code = pixel, and so have features and classifier of the CIFAR-10 form. Clips are not set yet:
    pgsim.nn.calibrate does. Weights have 8 bits and a scale for each channel where `weights` does not say otherwise.
    """
    gated = gated_paths(net, scope) if gating is not None else ()
    dense = tuple(
        path for path, m in net.named_modules() if isinstance(m, nn.Conv2d) and path not in (*gated, "first_conv.0")
    )
    signed = tuple(
        f"{path}.{number}" for path, number in (("*.branch_main", 5), ("*.branch_proj", 2))
    )  # the 1x1 behind a depthwise convolution
    recipe = Recipe(
        act_bits, gating or Gating(1), weights or WeightFormat(per_channel=True), gated, dense, signed=signed,
        encoding=Encoding.SIGN_MAGNITUDE, activation="pact" if learned_clips else "static",
    )  # fmt: skip
    result = convert(net, recipe)
    assert isinstance(result, ShuffleNetV2)
    stem = result.first_conv[0]
    assert isinstance(stem, QuantConv2d)
    stem.input = QuantiseInput(8, Encoding.UNSIGNED, 1.0, fixed=True)
    layers = coded_layers(result)
    for readers in stream_readers(result):
        shared = _behind_relu(act_bits, learned_clips)
        for path in readers:
            layers[path].input = shared
    # The trunk ends in its last stream's codes: what would read them is not there.
    last = layers["stage4.1.branch_main.0"].quantiser()
    result.features = _behind_relu(FEATURE_BITS, learned_clips) if result.classes else last
    return result


def _behind_relu(act_bits: int, learned: bool) -> Quantiser:
    """Return a quantiser to unsigned codes; as a module it does what the ReLU in front of it would do."""
    return Pact(act_bits) if learned else QuantiseInput(act_bits, Encoding.UNSIGNED)


def stream_readers(net: ShuffleNetV2) -> list[tuple[str, ...]]:
    """Return the paths of the convolutions that read each stream: the stem's, then each stage's."""
    first = {name: (f"{name}.0.branch_proj.0", f"{name}.0.branch_main.0") for name in STAGES}
    inside = {name: tuple(f"{name}.{k}.branch_main.0" for k in range(1, units)) for name, (_, units) in STAGES.items()}
    readers: list[tuple[str, ...]] = [first["stage2"]]
    readers += [(*inside[name], *first[following]) for name, following in pairwise(STAGES)]
    return [*readers, (*inside["stage4"], *(("conv_last.0",) if net.classes else ()))]
