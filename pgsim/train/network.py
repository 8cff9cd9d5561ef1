"""ResNet-20, -32, -56 and ShiftNet-20 for CIFAR-10 with precision-gated convolutions, fake-quantised.

    image codes int8 [N,3,32,32] -> stem (dense, int8 x int8) -> BN -> PACT
      -> 3 n blocks: conv1 (gated) -> BN -> PACT -> conv2 (dense, or gated with "all") -> BN -> + shortcut -> PACT
      -> mean over 8x8 -> 8-bit codes -> classifier int8 -> logits [N,10]

n is 3, 5 or 9; shortcuts are of option A. A block of ShiftNet-20 (Wu et al., "Shift", CVPR 2018; n = 3, expansion 6) is

    conv1 1x1 to 6 times the block's channels (gated) -> BN -> PACT -> shift -> conv2 1x1 -> BN -> + shortcut -> PACT

and the stride of a stage's first block is conv2's. The exact integer form of all of them is `pgsim.train.exact`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pgsim.nn.codes import RealOfCodes
from pgsim.train.blocks import (
    FEATURE_CODE_MAX,
    IMAGE_CLIP,
    IMAGE_CODE_MAX,
    IMAGE_FORMAT,
    STAGES,
    Block,
    Classifier,
    Conv,
    Options,
    Pact,
)
from pgsim.train.exact import run_exact
from pgsim.train.frozen import freeze
from pgsim.train.recipe import Recipe

BLOCKS_PER_STAGE = {"resnet20": 3, "resnet32": 5, "resnet56": 9, "shiftnet20": 3}


class PGResNet(nn.Module):
    """A CIFAR ResNet with `act_bits`/`pred_bits` activations.

    Args:
        act_bits: bits of an activation code, 2 to 12.
        pred_bits: bits of the prediction phase, 1 to act_bits - 1; act_bits where nothing is gated.
        gating: "release" (first convolution of each block is gated), "all" (both are) or "none".
        sparse: sparse back-propagation to the thresholds.
        keep: an output that is not updated keeps its prediction; otherwise it becomes 0.
        learned_clip: PACT; otherwise clips are running maxima.
        network: a name of BLOCKS_PER_STAGE.
    """

    def __init__(
        self,
        act_bits: int,
        pred_bits: int,
        gating: str,
        sparse: bool = True,
        *,
        keep: bool = True,
        learned_clip: bool = True,
        network: str = "resnet20",
    ) -> None:
        super().__init__()
        self.act_bits, self.pred_bits, self.gating, self.keep = act_bits, pred_bits, gating, keep
        self.blocks_per_stage = BLOCKS_PER_STAGE[network]
        options = Options(act_bits, pred_bits, gating, sparse, keep, learned_clip)
        self.stem = Conv(3, STAGES[0], 1, IMAGE_FORMAT)
        self.bn = nn.BatchNorm2d(STAGES[0])
        self.pact = Pact(2**act_bits - 1, learned_clip)
        blocks = []
        c_in = STAGES[0]
        for stage, c_out in enumerate(STAGES):
            for index in range(self.blocks_per_stage):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(c_in, c_out, stride, options, shifts=network == "shiftnet20"))
                c_in = c_out
        self.blocks = nn.ModuleList(blocks)
        self.pool = Pact(FEATURE_CODE_MAX, learned_clip)
        self.classifier = Classifier(STAGES[-1], 10)

    def forward(self, image_codes: Tensor) -> Tensor:
        """Return logits [N, 10] of image codes (float32 integers in [-127, 127], [N, 3, 32, 32]).

        In training mode those of `fake_quantised`, float32. In evaluation mode those of the exact integer function that
        a trace computes: float64, integers times one scale, without gradient; the counts of outputs stay as they are.
        Raises ValueError there for values that are no image codes.
        """
        return self.fake_quantised(image_codes) if self.training else self._integer(image_codes)

    def _integer(self, image_codes: Tensor) -> Tensor:
        codes = image_codes.detach().clamp(-IMAGE_CODE_MAX, IMAGE_CODE_MAX).nan_to_num().to(torch.int8)
        if not bool((codes == image_codes).all()):
            codes_are = f"integers in [-{IMAGE_CODE_MAX}, {IMAGE_CODE_MAX}]"
            raise ValueError(f"image codes must be {codes_are}, not other numbers")
        frozen = freeze(self)
        logits = run_exact(frozen, codes.cpu().numpy()).logits * frozen.logit_scale
        return torch.from_numpy(logits).to(image_codes.device)

    def fake_quantised(self, image_codes: Tensor) -> Tensor:
        """Return float32 logits [N, 10] of image codes: codes as reals, the residual stream in float32.

        Batch norm follows the module's mode (batch statistics in training, running ones in evaluation).
        """
        stream, codes = self.pact.after_norm(self.stem(image_codes, IMAGE_CLIP / IMAGE_CODE_MAX), self.bn)
        step = self.pact.step
        for module in self.blocks:
            block = cast(Block, module)
            stream, codes = block(stream, codes, step)
            step = block.pact2.step
        mean = stream.mean((2, 3))
        _, feature = self.pool(mean)
        return self.classifier(RealOfCodes.apply(feature, self.pool.step, 1.0))

    def gated_convs(self) -> list[tuple[str, Conv]]:
        """Return name and module of every gated convolution, in execution order."""
        return [(n, m) for n, m in self.named_modules() if isinstance(m, Conv) and m.gated]

    def block_name(self, position: int) -> str:
        """Return the name of block `position`, as float ResNets have it: layer2.0."""
        return f"layer{position // self.blocks_per_stage + 1}.{position % self.blocks_per_stage}"

    def pacts(self) -> list[tuple[str, Pact]]:
        """Return name and module of every clip, in execution order."""
        named = [(n, m) for n, m in self.named_modules() if isinstance(m, Pact)]
        return [x for x in named if x[0] != "pool"] + [x for x in named if x[0] == "pool"]

    def reset_counts(self) -> None:
        for _, conv in self.gated_convs():
            conv.updated = conv.outputs = 0

    def sparsity(self) -> tuple[float, list[float]]:
        """Return the share of outputs with mask 0 since the counts were reset: overall, and per gated layer."""
        counts = [(conv.updated, conv.outputs) for _, conv in self.gated_convs()]
        total = sum(n for _, n in counts)
        overall = 1.0 - sum(u for u, _ in counts) / total if total else 0.0
        return overall, [1.0 - u / n if n else 0.0 for u, n in counts]


def build_network(recipe: Recipe) -> PGResNet:
    """Return an untrained network of the recipe's format, channels last."""
    torch.manual_seed(recipe.seed)
    net = PGResNet(
        recipe.act_bits,
        recipe.pred_bits,
        recipe.gating,
        recipe.sparse_bp,
        keep=recipe.policy != "zero",
        learned_clip=recipe.clip == "pact",
        network=recipe.network,
    )
    for _, conv in net.gated_convs():
        cast(Tensor, conv.delta).requires_grad_(recipe.thresholds == "learned")
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net
