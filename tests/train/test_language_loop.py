"""Training a language model on a tiny corpus: perplexity, determinism, resumption, gating, and starting from a run."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.cli import train as command  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.nn import QuantLSTMCell  # noqa: E402
from pgsim.train.language import loop  # noqa: E402
from pgsim.train.language.corpus import read_corpus  # noqa: E402
from pgsim.train.language.loop import LanguageRun, score, train_language  # noqa: E402
from pgsim.train.language.model import build_model  # noqa: E402
from pgsim.train.language.recipe import LanguageRecipe, language_recipe_text  # noqa: E402
from pgsim.train.language.weights import load_language_checkpoint, read_language_model  # noqa: E402
from pgsim.train.weights import find_start  # noqa: E402
from tests.train.tiny_corpus import FLOAT, WORDS, recipe, words, write_corpus  # noqa: E402

STEPS_PER_EPOCH = 17  # 402 targets in 4 streams, 6 words a window


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def new_run(folder: Path, out: Path, wanted: LanguageRecipe) -> LanguageRun:
    out.mkdir(parents=True, exist_ok=True)
    return LanguageRun(wanted, read_corpus(folder))


def finish(run: LanguageRun, out: Path, stop: Callable[[], bool] = lambda: False) -> bool:
    return train_language(run, out, lambda _: None, stop)


def trained(folder: Path, out: Path, wanted: LanguageRecipe) -> LanguageRun:
    run = new_run(folder, out, wanted)
    run.start(out, folder)
    assert finish(run, out)
    return run


def same(first: LanguageRun, second: LanguageRun) -> bool:
    mine, theirs = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_perplexity_is_that_of_probabilities_multiplied_by_hand() -> None:
    """Without an LSTM's help: with a zero output layer but its bias, every word has the same known probability."""
    model = build_model(recipe(**FLOAT, tied="false"), 4)
    probabilities = [0.5, 0.25, 0.125, 0.125]
    with torch.no_grad():
        cast(torch.Tensor, model.projection).zero_()
        model.bias.copy_(torch.tensor([math.log(p) for p in probabilities]))
    seen = np.array([3, 0, 0, 1, 2])
    # The first word is not predicted: (1/2 * 1/2 * 1/4 * 1/8) ** (-1/4) = 2 ** (7/4).
    measured = score(model, seen)
    assert measured.words == 4
    assert measured.perplexity == pytest.approx(2 ** (7 / 4), rel=1e-6)
    assert score(model, seen, 3).perplexity == pytest.approx(2 ** (7 / 4), rel=1e-6)


@pytest.mark.parametrize("changes", [{}, FLOAT, {"cell": "dense", "pred_bits": 4}], ids=["gated", "float", "dense"])
def test_the_state_is_carried_over_a_whole_split(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    run = LanguageRun(recipe(**changes), read_corpus(folder))
    run.start(folder, folder)
    with torch.no_grad():  # a state that matters
        for name, parameter in run.model.cell.named_parameters():
            parameter.mul_(1.0 if name == "delta" else 4.0)
    model, split = run.model.eval(), words(40, 7).astype(np.int64)
    ids = torch.from_numpy(split[:-1])[:, None]
    with torch.no_grad():
        logits, _ = model(ids, model.zero_state(1))
    chosen = torch.log_softmax(logits[:, 0].double(), 1)[torch.arange(39), torch.from_numpy(split[1:])]
    expected = math.exp(-float(chosen.mean()))
    for rows in (39, 7, 1):
        monkeypatch.setattr(loop, "SCORED_ROWS", rows)
        assert score(model, split).perplexity == pytest.approx(expected, rel=1e-5)
    # Broken off, the state is another and so is the perplexity: the carrying above matters.
    assert abs(score(model, split, 20).perplexity - expected) > 1e-3


@pytest.mark.parametrize("changes", [{}, FLOAT], ids=["gated", "float"])
def test_a_stopped_and_resumed_run_equals_one_in_a_piece_and_both_repeat(
    folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    whole = trained(folder, tmp_path / "whole", recipe(**changes))
    assert whole.step == 2 * STEPS_PER_EPOCH
    for stop_at in (5, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 2):
        out = tmp_path / f"parts{stop_at}"
        part = new_run(folder, out, recipe(**changes))
        part.start(out, folder)
        assert not finish(part, out, lambda part=part, at=stop_at: part.step >= at)
        assert part.step == stop_at
        rest = new_run(folder, out, recipe(**changes))
        rest.restore(out / "tiny.pt")
        assert rest.step == stop_at
        assert finish(rest, out)
        assert same(whole, rest)
        assert load_language_checkpoint(out / "tiny.pt").finished
        logs = [
            [{**json.loads(x), "seconds_per_step": 0} for x in (f / "tiny.jsonl").read_text().splitlines()]
            for f in (tmp_path / "whole", out)
        ]
        assert logs[0] == logs[1]
        assert [line["epoch"] for line in logs[0]] == [1, 2]
    assert not same(whole, trained(folder, tmp_path / "other", recipe(**changes, seed=6)))


def test_training_lowers_perplexity_and_the_best_epoch_is_kept(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe(**FLOAT, epochs=8, learning_rate=0.05))
    run.start(tmp_path, folder)
    before = score(run.model, run.corpus.valid).perplexity
    assert before == pytest.approx(WORDS, rel=0.1)
    assert finish(run, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "tiny.jsonl").read_text().splitlines()]
    best = min(line["valid_perplexity"] for line in lines)
    assert best < 0.6 * before
    for name in ("tiny.weights.npz", "tiny.pt"):
        model, _, history = read_language_model(tmp_path / name)
        assert history["valid_perplexity"] == best
        streams = min(loop.VALID_STREAMS, 89)
        assert score(model, run.corpus.valid, streams).perplexity == pytest.approx(best, abs=1e-4)


def test_a_worse_epoch_does_not_replace_the_best(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nats = iter([1.0, 2.0, 0.5])
    monkeypatch.setattr(loop, "score", lambda *_args: loop.Score(1, next(nats), 0, 0))
    run = trained(folder, tmp_path, recipe(**FLOAT, epochs=2))
    _, _, history = read_language_model(tmp_path / "tiny.weights.npz")
    assert history["epoch"] == run.best_history["epoch"] == 1
    assert history["finished"] is False  # the test words are read when a run is over
    assert run.test() == pytest.approx(math.exp(0.5))
    run.save_best(tmp_path / "tiny.weights.npz")
    for name in ("tiny.weights.npz", "tiny.pt"):
        assert read_language_model(tmp_path / name)[2]["finished"] is True


@pytest.mark.parametrize("lost", [20, 1], ids=["half a line", "only its end"])
def test_a_run_that_was_killed_as_it_wrote_its_log_goes_on_with_every_line(
    folder: Path, tmp_path: Path, lost: int
) -> None:
    part = new_run(folder, tmp_path, recipe(**FLOAT))
    part.start(tmp_path, folder)
    assert not finish(part, tmp_path, lambda: part.step >= STEPS_PER_EPOCH)
    log = tmp_path / "tiny.jsonl"
    whole = json.loads(log.read_text())
    log.write_bytes(log.read_bytes()[:-lost])
    rest = new_run(folder, tmp_path, recipe(**FLOAT))
    rest.restore(tmp_path / "tiny.pt")
    assert finish(rest, tmp_path)
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["epoch"], second["epoch"]) == (1, 2)
    del whole["seconds_per_step"]  # of an epoch that is measured once more it is not known
    assert {key: value for key, value in first.items() if key != "seconds_per_step"} == whole


def test_thresholds_start_at_the_sparsity_asked_for_and_learn(folder: Path, tmp_path: Path) -> None:
    for scope in ("layer", "channel"):
        run = new_run(folder, tmp_path, recipe(start_scope=scope, start_sparsity=0.6))
        run.start(tmp_path, folder)
        cell = cast(QuantLSTMCell, run.model.cell)
        start = cast(torch.Tensor, cell.delta).detach().clone()
        assert (len(set(start.tolist())) == 1) == (scope == "layer")
        cell.reset_counts()
        state = run.model.zero_state(4)
        with torch.no_grad():
            for ids in run._calibration_windows():
                _, state = run.model(ids, state)
        assert 1 - cell.updated / cell.outputs == pytest.approx(0.6, abs=0.12)
        run.one_step()
        assert (cast(torch.Tensor, cell.delta) != start).any()


def test_a_rate_of_zero_leaves_thresholds_and_hold_epochs_set_them_anew(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe(threshold_rate=0.0, hold_epochs=1))
    run.start(tmp_path, folder)
    delta = cast(torch.Tensor, cast(QuantLSTMCell, run.model.cell).delta)
    start = delta.detach().clone()
    for _ in range(STEPS_PER_EPOCH):
        run.one_step()
        assert torch.equal(delta, start)
    run.one_step()
    assert not torch.equal(delta, start)


def test_the_penalty_pulls_thresholds_to_where_they_were_set(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe(sigma=0.25))
    run.start(tmp_path, folder)
    delta = cast(torch.Tensor, cast(QuantLSTMCell, run.model.cell).delta)
    assert float(run._penalty().detach()) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        delta.add_(2.0)
    assert float(run._penalty().detach()) == pytest.approx(0.25 * 2 * math.sqrt(len(delta)), rel=1e-5)


def test_gated_and_dense_models_start_from_a_float_run(folder: Path, tmp_path: Path) -> None:
    source = trained(folder, tmp_path, recipe(**FLOAT, name="source", epochs=8, learning_rate=0.05))
    source.test()
    source.save_best(tmp_path / "source.weights.npz")
    float_score = score(source.model, source.corpus.valid).perplexity
    starts = ["source", "source.pt", str(tmp_path / "source.weights.npz")]
    for k, (changes, name) in enumerate(zip(({}, {"cell": "dense", "pred_bits": 4}, {}), starts, strict=True)):
        out = tmp_path / f"fine{k}"
        run = new_run(folder, out, recipe(**changes, start_from=name))
        # The first finds it in the data folder, the second and third beside the run or by path.
        run.start(tmp_path if k else out, folder if k else tmp_path)
        for name, tensor in run.model.cell.named_parameters():
            if name != "delta":
                assert torch.equal(tensor, source.best[f"cell.{name}_l0"])
        assert score(run.model, run.corpus.valid).perplexity == pytest.approx(float_score, rel=0.35)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_from": "none"}, r"a recipe must start from a run .*\(none\.weights\.npz or none\.pt\), not 'none'"),
        ({"hidden_units": 13}, r"embedding\.weight must be \[23, 13\], as the recipe's network has it, not \[23, 12\]"),
        ({"tied": "false"}, r"projection must be \[23, 12\], as the recipe's network has it, not missing"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    trained(folder, tmp_path, recipe(**FLOAT, name="source", epochs=1))
    run = new_run(folder, tmp_path, recipe(**{"start_from": "source", **changes}))
    with pytest.raises(InputError, match=message):
        run.start(tmp_path, folder)


def test_a_run_short_of_its_end_is_started_from_by_its_files_name_only(folder: Path, tmp_path: Path) -> None:
    source = new_run(folder, tmp_path, recipe(**FLOAT, name="source", epochs=2))
    source.start(tmp_path, folder)
    assert not finish(source, tmp_path, lambda: source.step == source.steps_per_epoch)
    for left in ("source.weights.npz", "source.pt"):
        run = new_run(folder, tmp_path, recipe(start_from="source"))
        with pytest.raises(InputError, match=rf"{left} must be of a finished run, not of one short of its end; go on"):
            run.start(tmp_path, folder)
        run = new_run(folder, tmp_path, recipe(start_from=left))
        run.start(tmp_path, folder)
        assert torch.equal(run.model.cell.weight_ih, source.best["cell.weight_ih_l0"])
        (tmp_path / left).unlink()


def test_a_tied_network_does_not_start_from_one_with_a_projection(folder: Path, tmp_path: Path) -> None:
    trained(folder, tmp_path, recipe(**FLOAT, name="source", epochs=1, tied="false"))
    run = new_run(folder, tmp_path, recipe(start_from="source"))
    with pytest.raises(InputError, match="must be of a network with tied words"):
        run.start(tmp_path, folder)


def test_a_checkpoint_of_another_recipe_is_refused(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe())
    run.start(tmp_path, folder)
    finish(run, tmp_path, lambda: True)
    with pytest.raises(InputError, match=r"tiny\.pt must come from the same recipe, with sigma 0\.5, not 0\.001$"):
        new_run(folder, tmp_path, recipe(sigma=0.5)).restore(tmp_path / "tiny.pt")
    with pytest.raises(InputError, match=r"tiny\.pt must hold a finished epoch, not stop at step 1 of the first"):
        read_language_model(tmp_path / "tiny.pt")


def test_a_checkpoint_of_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe())
    run.start(tmp_path, folder)
    finish(run, tmp_path, lambda: True)
    for name, seed in (("train", 7), ("valid", 8)):
        other = write_corpus(tmp_path / name, **{name: words(403 if name == "train" else 90, seed)})
        with pytest.raises(
            InputError, match=r"tiny\.pt must be resumed with the data that it began with, not with other"
        ):
            new_run(other, tmp_path, recipe()).restore(tmp_path / "tiny.pt")
    state = torch.load(tmp_path / "tiny.pt", weights_only=True)
    del state["data"]  # as in older checkpoints
    torch.save(state, tmp_path / "tiny.pt")
    new_run(other, tmp_path, recipe()).restore(tmp_path / "tiny.pt")


def test_a_run_that_diverges_is_told_by_what_left_the_numbers(folder: Path, tmp_path: Path) -> None:
    run = new_run(folder, tmp_path, recipe(**{**FLOAT, "learning_rate": 1e9, "warmup_steps": 0}))
    run.start(tmp_path, folder)
    with pytest.raises(
        InputError, match=r"^the training perplexity after step 17 must be finite, not inf: the run div"
    ):
        finish(run, tmp_path)
    run = new_run(folder, tmp_path, recipe())
    run.start(tmp_path, folder)
    cast(torch.Tensor, cast(QuantLSTMCell, run.model.cell).delta).data[0] = float(
        "inf"
    )  # with which its loss is finite
    with pytest.raises(
        InputError, match=r"^cell\.delta after step 0 must be finite, not with NaN or infinity: the run div"
    ):
        run.end_of_epoch()
    assert not run.best
    assert not list(tmp_path.iterdir())


def test_the_log_decides_which_epoch_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perplexities that the log's digits do not tell apart are one: the first of them is kept."""
    nats = iter([math.log(23.04173), math.log(23.04171), math.log(23.04168), math.log(23.04171)])
    monkeypatch.setattr(loop, "score", lambda *_args: loop.Score(1, next(nats), 0, 0))
    run = trained(folder, tmp_path, recipe(**{**FLOAT, "epochs": 4}))
    lines = [json.loads(x)["valid_perplexity"] for x in (tmp_path / "tiny.jsonl").read_text().splitlines()]
    assert lines == [23.0417] * 4
    assert run.best_history["epoch"] == 1


def test_a_start_is_looked_for_where_the_run_writes_and_where_the_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "out", "data"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "src.weights.npz").touch()
    (tmp_path / "here" / "own.npz").touch()
    monkeypatch.chdir(tmp_path / "here")
    out, data = tmp_path / "out", tmp_path / "data"
    assert find_start("src", out, data) == out / "src.weights.npz"
    assert find_start("src.weights.npz", out, data) == Path("src.weights.npz")
    assert find_start("own.npz", out, data) == Path("own.npz")
    (out / "src.weights.npz").unlink()
    assert find_start("src", out, data) == data / "src.weights.npz"
    (data / "src.weights.npz").unlink()
    with pytest.raises(InputError, match=r"a recipe must start from a run of pgsim train in .*, not 'src'"):
        find_start("src", out, data)


def arguments(folder: Path, out: Path, wanted: LanguageRecipe, **changes: object) -> argparse.Namespace:
    out.mkdir(exist_ok=True)
    (out / "r.yaml").write_text(language_recipe_text(wanted))
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args([str(out / "r.yaml"), "--data", str(folder), "--out", str(out)])
    return argparse.Namespace(**{**vars(args), **changes})


def test_the_command_trains_stops_in_time_and_resumes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(arguments(folder, tmp_path, recipe(), minutes=1e-9)) == 0
    assert "minutes are up at step 1 of 34; continue with --resume" in capsys.readouterr().err
    assert command.run(arguments(folder, tmp_path, recipe(), resume=True)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    _, _, history = read_language_model(tmp_path / "tiny.weights.npz")
    assert f"{history['test_perplexity']:.2f} on the test words" in captured.err.replace("\n", " ")
    model, _, _ = read_language_model(tmp_path / "tiny.pt")
    assert score(model, read_corpus(folder).test).perplexity == pytest.approx(history["test_perplexity"], abs=1e-4)


@pytest.mark.skipif("torch.cuda.is_available()", reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--device must be cpu where torch finds no CUDA device, not cuda"):
        command.run(arguments(folder, tmp_path, recipe(), device="cuda"))


@pytest.mark.parametrize("changes", [{}, {"cell": "dense", "pred_bits": 4}], ids=["gated", "dense"])
def test_an_accelerator_trains_as_the_cpu_does_and_goes_on(
    folder: Path, tmp_path: Path, accelerator: str, changes: dict[str, object]
) -> None:
    scores = []
    for device in ("cpu", accelerator):
        out = tmp_path / device
        out.mkdir()
        first = LanguageRun(recipe(**changes), read_corpus(folder), device)
        first.start(out, folder)
        assert not finish(first, out, lambda first=first: first.step >= 5)
        run = LanguageRun(recipe(**changes), read_corpus(folder), device)
        run.restore(out / "tiny.pt")
        assert {p.device.type for p in run.model.parameters()} == {device}
        assert finish(run, out)
        scores.append(run.best_history["valid_perplexity"])
    assert scores[0] == pytest.approx(scores[1], rel=0.02)
