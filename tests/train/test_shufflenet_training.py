"""Training of ShuffleNet V2 0.5x on CIFAR-10: recipe, steps, resuming, and the measured trace of what it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import pgsim  # noqa: E402
from pgsim import nn as pg  # noqa: E402
from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.paper.claims import Method  # noqa: E402
from pgsim.paper.stored import load_results  # noqa: E402
from pgsim.train.data import read_test, read_train  # noqa: E402
from pgsim.train.shufflenet import calibrate, loop  # noqa: E402
from pgsim.train.shufflenet.network import network_images  # noqa: E402
from pgsim.train.shufflenet.recipe import (  # noqa: E402
    ShuffleNetRecipe,
    parse_shufflenet_recipe,
    shufflenet_recipe_text,
)
from pgsim.train.shufflenet.weights import is_shufflenet, read_shufflenet, save_shufflenet_weights  # noqa: E402
from tests.train.synthetic import write_folder  # noqa: E402
from tests.train.test_shufflenet import drawn, write_trunk  # noqa: E402

SHIPPED = sorted((Path(__file__).parents[2] / "traces" / "checkpoints").glob("shufflenetv2_*.npz"))
FLOAT = """
name: tiny_float
task: shufflenet_cifar
gated: float
epochs: 2
batch_size: 16
learning_rate: 0.02
momentum: 0.9
weight_decay: 0.0001
warmup_steps: 2
holdout: 8
seed: 3
start_from: trunk.npz
"""
GATED = """
act_bits: 6
pred_bits: 4
start_sparsity: 0.5
hold_epochs: 1
sigma: 0.001
"""


def recipe(text: str = FLOAT, **changes: object) -> ShuffleNetRecipe:
    lines = [line for line in text.strip().splitlines() if line.split(":")[0] not in changes]
    return parse_shufflenet_recipe("\n".join(lines + [f"{k}: {v}" for k, v in changes.items()]), "tiny.yaml")


def gated(**changes: object) -> ShuffleNetRecipe:
    return recipe(FLOAT + GATED, **{"name": "tiny", "gated": "all", "start_from": "tiny_float", **changes})


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Calibrate on two images, without a search for the share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CALIBRATION_IMAGES", 2)
        patch.setattr(loop, "THRESHOLD_STEPS", 0)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data folder, a random trunk, and a float and a gated run of two epochs."""
    path = write_folder(tmp_path_factory.mktemp("data"))
    write_trunk(path / "trunk.npz", drawn())
    for each in (recipe(), gated()):
        run = loop.ShuffleNetRun(each, read_train(path))
        run.start(path, path)
        assert loop.train_shufflenet(run, path, lambda _: None, lambda: False)
        run.save_best(path / f"{run.name}.weights.npz")  # as the command does at the end
    return path


def test_recipes_survive_being_written_and_read() -> None:
    fixed = gated(thresholds="fixed", delta_target=-0.25, policy="zero")
    for first in (recipe(), gated(), gated(gated="none", pred_bits=6, clip="max"), fixed):
        assert parse_shufflenet_recipe(shufflenet_recipe_text(first), "again") == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gated": "release"}, "gated must be 'float', 'none', 'pointwise' or 'all', not 'release'"),
        ({"task": "x"}, "task must be 'shufflenet_cifar', not 'x'"),
        ({"holdout": 0}, "holdout must be more than 0, not 0"),
        ({"sigma": -1}, "sigma must be 0 or more, not -1.0"),
        ({"start_sparsity": 2}, r"start_sparsity must be in \[0, 1\], not 2.0"),
        ({"act_bits": 9}, r"act_bits must be in 2\.\.8, not 9"),
        ({"pred_bits": 6}, r"pred_bits must be in 1\.\.5, not 6"),
        ({"gated": "none"}, "pred_bits must be act_bits where gated is 'none', not 4"),
        ({"gated": "float"}, "act_bits and pred_bits must be left out where gated is 'float', not 6/4"),
        ({"clip": "static"}, "clip must be 'pact' or 'max', not 'static'"),
        ({"policy": "drop"}, "policy must be 'keep', 'zero' or 'seernet', not 'drop'"),
        ({"thresholds": "fixed"}, "delta_target must be a number where thresholds are 'fixed', not 'start'"),
        (
            {"thresholds": "fixed", "delta_target": "'0'"},
            "delta_target must be a number where thresholds are 'fixed', not '0'",
        ),
        ({"delta_target": 0.5}, "delta_target must be 'start' where thresholds are 'learned', not 0.5"),
        ({"thresholds": "fixed", "delta_target": ".nan"}, "delta_target must be finite, not nan"),
        (
            {"thresholds": "fixed", "delta_target": 0, "policy": "seernet"},
            "thresholds must be 'learned' where policy is 'seernet', not 'fixed'",
        ),
        (
            {"gated": "none", "pred_bits": 6, "thresholds": "fixed", "delta_target": 0},
            "thresholds must be 'learned' .or left out. where gated is 'none', not 'fixed'",
        ),
        (
            {"gated": "none", "pred_bits": 6, "policy": "zero"},
            "policy must be 'keep' .or left out. where gated is 'none', not 'zero'",
        ),
        (
            {"gated": "float", "act_bits": 0, "pred_bits": 0, "clip": "max"},
            "clip must be 'pact' .or left out. where gated is 'float', not 'max'",
        ),
    ],
)
def test_a_wrong_recipe_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^tiny.yaml: {message}$"):
        gated(**changes)


def test_a_run_starts_from_the_trunk_and_from_a_float_run(folder: Path) -> None:
    trunk, train = np.load(folder / "trunk.npz"), read_train(folder)
    run = loop.ShuffleNetRun(recipe(), train)
    run.start(folder, folder)
    np.testing.assert_array_equal(
        run.net.state_dict()["stage3.2.branch_main.5.weight"], trunk["stage3.2.branch_main.5.weight"]
    )
    best = read_shufflenet(folder / "tiny_float.weights.npz")[0].state_dict()
    run = loop.ShuffleNetRun(gated(), train)
    run.start(folder, folder)
    state = run.net.state_dict()
    assert all(torch.equal(state[name], best[name]) for name in best)
    pg.reset_counts(run.net)
    with torch.no_grad():
        run.net.eval()(network_images(run.train.pixels[:2]))
    reached = pg.sparsity(run.net)
    assert 0.5 <= reached.by_output < 0.7
    assert set(run.targets) == set(reached.layers)


@pytest.mark.slow
def test_the_loss_falls_on_images_that_stay_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "augment", lambda pixels, views, index: pixels[:8])
    train = read_train(folder)
    train.labels[:] = train.labels[0]
    train.labels[1:8:2] = (train.labels[0] + 1) % 10
    monkeypatch.setattr(loop, "epoch_draws", lambda *_: (np.arange(8), None))
    run = loop.ShuffleNetRun(gated(epochs=10, batch_size=8, holdout=32, learning_rate=0.05), train)
    run.start(folder, folder)
    losses = [run.one_step() for _ in range(10)]
    assert losses[-1] < losses[0] / 2


def test_a_resumed_run_ends_in_the_same_bits(folder: Path, tmp_path: Path) -> None:
    train = read_train(folder)
    first = loop.ShuffleNetRun(gated(), train)
    first.start(folder, folder)
    stops = iter([False, False, True])
    assert not loop.train_shufflenet(first, tmp_path, lambda _: None, lambda: next(stops))
    assert first.step == 3
    again = loop.ShuffleNetRun(gated(), train)
    again.restore(tmp_path / "tiny.pt")
    assert loop.train_shufflenet(again, tmp_path, lambda _: None, lambda: False)
    again.save_best(tmp_path / "tiny.weights.npz")
    one, other = (read_shufflenet(path / "tiny.weights.npz") for path in (folder, tmp_path))
    assert one[2] == other[2]
    assert all(
        torch.equal(a, b) for a, b in zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True)
    )
    lines = [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert max(line["held_out_accuracy"] for line in lines) == one[2]["held_out_accuracy"]
    with pytest.raises(InputError, match=r"must come from the same recipe, with seed 4, not 3$"):
        loop.ShuffleNetRun(gated(seed=4), train).restore(tmp_path / "tiny.pt")


def test_a_run_trains_on_an_accelerator_goes_on_and_is_read_back_without_one(
    folder: Path, tmp_path: Path, accelerator: str
) -> None:
    wanted, train = gated(epochs=1), read_train(folder)
    first = loop.ShuffleNetRun(wanted, train, accelerator)
    first.start(folder, folder)
    assert not loop.train_shufflenet(first, tmp_path, lambda _: None, lambda: first.step >= 1)
    run = loop.ShuffleNetRun(wanted, train, accelerator)
    run.restore(tmp_path / "tiny.pt")
    assert {p.device.type for p in run.net.parameters()} == {accelerator}
    assert loop.train_shufflenet(run, tmp_path, lambda _: None, lambda: False)
    again = loop.ShuffleNetRun(wanted, train)
    again.restore(tmp_path / "tiny.pt")
    images = network_images(run.train.pixels[:2])
    logits = run.net.eval()(images.to(accelerator)).detach().cpu()
    torch.testing.assert_close(again.net.eval()(images).detach(), logits, rtol=1e-3, atol=1e-3)


def test_a_run_that_diverges_keeps_no_epoch_of_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite variance makes a constant, finite loss."""
    run = loop.ShuffleNetRun(gated(), read_train(folder))
    run.start(folder, folder)
    name = next(name for name in run.net.state_dict() if name.endswith("running_var"))
    run.net.state_dict()[name][0] = torch.inf
    with pytest.raises(
        InputError, match=rf"^{name} after step 0 must be finite, not with NaN or infinity: the run div"
    ):
        run.end_of_epoch()
    assert not run.best

    def overflown(*_args: object, **_more: object) -> None:
        raise ValueError("clip must be finite and > 0, not inf")

    run = loop.ShuffleNetRun(gated(), read_train(folder))
    run.start(folder, folder)
    monkeypatch.setattr(calibrate, "calibrate", overflown)
    with pytest.raises(InputError, match=r"^clips after step 2 must be finite, not refused .clip .* not inf.: the run"):
        loop.train_shufflenet(run, tmp_path, lambda _: None, lambda: False)


@pytest.mark.parametrize("policy", ["keep", "zero"])
def test_fixed_thresholds_stay_where_they_are_while_all_else_learns(folder: Path, policy: str) -> None:
    run = loop.ShuffleNetRun(gated(thresholds="fixed", delta_target=-0.25, policy=policy), read_train(folder))
    run.start(folder, folder)
    before = {name: p.detach().clone() for name, p in run.net.named_parameters()}
    while run.step <= run.steps_per_epoch:  # over the end of an epoch that is held
        run.one_step()
    after = dict(run.net.named_parameters())
    assert all(torch.equal(after[n], p) == n.endswith("delta") for n, p in before.items())
    thresholds = [layer.delta for layer in pg.coded_layers(run.net).values() if layer.delta is not None]
    assert {float(value) for delta in thresholds for value in delta} == {-0.25}
    outputs: list[torch.Tensor] = []
    layer = run.net.get_submodule("stage3.1.branch_main.0")
    layer.register_forward_hook(lambda _module, _inputs, out: outputs.append(out.detach()))
    pg.reset_counts(run.net)
    with torch.no_grad():
        run.net.eval()(network_images(run.train.pixels[:2]))
    assert isinstance(layer, pg.GatedConv2d)
    assert 0 < layer.updated < layer.outputs
    zeros = int((outputs[0] == 0).sum())
    assert (zeros >= layer.outputs - layer.updated) == (policy == "zero")


def test_uniform_quantisation_has_the_largest_values_as_its_clips_and_learns_none(folder: Path) -> None:
    run = loop.ShuffleNetRun(gated(gated="none", pred_bits=6, clip="max"), read_train(folder))
    run.start(folder, folder)
    seen: dict[str, float] = {}

    def look(name: str) -> None:
        def watch(_quantiser: pg.Quantiser, x: torch.Tensor) -> None:
            seen[name] = max(seen.get(name, 0.0), float(x.abs().max()))

        quantisers[name].watch = watch

    quantisers = {n: m for n, m in run.net.named_modules() if isinstance(m, pg.Quantiser) and not m.fixed}
    assert not any(isinstance(m, pg.Pact) for m in quantisers.values())
    assert "features" in quantisers
    for name in quantisers:
        look(name)

    def clips() -> dict[str, float]:
        seen.clear()
        with torch.no_grad():
            run.net.eval()(network_images(run.train.pixels[:2]))
        return {name: quantiser.clip for name, quantiser in quantisers.items()}

    first = clips()
    # Streams grow while they are calibrated, so that their first readers saw smaller clips then.
    assert first == pytest.approx(seen, rel=0.1)
    run.one_step()
    assert clips() == first != seen
    while run.step < run.steps_per_epoch:
        run.one_step()
    assert clips() == first
    run.step, before = run.steps_per_epoch, dict(seen)
    run.one_step()  # of the second epoch: the first is held, its clips are set anew
    held = {name: quantiser.clip for name, quantiser in quantisers.items()}
    assert held == pytest.approx(before, rel=0.1)
    assert held != pytest.approx(first, rel=0.1)


BASELINES: dict[str, tuple[dict[str, object], Method]] = {
    "uq": ({"gated": "none", "pred_bits": 6, "clip": "max"}, Method.UQ),
    "pact": ({"gated": "none", "pred_bits": 6}, Method.PACT),
    "fixed": ({"thresholds": "fixed", "delta_target": -0.25, "policy": "zero"}, Method.FIX_THRESHOLD),
    "seernet": ({"policy": "seernet", "gated": "pointwise"}, Method.SEERNET),
    "dense": ({"sparse_bp": "false"}, Method.PG_DENSE_BP),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baselines_result_says_what_it_is(name: str, folder: Path, tmp_path: Path) -> None:
    """SeerNet computes all 6 bits of an updated output anew; of the dense layers, all 6 bits are computed once."""
    changes, method = BASELINES[name]
    run = loop.ShuffleNetRun(gated(**{"name": name, "epochs": 1, **changes}), read_train(folder))
    run.start(folder, folder)
    assert loop.train_shufflenet(run, tmp_path, lambda _: None, lambda: False)
    trace, result = tmp_path / f"{name}.npz", tmp_path / f"{name}.json"
    command = ["trace", "--checkpoint", str(tmp_path / f"{name}.pt"), "--data", str(folder), "--images", "1"]
    assert main([*command, "-o", str(trace), "--result", str(result)]) == 0
    recorded = pgsim.load_trace(trace)
    assert pgsim.verify(recorded).equal
    (found,) = load_results([result]).results
    assert found.method is method
    assert found.threshold == (-0.25 if name == "fixed" else None)
    info = recorded.info
    if name in ("uq", "pact"):
        assert found.b_avg["all_by_macs"] == 6
        assert "b_avg_bits" not in info
        return
    share, more = 1 - info["sparsity_percent"] / 100, 6 if name == "seernet" else 2
    assert info["b_avg_bits"]["gated_by_outputs"] == pytest.approx(4 + share * more, abs=1e-3)
    layers = [layer for layer in recorded.layers if layer.name not in ("first_conv.0", "classifier.0")]
    outputs = [int(np.prod(layer.geometry.output_shape)) for layer in layers]
    dense = sum(n for n, layer in zip(outputs, layers, strict=True) if layer.gate is None)
    assert (dense > 0) == (name == "seernet")
    expected = ((sum(outputs) - dense) * (4 + share * more) + dense * 6) / sum(outputs)
    assert info["b_avg_bits"]["all_by_outputs"] == pytest.approx(expected, abs=1e-3)


def test_a_checkpoint_of_other_images_is_refused(folder: Path, tmp_path: Path) -> None:
    train = read_train(folder)
    run = loop.ShuffleNetRun(gated(), train)
    run.start(folder, folder)
    run.save_checkpoint(tmp_path / "tiny.pt")
    other = loop.ShuffleNetRun(gated(), replace(train, labels=(train.labels + 1) % 10))
    with pytest.raises(InputError, match=r"must be resumed with the data that it began with, not with others"):
        other.restore(tmp_path / "tiny.pt")


def test_only_a_run_at_its_end_is_finished_be_its_best_epoch_the_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped meaning: the best epoch of a finished run is its result; that of a stopped one is not."""
    original = loop.ShuffleNetRun.end_of_epoch

    def end_of_epoch(self: loop.ShuffleNetRun) -> dict[str, object]:
        line = original(self)
        if line["epoch"] == 1:
            self.best_history["held_out_accuracy"] = 2.0  # no later one is better
        return line

    monkeypatch.setattr(loop.ShuffleNetRun, "end_of_epoch", end_of_epoch)
    (tmp_path / "mine.yaml").write_text(shufflenet_recipe_text(recipe(name="mine")))
    command = ["train", str(tmp_path / "mine.yaml"), "--data", str(folder), "--out", str(tmp_path), "--device", "cpu"]

    def told() -> list[tuple[int, bool]]:
        histories = [read_shufflenet(tmp_path / f"mine{ending}")[2] for ending in (".pt", ".weights.npz")]
        return [(history["epoch"], history["finished"]) for history in histories]

    def marked() -> bool:
        checkpoint = str(tmp_path / "mine.weights.npz")
        result = str(tmp_path / "r.json")
        assert main(["trace", "--checkpoint", checkpoint, "--data", str(folder), "--result", result]) == 0
        (found,) = load_results([tmp_path / "r.json"]).results
        return not found.finished

    run = loop.ShuffleNetRun(recipe(name="mine"), read_train(folder))
    run.start(folder, folder)
    assert not loop.train_shufflenet(run, tmp_path, lambda _: None, lambda: run.step >= run.steps_per_epoch)
    assert told() == [(1, False), (1, False)]
    assert marked()
    assert main([*command, "--resume"]) == 0
    assert "(epoch 1)" in " ".join(capsys.readouterr().err.split())
    assert told() == [(1, True), (1, True)]
    assert not marked()


@pytest.mark.parametrize(
    ("history", "finished"),
    [
        ({"epoch": 2}, True),
        ({"epoch": 1}, False),
        ({}, False),
        ({"epoch": 1, "finished": True}, True),
        ({"epoch": 2, "finished": False}, False),
    ],
)
def test_weights_that_do_not_say_it_are_finished_at_the_recipes_last_epoch(
    folder: Path, tmp_path: Path, history: dict[str, object], finished: bool
) -> None:
    state = read_shufflenet(folder / "tiny_float.weights.npz")[0].state_dict()
    save_shufflenet_weights(tmp_path / "w.npz", state, recipe(), history)
    assert read_shufflenet(tmp_path / "w.npz")[2] == {**history, "finished": finished}


def test_weights_whose_finished_is_no_truth_value_are_refused(folder: Path, tmp_path: Path) -> None:
    state = read_shufflenet(folder / "tiny_float.weights.npz")[0].state_dict()
    save_shufflenet_weights(tmp_path / "w.npz", state, recipe(), {"finished": 1})
    with pytest.raises(InputError, match=r"w\.npz: finished must be true or false, not 1$"):
        read_shufflenet(tmp_path / "w.npz")


@pytest.mark.parametrize("weights", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_the_shipped_weights_are_of_finished_runs(weights: Path) -> None:
    assert read_shufflenet(weights)[2]["finished"] is True


def test_the_trace_says_what_its_integer_function_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = folder / "tiny.weights.npz", tmp_path / "t.npz"
    base = ["trace", "--checkpoint", str(weights), "--data", str(folder), "-o", str(out), "--images", "2"]
    assert main([*base, "--result", str(tmp_path / "r.json")]) == 0
    assert "top-1" in capsys.readouterr().err
    trace, (net, _, _), test = pgsim.load_trace(out), read_shufflenet(weights), read_test(folder)
    assert pgsim.verify(trace).equal
    assert trace.images == 2
    (logits,) = pg.run_integers(net, [network_images(test.pixels)])
    assert trace.info["top1"] == 100 * float(np.mean(logits.argmax(1).numpy() == test.labels))
    whole = pg.trace(net, network_images(test.pixels))
    masks = [whole.tensors(k).mask for k, layer in enumerate(whole.layers) if layer.gate is not None]
    share = 1 - sum(int(m.sum()) for m in masks) / sum(m.size for m in masks)
    assert trace.info["sparsity_percent"] == pytest.approx(100 * share, abs=1e-3)
    assert trace.info["b_avg_bits"]["gated_by_outputs"] == pytest.approx(6 - 2 * share, abs=1e-4)
    (result,) = load_results([tmp_path / "r.json"]).results
    assert (result.method, result.bits, result.gating) == (Method.PG, (6, 4), "all")
    assert set(result.b_avg) == set(trace.info["b_avg_bits"])
    raw = [layer.name for layer in trace.layers if not layer.post]
    assert raw == ["classifier.0"]


def test_the_command_trains_and_a_float_network_has_no_trace(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(shufflenet_recipe_text(recipe(name="mine", epochs=1)))
    assert main(["train", str(tmp_path / "mine.yaml"), "--data", str(folder), "--out", str(tmp_path)]) == 0
    assert is_shufflenet(tmp_path / "mine.pt")
    assert is_shufflenet(tmp_path / "mine.weights.npz")
    assert not is_shufflenet(folder / "trunk.npz")
    trace = ["trace", "--checkpoint", str(tmp_path / "mine.pt"), "--data", str(folder), "-o", str(tmp_path / "t.npz")]
    assert main(trace) == 2
    assert main([*trace[:-2], "--result", str(tmp_path / "r.json")]) == 0
    (result,) = load_results([tmp_path / "r.json"]).results
    assert (result.method, result.bits, result.sparsity) == (Method.FLOAT, None, None)
    capsys.readouterr()
    assert main(["paper", str(tmp_path / "r.json"), "--table", "1"]) == 0
    told = capsys.readouterr().out
    assert "In no table" not in told
    (line,) = (line for line in told.splitlines() if line.startswith("shufflenetv2_x0.5_cifar "))
    assert line.split()[1] == "float"


def test_wrong_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(folder / "tiny.weights.npz"))
    np.savez(tmp_path / "less.npz", **{n: a for n, a in arrays.items() if n != "features.alpha"})
    with pytest.raises(InputError, match=r"exactly the arrays of tiny, not differ in 'features\.alpha'$"):
        read_shufflenet(tmp_path / "less.npz")
    with pytest.raises(InputError, match=r"must hold weights of a ShuffleNet of pgsim train, not another npz$"):
        read_shufflenet(folder / "trunk.npz")


def test_a_network_beyond_the_numbers_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, made_with, history = read_shufflenet(folder / "tiny.weights.npz")
    state = net.state_dict()
    name = next(name for name in state if name.endswith(".bound"))
    state[name].fill_(1e300)
    path = tmp_path / "w.npz"
    save_shufflenet_weights(path, state, made_with, history)
    command = [
        "trace",
        "--checkpoint",
        str(path),
        "--data",
        str(folder),
        "--images",
        "1",
        "-o",
        str(tmp_path / "t.npz"),
    ]
    assert main(command) == 2
    assert f"pgsim: error: {path}: " in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["w.npz"]
