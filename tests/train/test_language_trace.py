"""pgsim trace of a language model: a recurrent layer that torch, verify and run agree on, without words."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.arith import reference  # noqa: E402
from pgsim.arith.formats import Encoding, GatePolicy  # noqa: E402
from pgsim.cli import trace as command  # noqa: E402
from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.io.trace import load_trace  # noqa: E402
from pgsim.nn import layers as nn_layers  # noqa: E402
from pgsim.paper.claims import Method  # noqa: E402
from pgsim.paper.stored import load_results  # noqa: E402
from pgsim.train.language.corpus import read_corpus  # noqa: E402
from pgsim.train.language.loop import LanguageRun, score, train_language  # noqa: E402
from pgsim.train.language.weights import is_language_model, read_language_model, save_language_weights  # noqa: E402
from tests.train import synthetic  # noqa: E402
from tests.train.tiny_corpus import FLOAT, recipe, words, write_corpus  # noqa: E402

KINDS = {
    "gated": {},
    "complement": {"encoding": "twos_complement", "act_bits": 5, "pred_bits": 2},
    "dense": {"cell": "dense", "pred_bits": 4},
    "float": FLOAT,
}
STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus, with one epoch's run of each kind in it."""
    path = write_corpus(tmp_path_factory.mktemp("corpus"))
    for name, changes in KINDS.items():
        run = LanguageRun(recipe(name=name, epochs=1, **changes), read_corpus(path))
        run.start(path, path)
        train_language(run, path, lambda _: None, lambda: False)
    return path


def arguments(folder: Path, out: Path, kind: str = "gated", **changes: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args(
        ["--checkpoint", str(folder / f"{kind}.pt"), "--data", str(folder), "--images", str(STEPS), "-o", str(out)]
    )
    return argparse.Namespace(**{**vars(args), **changes})


@pytest.mark.parametrize("kind", ["gated", "complement", "dense"])
def test_outputs_and_masks_are_those_of_torch_in_evaluation_mode(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.run(arguments(folder, tmp_path / "t.npz", kind)) == 0
    trace = load_trace(tmp_path / "t.npz")
    (layer,) = trace.layers
    assert trace.images == STEPS
    assert layer.recurrent
    assert layer.input_name is None
    assert (layer.geometry.in_channels, layer.geometry.out_channels) == (24, 48)
    recorded = trace.tensors(0)

    model, _, _ = read_language_model(folder / f"{kind}.pt")
    seen: list[Any] = []
    name = "dense_product" if kind == "dense" else "gated_product"
    original = getattr(nn_layers, name)

    def spy(*args: Any) -> Any:
        result = original(*args)
        seen.append(result if kind != "dense" else (result, None))
        return result

    monkeypatch.setattr(nn_layers, name, spy)
    state = model.zero_state(1)
    with torch.no_grad():
        for word in words(80, 3)[:STEPS]:
            state = model.cell(model.embedding(torch.tensor([int(word)])), state)
    unit = np.float32(layer.act_scale * layer.weight_scale[0])
    for step, (real, mask) in enumerate(seen):
        expected = recorded.output[step, :, 0, 0].astype(np.float32) * unit
        np.testing.assert_array_equal(real[0].numpy(), expected)
        if mask is not None:
            np.testing.assert_array_equal(mask[0].numpy(), recorded.mask[step, :, 0, 0])
    if kind == "dense":
        assert layer.gate is None
        again = reference.dense_layer(recorded.activation, layer.weight, layer.geometry)
        np.testing.assert_array_equal(again, recorded.output)
        return
    assert layer.gate is not None
    bits, encoding = layer.act.bits, Encoding.TWOS_COMPLEMENT if kind == "complement" else Encoding.SIGN_MAGNITUDE
    values = reference.gated_layer(
        recorded.activation, layer.weight, layer.geometry, encoding, bits, 2, layer.gate.threshold, GatePolicy.KEEP
    )
    np.testing.assert_array_equal(values.mask, recorded.mask)
    np.testing.assert_array_equal(values.a, recorded.output)
    assert 0 < int(recorded.mask.sum()) < recorded.mask.size


@pytest.mark.parametrize("kind", ["gated", "complement", "dense"])
def test_verify_and_run_take_the_trace(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "t.npz")
    assert command.run(arguments(folder, Path(path), kind)) == 0
    assert main(["verify", path]) == 0
    assert main(["run", path, "--hw", "predictivenet"]) == 0
    assert "recurrence" in capsys.readouterr().out


def test_the_metadata_say_what_was_measured_and_show_no_word(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, result = tmp_path / "t.npz", tmp_path / "r.json"
    assert command.run(arguments(folder, out, result=str(result))) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    model, made_with, history = read_language_model(folder / "gated.pt")
    measured = score(model, read_corpus(folder).test)
    info = load_trace(out).info
    assert info["perplexity"] == pytest.approx(measured.perplexity, abs=1e-4)
    assert info["evaluated_words"] == 79
    assert info["sparsity_percent"] == info["mac_sparsity_percent"] == pytest.approx(100 * measured.sparsity, abs=1e-3)
    assert info["b_avg_bits"]["gated_by_outputs"] == pytest.approx(4 - 2 * measured.sparsity, abs=1e-3)
    assert info["training"] == history
    assert info["epochs"] == 1
    assert f"perplexity {measured.perplexity:.2f} of 79 words" in captured.err
    assert set(info) <= {
        "model", "dataset", "samples", "recipe", "seed", "epochs", "made_by", "training", "perplexity",
        "evaluated_words", "sparsity_percent", "mac_sparsity_percent", "b_avg_bits", "checkpoint_sha256",
            "data_sha256",
    }  # fmt: skip
    assert info["samples"] == list(range(STEPS))
    with np.load(out) as archive:
        members = {name.removeprefix("000.") for name in archive.files}
        text = archive["meta"].tobytes().decode()
    assert members == {
        "meta", "meta_sha256", "activation", "weight", "weight_scale", "output", "mask", "threshold", "delta",
    }  # fmt: skip
    assert not any(f"word{k}" in text for k in range(23))
    (stored,) = load_results([result]).results
    assert (stored.network, stored.bits, stored.score) == ("lstm12", (4, 2), info["perplexity"])
    assert made_with.name == "gated"


def test_a_float_model_is_measured_without_a_trace(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "r.json"
    assert command.run(arguments(folder, tmp_path, "float", output=None, result=str(result))) == 0
    assert f"{result}: perplexity" in capsys.readouterr().err
    model, _, _ = read_language_model(folder / "float.pt")
    (one,) = load_results([tmp_path]).results
    assert one.score == pytest.approx(score(model, read_corpus(folder).test).perplexity, abs=1e-4)
    assert (one.method, one.bits, one.b_avg, one.finished) == (Method.FLOAT, None, {}, True)


def test_part_of_the_test_words_gives_no_perplexity_of_the_set(folder: Path, tmp_path: Path) -> None:
    assert (
        command.run(arguments(folder, tmp_path / "t.npz", evaluate=9, checkpoint=str(folder / "gated.weights.npz")))
        == 0
    )
    info = load_trace(tmp_path / "t.npz").info
    assert "perplexity" not in info
    assert info["evaluated_words"] == 9
    assert math.isfinite(info["perplexity_of_evaluated"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, r"--images must be in 1\.\.79, not 0"),
        ({"images": 80}, r"--images must be in 1\.\.79, not 80"),
        ({"evaluate": 80}, r"--evaluate must be in 1\.\.79, not 80"),
        ({"kind": "float"}, r"float\.pt must be of a quantised or gated cell for a trace, not of a float one"),
    ],
)
def test_wrong_options_are_refused(folder: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        command.run(arguments(folder, tmp_path / "t.npz", **changes))
    assert not (tmp_path / "t.npz").exists()


@pytest.mark.parametrize(("name", "value"), [("bias", 1e30), ("cell.input.bound", 1e300)])
def test_a_network_beyond_the_numbers_is_refused_in_one_line(
    folder: Path, tmp_path: Path, name: str, value: float
) -> None:
    model, made_with, history = read_language_model(folder / "gated.pt")
    state = model.state_dict()
    state[name].view(-1)[0] = value
    path = tmp_path / "w.npz"
    save_language_weights(path, state, made_with, model.vocabulary, history)
    for out in ({}, {"output": None, "result": str(tmp_path / "r.json")}):
        with pytest.raises(InputError) as caught:
            command.run(arguments(folder, tmp_path / "t.npz", checkpoint=str(path), **out))
        assert str(caught.value) == f"{path}: perplexity must be finite, not inf"
    assert [one.name for one in tmp_path.iterdir()] == ["w.npz"]


def test_a_corpus_of_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", vocab=np.array([f"w{k}" for k in range(30)]))
    with pytest.raises(InputError, match=r"ptb\.npz must have 23 words, as the model, not 30"):
        command.run(arguments(folder, tmp_path / "t.npz", data=str(other)))


def test_a_file_tells_whether_it_holds_a_language_model(folder: Path, tmp_path: Path) -> None:
    assert is_language_model(folder / "gated.pt")
    assert is_language_model(folder / "gated.weights.npz")
    synthetic.write_weights(tmp_path / "w.npz", 1)
    assert not is_language_model(tmp_path / "w.npz")
    torch.save({"format": 1, "recipe": synthetic.RECIPE}, tmp_path / "image.pt")
    assert not is_language_model(tmp_path / "image.pt")
