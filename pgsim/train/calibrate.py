"""Choose starting values from data: clips by quantisation error, thresholds by sparsity, batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pgsim.train.blocks import Conv
from pgsim.train.network import PGResNet


def best_clip(values: Tensor, levels: int) -> float:
    """Return the clip in (0, max] with the least squared error of a `levels`-level unsigned quantiser."""
    top = float(values.max())
    if top <= 0:
        return 1.0
    positive = values.clamp_min(0)
    best, best_error = top, float("inf")
    for share in np.linspace(0.15, 1.0, 35):
        clip = top * float(share)
        quantised = torch.round(positive.clamp_max(clip) * (levels / clip)) * (clip / levels)
        error = float((positive - quantised).square().mean())
        if error < best_error:
            best, best_error = clip, error
    return best


@torch.no_grad()
def start_clips(net: PGResNet, codes: Tensor) -> None:
    """Set every clip, in order, for its own input on these image codes: PACT's to the best one, others to the largest
    value."""
    net.eval()
    for _, pact in net.pacts():
        seen: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Tensor], seen: list[Tensor] = seen) -> None:
            seen.append(args[0].detach().clone())

        handle = pact.register_forward_pre_hook(keep)
        net.fake_quantised(codes)
        handle.remove()
        values = torch.cat([s.reshape(-1) for s in seen])
        pact.alpha.fill_(best_clip(values, pact.levels) if pact.learned else max(1e-2, float(values.max())))


@torch.no_grad()
def prediction_outputs(net: PGResNet, codes: Tensor) -> dict[str, Tensor]:
    """Return the real prediction-phase output of every gated convolution, [N, K, P, Q] each."""
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, conv in net.gated_convs():

        def keep(module: nn.Module, args: tuple[Tensor, float], _out: Tensor, name: str = name) -> None:
            outputs[name] = cast(Conv, module).predicted(*args)

        handles.append(conv.register_forward_hook(keep))
    net.eval()
    net.fake_quantised(codes)
    for handle in handles:
        handle.remove()
    return outputs


@torch.no_grad()
def start_thresholds(net: PGResNet, codes: Tensor, sparsity: float, scope: str) -> None:
    """Set every Delta to the `sparsity` quantile of the prediction-phase outputs.

    Args:
        scope: whose outputs are pooled: "network" (one value for all), "layer" or "channel".
    """
    outputs = prediction_outputs(net, codes)
    pooled = None
    if scope == "network":
        pooled = float(np.quantile(torch.cat([o.reshape(-1) for o in outputs.values()]).cpu().numpy(), sparsity))
    for name, conv in net.gated_convs():
        delta = cast(Tensor, conv.delta)
        if pooled is not None:
            delta.fill_(pooled)
        elif scope == "layer":
            delta.fill_(float(np.quantile(outputs[name].cpu().numpy(), sparsity)))
        else:
            per_channel = outputs[name].transpose(0, 1).reshape(delta.numel(), -1).cpu().numpy()
            delta.copy_(torch.from_numpy(np.quantile(per_channel, sparsity, axis=1).astype(np.float32)))


@torch.no_grad()
def recalibrate_batch_norm(net: PGResNet, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by the plain average over `batches` of image codes.

    Clips that are not learned follow the largest values of these batches on the way, as they do in training.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    for codes in batches:
        net.fake_quantised(codes)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
