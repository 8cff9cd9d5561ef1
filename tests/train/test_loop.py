"""The training loop on tiny data: determinism, resumption, interruption, the recipe's levers."""

from __future__ import annotations

import argparse
import contextlib
import copy
import errno
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.cli import train as command  # noqa: E402
from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.nn.functional import Policy  # noqa: E402
from pgsim.train import loop  # noqa: E402
from pgsim.train.blocks import Pact  # noqa: E402
from pgsim.train.checkpoint import load_checkpoint  # noqa: E402
from pgsim.train.data import as_tensor, image_codes, read_train  # noqa: E402
from pgsim.train.epochs import append_line  # noqa: E402
from pgsim.train.network import build_network  # noqa: E402
from pgsim.train.recipe import Recipe, recipe_text  # noqa: E402
from pgsim.train.teacher import FloatResNet, TaughtViews  # noqa: E402
from pgsim.train.weights import read_network, save_weights  # noqa: E402
from tests.train.synthetic import recipe, write_folder  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def quick_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CALIBRATION_IMAGES", 4)
    monkeypatch.setattr(loop, "EPOCH_BN_BATCHES", 1)
    monkeypatch.setattr(loop, "FINAL_BN_BATCHES", 2)


def new_run(folder: Path, out: Path, wanted: Recipe) -> loop.Run:
    out.mkdir(parents=True, exist_ok=True)
    return loop.Run(wanted, folder, out, read_train(folder))


def train_until(run: loop.Run, out: Path, stop: Callable[[], bool] = lambda: False) -> bool:
    return loop.train(run, out, lambda _: None, stop)


def same(first: loop.Run, second: loop.Run) -> bool:
    mine, theirs = first.averaged.state_dict(), second.averaged.state_dict()
    return all(torch.equal(mine[n], theirs[n]) for n in mine)


def differing(first: torch.nn.Module, second: torch.nn.Module) -> set[str]:
    mine, theirs = first.state_dict(), second.state_dict()
    return {name for name in mine if "tracked" not in name and not torch.equal(mine[name], theirs[name])}


def test_a_stopped_and_resumed_run_equals_one_in_a_piece_and_both_repeat(folder: Path, tmp_path: Path) -> None:
    whole = new_run(folder, tmp_path / "whole", recipe())
    whole.start(folder)
    assert train_until(whole, tmp_path / "whole")
    assert whole.step == 8

    for stop_at in (2, 4):
        out = tmp_path / f"parts{stop_at}"
        part = new_run(folder, out, recipe())
        part.start(folder)
        assert not train_until(part, out, lambda part=part, at=stop_at: part.step >= at)
        assert part.step == stop_at
        rest = new_run(folder, out, recipe())
        rest.restore(out / "tiny.pt")
        assert rest.step == stop_at
        assert train_until(rest, out)
        assert same(whole, rest)
        assert load_checkpoint(out / "tiny.pt").finished

    other = new_run(folder, tmp_path / "other", recipe(seed=4))
    other.start(folder)
    assert train_until(other, tmp_path / "other")
    assert not same(whole, other)

    lines = [json.loads(x) for x in (tmp_path / "whole" / "tiny.jsonl").read_text().splitlines()]
    assert [x["epoch"] for x in lines] == [1, 2]
    assert {"held_out_accuracy", "sparsity", "loss", "train_accuracy"} <= set(lines[0])
    assert len(lines[0]["layer_sparsity"]) == 9


def test_the_log_of_a_resumed_epoch_is_that_of_one_in_a_piece(folder: Path, tmp_path: Path) -> None:
    whole = new_run(folder, tmp_path / "whole", recipe())
    whole.start(folder)
    assert train_until(whole, tmp_path / "whole")
    part = new_run(folder, tmp_path / "part", recipe())
    part.start(folder)
    assert not train_until(part, tmp_path / "part", lambda: part.step >= 3)
    rest = new_run(folder, tmp_path / "part", recipe())
    rest.restore(tmp_path / "part" / "tiny.pt")
    assert train_until(rest, tmp_path / "part")
    logs = [(tmp_path / name / "tiny.jsonl").read_text().splitlines() for name in ("whole", "part")]
    first, second = ([{k: v for k, v in json.loads(x).items() if "second" not in k} for x in log] for log in logs)
    assert first == second


@pytest.mark.parametrize(("function", "call"), [("save_checkpoint", 2), ("save_weights", 1), ("append_line", 1)])
@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_whose_end_was_not_written_whole_is_ended_once_more(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, epoch: int
) -> None:
    wanted = recipe(clip="max", gating="none", pred_bits=3)  # whose bounds move on whenever it is measured
    whole = new_run(folder, tmp_path / "whole", wanted)
    whole.start(folder)
    assert train_until(whole, tmp_path / "whole")
    run, out = new_run(folder, tmp_path / "part", wanted), tmp_path / "part"
    run.start(folder)
    original, left = getattr(loop, function), [call]

    def full(*args: object, **more: object) -> None:
        left[0] -= run.step == epoch * run.steps_per_epoch
        if left[0] == 0 and run.step == epoch * run.steps_per_epoch:
            raise InputError("No space left on device")
        original(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(loop, function, full)
        with pytest.raises(InputError, match="No space"):
            train_until(run, out)
    rest = new_run(folder, out, wanted)
    rest.restore(out / "tiny.pt")
    assert train_until(rest, out)
    assert same(whole, rest)
    assert load_checkpoint(out / "tiny.pt").finished
    logs = [(tmp_path / name / "tiny.jsonl").read_text().splitlines() for name in ("whole", "part")]
    first, second = ([{k: v for k, v in json.loads(x).items() if "second" not in k} for x in log] for log in logs)
    assert first == second
    mine, theirs = (read_network(tmp_path / name / "tiny.best.weights.npz") for name in ("whole", "part"))
    assert mine[2] == theirs[2]
    assert differing(mine[0], theirs[0]) == set()


@pytest.mark.parametrize("lost", [20, 1], ids=["half a line", "only its end"])
def test_a_run_that_was_killed_as_it_wrote_its_log_goes_on(folder: Path, tmp_path: Path, lost: int) -> None:
    part = new_run(folder, tmp_path, recipe(epochs=3))
    part.start(folder)
    assert not train_until(part, tmp_path, lambda: part.step >= 8)
    log = tmp_path / "tiny.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-lost])
    rest = new_run(folder, tmp_path, recipe(epochs=3))
    rest.restore(tmp_path / "tiny.pt")
    assert train_until(rest, tmp_path)
    *kept, last = log.read_bytes().splitlines(keepends=True)
    assert b"".join(kept) == (whole if lost == 1 else whole.splitlines(keepends=True)[0])
    assert last.endswith(b"\n")
    assert json.loads(last)["epoch"] == 3


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b'{"held_out_accuracy": 0.', "line 1 must be a JSON object, as pgsim train writes it, not a broken one"),
        (b"[" * 100_000, "line 1 must be a JSON object, as pgsim train writes it, not a broken one"),
        (b"\xff\xfe", "line 1 must be a JSON object, as pgsim train writes it, not a broken one"),
        (b"3", "line 1 must be a JSON object, as pgsim train writes it, not a broken one"),
        (b'{"epoch": 1}', "held_out_accuracy must be a number in every line, not None"),
        (b'{"held_out_accuracy": "0.9"}', "held_out_accuracy must be a number in every line, not '0.9'"),
    ],
)
def test_a_broken_line_inside_the_log_is_refused_before_a_step(
    folder: Path, tmp_path: Path, broken: bytes, message: str
) -> None:
    part = new_run(folder, tmp_path, recipe())
    part.start(folder)
    assert not train_until(part, tmp_path, lambda: part.step >= 4)
    log = tmp_path / "tiny.jsonl"
    log.write_bytes(broken + b"\n" + log.read_bytes())
    before = log.read_bytes()
    rest = new_run(folder, tmp_path, recipe())
    with pytest.raises(InputError) as caught:
        rest.restore(tmp_path / "tiny.pt")
    assert str(caught.value) == f"{log}: {message}"
    assert log.read_bytes() == before


def test_a_run_that_diverges_is_stopped_with_its_last_epoch(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe(learning_rate="1.0e+9", warmup_steps=0))
    run.start(folder)
    with pytest.raises(InputError, match=r"after step \d must be finite, not .*: the run diverged"):
        train_until(run, tmp_path)
    assert not (tmp_path / "tiny.weights.npz").exists()


def test_logits_of_another_teacher_or_of_other_images_are_not_taken_for_the_ones(folder: Path, tmp_path: Path) -> None:
    first = new_run(folder, tmp_path, recipe())
    first.start(folder)
    train_until(first, tmp_path)
    (kept,) = tmp_path.glob("weights_views1_seed3.npz")
    assert first.teacher is not None

    def logits_of(teacher: FloatResNet, data: str = first.data) -> np.ndarray:
        return TaughtViews(teacher, kept, 1, len(first.train), data).logits

    assert np.isfinite(logits_of(first.teacher.teacher)).all()
    train = read_train(folder)
    again = loop.Run(recipe(), folder, tmp_path, replace(train, pixels=train.pixels[::-1]))
    assert again.teacher is not None
    assert np.isnan(again.teacher.logits).all()
    other = dict(np.load(folder / "weights.npz"))
    other["linear.weight"] = -other["linear.weight"]
    assert np.isnan(logits_of(FloatResNet(other))).all()


def test_a_checkpoint_of_another_recipe_is_refused(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe())
    run.start(folder)
    train_until(run, tmp_path, lambda: True)
    with pytest.raises(InputError, match=r"tiny\.pt must come from the same recipe, with sigma 0\.5, not 0\.001$"):
        new_run(folder, tmp_path, recipe(sigma=0.5)).restore(tmp_path / "tiny.pt")


def test_a_text_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"x\.pt must be a checkpoint of pgsim train, not "):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("scope", "policy"), [("network", "keep"), ("layer", "keep"), ("channel", "keep"), ("layer", "zero")]
)
def test_starting_thresholds_reach_the_sparsity_asked_for(
    folder: Path, tmp_path: Path, scope: str, policy: str
) -> None:
    run = new_run(folder, tmp_path, recipe(start_scope=scope, policy=policy))
    run.start(folder)
    run.net.eval()
    run.net.reset_counts()
    with torch.no_grad():
        run.net.fake_quantised(as_tensor(image_codes(run.train.pixels[: loop.CALIBRATION_IMAGES])))
    deltas = [conv.delta.detach() for _, conv in run.net.gated_convs()]
    if scope == "network":
        assert len({float(d) for delta in deltas for d in delta}) == 1
        return
    assert run.net.sparsity()[1][0] == pytest.approx(0.8, abs=0.01)  # later layers see the gates before them
    assert (len({float(d) for d in deltas[0]}) == 1) == (scope == "layer")


def test_the_penalty_is_a_norm_and_not_a_square(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe())
    run.start(folder)
    with torch.no_grad():
        for _, conv in run.net.gated_convs():
            conv.delta.add_(1.0)
    expected = 0.25 * sum(np.sqrt(conv.delta.numel()) for _, conv in run.net.gated_convs())
    assert loop.penalty(run.net, run.targets, 0.25).item() == pytest.approx(expected, rel=1e-5)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    r = recipe(warmup_steps=4, learning_rate=0.1)
    rates = [loop.learning_rate(r, s, 104) for s in range(105)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[54] == pytest.approx(0.05)
    assert rates[104] == pytest.approx(0.0, abs=1e-12)


def test_the_rate_drops_to_a_tenth_after_the_epochs_that_the_recipe_names() -> None:
    r = recipe(warmup_steps=4, learning_rate=0.1, epochs=10, rate_drops=[5, 8])
    rates = [loop.learning_rate(r, s, 100) for s in range(100)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[49:51] == pytest.approx([0.1, 0.01])
    assert rates[79:81] == pytest.approx([0.01, 0.001])
    assert rates[99] == pytest.approx(0.001)


def test_held_out_images_are_never_trained_on(folder: Path) -> None:
    images = read_train(folder)
    train, held_out = loop.split_holdout(images, 8)
    assert len(train) == 32
    np.testing.assert_array_equal(held_out.pixels, images.pixels[-8:])
    seen = {int(i) for s in range(8) for i in loop.batch_of(train, recipe(), s).index}
    assert seen == set(range(32))


def test_a_batch_is_a_function_of_seed_and_step(folder: Path) -> None:
    images, _ = loop.split_holdout(read_train(folder), 8)
    first = [loop.batch_of(images, recipe(), step) for step in range(6)]
    loop.epoch_draws.cache_clear()
    again = [loop.batch_of(images, recipe(), step) for step in range(6)]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.index, b.index)
        assert torch.equal(a.codes, b.codes)
        assert torch.equal(a.labels, torch.from_numpy(images.labels[a.index]))
    other = loop.batch_of(images, recipe(seed=4), 0)
    assert not np.array_equal(first[0].index, other.index)
    assert not np.array_equal(first[0].index, first[4].index)


def test_views_are_drawn_anew_each_epoch_unless_the_recipe_fixes_them(folder: Path) -> None:
    images, _ = loop.split_holdout(read_train(folder), 8)
    for views, repeats in ((1, True), (0, False)):
        seen = {}
        for step in range(8):
            batch = loop.batch_of(images, recipe(views=views), step)
            for position, index in enumerate(batch.index):
                seen.setdefault(int(index), []).append(batch.codes[position])
        assert all(torch.equal(a, b) for a, b in seen.values()) == repeats


def test_the_mean_over_batches_becomes_the_running_statistics(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe())
    run.start(folder)
    run.evaluate(3)
    stem = [run.averaged.stem(loop.batch_of(run.train, run.recipe, s).codes, 2.64 / 127).detach() for s in range(3)]
    expected = torch.stack([x.mean((0, 2, 3)) for x in stem]).mean(0)
    torch.testing.assert_close(run.averaged.bn.running_mean, expected, rtol=1e-4, atol=1e-5)


def arguments(folder: Path, out: Path, **changes: object) -> argparse.Namespace:
    (out / "r.yaml").write_text(recipe_text(recipe()))
    values = {
        "recipe": str(out / "r.yaml"),
        "data": str(folder),
        "out": str(out),
        "resume": False,
        "seed": None,
        "epochs": None,
        "threads": 1,
        "device": "cpu",
    }
    return argparse.Namespace(**{**values, "minutes": None, **changes})


def test_a_ctrl_c_that_compiled_code_swallows_as_a_run_begins_is_not_lost(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallow(*_: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    args = arguments(folder, tmp_path)
    monkeypatch.setattr(loop.Run, "start", swallow)
    monkeypatch.setattr("pgsim.cli.interrupt._pressed", False)  # and after this test again
    assert main(["train", args.recipe, "--data", args.data, "--out", args.out]) == 130
    assert capsys.readouterr().err == "pgsim: interrupted\n"
    assert not (tmp_path / "tiny.pt").exists()


def test_a_time_budget_stops_with_a_checkpoint_and_the_best_epoch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    original, accuracies = loop.Run.one_step, iter([0.5, 0.25])

    def step(self: loop.Run) -> tuple[float, float]:
        now[0] += 60.0 if self.step < 5 else 0.0
        return original(self)

    def evaluate(self: loop.Run, _batches: int) -> dict[str, object]:
        return {"held_out_accuracy": next(accuracies), "step_seen": self.step}

    monkeypatch.setattr(loop.Run, "one_step", step)
    monkeypatch.setattr(loop.Run, "evaluate", evaluate)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert command.run(arguments(folder, tmp_path, minutes=4.5)) == 0
    assert load_checkpoint(tmp_path / "tiny.pt").step == 5
    said = capsys.readouterr().err
    assert "4.5 minutes are up at step 5 of 8; continue with --resume" in said
    assert f"the best epoch so far is in {tmp_path / 'tiny.best.weights.npz'}" in said
    assert command.run(arguments(folder, tmp_path, resume=True)) == 0
    _, _, history = read_network(tmp_path / "tiny.best.weights.npz")
    assert history["held_out_accuracy"] == 0.5
    assert history["step_seen"] == 4
    with pytest.raises(InputError, match="--minutes must be more than 0, not -1"):
        command.run(arguments(folder, tmp_path, minutes=-1.0))


def test_fixed_thresholds_stay_and_maximum_clips_follow_their_input(folder: Path, tmp_path: Path) -> None:
    fixed = recipe(thresholds="fixed", delta_target=0.5, policy="zero", clip="max", name="fixed")
    run = new_run(folder, tmp_path, fixed)
    run.start(folder)
    start = [float(pact.alpha) for _, pact in run.net.pacts()]
    for _ in range(2):
        run.one_step()
    deltas = [cast(torch.Tensor, conv.delta) for _, conv in run.net.gated_convs()]
    assert all((delta == 0.5).all() and delta.grad is None for delta in deltas)
    assert all(conv.gating.policy is Policy.ZERO for _, conv in run.net.gated_convs() if conv.gating)
    now = [float(pact.alpha) for _, pact in run.net.pacts()]
    assert all(first != second for first, second in zip(start, now, strict=True))
    assert all(pact.alpha.grad is None for _, pact in run.net.pacts())


def test_outputs_that_are_not_updated_become_zero_under_that_policy_alone(folder: Path) -> None:
    nets = {policy: build_network(recipe(policy=policy)).eval() for policy in ("keep", "zero", "seernet")}
    assert {policy: net.keep for policy, net in nets.items()} == {"keep": True, "zero": False, "seernet": True}
    for net in nets.values():
        for _, conv in net.gated_convs():
            cast(torch.Tensor, conv.delta).data.fill_(1.0)
    codes = as_tensor(image_codes(read_train(folder).pixels[:4]))
    keep, zero, seernet = (net(codes) for net in nets.values())
    assert torch.equal(keep, seernet)
    assert not torch.equal(keep, zero)


def test_a_running_maximum_moves_a_tenth_of_the_way() -> None:
    pact = Pact(7, learned=False).train()
    pact.alpha.data.fill_(2.0)
    pact(torch.tensor([-5.0, 1.0, 4.0]))
    assert float(pact.alpha) == pytest.approx(2.2)
    pact.eval()(torch.tensor([100.0]))
    assert float(pact.alpha) == pytest.approx(2.2)


def test_float_weights_of_another_depth_are_refused(folder: Path, tmp_path: Path) -> None:
    deep = recipe(network="resnet32", teacher="''", distill_weight=0.0)
    run = loop.Run(deep, folder, tmp_path, read_train(folder))
    with pytest.raises(
        InputError, match="must hold the float weights of the recipe's network, ResNet-32, not ResNet-20"
    ):
        run.start(folder)


def test_a_run_starts_from_random_weights_and_another_from_what_it_left(folder: Path, tmp_path: Path) -> None:
    plain: dict[str, object] = {"network": "shiftnet20", "teacher": "''", "distill_weight": 0.0}
    first = recipe(name="first", float_weights="''", gating="none", pred_bits=3, epochs=1, **plain)
    run = loop.Run(first, folder, tmp_path, read_train(folder))
    run.start(folder)
    before = run.net.blocks[0].conv1.weight.detach().clone()
    later = recipe(name="later", float_weights="first", **plain)
    assert not loop.train(run, tmp_path, lambda _: None, lambda: True)
    with pytest.raises(InputError, match=r"first\.pt must be of a finished run, not of one short of its end; go on"):
        loop.Run(later, folder, tmp_path, read_train(folder)).start(folder)
    assert loop.train(run, tmp_path, lambda _: None, lambda: False)
    assert not torch.equal(before, run.net.blocks[0].conv1.weight)
    with pytest.raises(InputError, match=r"a recipe must start from a run of pgsim train in .* not 'first'"):
        loop.Run(later, folder, tmp_path / "none", read_train(folder)).start(folder)
    start = loop.Run(later, folder, tmp_path, read_train(folder))
    start.start(folder)
    for name, tensor in run.averaged.named_parameters():
        if not name.endswith(("alpha", "delta")):
            assert torch.equal(start.net.get_parameter(name), tensor), name
    assert start.net.gated_convs()
    other = recipe(name="other", float_weights="first", **plain | {"network": "resnet20"})
    with pytest.raises(
        InputError, match=r"first.pt: blocks.0.conv1.weight must be \[16, 16, 3, 3\], as in the recipe's"
    ):
        loop.Run(other, folder, tmp_path, read_train(folder)).start(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gating": "all", "policy": "zero", "sparse_bp": "false", "thresholds": "fixed", "delta_target": 0.5},
        {"gating": "none", "pred_bits": 3, "clip": "max"},
        {"network": "shiftnet20", "float_weights": '""', "teacher": '""', "distill_weight": 0.0},
    ],
    ids=["release", "fixed", "uniform", "shift"],
)
def test_a_run_trains_on_an_accelerator_goes_on_and_is_read_back_without_one(
    folder: Path, tmp_path: Path, accelerator: str, changes: dict[str, object]
) -> None:
    wanted, train = recipe(epochs=1, **changes), read_train(folder)
    first = loop.Run(wanted, folder, tmp_path, train, accelerator)
    first.start(folder)
    assert not train_until(first, tmp_path, lambda: first.step >= 2)
    run = loop.Run(wanted, folder, tmp_path, train, accelerator)
    run.restore(tmp_path / "tiny.pt")
    assert {p.device.type for p in run.net.parameters()} == {accelerator}
    assert train_until(run, tmp_path)
    again = new_run(folder, tmp_path, wanted)
    again.restore(tmp_path / "tiny.pt")
    codes = torch.randint(-127, 128, (2, 3, 32, 32)).float()
    logits = run.averaged.eval().fake_quantised(codes.to(accelerator))
    torch.testing.assert_close(again.averaged.eval().fake_quantised(codes), logits.cpu(), rtol=1e-3, atol=1e-3)


def test_ctrl_c_writes_a_checkpoint_and_exits_130(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = loop.Run.one_step

    def step(self: loop.Run) -> tuple[float, float]:
        result = original(self)
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(loop.Run, "one_step", step)
    before = signal.getsignal(signal.SIGINT)
    assert command.run(arguments(folder, tmp_path)) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(tmp_path / "tiny.pt").step == 2
    assert "interrupted at step 2" in capsys.readouterr().err
    with pytest.raises(InputError, match="must not exist yet for a new run"):
        command.run(arguments(folder, tmp_path))
    monkeypatch.undo()
    assert command.run(arguments(folder, tmp_path, resume=True)) == 0
    assert (tmp_path / "tiny.weights.npz").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("left", ["tiny.jsonl", "tiny.best.weights.npz", "tiny.weights.npz"])
def test_a_new_run_does_not_begin_over_what_an_earlier_one_left(folder: Path, tmp_path: Path, left: str) -> None:
    """The checkpoint moved away, the log stayed: the new run's first epochs would be worse than "the best so far"."""
    (tmp_path / left).write_text('{"held_out_accuracy": 1.0}\n')
    message = rf"{left.replace('.', '[.]')} must not exist yet for a new run; it is an earlier one's, move it away"
    with pytest.raises(InputError, match=message):
        command.run(arguments(folder, tmp_path))
    assert not (tmp_path / "tiny.pt").exists()
    (tmp_path / left).rename(tmp_path / f"old.{left}")
    assert command.run(arguments(folder, tmp_path, minutes=1e-9)) == 0
    assert (tmp_path / "tiny.pt").exists()


def test_a_second_run_of_the_same_name_is_refused_while_the_first_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, runs = loop.Run.one_step, []

    def step(self: loop.Run) -> tuple[float, float]:
        runs.append(self)
        if len(runs) == 1:
            message = r"tiny\.pt must be one run's at a time, and another is training it now$"
            with pytest.raises(InputError, match=message):
                command.run(arguments(folder, tmp_path, minutes=1e-9))
        return original(self)

    monkeypatch.setattr(loop.Run, "one_step", step)
    assert command.run(arguments(folder, tmp_path, minutes=1e-9)) == 0
    assert len(runs) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"r.yaml", "tiny.pt"}


def test_a_log_and_logits_that_cannot_be_written_are_named_and_leave_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path} must be writable, not refused: Is a directory$"):
        append_line(tmp_path, {})
    run = new_run(folder, tmp_path, recipe())
    assert run.teacher is not None

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match=r"weights_views1_seed3\.npz: the output must be writable, not refused: No sp"):
        run.teacher.save()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_left_behind_only_where_a_run_began(folder: Path, tmp_path: Path) -> None:
    args = arguments(folder, tmp_path)
    args.out = str(tmp_path / "new" / "run")
    with pytest.raises(InputError, match=r"cifar10_train_1\.npz must be an npz file, not missing"):
        command.run(argparse.Namespace(**{**vars(args), "data": str(tmp_path / "none")}))
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "note").touch()
    bad = tmp_path / "bad.yaml"
    bad.write_text(recipe_text(recipe(float_weights="none.npz")))
    with pytest.raises(InputError, match=r"none\.npz must be"):
        command.run(argparse.Namespace(**{**vars(args), "recipe": str(bad)}))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["note"]
    assert command.run(argparse.Namespace(**{**vars(args), "minutes": 1e-9})) == 0
    assert (tmp_path / "new" / "run" / "tiny.pt").exists()


def test_runs_of_several_seeds_lie_in_one_folder(folder: Path, tmp_path: Path) -> None:
    kept = []
    for seed in (5, 6):
        assert command.run(arguments(folder, tmp_path, seed=seed, minutes=1e-9)) == 0
        kept.append(load_checkpoint(tmp_path / f"tiny_seed{seed}.pt"))
        assert kept[-1].recipe == recipe(name=f"tiny_seed{seed}", seed=seed)
    assert not torch.equal(kept[0].model["stem.weight"], kept[1].model["stem.weight"])
    assert not (tmp_path / "tiny.pt").exists()
    assert command.run(arguments(folder, tmp_path, seed=6, resume=True)) == 0
    assert (tmp_path / "tiny_seed6.weights.npz").exists()


def test_a_run_of_fewer_epochs_is_the_recipe_with_that_number(folder: Path, tmp_path: Path) -> None:
    assert command.run(arguments(folder, tmp_path, seed=6, epochs=1)) == 0
    fewer = recipe(name="tiny_epochs1_seed6", seed=6, epochs=1)
    run = new_run(folder, tmp_path / "other", fewer)
    run.start(folder)
    assert train_until(run, tmp_path / "other")
    net, kept, history = read_network(tmp_path / "tiny_epochs1_seed6.weights.npz")
    assert kept == fewer
    assert history == {"step": run.steps_per_epoch, "finished": True}
    assert differing(run.averaged, net) == set()
    (tmp_path / "drops.yaml").write_text(recipe_text(recipe(rate_drops=[1])))
    with pytest.raises(InputError, match=r"^--epochs: rate_drops must be empty where epochs is 1, not \[1\]$"):
        command.run(arguments(folder, tmp_path, recipe=str(tmp_path / "drops.yaml"), epochs=1))


def test_no_epochs_leave_the_network_as_it_starts_and_measured(folder: Path, tmp_path: Path) -> None:
    assert command.run(arguments(folder, tmp_path, epochs=0)) == 0
    untrained = recipe(name="tiny_epochs0", epochs=0)
    run = new_run(folder, tmp_path / "other", untrained)
    run.start(folder)
    started = copy.deepcopy(run.net)
    measured = run.evaluate(loop.FINAL_BN_BATCHES)
    net, kept, history = read_network(tmp_path / "tiny_epochs0.weights.npz")
    assert kept == untrained
    assert history == {"step": 0, "finished": True}
    assert differing(run.averaged, net) == set()
    assert {name.rpartition(".")[2] for name in differing(started, net)} == {"running_mean", "running_var"}
    log = (tmp_path / "tiny_epochs0.jsonl").read_text()
    assert json.loads(log) == {"epoch": 0, "step": 0, **measured}
    assert load_checkpoint(tmp_path / "tiny_epochs0.pt").finished
    assert command.run(arguments(folder, tmp_path, epochs=0, resume=True)) == 0
    assert (tmp_path / "tiny_epochs0.jsonl").read_text() == log


def test_resuming_what_was_never_started_is_refused(folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new" / "run"
    args = arguments(folder, tmp_path, resume=True)
    args.out = str(new)
    with pytest.raises(InputError, match=r"tiny\.pt must exist for --resume, not be missing"):
        command.run(args)
    assert not new.parent.exists()


def test_the_options_of_the_command(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args(["r", "--data", "d"])
    assert (args.out, args.resume, args.threads) == (".", False, 1)
    assert cast(str, args.recipe) == "r"


def test_weights_that_cannot_be_written_are_one_line_and_leave_the_earlier_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(folder, tmp_path, recipe())
    path = tmp_path / "w.npz"
    save_weights(path, run.net, run.recipe, {"step": 1})

    def full(stream: BinaryIO, **_: object) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(InputError, match=r"w\.npz: the output must be writable, not refused: No space left on device"):
        save_weights(path, run.net, run.recipe, {"step": 2})
    assert read_network(path)[2] == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
