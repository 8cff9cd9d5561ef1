"""ShuffleNet V2 0.5x: the float trunk, its quantised form, its trace on ImageNet images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

import pgsim  # noqa: E402
from pgsim import nn as pg  # noqa: E402
from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.model.inference import infer  # noqa: E402
from pgsim.train.shufflenet import calibrate, trunk  # noqa: E402
from pgsim.train.shufflenet.calibrate import place_thresholds, start_clips  # noqa: E402
from pgsim.train.shufflenet.network import ShuffleNetV2, gated_paths, network_images, quantised, stream_readers  # noqa: E402
from pgsim.train.shufflenet.weights import read_trunk  # noqa: E402
from pgsim.workload.layer import Requantise  # noqa: E402
from tests.train.synthetic import residual  # noqa: E402


def drawn(classes: int = 0) -> ShuffleNetV2:
    """A float network of random weights and norms."""
    torch.manual_seed(classes + 1)
    net = ShuffleNetV2(classes)
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.normal_(0.8, 0.5)
                norm.bias.normal_(0.2, 0.3)
                norm.running_var.uniform_(0.2, 0.6)
    return net.eval()


def write_trunk(path: Path, net: ShuffleNetV2) -> None:
    state = {n: t.numpy() for n, t in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    np.savez(path, **state)


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_the_trunk_has_the_arrays_that_the_authors_names_give() -> None:
    state = {n: t for n, t in ShuffleNetV2().state_dict().items() if not n.endswith("num_batches_tracked")}
    assert len(state) == 275
    assert sum(t.numel() for n, t in state.items() if t.dim() == 4) == 137_232
    assert state["stage3.0.branch_proj.2.weight"].shape == (48, 48, 1, 1)
    assert state["stage3.7.branch_main.6.running_var"].shape == (48,)
    assert state["stage4.0.branch_main.5.weight"].shape == (96, 96, 1, 1)


def reference(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The trunk as the data's description words it, in functions alone, with shuffle and split written out."""

    def conv(x: torch.Tensor, name: str, number: int, norm: int, relu: bool, **how: int) -> torch.Tensor:
        x = nn.functional.conv2d(x, weights[f"{name}.{number}.weight"], **how)
        scale = weights[f"{name}.{norm}.weight"] / (weights[f"{name}.{norm}.running_var"] + 1e-5).sqrt()
        mean, beta = weights[f"{name}.{norm}.running_mean"], weights[f"{name}.{norm}.bias"]
        x = (x - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None]
        return x.relu() if relu else x

    def main_branch(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        x = conv(x, name, 0, 1, True)
        x = conv(x, name, 3, 4, False, stride=stride, padding=1, groups=x.shape[1])
        return conv(x, name, 5, 6, True)

    x = nn.functional.max_pool2d(conv(x, "first_conv", 0, 1, True, stride=2, padding=1), 3, 2, 1)
    for stage, units in (("stage2", 4), ("stage3", 8), ("stage4", 4)):
        for unit in range(units):
            name = f"{stage}.{unit}.branch_main"
            if unit == 0:
                proj = f"{stage}.0.branch_proj"
                y = conv(x, proj, 0, 1, False, stride=2, padding=1, groups=x.shape[1])
                x = torch.cat([conv(y, proj, 2, 3, True), main_branch(x, name, 2)], 1)
            else:
                shuffled = x.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)  # pairs apart: evens, then odds
                kept, inside = shuffled.chunk(2, 1)
                x = torch.cat([kept, main_branch(inside, name, 1)], 1)
    return x


def test_the_trunk_computes_the_described_forward() -> None:
    net, x = drawn(), images()
    with torch.no_grad():
        np.testing.assert_allclose(net(x), reference(net.state_dict(), x), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif("PGSIM_DATA" not in os.environ, reason="PGSIM_DATA does not name the folder with the float trunk")
def test_the_real_trunk_gives_the_known_features() -> None:
    folder = Path(os.environ["PGSIM_DATA"])
    net = ShuffleNetV2().eval()
    read_trunk(net, folder / "shufflenetv2_x0.5_trunk.npz")
    samples = trunk.read_samples(folder).take(slice(0, 8))
    with torch.no_grad():
        features = net(network_images(samples.pixels)).mean((2, 3)).numpy()
    known = np.load(folder / "shufflenetv2_x0.5_trunk_ref_features.npz")
    np.testing.assert_allclose(features, known["features"][:8], atol=1e-6)
    np.testing.assert_array_equal(samples.labels, known["labels"][:8])


def test_the_cifar_form_keeps_the_resolution_of_its_stem() -> None:
    net = drawn(10)
    x = images(2, 32)
    with torch.no_grad():
        assert net.first_conv(x).shape == (2, 24, 32, 32)
        assert net(x).shape == (2, 10)
    assert net.conv_last[0].weight.shape == (1024, 192, 1, 1)


@pytest.mark.parametrize("scope", ["none", "pointwise", "all"])
def test_scope_and_streams_decide_the_layers(scope: str) -> None:
    net = drawn(10)
    gating = None if scope == "none" else pg.Gating(4)
    result = quantised(net, 6, gating, scope)
    layers = pg.coded_layers(result)
    gated = {path for path, layer in layers.items() if layer.gating is not None}
    assert gated == set(gated_paths(net, scope))
    assert len(gated) == {"none": 0, "pointwise": 36, "all": 55}[scope]
    assert all(("branch_main.3" in path or "proj.0" in path) == (layers[path].groups > 1) for path in gated)
    bits = {path: layer.quantiser().format for path, layer in layers.items()}
    assert (bits["first_conv.0"].bits, bits["classifier.0"].bits) == (8, 8)
    assert {form.bits for path, form in bits.items() if path not in ("first_conv.0", "classifier.0")} == {6}
    signed = {path for path, form in bits.items() if form.min_code < 0}
    assert signed == {path for path in layers if path.endswith(("branch_main.5", "branch_proj.2"))}
    streams = stream_readers(result)
    assert [len(readers) for readers in streams] == [2, 5, 9, 4]
    for readers in streams:
        assert len({id(layers[path].quantiser()) for path in readers}) == 1
    assert len({id(layer.quantiser()) for layer in layers.values()}) == len(layers) - 16


def test_every_sum_of_the_trunk_leaves_its_layer_as_codes() -> None:
    net = quantised(drawn(), 6, pg.Gating(4), "all").eval()
    start_clips(net, [images()])
    assert net.first_conv[0].input.clip == 1.0
    place_thresholds(net, [images()], 0.5)
    trace = pg.trace(net, images())
    assert len(trace.layers) == 55
    assert all(isinstance(layer.post[-1], Requantise) for layer in trace.layers)
    assert sum(layer.input_name is None for layer in trace.layers) == 1 + 13 + 4
    np.testing.assert_array_equal(trace.tensors(0).activation, (images() * 255).round().numpy())
    assert infer(trace).equal
    words = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet")).assumed
    assert not any("accumulators leave the chip" in word for word in words)


def test_thresholds_reach_the_sparsity_of_the_whole_network() -> None:
    target = 0.572
    net = quantised(drawn(), 6, pg.Gating(4), "all").eval()
    start_clips(net, [images()])
    reached = place_thresholds(net, [images()], target)
    assert reached == pytest.approx(target, abs=0.01)
    pg.reset_counts(net)
    with torch.no_grad():
        net(images())
    assert pg.sparsity(net).by_output == reached


def test_where_every_share_holds_back_too_much_none_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One prediction bit: most outputs are one value, and stay together or not at all."""
    monkeypatch.setattr(calibrate, "_reached", lambda _net, _batches, share: 0.26 if share else 0.0)
    assert place_thresholds(quantised(drawn(), 6, pg.Gating(4), "all"), [images()], 0.05) == 0.0
    assert place_thresholds(quantised(drawn(), 6, pg.Gating(4), "all"), [images()], 0.2) == 0.26


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a random trunk and three images of 32 x 32."""
    monkeypatch.setattr(trunk, "IMAGE_SIZE", 32)
    monkeypatch.setattr(trunk, "CALIBRATION_IMAGES", 2)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / trunk.SAMPLE_FILE, residual=residual(pixels), labels=np.array([4, 0, 7], np.int16))
    write_trunk(tmp_path / "trunk.npz", drawn())
    return tmp_path


def command(folder: Path, *more: str) -> int:
    out = ["-o", str(folder / "t.npz")]
    return main(["trace", "--trunk", str(folder / "trunk.npz"), "--data", str(folder), *out, *more])


def test_the_command_writes_a_trace_that_says_what_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "--bits", "5/3", "--sparsity", "41.9", "--gated", "pointwise", "--images", "3") == 0
    talk = capsys.readouterr()
    assert talk.out == ""
    assert "thresholds calibrated, not learned; assumed: the 1x1 convolutions are gated" in " ".join(talk.err.split())
    trace = pgsim.load_trace(folder / "t.npz")
    info = trace.info
    assert info["labels"] == [4, 0, 7]
    assert info["sparsity_calibrated_percent"] == pytest.approx(41.9, abs=1)
    assert "no accuracy is claimed" in info["notes"]
    assert "top1" not in info
    masks = [trace.tensors(index).mask for index in range(55)]
    counted = [mask for mask in masks if mask is not None]
    assert len(counted) == 35
    updated = sum(int(mask.sum()) for mask in counted) / sum(mask.size for mask in counted)
    assert info["sparsity_percent"] == pytest.approx(100 * (1 - updated), abs=1e-3)
    assert info["b_avg_bits"]["gated_by_outputs"] == pytest.approx(3 + 2 * updated, abs=1e-4)
    every = sum(mask.size for mask in counted) * (2 - 2 * updated)
    outputs = sum(trace.tensors(index).output.size for index in range(1, 55))
    assert info["b_avg_bits"]["all_by_outputs"] == pytest.approx(5 - every / outputs, abs=1e-4)
    assert pgsim.verify(trace).equal
    assert main(["run", str(folder / "t.npz"), "--hw", "predictivenet"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--bits must be given for --trunk, as in --bits 6/4"),
        (["--bits", "9/4"], "--bits must be at most 8/PB for --trunk, not 9/4"),
        (["--bits", "6/4", "--sparsity", "101"], "--sparsity must be in 0..100, not 101"),
        (["--bits", "6/4", "--images", "4"], "--images must be in 1..3, not 4"),
        (["--bits", "6/4", "--evaluate", "4"], "--evaluate must be left out for --trunk, not be 4"),
        (["--bits", "6/4", "--weight-bits", "4"], "--weight-bits must be left out for --trunk, not be 4"),
    ],
)
def test_wrong_options_are_refused(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(folder, *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (folder / "t.npz").exists()


def test_its_options_are_refused_for_a_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["trace", "--checkpoint", "x.pt", "--data", str(folder), "-o", "t.npz", "--gated", "all"]
    assert main(base) == 2
    assert "--gated must be left out without --trunk, not be all" in capsys.readouterr().err


def test_a_wrong_trunk_is_refused(folder: Path) -> None:
    arrays = dict(np.load(folder / "trunk.npz"))
    np.savez(folder / "less.npz", **{n: a for n, a in arrays.items() if n != "stage4.3.branch_main.5.weight"})
    with pytest.raises(InputError, match=r"exactly the arrays .* not differ in 'stage4\.3\.branch_main\.5\.weight'$"):
        read_trunk(ShuffleNetV2(), folder / "less.npz")
    np.savez(folder / "shape.npz", **{**arrays, "first_conv.0.weight": np.zeros((1, 3, 3, 3), np.float32)})
    with pytest.raises(InputError, match=r"first_conv\.0\.weight must be \[24, 3, 3, 3\], not \[1, 3, 3, 3\]$"):
        read_trunk(ShuffleNetV2(), folder / "shape.npz")
