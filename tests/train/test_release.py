"""A state dict of the authors' release: its float network, the trace of one batch, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.arith.formats import Encoding, NumberFormat  # noqa: E402
from pgsim.arith.gating import integer_threshold  # noqa: E402
from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.io.trace import load_trace  # noqa: E402
from pgsim.model.inference import infer  # noqa: E402
from pgsim.model.verify import verify_trace  # noqa: E402
from pgsim.paper.stored import load_results  # noqa: E402
from pgsim.train.data import read_test  # noqa: E402
from pgsim.train.release.export import SHORTCUT_CHOICES, build_release_trace  # noqa: E402
from pgsim.train.release.forward import Widths, quantise, release_images, run_float  # noqa: E402
from pgsim.train.release.measure import measure_release  # noqa: E402
from pgsim.train.release.state import is_release, parse_state, read_release  # noqa: E402
from pgsim.train.release.thresholds import fit_thresholds  # noqa: E402
from tests.build_trace import dense  # noqa: E402
from tests.train.release_state import Run, arrays, state_dict  # noqa: E402
from tests.train.synthetic import write_folder, write_weights  # noqa: E402

EXAMPLE = Widths(3, 2, 8)
CASES = [
    pytest.param(0, EXAMPLE, True, id="the release's example"),
    pytest.param(1, Widths(4, 3, 8), True, id="4/3"),
    pytest.param(2, Widths(5, 2, 6), False, id="without PACT"),
]


def images(seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).standard_normal((2, 3, 8, 8)).astype(np.float32)


def rounding(values: np.ndarray) -> float:
    """What float32 sums of a layer may be off by: 8e-6, and more for the larger values of networks without PACT."""
    return 1e-6 * max(8.0, float(np.abs(values).max()))


def both(seed: int, widths: Widths, pact: bool) -> tuple[Any, Any, Run]:
    """Return network and float run by torch, and the same by numpy."""
    net = parse_state(state_dict(seed, pact=pact), "r.pth")
    numbers = (widths.act_bits, widths.pred_bits, widths.weight_bits)
    return (
        net,
        run_float(net, torch.from_numpy(images(seed)), widths),
        Run(arrays(seed, pact=pact), images(seed), *numbers),
    )


@pytest.mark.parametrize(("seed", "widths", "pact"), CASES)
def test_the_float_network_is_that_of_numpy(seed: int, widths: Widths, pact: bool) -> None:
    _, run, expected = both(seed, widths, pact)
    for number, conv in enumerate(run.convs):
        np.testing.assert_array_equal(conv.x.codes.numpy(), expected.codes[number])
        np.testing.assert_array_equal(conv.weight.codes.numpy(), expected.weights[number])
        np.testing.assert_allclose(
            conv.output.numpy(), expected.outputs[number], atol=rounding(expected.outputs[number])
        )
        assert (conv.mask is None) == (number % 2 == 1)
        if conv.mask is not None:
            np.testing.assert_array_equal(conv.mask.numpy(), expected.masks[number])
    np.testing.assert_allclose(run.streams[-1].numpy(), expected.features, atol=rounding(expected.features))
    np.testing.assert_allclose(run.logits.numpy(), expected.logits, atol=rounding(expected.logits))


@pytest.mark.parametrize(("seed", "widths", "pact"), CASES)
def test_codes_of_the_batch_are_equal_masks_and_outputs_within_rounding(seed: int, widths: Widths, pact: bool) -> None:
    net, run, expected = both(seed, widths, pact)
    trace, compared = build_release_trace(net, widths, run, {"model": "resnet20"}, shortcut_bits=24)
    assert len(trace.layers) == 18
    assert compared.unlinked == ()
    assert trace.info["predictions"] == run.logits.argmax(dim=1).tolist()
    masks = differing = 0
    largest = 0.0
    for number, layer in enumerate(trace.layers):
        tensors = trace.tensors(number)
        np.testing.assert_array_equal(tensors.activation, expected.codes[number])
        np.testing.assert_array_equal(layer.weight, expected.weights[number])
        assert layer.weight_format == NumberFormat(Encoding.SIGN_MAGNITUDE, widths.weight_bits)
        k, codes, output = layer.act_scale * layer.weight_scale[0], tensors.activation, expected.outputs[number]
        agree = np.ones(output.shape, np.bool_)
        if number % 2 == 0:
            assert layer.gate is not None
            assert layer.gate.delta is not None
            assert layer.gate.pred_bits == widths.pred_bits
            low = widths.act_bits - widths.pred_bits
            a_h = dense(codes.astype(np.int64) >> low, layer.weight.astype(np.int64), layer.geometry)
            distance = np.abs(k * 2**low * a_h - layer.gate.delta[:, None, None])
            agree = tensors.mask == expected.masks[number]
            assert agree[distance > 1e-5 * np.maximum(1, np.abs(output))].all()
            assert 0.02 < tensors.mask.mean() < 0.98
            masks, differing = masks + agree.size, differing + int((~agree).sum())
            delta = layer.gate.delta[3]
            expected_t = integer_threshold(delta, layer.act_scale, float(layer.weight_scale[0]), low)
            assert layer.gate.threshold[3] == expected_t
        error = np.abs(k * tensors.output - output)[agree].max()
        assert error < rounding(output)
        largest = max(largest, error)
    assert (compared.masks, compared.masks_differing, compared.masks_unexplained) == (masks, differing, 0)
    assert largest / 4 < compared.output_error < 4 * largest  # torch's float32 and numpy's round differently
    assert verify_trace(trace).first is None
    features = infer(trace).logits["features"] * trace.layers[-1].post[-1].scale
    np.testing.assert_allclose(features, expected.features, atol=rounding(expected.features))


def test_shortcuts_of_16_bits_keep_every_code_of_the_batch() -> None:
    net, run, expected = both(0, EXAMPLE, True)
    trace, compared = build_release_trace(net, EXAMPLE, run, {})
    assert trace.boundaries[0].bits == 16
    unit = max(float(v) for k, v in arrays(0).items() if k.endswith("upper_bound")) / (2**16 - 1)
    np.testing.assert_allclose(trace.boundary(0) * unit, expected.stem, atol=0.501 * unit)
    assert compared.unlinked == ()
    assert infer(trace).equal


def fewest_links(net: Any, run: Any, bits: int | None) -> tuple[int, int]:
    """Return the bits of the shortcuts, and how many layers are unlinked."""
    trace, compared = build_release_trace(net, EXAMPLE, run, {}, bits)
    assert infer(trace).equal
    return trace.boundaries[0].bits, len(compared.unlinked)


@pytest.mark.parametrize(("seed", "bits"), [(1, 20), (0, 24)])
def test_shortcuts_are_as_wide_as_the_links_need(seed: int, bits: int) -> None:
    """Floats of two codes may share a unit; the first choice with the fewest losses is taken."""
    net = both(seed, EXAMPLE, False)[0]
    pixels = np.random.default_rng(5).standard_normal((4, 3, 16, 16), np.float32)
    run = run_float(net, torch.from_numpy(pixels), EXAMPLE)
    losses = [fewest_links(net, run, choice)[1] for choice in SHORTCUT_CHOICES]
    assert losses[0] > 0
    assert losses[SHORTCUT_CHOICES.index(bits) - 1] > losses[SHORTCUT_CHOICES.index(bits)] == 0
    assert fewest_links(net, run, None) == (bits, 0)


def test_the_stem_s_values_go_to_the_side_that_has_their_code() -> None:
    """At 8 bits some floats are rounded over a code's edge; the other neighbour has their code."""
    net, run, expected = both(0, EXAMPLE, True)
    trace, _ = build_release_trace(net, EXAMPLE, run, {}, 8)
    unit = max(float(v) for k, v in arrays(0).items() if k.endswith("upper_bound")) / (2**8 - 1)
    off = np.abs(trace.boundary(0) - expected.stem / unit)
    assert 0.5 < off.max() < 1.0
    assert trace.layers[0].input_name == "stem.codes"
    assert infer(trace).equal


def test_at_exact_ties_the_gates_may_differ_and_the_codes_behind_are_recorded_on_their_own() -> None:
    """Delta on a value that A_h takes: the integer gate stays closed, float sums fall to either side."""
    state = state_dict(0)
    run = run_float(parse_state(state, "r.pth"), torch.from_numpy(images(0)), EXAMPLE)
    predicted = run.convs[0].predicted
    assert predicted is not None
    k = run.convs[0].x.scale / 7 * run.convs[0].weight.scale / 255
    on_grid = (predicted / (2 * k)).round().transpose(0, 1).flatten(1).median(dim=1).values
    state["layer1.0.conv1.threshold"] = (on_grid * 2 * k).float().view(1, -1, 1, 1)
    net = parse_state(state, "r.pth")
    run = run_float(net, torch.from_numpy(images(0)), EXAMPLE)
    trace, compared = build_release_trace(net, EXAMPLE, run, {})
    assert compared.masks_differing > 0
    assert compared.masks_unexplained == 0
    assert compared.output_error < 8e-6  # where the masks agree
    assert compared.unlinked == ("layer1.0.conv2",)
    assert verify_trace(trace).first is None


def test_a_mask_that_differs_beyond_rounding_is_counted() -> None:
    net, run, _ = both(0, EXAMPLE, True)
    mask, predicted = run.convs[2].mask, run.convs[2].predicted
    assert mask is not None
    assert predicted is not None
    distance = (predicted - net.blocks[1].delta.view(1, -1, 1, 1)).abs()
    band = 2e-5 * run.convs[2].output.abs().clamp(min=1)
    nearest = torch.where(distance > band, distance, torch.inf).flatten().argmin()
    assert distance.flatten()[nearest] < 2e-3
    mask.view(-1)[nearest] = ~mask.view(-1)[nearest]
    _, compared = build_release_trace(net, EXAMPLE, run, {})
    assert (compared.masks_differing, compared.masks_unexplained) == (1, 1)


def test_the_scale_has_the_release_s_offset_and_belongs_to_the_whole_batch() -> None:
    small = quantise(torch.tensor([1e-6, -5e-7, 0.0]), 3)
    assert small.codes.tolist() == [6, -3, 0]  # of 1.1e-6, not of 1e-6
    assert quantise(torch.tensor([[1.0, 0.5], [0.1, 0.2]]), 3).codes.tolist() == [[7, 3], [1, 1]]  # 3.4999998, not 3.5
    assert quantise(torch.tensor([0.1, 0.2]), 3).codes.tolist() == [3, 7]
    truncated = quantise(torch.tensor([7.0, -3.0, 3.0]), 3, update_bits=1)
    np.testing.assert_allclose(truncated.real.numpy(), [6, -2, 2], rtol=1e-6)
    assert quantise(torch.zeros(3), 3).codes.tolist() == [0, 0, 0]


# Thresholds that follow a batch.


def fit(nominal: list[int], values: list[int], codes: list[int], reach: int) -> list[int]:
    rows = (np.array([row], np.int64) for row in (nominal, values, codes))
    fitted: list[int] = fit_thresholds(*rows, np.array([reach])).tolist()[0]
    return fitted


def test_a_threshold_moves_as_little_as_it_must_and_no_farther_than_it_may() -> None:
    assert fit([10, 20], [9, 10, 19, 20], [0, 1, 1, 2], 5) == [10, 20]
    assert fit([10, 20], [9, 10, 19, 20], [0, 0, 1, 2], 5) == [11, 20]
    assert fit([10, 20], [9, 10, 18, 20], [1, 1, 2, 2], 5) == [9, 18]
    assert fit([10, 20], [13, 14], [0, 1], 4) == [14, 20]
    assert fit([10, 20], [13, 14], [0, 1], 3) == [10, 20]
    assert fit([10, 20], [12, 12], [0, 1], 5) == [10, 20]  # one value, two codes: no place
    assert fit([10, 12], [11, 11, 15], [0, 1, 1], 5) == [10, 16]
    assert fit([10, 10], [11, 12], [0, 1], 5) == [12, 13]
    assert fit([10, 12], [5, 4, 8], [0, 1, 2], 5) == [10, 10]  # the first finds no place, the second stays behind it
    assert fit([10, 10], [], [], 5) == [10, 10]


# Files.


def replaced(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer2.1.conv1.threshold"), "must hold layer2.1.conv1.threshold (the release's ResNet-20, "),
        (lambda s: s.pop("relu.upper_bound"), "must hold relu.upper_bound "),
        (replaced("layer1.3.conv1.weight", torch.zeros(1)), "only, not 'layer1.3.conv1.weight'"),
        (replaced("conv1.weight", torch.zeros(8, 3, 3, 3)), "conv1.weight must be [16, 3, 3, 3], not [8, 3, 3, 3]"),
        (replaced("linear.bias", torch.zeros(10).double()), "linear.bias must be a float32 tensor, not torch.float64"),
        (replaced("linear.bias", 3), "linear.bias must be a float32 tensor, not int"),
        (replaced("bn1.bias", torch.full((16,), torch.nan)), "bn1.bias must be finite, not hold NaN or infinity"),
        (replaced("bn1.running_var", -torch.ones(16)), "bn1.running_var must be 0 or more, not -1"),
        (replaced("layer3.2.relu.upper_bound", torch.tensor(0.0)), "relu.upper_bound must be above 0, not 0"),
        (
            replaced("linear.bias", torch.zeros(10).to_sparse()),
            "linear.bias must be a dense tensor with its values, not a ",
        ),
        (replaced("linear.bias", torch.zeros(10, device="meta")), "with its values, not a meta one"),
        (replaced("module.bn1.bias", torch.zeros(16)), "must hold every tensor once, not with and without 'module.'"),
    ],
)
def test_a_wrong_state_dict_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = state_dict(0)
    change(state)
    path = tmp_path / "r.pth"
    torch.save(state, path)
    assert is_release(path)
    with pytest.raises(InputError) as caught:
        read_release(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_tells_whether_it_is_a_state_dict_of_the_release(tmp_path: Path) -> None:
    torch.save({f"module.{name}": value for name, value in state_dict(0).items()}, tmp_path / "parallel.pth")
    assert is_release(tmp_path / "parallel.pth")
    plain, parallel = parse_state(state_dict(0), "r.pth"), read_release(tmp_path / "parallel.pth")
    assert torch.equal(plain.blocks[4].weight2, parallel.blocks[4].weight2)
    assert plain.blocks[4].clip == parallel.blocks[4].clip
    torch.save({"format": 1, "recipe": "x"}, tmp_path / "ours.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    write_weights(tmp_path / "weights.npz", 1)
    for name in ("ours.pt", "list.pt", "text.pt", "weights.npz", "none.pt"):
        assert not is_release(tmp_path / name)


@pytest.mark.parametrize("wrapper", ["state_dict", "net"])
def test_parameters_and_the_wrappers_of_training_scripts_are_read(tmp_path: Path, wrapper: str) -> None:
    state = {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in state_dict(0).items()}
    torch.save({wrapper: state, "epoch": 7}, tmp_path / "r.pth")
    assert is_release(tmp_path / "r.pth")
    net, plain = read_release(tmp_path / "r.pth"), parse_state(state_dict(0), "r.pth")
    assert torch.equal(net.blocks[4].weight2, plain.blocks[4].weight2)
    assert not net.blocks[4].delta.requires_grad
    run = run_float(net, torch.from_numpy(images(0)), EXAMPLE)
    assert build_release_trace(net, EXAMPLE, run, {})[1].unlinked == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not missing"),
        (b"", "not a file that torch cannot load as tensors alone (EOFError)"),
        (b"text", "not a file that torch cannot load as tensors alone (IndexError)"),
        ([1, 2], "not a pickled list"),
        ({}, "not one of nothing"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "not one of 'a', 'b', 'c', ..."),
    ],
)
def test_another_file_is_told_what_it_is_where_the_options_say_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, message: str
) -> None:
    path = tmp_path / "r.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert (
        main(["trace", "--checkpoint", str(path), "--data", ".", "--bits", "3/2", "-o", str(tmp_path / "t.npz")]) == 2
    )
    must = "must be a state dict of the release (tensors under names such as layer1.0.conv1.weight)"
    assert capsys.readouterr().err == f"pgsim: error: {path} {must}, {message}\n"


@pytest.mark.parametrize(
    ("pact", "name", "value", "message"),
    [
        (False, "bn1.weight", 1e38, "the stem: outputs of the float network must be finite on these images"),
        (False, "layer1.1.conv1.weight", 1e38, "layer1.1.conv1: outputs of the float network must be finite"),
        (True, "layer1.1.bn2.bias", 1e30, "layer1.1.conv2: batch norm must stay below 2^61 units of the shortcut, not"),
    ],
)
def test_a_network_beyond_the_numbers_is_refused_by_its_layer(
    pact: bool, name: str, value: float, message: str
) -> None:
    state = state_dict(0, pact=pact)
    state[name].fill_(value)
    net = parse_state(state, "r.pth")
    run = run_float(net, torch.from_numpy(images(0)), EXAMPLE)
    with pytest.raises(InputError) as caught:
        build_release_trace(net, EXAMPLE, run, {})
    assert str(caught.value).startswith(message)


class Code:
    """What a pickle may hold and a state dict must not."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_no_code_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**state_dict(0), "layer1.0.conv1.weight": Code()}, tmp_path / "r.pth")
    assert main(["trace", "--checkpoint", "r.pth", "--data", ".", "--bits", "3/2", "-o", "t.npz"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.pth"]


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data folder with a state dict of the release in it."""
    path = write_folder(tmp_path_factory.mktemp("data"))
    torch.save(state_dict(3), path / "r.pth")
    return path


def command(folder: Path, out: Path, *more: str) -> int:
    return main(
        [
            "trace",
            "--checkpoint",
            str(folder / "r.pth"),
            "--data",
            str(folder),
            "--evaluate",
            "3",
            "-o",
            str(out),
            *more,
        ]
    )


def test_trace_verify_and_run_take_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.npz"
    assert command(folder, out, "--bits", "3/2", "--batch", "2:3") == 0
    talk = capsys.readouterr()
    assert talk.out == ""
    assert "images 2 .. 2: 0 of 86016 mask bits differ" in talk.err
    trace, test = load_trace(out), read_test(folder)
    net = read_release(folder / "r.pth")
    report = measure_release(net, EXAMPLE, test.take(slice(0, 3)))
    info = trace.info
    assert info["frozen_batch"] == [2, 3]
    assert info["samples"] == [2]
    assert info["labels"] == test.labels[2:3].tolist()
    assert info["pact"] is True
    assert info["sparsity_percent"] == pytest.approx(100 * report.sparsity, abs=1e-3)
    assert info["top1_of_evaluated"] == pytest.approx(report.top1, abs=1e-3)
    assert info["evaluated_images"] == 3
    assert "top1" not in info
    assert info["float32"]["mask_bits"] == 86016
    stored = load_results([tmp_path])
    assert stored.results == ()
    assert "a state dict of the authors' release" in stored.left_out[0].reason
    run = run_float(net, release_images(test.pixels[2:3]), EXAMPLE)
    np.testing.assert_array_equal(trace.tensors(17).activation, run.convs[17].x.codes.numpy())
    assert main(["verify", str(out)]) == 0
    assert main(["run", str(out), "--hw", "predictivenet"]) == 0
    assert "recorded boundaries (stem) come from off chip" in capsys.readouterr().out


def test_a_trace_must_be_asked_for_and_no_result(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(folder / "r.pth"), "--data", str(folder), "--bits", "3/2"]
    assert main(["trace", *options]) == 2
    assert "-o OUT.npz must be given, or --result OUT.json to measure without a trace" in capsys.readouterr().err
    assert main(["trace", *options, "--result", str(tmp_path / "r.json")]) == 2
    assert "--result must be left out for a state dict of the release" in capsys.readouterr().err


def test_images_are_normalised_as_the_release_does() -> None:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    pixels[0, 1, 2] = 255, 128, 0
    got = release_images(pixels)[0, :, 1, 2].numpy()
    np.testing.assert_allclose(got, [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225], rtol=1e-6)


def test_accuracy_and_sparsity_are_those_of_batches_of_128(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, test = read_release(folder / "r.pth"), read_test(folder).take(slice(0, 3))
    monkeypatch.setattr("pgsim.train.release.measure.BATCH", 2)
    report = measure_release(net, EXAMPLE, test)
    runs = [run_float(net, release_images(test.pixels[part]), EXAMPLE) for part in (slice(0, 2), slice(2, 3))]
    labels = np.concatenate([run.logits.argmax(dim=1).numpy() for run in runs])
    assert report.right == int((labels == test.labels).sum())
    assert [x.updated for x in report.layers] == [
        sum(int(run.convs[number].mask.sum()) for run in runs) for number in range(0, 18, 2)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--bits must be given for a state dict of the release, as in --bits 3/2 for -a 3 -pb 2"),
        (["--bits", "3"], "--bits must be A/PB with 1 <= PB < A <= 15, as in 3/2, not '3'"),
        (["--bits", "2/2"], "--bits must be A/PB with 1 <= PB < A <= 15, as in 3/2, not '2/2'"),
        (["--bits", "3/2", "--weight-bits", "1"], "--weight-bits must be in 2..15, not 1"),
        (["--bits", "3/2", "--shortcut-bits", "7"], "--shortcut-bits must be in 8..32, not 7"),
        (["--bits", "3/2", "--images", "9"], "--images must be in 1..8, not 9"),
        (["--bits", "3/2", "--images", "2", "--batch", "0:2"], "--images must be left out beside --batch, not be 2"),
        (
            ["--bits", "3/2", "--batch", "4:4"],
            "--batch must be FIRST:END with 0 <= FIRST < END <= 8, as in 0:8, not '4:4'",
        ),
        (
            ["--bits", "3/2", "--batch", "0:9"],
            "--batch must be FIRST:END with 0 <= FIRST < END <= 8, as in 0:8, not '0:9'",
        ),
        (["--bits", "3/2", "--evaluate", "9"], "--evaluate must be in 1..8, not 9"),
        (["--bits", "3/2", "--result", "r.json"], "--result must be left out for a state dict of the release"),
    ],
)
def test_wrong_options_are_refused(
    folder: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(folder, tmp_path / "t.npz", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "t.npz").exists()


def test_its_options_are_refused_for_a_checkpoint_of_pgsim(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"format": 1}, tmp_path / "ours.pt")
    more = ["--checkpoint", str(tmp_path / "ours.pt"), "--weight-bits", "8"]
    assert command(folder, tmp_path / "t.npz", *more) == 2
    assert "--weight-bits must be left out for a checkpoint of pgsim train, not be 8" in capsys.readouterr().err
