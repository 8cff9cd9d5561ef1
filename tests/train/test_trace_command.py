"""pgsim trace: from a checkpoint to a trace that the reader accepts, with what was measured."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.arith.formats import GatePolicy  # noqa: E402
from pgsim.cli import trace as command  # noqa: E402
from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.io.trace import load_trace  # noqa: E402
from pgsim.paper.claims import Method  # noqa: E402
from pgsim.paper.stored import load_results  # noqa: E402
from pgsim.train import loop  # noqa: E402
from pgsim.train.checkpoint import save_checkpoint, stored_meta  # noqa: E402
from pgsim.train.data import image_codes, read_test, read_train  # noqa: E402
from pgsim.train.evaluate import LayerSparsity, Report, measure  # noqa: E402
from pgsim.train.exact import ExactRun, run_exact  # noqa: E402
from pgsim.train.export import integer_layers  # noqa: E402
from pgsim.train.frozen import freeze  # noqa: E402
from pgsim.train.shufflenet.weights import is_shufflenet  # noqa: E402
from pgsim.train.weights import read_network, save_weights  # noqa: E402
from tests.train.reference_network import run_network  # noqa: E402
from tests.train.synthetic import recipe, write_folder  # noqa: E402

CHECKPOINTS = sorted((Path(__file__).parents[2] / "traces" / "checkpoints").glob("*.npz"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data folder, with a checkpoint of an untrained but calibrated network in it."""
    path = write_folder(tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CALIBRATION_IMAGES", 4)
        patch.setattr(loop, "EPOCH_BN_BATCHES", 1)
        run = loop.Run(recipe(), path, path, read_train(path))
        run.start(path)
    save_checkpoint(path / "tiny.pt", run.checkpoint())
    return path


def arguments(folder: Path, out: Path, **changes: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args(
        ["--checkpoint", str(folder / "tiny.pt"), "--data", str(folder), "--images", "2", "-o", str(out)]
    )
    return argparse.Namespace(**{**vars(args), **changes})


def test_the_trace_holds_the_network_and_what_was_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(arguments(folder, tmp_path / "t.npz", result=str(tmp_path / "r.json"))) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "top-1" in captured.err
    trace = load_trace(tmp_path / "t.npz")
    assert len(trace.layers) == 20
    (result,), (same,) = load_results([tmp_path / "r.json"]).results, load_results([tmp_path / "t.npz"]).results
    assert result == replace(same, source=result.source, digest=sha256((tmp_path / "r.json").read_bytes()).hexdigest())
    assert set(result.b_avg) == {"gated_by_outputs", "gated_by_macs", "all_by_outputs", "all_by_macs"}
    assert trace.images == 2
    info = trace.info
    assert info["checkpoint_sha256"] == sha256((folder / "tiny.pt").read_bytes()).hexdigest()
    assert info["data_sha256"] == sha256((folder / "cifar10_test.npz").read_bytes()).hexdigest()
    test = read_test(folder)
    assert info["labels"] == test.labels[:2].tolist()
    assert info["samples"] == [0, 1]
    assert info["evaluated_images"] == 8
    assert info["seed"] == 3
    differing = info["float32_label_differences"]
    assert differing["count"] == len(differing["images"])

    codes = image_codes(test.pixels)
    logits, _, masks = run_network(trace.layers, codes.astype(np.int64))
    assert info["top1"] == 100 * float(np.mean(logits.argmax(1) == test.labels))
    assert info["predictions"] == logits[:2].argmax(1).tolist()
    updated = sum(int(m.sum()) for m in masks) / sum(m.size for m in masks)
    assert info["sparsity_percent"] == pytest.approx(100 * (1 - updated), abs=1e-3)


def test_a_result_needs_no_trace(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(arguments(folder, tmp_path, output=None, result=str(tmp_path / "r.json"))) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert f"{tmp_path / 'r.json'}: top-1" in capsys.readouterr().err
    (one,) = load_results([tmp_path]).results
    assert (one.seed, one.finished) == (3, False)
    with pytest.raises(InputError, match=r"-o OUT\.npz must be given, or --result"):
        command.run(arguments(folder, tmp_path, output=None))


def test_accuracy_on_a_part_of_the_set_is_not_called_top1(folder: Path, tmp_path: Path) -> None:
    assert command.run(arguments(folder, tmp_path / "t.npz", evaluate=3)) == 0
    info = load_trace(tmp_path / "t.npz").info
    assert "top1" not in info
    assert info["evaluated_images"] == 3
    assert "top1_of_evaluated" in info


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, r"--images must be in 1\.\.8, not 0"),
        ({"images": 9}, r"--images must be in 1\.\.8, not 9"),
        ({"evaluate": 9}, r"--evaluate must be in 1\.\.8, not 9"),
        ({"threads": 0}, r"--threads must be in 1\.\.1024, not 0"),
        ({"threads": 10**12}, r"--threads must be in 1\.\.1024, not 1000000000000"),
        ({"checkpoint": "none.pt"}, r"none\.pt must be a checkpoint, not missing"),
    ],
)
def test_wrong_options_are_refused(folder: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        command.run(arguments(folder, tmp_path / "t.npz", **changes))
    assert not (tmp_path / "t.npz").exists()


@pytest.mark.parametrize("option", ["output", "result"])
@pytest.mark.parametrize("name", ["tiny.pt", "cifar10_test.npz"])
def test_no_output_takes_the_place_of_an_input(folder: Path, tmp_path: Path, option: str, name: str) -> None:
    before = (folder / name).read_bytes()
    (tmp_path / "link").symlink_to(folder / name)
    for path in (str(folder / name), str(tmp_path / "link")):
        with pytest.raises(InputError) as caught:
            command.run(arguments(folder, tmp_path / "t.npz", **{option: path}))
        assert str(caught.value) == f"{path}: an output must not be an input"
    assert (folder / name).read_bytes() == before


def test_a_ctrl_c_that_compiled_code_swallows_while_measuring_is_not_lost(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallow(net: object) -> object:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return freeze(net)  # type: ignore[arg-type]

    monkeypatch.setattr("pgsim.train.frozen.freeze", swallow)
    monkeypatch.setattr("pgsim.cli.interrupt._pressed", False)  # and after this test again
    args = ["--checkpoint", str(folder / "tiny.pt"), "--data", str(folder), "--result", str(tmp_path / "r.json")]
    assert main(["trace", *args]) == 130
    assert capsys.readouterr().err == "pgsim: interrupted\n"
    assert not (tmp_path / "r.json").exists()


def test_a_result_is_named_as_pgsim_paper_wants_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--result must end in \.json, by which pgsim paper knows it, not be RES$"):
        command.run(arguments(folder, tmp_path, output=None, result="RES"))


def test_weights_whose_integers_leave_int64_are_refused(folder: Path) -> None:
    net, _, _ = read_network(folder / "tiny.pt")
    net.bn.bias.data.fill_(1e36)
    with pytest.raises(InputError, match=r"^stem: bias must stay within int64, not reach "):
        freeze(net)


def test_a_history_without_finite_numbers_is_none() -> None:
    assert stored_meta({"meta": np.frombuffer(b'{"step": 1e99}', np.uint8)}) == {"step": 1e99}
    assert stored_meta({"meta": np.frombuffer(b'{"step": 1e999}', np.uint8)}) == {}


def test_weights_in_an_npz_are_the_same_network_as_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    net, made_with, _ = read_network(folder / "tiny.pt")
    save_weights(tmp_path / "w.npz", net, made_with, {"step": 7})
    again, recipe_again, history = read_network(tmp_path / "w.npz")
    assert recipe_again == made_with
    assert history == {"step": 7}
    codes = image_codes(read_test(folder).pixels)
    np.testing.assert_array_equal(run_exact(freeze(net), codes).logits, run_exact(freeze(again), codes).logits)


def test_an_npz_that_holds_no_weights_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="must hold weights of pgsim train"):
        read_network(folder / "weights.npz")


def test_sparsity_by_macs_weights_each_layer_by_its_reduction() -> None:
    layers = (LayerSparsity("a", 100, 50, 9), LayerSparsity("b", 100, 10, 90))
    dense = (LayerSparsity("c", 200, 200, 30),)
    report = Report(
        images=10, right=7, act_bits=5, pred_bits=3, layers=layers, dense=dense, differing=(), float_right=6,
        logits_equal=10,
    )  # fmt: skip
    assert report.top1 == 70.0
    assert report.sparsity == pytest.approx(1 - 60 / 200)
    assert report.mac_sparsity == pytest.approx(1 - (50 * 9 + 10 * 90) / (100 * 9 + 100 * 90))
    assert report.b_avg(gated_only=True, by_macs=False) == pytest.approx(3 + 2 * 60 / 200)
    assert report.b_avg(gated_only=True, by_macs=True) == pytest.approx(3 + 2 * 1350 / 9900)
    assert report.b_avg(gated_only=False, by_macs=False) == pytest.approx((60 * 5 + 140 * 3 + 200 * 5) / 400)
    assert report.b_avg(gated_only=False, by_macs=True) == pytest.approx(3 + 2 * (1350 + 6000) / (9900 + 6000))


def test_bits_of_updates_that_begin_anew() -> None:
    layers = (LayerSparsity("a", 100, 50, 9), LayerSparsity("b", 100, 10, 90))
    report = Report(10, 7, 6, 4, layers, (LayerSparsity("c", 200, 200, 30),), (), 6, 10, anew=True)
    assert report.b_avg(gated_only=True, by_macs=False) == pytest.approx(4 + 6 * 60 / 200)
    assert report.b_avg(gated_only=True, by_macs=True) == pytest.approx(4 + 6 * 1350 / 9900)
    assert report.b_avg(gated_only=False, by_macs=False) == pytest.approx(((4 + 6 * 60 / 200) * 200 + 6 * 200) / 400)


def test_seernet_has_the_integers_of_keep_and_other_bits(folder: Path, tmp_path: Path) -> None:
    net, _, _ = read_network(folder / "tiny.pt")
    infos, traces = [], []
    for policy in ("keep", "seernet"):
        weights, out = tmp_path / f"{policy}.npz", tmp_path / f"{policy}_trace.npz"
        save_weights(weights, net, recipe(policy=policy), {"step": 7, "finished": True})
        assert command.run(arguments(folder, out, checkpoint=str(weights))) == 0
        traces.append(load_trace(out))
        infos.append(traces[-1].info)
        np.testing.assert_array_equal(traces[0].tensors(1).output, traces[-1].tensors(1).output)
        assert traces[-1].layers[1].gate is not None
        assert traces[-1].layers[1].gate.policy is GatePolicy.KEEP
    assert infos[0]["sparsity_percent"] == infos[1]["sparsity_percent"]
    assert infos[0]["predictions"] == infos[1]["predictions"]
    updated = 1 - infos[0]["sparsity_percent"] / 100
    assert infos[0]["b_avg_bits"]["gated_by_outputs"] == pytest.approx(2 + updated, abs=1e-4)
    assert infos[1]["b_avg_bits"]["gated_by_outputs"] == pytest.approx(2 + 3 * updated, abs=1e-4)
    (one,) = load_results([tmp_path / "seernet_trace.npz"]).results
    assert (one.method, one.policy) == (Method.SEERNET, "seernet")


def test_without_a_gate_nothing_is_said_of_sparsity() -> None:
    dense = (LayerSparsity("c", 200, 200, 30),)
    report = Report(10, 7, 3, 3, (), dense, (), 6, 10)
    assert report.sparsity == report.mac_sparsity == 0
    assert report.b_avg(gated_only=False, by_macs=True) == 3
    assert not any("sparsity" in key for key in report.as_info(whole_set=True))


def test_the_report_does_not_depend_on_the_number_of_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, _, _ = read_network(folder / "tiny.pt")
    test = read_test(folder)
    assert len(test) > 3
    whole = measure(net, freeze(net), test)
    monkeypatch.setattr("pgsim.train.evaluate.BATCH", 1)
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            done: list[int] = []
            assert measure(net, freeze(net), test, done.append) == whole
            assert done == list(range(1, len(test) + 1))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)


def test_ctrl_c_ends_a_measurement_before_its_last_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, _, _ = read_network(folder / "tiny.pt")
    test = read_test(folder).take(np.zeros(40, np.int64))
    begun: list[int] = []

    def counted(*args: object) -> ExactRun:
        begun.append(1)
        return run_exact(*args)  # type: ignore[arg-type]

    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pgsim.train.evaluate.BATCH", 1)
    monkeypatch.setattr("pgsim.train.evaluate.run_exact", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(net, freeze(net), test, interrupt)
    assert 1 <= len(begun) < 40


@pytest.mark.slow
@pytest.mark.skipif("PGSIM_DATA" not in os.environ, reason="PGSIM_DATA does not name the CIFAR-10 folder")
@pytest.mark.parametrize("weights", [path for path in CHECKPOINTS if not is_shufflenet(path)])
def test_every_logit_of_the_test_set_equals_the_plain_integer_inference(weights: Path) -> None:
    net, _, _ = read_network(weights)
    frozen = freeze(net)
    layers = integer_layers(frozen)
    images = read_test(Path(os.environ["PGSIM_DATA"]))
    count = int(os.environ.get("PGSIM_IMAGES", len(images)))
    for start in range(0, count, 50):
        codes = image_codes(images.pixels[start : min(start + 50, count)])
        expected, _, _ = run_network(layers, codes.astype(np.int64))
        np.testing.assert_array_equal(run_exact(frozen, codes).logits, expected)
    report = measure(net, frozen, images.take(slice(0, 100)))
    assert report.images == 100
