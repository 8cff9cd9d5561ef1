"""Float weights that pgsim did not train: measured in float32, and shown as the tables' float rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from pgsim.cli.main import main  # noqa: E402
from pgsim.train.data import read_test  # noqa: E402
from tests.train.synthetic import write_folder, write_images  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data folder, with norms that do something and more test images."""
    path = write_folder(tmp_path_factory.mktemp("data"))
    write_images(path / "cifar10_test.npz", 300, 9)
    arrays = dict(np.load(path / "weights.npz"))
    generator = np.random.default_rng(0)
    for name, array in arrays.items():
        if "bn" in name:
            arrays[name] = array + generator.uniform(0, 0.3, array.shape).astype(np.float32)
    np.savez(path / "weights.npz", **arrays)
    return path


def plain_logits(arrays: dict[str, Tensor], images: Tensor) -> Tensor:
    """He et al.'s ResNet-20 with option A, written down layer by layer."""

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        y = F.conv2d(x, arrays[f"{conv}.weight"], None, stride, 1)
        moments = (arrays[f"{norm}.running_mean"], arrays[f"{norm}.running_var"])
        return F.batch_norm(y, *moments, arrays[f"{norm}.weight"], arrays[f"{norm}.bias"], eps=1e-5)

    x = F.relu(conv_norm(images, "conv1", "bn1"))
    for stage in (1, 2, 3):
        for block in range(3):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride))
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2")
            if stride == 2:
                around = torch.zeros(len(x), x.shape[1] // 2, *y.shape[2:])
                x = torch.cat([around, x[:, :, ::2, ::2], around], 1)
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), arrays["linear.weight"], arrays["linear.bias"])


def test_float_weights_are_measured_as_a_plain_network_has_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "float.json"
    command = ["trace", "--checkpoint", str(folder / "weights.npz"), "--data", str(folder), "--result", str(out)]
    assert main(command) == 0
    test = read_test(folder)
    images = (test.pixels / 255.0 - np.array(MEAN)) / np.array(STD)
    arrays = {name: torch.from_numpy(array) for name, array in np.load(folder / "weights.npz").items()}
    logits = plain_logits(arrays, torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)))
    right = int((logits.argmax(1).numpy() == test.labels).sum())
    assert json.loads(out.read_text())["top1"] == pytest.approx(100 * right / 300, abs=1e-4)

    capsys.readouterr()
    assert main(["paper", str(out), "--table", "1"]) == 0
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("resnet20") and " given " in line
    )
    assert line.split()[:2] == ["resnet20", "float"]
    assert line.split()[-3:] == ["-", "1", "-"]


def test_a_part_of_the_test_set_stands_in_no_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "part.json"
    command = ["trace", "--checkpoint", str(folder / "weights.npz"), "--data", str(folder), "--result", str(out)]
    assert main([*command, "--evaluate", "7"]) == 0
    capsys.readouterr()
    assert main(["paper", str(out)]) == 0
    words = " ".join(capsys.readouterr().out.split())  # lines are wrapped, where depends on the path's length
    assert "not measured on the whole test set, but on 7 of it" in words
    assert main([*command, "--evaluate", "301"]) == 2
    assert "--evaluate must be in 1..300, not 301" in capsys.readouterr().err


def test_a_float_network_has_no_trace(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.npz"
    assert main(["trace", "--checkpoint", str(folder / "weights.npz"), "--data", str(folder), "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert "must be weights of pgsim train for a trace, not a float network's; --result without -o measures it" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bn1.running_var", np.negative, "bn1.running_var must be 0 or more, not -"),
        ("linear.bias", lambda a: np.full(a.shape, -1e300), "linear.bias must be in float32's range, not up to 1e+300"),
        ("linear.weight", lambda a: np.full(a.shape, 1e38), "its logits must be finite, not infinite or NaN"),
    ],
)
def test_weights_without_finite_logits_are_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
) -> None:
    arrays = dict(np.load(folder / "weights.npz"))
    np.savez(tmp_path / "odd.npz", **{**arrays, name: change(arrays[name].astype(np.float64))})
    out = tmp_path / "r.json"
    command = ["trace", "--checkpoint", str(tmp_path / "odd.npz"), "--data", str(folder), "--result", str(out)]
    assert main(command) == 2
    assert f"odd.npz: {message}" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.skipif("PGSIM_DATA" not in os.environ, reason="PGSIM_DATA does not name the CIFAR-10 folder")
@pytest.mark.parametrize(("name", "right"), [("resnet20", 9173), ("resnet32", 9263), ("resnet56", 9339)])
def test_the_real_weights_are_as_good_as_their_source_says(tmp_path: Path, name: str, right: int) -> None:
    data = Path(os.environ["PGSIM_DATA"])
    command = ["trace", "--checkpoint", str(data / f"{name}_cifar10.npz"), "--data", str(data)]
    assert main([*command, "--result", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["top1"] == pytest.approx(right / 100)
