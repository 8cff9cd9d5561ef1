"""Checkpoints and weights of others, hand-made or damaged: one line that names the file and what is odd, no traceback.

Each family (ResNet, language model, ShuffleNet) has a run of one epoch of two: all parts of its files are there.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.train import loop  # noqa: E402
from pgsim.train.checkpoint import load_checkpoint, load_tensors  # noqa: E402
from pgsim.train.data import read_train  # noqa: E402
from pgsim.train.language.corpus import read_corpus  # noqa: E402
from pgsim.train.language.loop import LanguageRun, train_language  # noqa: E402
from pgsim.train.language.recipe import language_recipe_text  # noqa: E402
from pgsim.train.language.weights import load_language_checkpoint, read_language_model  # noqa: E402
from pgsim.train.recipe import recipe_text  # noqa: E402
from pgsim.train.shufflenet import loop as shufflenet_loop  # noqa: E402
from pgsim.train.shufflenet.network import ShuffleNetV2  # noqa: E402
from pgsim.train.shufflenet.recipe import parse_shufflenet_recipe, shufflenet_recipe_text  # noqa: E402
from pgsim.train.shufflenet.weights import load_shufflenet_checkpoint, read_shufflenet, read_trunk  # noqa: E402
from pgsim.train.weights import read_network, save_weights  # noqa: E402
from tests.train import tiny_corpus  # noqa: E402
from tests.train.synthetic import recipe, write_folder  # noqa: E402
from tests.train.test_shufflenet import drawn, write_trunk  # noqa: E402
from tests.train.test_shufflenet_training import FLOAT  # noqa: E402

SHUFFLENET = (
    FLOAT.replace("tiny_float", "shuffle").replace("gated: float", "gated: all") + "act_bits: 6\npred_bits: 4\n"
)
LOAD: dict[str, Callable[[Path], Any]] = {
    "image": load_checkpoint,
    "language": load_language_checkpoint,
    "shuffle": load_shufflenet_checkpoint,
}
READ: dict[str, Callable[[Path], Any]] = {
    "image": read_network,
    "language": read_language_model,
    "shuffle": read_shufflenet,
}
KEPT = {"image": "averaged", "language": "best", "shuffle": "best"}
"""The state dict of a family's checkpoint that its reader takes."""
SOME = {"image": "stem.weight", "language": "embedding.weight", "shuffle": "first_conv.0.weight"}
"""A family's first array."""
FAMILIES = tuple(LOAD)
Change = Callable[[dict[str, Any], str], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data folders, with FAMILY.pt, FAMILY.weights.npz and FAMILY.yaml of each family's run in `runs`."""
    path = write_folder(tiny_corpus.write_corpus(tmp_path_factory.mktemp("data")))
    write_trunk(path / "trunk.npz", drawn())
    runs = path / "runs"
    runs.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CALIBRATION_IMAGES", 4)
        patch.setattr(loop, "EPOCH_BN_BATCHES", 1)
        patch.setattr(shufflenet_loop, "CALIBRATION_IMAGES", 2)
        patch.setattr(shufflenet_loop, "THRESHOLD_STEPS", 0)
        image = loop.Run(recipe(name="image", teacher="''", distill_weight=0.0), path, runs, read_train(path))
        image.start(path)
        assert not loop.train(image, runs, lambda _: None, lambda: image.step >= 4)
        save_weights(runs / "image.weights.npz", image.averaged, image.recipe, {"step": 4, "finished": False})
        words = LanguageRun(tiny_corpus.recipe(name="language"), read_corpus(path))
        words.start(runs, path)
        assert not train_language(words, runs, lambda _: None, lambda: words.step >= 17)
        shuffle = shufflenet_loop.ShuffleNetRun(parse_shufflenet_recipe(SHUFFLENET, "s.yaml"), read_train(path))
        shuffle.start(runs, path)
        assert not shufflenet_loop.train_shufflenet(shuffle, runs, lambda _: None, lambda: shuffle.step >= 2)
    (runs / "image.yaml").write_text(recipe_text(image.recipe))
    (runs / "language.yaml").write_text(language_recipe_text(words.recipe))
    (runs / "shuffle.yaml").write_text(shufflenet_recipe_text(shuffle.recipe))
    return path


def refused(reader: Callable[[Path], Any], path: Path, message: str) -> None:
    with pytest.raises(InputError) as caught:
        reader(path)
    assert re.fullmatch(rf"{re.escape(str(path))}{message}", str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def changed(folder: Path, out: Path, family: str, change: Change) -> Path:
    """Write a family's checkpoint into `out` after `change`, which takes its values and the reader's state dict."""
    values = torch.load(folder / "runs" / f"{family}.pt", weights_only=True)
    change(values, KEPT[family])
    torch.save(values, out / f"{family}.pt")
    return out / f"{family}.pt"


def without(*keys: str) -> Change:
    return lambda values, _: [values.pop(key) for key in keys]


def become(**new: object) -> Change:
    return lambda values, _: values.update(new)


def in_state(name: str, new: Callable[[Any], object]) -> Change:
    """Change what the reader's state dict has at the first name that ends so."""

    def change(values: dict[str, Any], kept: str) -> None:
        found = next(key for key in values[kept] if key.endswith(name))
        values[kept][found] = new(values[kept][found])

    return change


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("recipe"), ": recipe must be given, not missing"),
        (become(recipe=5), ": recipe must be text, not 5"),
        (become(recipe=None), ": recipe must be text, not None"),
        (become(recipe=[1]), r": recipe must be text, not \[1\]"),
        (without("step"), ": step must be given, not missing"),
        (become(step="a"), ": step must be a whole number from 0, not 'a'"),
        (become(step=-1), ": step must be a whole number from 0, not -1"),
        (become(step=True), ": step must be a whole number from 0, not true"),
        (become(finished=1), ": finished must be True or False, not 1"),
        (become(model=[1]), r": model must be a mapping, not \[1\]"),
        (become(model={}), r": model must hold exactly the arrays of \w+, not differ in '.*'"),
        (lambda values, kept: values.update({kept: [1]}), r": (averaged|best) must be a mapping, not \[1\]"),
        (in_state("weight", lambda w: w[:1]), r": (averaged|best): \S+weight must be \[.*\], not \[1, .*\]"),
        (in_state("weight", lambda w: w * np.nan), r": (averaged|best): \S+ must be finite, not hold NaN or infinity"),
        (in_state("weight", lambda w: w.long()), r": (averaged|best): \S+ must be real numbers, not int64"),
        (in_state("weight", lambda w: w.to_sparse()), r": (averaged|best): \S+ must be a plain tensor, not a sparse.*"),
        (in_state("delta", lambda d: 1), r": (averaged|best): \S+delta must be a tensor, not 1"),
        (lambda values, kept: values[kept].update(more=1), r": (averaged|best) must hold .*, not differ in 'more'"),
        (become(optimiser={}), ": optimiser: state must be given, not missing"),
        (become(optimiser=[]), r": optimiser must be a mapping, not \[\]"),
        (without("targets"), ": targets must be .*"),
        (become(targets={"a": 1}), ": targets must .*"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_recipe_is_refused(
    folder: Path, tmp_path: Path, family: str, change: Change, message: str
) -> None:
    path = changed(folder, tmp_path, family, change)
    refused(LOAD[family], path, message)
    refused(READ[family], path, message)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("image", become(averaged={}), r": averaged must hold exactly the arrays of image, not differ in '.*'"),
        ("image", in_state("alpha", torch.zeros_like), r": averaged: pact\.alpha must be 1e-30 or more, not 0"),
        ("image", in_state("alpha", lambda a: -a), r": averaged: pact\.alpha must be 1e-30 or more, not -.*"),
        ("image", in_state("running_var", lambda v: -v), r": averaged: bn\.running_var must be 0 or more, not -.*"),
        ("image", become(epoch_so_far=(1.0,)), r": epoch_so_far must be two finite numbers, not .*"),
        ("image", become(epoch_so_far=3), ": epoch_so_far must be a tuple, not 3"),
        ("language", in_state("bound", torch.zeros_like), r": best: cell\.input\.bound must be 1e-30 or more, not 0"),
        (
            "language",
            become(vocabulary=10**9),
            r": model: embedding\.weight must be \[1000000000, 12\], not \[23, 12\]",
        ),
        ("language", become(state=()), r": state must be two tensors \(h and c\), not 0"),
        ("language", become(targets=None), ": targets must be there for a gated cell, and for no other, not .*"),
        ("language", become(loss=np.nan), ": loss must be a finite number, not nan"),
        ("language", become(best_history={}), ": best_history: epoch must be given, not missing"),
        ("language", become(best={}), ": best must be the state of epoch 1, not empty"),
        ("shuffle", in_state("alpha", torch.zeros_like), r": best: \S+\.alpha must be 1e-30 or more, not 0"),
        (
            "shuffle",
            become(best_history={"epoch": 1, "held_out_accuracy": "high"}),
            ": best_history: held_out_accuracy must be a finite number, not 'high'",
        ),
        (
            "shuffle",
            become(best_history={"epoch": 1, "held_out_accuracy": 0.5, "x": torch.zeros(2)}),
            ": best_history must be plain numbers, words and lists, not others",
        ),
    ],
)
def test_what_only_one_family_keeps_is_checked_too(
    folder: Path, tmp_path: Path, family: str, change: Change, message: str
) -> None:
    refused(READ[family], changed(folder, tmp_path, family, change), message)


def group(key: str, new: object) -> Change:
    return lambda values, _: values["optimiser"]["param_groups"][0].update({key: new})


def first_entry(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda values, _: change(values["optimiser"]["state"][0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (become(optimiser={"state": {}}), r"param_groups must be a list of 2 mappings, not None"),
        (lambda values, _: values["optimiser"].update(param_groups=[]), r"param_groups must be .*, not \[\]"),
        (lambda values, _: values["optimiser"].update(state={}), r"state must be that of \d+ parameters, not empty"),
        (
            lambda values, _: values["optimiser"]["state"].update(x={}),
            "state must be that of parameters 0.*, not of 'x'",
        ),
        (group("params", [0]), r"param_groups\[0\]: params must be .*, not \[0\]"),
        (group("weight_decay", None), r"param_groups\[0\]: weight_decay must be \S+, not None"),
        (first_entry(lambda entry: entry.clear()), r"state\[0\] must hold \[.*\], not \[\]"),
        (
            first_entry(lambda entry: entry.update(dict.fromkeys(entry, torch.zeros(1, 2)))),
            r"state\[0\]: \w+ must be \[.*\], not \[1, 2\]",
        ),
        (
            first_entry(lambda entry: entry.update({key: value * np.nan for key, value in entry.items()})),
            r"state\[0\]: \w+ must be finite, not hold NaN or infinity",
        ),
    ],
)
def test_an_optimisers_state_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, family: str, change: Change, message: str
) -> None:
    refused(LOAD[family], changed(folder, tmp_path, family, change), f": optimiser: {message}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "change",
    [
        lambda values, kept: values[kept].pop(next(iter(values[kept]))),
        lambda values, _: values["optimiser"]["state"][0].clear(),
        without("model"),
    ],
)
def test_resuming_from_it_is_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, family: str, change: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(folder, tmp_path, family, change)
    before = path.read_bytes()
    command = ["train", str(folder / "runs" / f"{family}.yaml"), "--data", str(folder), "--out", str(tmp_path)]
    assert main([*command, "--device", "cpu", "--resume"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pgsim: error: {path}: ")
    assert path.read_bytes() == before


def test_a_checkpoint_beyond_the_runs_last_step_is_not_resumed(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path, "image", become(step=9))
    run = loop.Run(load_checkpoint(path).recipe, folder, tmp_path, read_train(folder))
    refused(run.restore, path, ": step must be at most 8, the last one on these data, not 9")


@pytest.mark.parametrize("value", [5, {"format": torch.zeros(2)}, {"format": None}, {"model": 1}])
def test_other_values_are_no_checkpoint(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "x.pt")
    refused(load_tensors, tmp_path / "x.pt", r" must be a checkpoint of pgsim train \(format 1\), not another file")


def test_a_pickle_of_another_protocol_is_refused_without_torchs_warning(tmp_path: Path) -> None:
    torch.save({"format": 1, "code": Path}, tmp_path / "x.pt", pickle_protocol=4)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        refused(load_tensors, tmp_path / "x.pt", " must be a checkpoint of pgsim train, not UnpicklingError")
    assert seen == []


def rewritten(folder: Path, out: Path, family: str, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """Write a family's weights into `out` after `change`, which takes its arrays and its meta."""
    arrays = dict(np.load(folder / "runs" / f"{family}.weights.npz"))
    meta = json.loads(arrays.pop("meta").tobytes())
    change(arrays, meta)
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(out / f"{family}.npz", **{"meta": text, **arrays})
    return out / f"{family}.npz"


REAL = "must be real numbers, not"


@pytest.mark.parametrize(
    ("family", "name", "new", "message"),
    [
        *((family, name, lambda a: np.full(a.shape, "x"), f"{REAL} <U1") for family, name in SOME.items()),
        *((family, name, lambda a: a.astype(complex), f"{REAL} complex128") for family, name in SOME.items()),
        *((family, name, lambda a: a.astype(np.int8), f"{REAL} int8") for family, name in SOME.items()),
        *((f, name, lambda a: np.full(a.shape, 1e300), "must be finite, not .*") for f, name in SOME.items()),
        *((family, name, lambda a: a[:1], r"must be \[.*\], not \[1, .*\]") for family, name in SOME.items()),
        ("image", "pact.alpha", np.zeros_like, "must be 1e-30 or more, not 0"),
        ("image", "pact.alpha", np.negative, "must be 1e-30 or more, not -.*"),
        ("shuffle", "features.alpha", np.zeros_like, "must be 1e-30 or more, not 0"),
        ("shuffle", "features.alpha", np.negative, "must be 1e-30 or more, not -.*"),
        ("language", "cell.input.bound", np.zeros_like, "must be 1e-30 or more, not 0"),
        ("image", "pact.alpha", lambda a: np.full_like(a, 1e-44), "must be 1e-30 or more, not .*"),
        ("image", "bn.running_var", np.negative, "must be 0 or more, not -.*"),
        ("shuffle", "first_conv.1.running_var", np.negative, "must be 0 or more, not -.*"),
    ],
)
def test_arrays_that_are_no_weights_are_refused(
    folder: Path, tmp_path: Path, family: str, name: str, new: Callable[[Any], Any], message: str
) -> None:
    path = rewritten(folder, tmp_path, family, lambda arrays, _: arrays.update({name: new(arrays[name])}))
    refused(READ[family], path, f": {re.escape(name)} {message}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "change",
    [
        lambda _, meta: meta.update(recipe=5),
        lambda _, meta: meta.update(recipe=None),
        lambda _, meta: meta.pop("recipe"),
        lambda _, meta: meta.update(history=5),
        lambda _, meta: meta.update(history=[["a", 1]]),
        lambda arrays, _: arrays.update(meta=np.frombuffer(b"[" * 100_000, np.uint8)),
        lambda arrays, _: arrays.update(meta=np.array("x")),
        lambda arrays, _: arrays.update(meta=np.frombuffer(b"[1]", np.uint8)),
    ],
)
def test_a_meta_that_is_not_pgsim_trains_is_refused(
    folder: Path, tmp_path: Path, family: str, change: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    path = rewritten(folder, tmp_path, family, change)
    refused(READ[family], path, "(: meta must be the JSON .*, not something else| must hold weights of .*)")
    assert main(["trace", "--checkpoint", str(path), "--data", str(folder), "-o", str(tmp_path / "t.npz")]) == 2


@pytest.mark.parametrize("family", ["language", "shuffle"])
def test_weights_of_another_network_are_no_resnets(folder: Path, family: str) -> None:
    message = r" must hold weights of a ResNet or ShiftNet \(pgsim-weights-1\), not of another network \('pgsim-.*'\)"
    refused(read_network, folder / "runs" / f"{family}.weights.npz", message)


@pytest.mark.parametrize("vocabulary", [10**9, 22])
def test_the_words_of_a_language_models_meta_are_those_of_its_arrays(
    folder: Path, tmp_path: Path, vocabulary: int
) -> None:
    path = rewritten(folder, tmp_path, "language", lambda _, meta: meta.update(vocabulary=vocabulary))
    refused(READ["language"], path, rf": embedding\.weight must be \[{vocabulary}, 12\], not \[23, 12\]")


def test_a_trunk_of_text_is_refused(folder: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(folder / "trunk.npz"))
    text = np.full(arrays["first_conv.1.bias"].shape, "x")
    np.savez(tmp_path / "text.npz", **{**arrays, "first_conv.1.bias": text})
    message = r": first_conv\.1\.bias must be real numbers, not <U1"
    refused(lambda path: read_trunk(ShuffleNetV2(), path), tmp_path / "text.npz", message)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_and_the_other_byte_order_are_weights_still(folder: Path, tmp_path: Path, family: str) -> None:
    def change(arrays: dict[str, Any], _: dict[str, Any]) -> None:
        arrays[SOME[family]] = arrays[SOME[family]].astype(np.float16).astype(">f8")

    state = READ[family](rewritten(folder, tmp_path, family, change))[0].state_dict()
    plain = np.load(folder / "runs" / f"{family}.weights.npz")[SOME[family]].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(state[SOME[family]].numpy(), plain)
    assert state[SOME[family]].dtype == torch.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_reads_back_as_it_was_written(folder: Path, family: str) -> None:
    path = folder / "runs" / f"{family}.pt"
    draw = torch.get_rng_state()
    kept = LOAD[family](path)
    assert torch.equal(torch.get_rng_state(), draw)
    raw = torch.load(path, weights_only=True)
    for key in ("model", KEPT[family]):
        state = getattr(kept, key)
        assert state.keys() == raw[key].keys()
        assert all(torch.equal(state[name], raw[key][name]) for name in state)
    assert kept.step == raw["step"]
    assert READ[family](path)[2]["finished"] is False


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_goes_on_from_a_checkpoint_that_fits(folder: Path, tmp_path: Path, family: str) -> None:
    for ending in (".pt", ".jsonl"):
        shutil.copy(folder / "runs" / f"{family}{ending}", tmp_path)
    command = ["train", str(folder / "runs" / f"{family}.yaml"), "--data", str(folder), "--out", str(tmp_path)]
    assert main([*command, "--device", "cpu", "--resume", "--minutes", "1e-9"]) == 0
    assert LOAD[family](tmp_path / f"{family}.pt").step == LOAD[family](folder / "runs" / f"{family}.pt").step + 1
