"""pgsim options: a trained network under other arithmetics, held to a plain inference of the rewritten layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import MismatchError  # noqa: E402
from pgsim.io.trace import load_trace  # noqa: E402
from pgsim.train import options  # noqa: E402
from pgsim.train.data import Images, image_codes, read_test  # noqa: E402
from pgsim.train.export import exported, integer_layers  # noqa: E402
from pgsim.train.frozen import FrozenNet, freeze  # noqa: E402
from pgsim.train.options import survey  # noqa: E402
from pgsim.train.weights import read_network, save_weights  # noqa: E402
from pgsim.workload.arithmetic import rewritten  # noqa: E402
from pgsim.workload.arithmetic_names import parse_arithmetic  # noqa: E402
from pgsim.workload.layer import Requantise  # noqa: E402
from tests.train.reference_network import run_network  # noqa: E402
from tests.train.synthetic import recipe, write_images  # noqa: E402
from tests.train.test_exact import random_network  # noqa: E402

NAMES = ("multiply-8", "truncate-16-stream", "shortcut-8", "zero")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test set of four images and the weights of a random network."""
    path = tmp_path_factory.mktemp("data")
    write_images(path / "cifar10_test.npz", 4, 9)
    save_weights(path / "net.npz", random_network(3, 2, "release", seed=9), recipe(), {})
    return path


@pytest.fixture(scope="module")
def frozen(folder: Path) -> FrozenNet:
    return freeze(read_network(folder / "net.npz")[0])


def test_the_lines_are_those_of_the_thresholds(frozen: FrozenNet) -> None:
    network = exported(frozen)
    steps = [layer.post[-1] for layer in network.layers if isinstance(layer.post[-1], Requantise)]
    assert {step.name for step in steps if isinstance(step, Requantise)} == set(network.lines)
    checked = 0
    for step in steps:
        assert isinstance(step, Requantise)
        line, levels = network.lines[step.name], step.threshold.shape[1]
        for channel in range(max(len(step.threshold), len(line.slope))):
            row, direction = (
                step.threshold[channel % len(step.threshold)],
                int(step.direction[channel % len(step.direction)]),
            )
            slope, offset = (float(x[channel % len(x)]) for x in (line.slope, line.offset))
            for v in {direction * (int(t) - less) for t in row[:20] for less in (0, 1)}:
                if slope and row[0] <= direction * v < row[-1]:
                    checked += 1
                    code = int(np.searchsorted(row, direction * v, side="right"))
                    assert abs(min(max(slope * v + offset, 0), levels) - code) <= 0.5 + 1e-9, step.name
    assert checked > 500


def test_a_survey_counts_what_a_plain_inference_of_the_rewritten_layers_gives(
    folder: Path, frozen: FrozenNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "BATCH", 3)
    images = read_test(folder)
    codes = image_codes(images.pixels).astype(np.int64)
    logits = run_network(integer_layers(frozen), codes)[0]
    frozen = replace(frozen, classifier_bias=frozen.classifier_bias - logits.sum(0) // 4)  # no class wins everywhere
    exact = run_network(integer_layers(frozen), codes)[0].argmax(1)
    assert len(set(exact.tolist())) > 1
    images = Images(images.pixels, np.where(np.arange(4) < 3, exact, images.labels))
    choices = {name: parse_arithmetic(name, 8) for name in NAMES}
    found = survey(frozen, images, choices, 8)
    assert found.exact.paired.right == found.exact.paired.other_right == int((exact == images.labels).sum()) >= 3
    assert found.exact.first_differing is None
    for name, choice in choices.items():
        logits, _, masks = run_network(rewritten(exported(frozen), choice).layers, codes)
        labels, measured = logits.argmax(1), found.options[name]
        right, was_right = labels == images.labels, exact == images.labels
        paired = measured.paired
        assert (paired.right, paired.other_right) == (was_right.sum(), right.sum()), name
        assert (paired.only_first, paired.only_second) == ((was_right & ~right).sum(), (right & ~was_right).sum())
        assert paired.changed == (labels != exact).sum()
        zeros = sum(int((mask == 0).sum()) for mask in masks) / sum(mask.size for mask in masks)
        assert measured.sparsity == pytest.approx(zeros, abs=1e-12)
        assert measured.proved_equal == 0
        assert measured.first_differing is not None
    assert sum(found.options[name].paired.changed > 0 for name in NAMES) >= 3
    assert any(0 < found.options[name].paired.only_first != found.options[name].paired.changed for name in NAMES)
    first = {name: found.options[name].first_differing for name in NAMES}
    assert first["multiply-8"][0] == first["shortcut-8"][0] == "layer1.0.conv1"  # type: ignore[index]
    assert first["zero"][0] == "layer1.0.conv2"  # type: ignore[index]


def test_an_accumulator_that_holds_every_sum_is_proved_and_a_narrower_one_is_run(
    folder: Path, frozen: FrozenNet
) -> None:
    images = read_test(folder).take(slice(0, 1))
    sums = survey(frozen, images, {}, 8).partial_sums
    bits = max(x.bits for x in sums.values())
    assert all(x.bits <= x.proven_bits for x in sums.values())
    names = [f"saturate-{bits}", f"wrap-{bits - 1}", f"saturate-{bits}+zero"]
    found = survey(frozen, images, {name: parse_arithmetic(name, 8) for name in names}, 8).options
    assert [found[name].proved_equal for name in names] == [1, 0, 0]
    assert found[names[0]].paired.changed == 0
    widest = max(sums, key=lambda name: sums[name].bits)
    assert widest in ("stem", "classifier")
    other_word = {"x": parse_arithmetic(f"saturate-{bits}", 4)}
    assert survey(frozen, images, other_word, 8).options["x"].proved_equal == 0


def test_a_shift_network_takes_the_options_too(folder: Path) -> None:
    net = freeze(random_network(3, 2, "release", seed=4, network="shiftnet20"))
    images = read_test(folder).take(slice(0, 1))
    choice = parse_arithmetic("multiply-8+shortcut-8", 8)
    measured = survey(net, images, {"x": choice}, 8).options["x"]
    codes = image_codes(images.pixels).astype(np.int64)
    ours, exact = (
        run_network(layers, codes)[1] for layers in (rewritten(exported(net), choice).layers, integer_layers(net))
    )
    assert any((a != b).any() for a, b in zip(ours, exact, strict=True))
    assert measured.first_differing is not None


def test_layers_that_are_not_the_torch_network_are_found(
    folder: Path, frozen: FrozenNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = exported(freeze(random_network(3, 2, "release", seed=10)))
    monkeypatch.setattr(options, "exported", lambda net: other)
    with pytest.raises(MismatchError, match=r"^image 0: logits of the exported layers must be torch's, not "):
        survey(frozen, read_test(folder), {}, 8)


def test_the_command_prints_writes_and_traces(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [
        "options", "--checkpoint", str(folder / "net.npz"), "--data", str(folder), "--evaluate", "1",
        "--option", "multiply-8+shortcut-12", "--option", "wrap-12", "-o", str(tmp_path / "o.json"),
        "--trace", "multiply-8+shortcut-12", str(tmp_path / "o.npz"), "--images", "1",
    ]  # fmt: skip
    assert main(line) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "o.json").read_text())
    assert (result["format"], result["version"], result["images"], result["whole_set"]) == (
        "pgsim-options-result", 1, 1, False,
    )  # fmt: skip
    assert list(result["options"]) == ["multiply-8+shortcut-12", "wrap-12"]
    for name, row in {"exact": result["exact"], **result["options"]}.items():
        (shown,) = (text.split() for text in printed.splitlines() if text.split()[:1] == [name])
        assert shown[1:3] == [f"{row['top1']:.2f}", f"{row['difference_points']:+.2f}"]
        assert shown[5:8] == [str(row[k]) for k in ("labels_changed", "right_only_exact", "right_only_option")]
        assert shown[-1] == f"{row['sparsity_percent']:.2f}"
    assert result["options"]["wrap-12"]["arithmetic"] == {"psum_bits": 12, "word": 8, "overflow": "wrap"}
    assert set(result["partial_sums"]) == {layer.name for layer in load_trace(tmp_path / "o.npz").layers}
    trace = load_trace(tmp_path / "o.npz")
    assert (trace.images, trace.info["option"]) == (1, "multiply-8+shortcut-12")
    assert main(["verify", str(tmp_path / "o.npz")]) == 0
    assert {step.bits for layer in trace.layers for step in layer.post if hasattr(step, "bits")} == {12}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--evaluate", "5"], "--evaluate must be in 1..4, not 5"),
        (["--trace", "zero", "o.npz", "--images", "0"], "--images must be in 1..4, not 0"),
        (["--word", "0"], "--word must be in 1..1048576, not 0"),
        (["--word", str(2**63 - 1)], f"--word must be in 1..1048576, not {2**63 - 1}"),
        (["--option", "shortcut-20"], "shortcuts must all have one width of at least 20 bits, not [16]"),
        (
            ["--trace", "wrap-16", "o.npz", "--images", "1"],
            "a trace must record exact sums, not those of an accumulator",
        ),
        (["-o", "nowhere/o.json"], "nowhere"),
    ],
)
def test_the_command_refuses(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    more: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    line = ["options", "--checkpoint", str(folder / "net.npz"), "--data", str(folder), "--option", "zero"]
    assert main([*line, *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
