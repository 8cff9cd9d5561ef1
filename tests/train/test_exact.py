"""The integer network: torch's exact run, the exported thresholds and a plain reference compute the same integers."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from pgsim.api import verify  # noqa: E402
from pgsim.arith.overflow import reachable  # noqa: E402
from pgsim.arith.thresholds import bisect_thresholds  # noqa: E402
from pgsim.model.inference import logits_of  # noqa: E402
from pgsim.train.blocks import Block  # noqa: E402
from pgsim.train.calibrate import recalibrate_batch_norm  # noqa: E402
from pgsim.train.exact import next_codes, run_exact  # noqa: E402
from pgsim.train.export import build_trace, integer_layers  # noqa: E402
from pgsim.train.frozen import FrozenNet, ToCodes, codes_of_accumulator, freeze  # noqa: E402
from pgsim.train.network import PGResNet  # noqa: E402
from tests.train.reference_network import run_network  # noqa: E402


def random_network(
    act_bits: int, pred_bits: int, gating: str, seed: int, *, keep: bool = True, network: str = "resnet20"
) -> PGResNet:
    """A network whose norms, clips and thresholds are random, with negative and zero gammas among them."""
    torch.manual_seed(seed)
    net = PGResNet(act_bits, pred_bits, gating, keep=keep, network=network)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(0.6, 0.6)
                module.weight[0] = 0.0
                module.bias.normal_(0.3, 0.3)
                module.running_mean.normal_(0.0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
        for _, pact in net.pacts():
            pact.alpha.fill_(float(torch.rand(()) * 2 + 0.5))
        for _, conv in net.gated_convs():
            cast(torch.Tensor, conv.delta).normal_(0.3, 0.4)
        net.classifier.bias.normal_()
    return net.eval()


def random_codes(images: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, (images, 3, 32, 32)).astype(np.int8)


@pytest.mark.parametrize(
    ("network", "act_bits", "pred_bits", "gating", "keep"),
    [
        ("resnet20", 3, 2, "release", True),
        ("resnet20", 4, 3, "release", True),
        ("resnet20", 3, 2, "all", True),
        ("resnet20", 2, 1, "all", True),
        ("resnet20", 8, 4, "release", True),
        ("resnet20", 12, 8, "release", True),
        ("resnet20", 3, 2, "release", False),
        ("resnet20", 3, 3, "none", True),
        ("shiftnet20", 5, 3, "release", True),
        ("shiftnet20", 3, 1, "all", False),
    ],
)
def test_exact_run_exported_layers_and_plain_reference_agree_on_every_integer(
    network: str, act_bits: int, pred_bits: int, gating: str, keep: bool
) -> None:
    frozen = freeze(random_network(act_bits, pred_bits, gating, seed=act_bits, keep=keep, network=network))
    codes = random_codes(2, 1)
    run = run_exact(frozen, codes, keep=True)
    logits, outputs, masks = run_network(integer_layers(frozen), codes.astype(np.int64))
    assert len(outputs) == len(run.layers) == 20
    for layer, expected in zip(run.layers, outputs, strict=True):
        np.testing.assert_array_equal(layer.output, expected, strict=True)
    found = [layer.mask for layer in run.layers if layer.mask is not None]
    assert len(found) == {"all": 18, "release": 9, "none": 0}[gating]
    for mask, expected in zip(found, masks, strict=True):
        np.testing.assert_array_equal(mask, expected.astype(bool))
    assert gating == "none" or any(mask.any() and not mask.all() for mask in found)
    np.testing.assert_array_equal(run.logits, logits, strict=True)
    assert len(np.unique(run.logits)) > 2


@pytest.mark.parametrize(("network", "layers"), [("resnet32", 32), ("resnet56", 56)])
def test_deeper_networks_are_exported_whole(network: str, layers: int) -> None:
    net = random_network(3, 2, "release", seed=2, network=network)
    frozen, codes = freeze(net), random_codes(1, 3)
    assert [conv.name for conv in frozen.convs][-1] == f"layer3.{(layers - 2) // 6 - 1}.conv2"
    trace = build_trace(frozen, codes, {})
    assert len(trace.layers) == layers
    assert logits_of(trace.layers, codes.astype(np.int16))["logits"].ravel().tolist() == (
        run_exact(frozen, codes).logits.ravel().tolist()
    )


@pytest.mark.parametrize(("delta", "updated"), [(1e30, False), (-1e30, True)])
def test_a_threshold_beyond_every_sum_updates_none_or_all(delta: float, updated: bool) -> None:
    net, codes = random_network(3, 2, "release", seed=5), random_codes(1, 3)
    with torch.no_grad():
        for _, conv in net.gated_convs():
            conv.delta.fill_(delta)
    frozen = freeze(net)
    masks = [layer.mask for layer in run_exact(frozen, codes, keep=True).layers if layer.mask is not None]
    assert len(masks) == 9
    assert all((mask == updated).all() for mask in masks)
    assert verify(build_trace(frozen, codes, {})).equal


@pytest.mark.parametrize(("network", "keep"), [("resnet20", True), ("resnet20", False), ("shiftnet20", True)])
def test_the_integer_network_follows_the_float_one(network: str, keep: bool) -> None:
    torch.manual_seed(5)
    net = PGResNet(8, 4, "release", keep=keep, network=network)
    coarse = np.random.default_rng(2).integers(-127, 128, (6, 3, 4, 4)).astype(np.int8)
    codes = np.repeat(np.repeat(coarse, 8, axis=2), 8, axis=3)  # of noise, all logits would be nearly alike
    images = torch.from_numpy(codes).float()
    with torch.no_grad():
        for _, pact in net.pacts():
            pact.alpha.fill_(3.0)
        recalibrate_batch_norm(net, [images])
        expected = net.eval().fake_quantised(images).numpy()
    frozen = freeze(net)
    logits = run_exact(frozen, codes).logits * frozen.logit_scale
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected, axis=0).max()


@pytest.mark.parametrize("network", ["resnet20", "shiftnet20"])
@pytest.mark.parametrize("gating", ["release", "all", "none"])
def test_evaluation_mode_is_the_exact_network_to_the_last_bit(network: str, gating: str) -> None:
    net = random_network(4, 4 if gating == "none" else 2, gating, seed=11, network=network)
    codes = random_codes(3, 4)
    frozen = freeze(net)
    images = torch.from_numpy(codes).float().requires_grad_()
    logits = net(images)
    assert logits.dtype == torch.float64
    assert not logits.requires_grad
    np.testing.assert_array_equal(logits.numpy(), run_exact(frozen, codes).logits * frozen.logit_scale, strict=True)
    assert net.train()(images).dtype == torch.float32


@pytest.mark.parametrize("value", [0.5, 128.0, -128.0, float("nan")])
def test_evaluation_mode_takes_image_codes_alone(value: float) -> None:
    net = random_network(3, 2, "release", seed=1)
    with pytest.raises(ValueError, match=r"image codes must be integers in \[-127, 127\], not other numbers"):
        net(torch.full((1, 3, 32, 32), value))


def test_thresholds_equal_the_float64_function_on_every_reachable_accumulator() -> None:
    slope = np.array([0.011, -0.013, 0.0, 0.5, -1e-9])
    offset = np.array([0.2, 1.0, 0.7, -3.0, 0.4])
    tail = ToCodes(slope, offset, 1.7, 7)
    span = np.arange(-500, 501)
    for channel in range(5):
        a, b = slope[channel : channel + 1, None], offset[channel : channel + 1, None]
        sign = -1.0 if slope[channel] < 0 else 1.0
        found = bisect_thresholds(
            lambda v, a=a, b=b, sign=sign: codes_of_accumulator(sign * v, a, b, tail),
            np.array([-500]),
            np.array([500]),
            7,
        )
        counted = (sign * span[:, None] >= found).sum(1)
        expected = codes_of_accumulator(span.astype(float)[None], a, b, tail)[0]
        np.testing.assert_array_equal(counted, expected)


def test_the_kernel_of_codes_is_the_float64_function_at_every_tie() -> None:
    # Offsets that put y on k + 1/2 only where slope * A is rounded before it is added, as a fused sum's is not.
    a = np.arange(1, 400)
    slope = np.concatenate([np.full(len(a), 1 / 3), np.full(len(a), -1 / 7), np.zeros(len(a))])
    a = np.tile(a, 3)
    offset = np.arange(len(a)) % 9 + 0.5 - a * slope
    tail = ToCodes(slope, offset, 7.0, 7)
    sums = np.stack([a, -a, a * 0, a + 1])[:, :, None, None]
    codes = next_codes(sums, tail)
    expected = codes_of_accumulator(sums.astype(float), slope[:, None, None], offset[:, None, None], tail)
    np.testing.assert_array_equal(codes, expected.astype(np.int16), strict=True)
    assert set(codes.ravel().tolist()) == set(range(8))


def test_the_accumulator_range_is_reached_and_never_left() -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (3, 4, 3, 3)).astype(np.int8)
    low, high = reachable(weight, 0, 7)
    for k in range(3):
        best = np.where(weight[k] > 0, 7, 0).astype(np.int64)
        assert (best * weight[k]).sum() == high[k]
        assert ((7 - best) * weight[k]).sum() == low[k]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_the_sums_are_the_same_by_bytes_in_floats_and_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without oneDNN torch would take NNPACK's Winograd transform for 3x3 kernels of 16 images and more.
    frozen, codes = freeze(random_network(8, 5, "release", seed=9)), random_codes(16, 3)
    runs = [run_exact(frozen, codes, keep=True)]
    monkeypatch.setattr("pgsim.nn.eight_bit.runs_kernels", lambda _: False)
    runs.append(run_exact(frozen, codes, keep=True))
    with torch.backends.mkldnn.flags(enabled=False):
        runs.append(run_exact(frozen, codes, keep=True))
    for run in runs[1:]:
        for got, expected in zip(run.layers, runs[0].layers, strict=True):
            np.testing.assert_array_equal(got.output, expected.output, strict=True)


def test_a_trace_records_what_the_exact_run_read_and_wrote() -> None:
    frozen: FrozenNet = freeze(random_network(3, 2, "release", seed=9))
    codes = random_codes(2, 3)
    trace = build_trace(frozen, codes, {"model": "resnet20"})
    run = run_exact(frozen, codes, keep=True)
    assert [x.name for x in trace.layers][:3] == ["stem", "layer1.0.conv1", "layer1.0.conv2"]
    for index, expected in enumerate(run.layers):
        tensors = trace.tensors(index)
        np.testing.assert_array_equal(tensors.activation, expected.codes, strict=True)
        np.testing.assert_array_equal(tensors.output, expected.output, strict=True)


def test_blocks_widen_by_zero_channels_on_both_sides() -> None:
    block = cast(Block, PGResNet(3, 2, "release").blocks[3])
    short = block.shortcut(torch.ones(1, 16, 4, 4))
    assert short.shape == (1, 32, 2, 2)
    assert short[0, :, 0, 0].tolist() == [0.0] * 8 + [1.0] * 16 + [0.0] * 8
