"""Recipes: what is read, and what is refused with which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.cli.main import main  # noqa: E402
from pgsim.errors import InputError  # noqa: E402
from pgsim.nn import QuantConv2d  # noqa: E402
from pgsim.paper.claims import TABLES  # noqa: E402
from pgsim.paper.stored import load_results, write_result  # noqa: E402
from pgsim.paper.tables import rows  # noqa: E402
from pgsim.train.any_recipe import parse_any_recipe  # noqa: E402
from pgsim.train.language.model import build_model  # noqa: E402
from pgsim.train.language.recipe import LanguageRecipe, language_recipe_text  # noqa: E402
from pgsim.train.network import build_network  # noqa: E402
from pgsim.train.recipe import find_recipe, parse_recipe, recipe_text, shipped_recipes  # noqa: E402
from pgsim.train.shufflenet.recipe import ShuffleNetRecipe  # noqa: E402
from pgsim.train.shufflenet.weights import build_shufflenet  # noqa: E402
from tests.train.synthetic import RECIPE, recipe  # noqa: E402


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_carry_their_file_name(name: str) -> None:
    assert parse_any_recipe(*find_recipe(name)).name == name


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_network_of_a_shipped_recipe_can_be_built(name: str) -> None:
    found = parse_any_recipe(*find_recipe(name))
    if isinstance(found, LanguageRecipe):
        assert build_model(found, 20).cell.hidden_size == found.hidden_units
        return
    if isinstance(found, ShuffleNetRecipe):
        convolutions = [m for m in build_shufflenet(found).modules() if isinstance(m, torch.nn.Conv2d | QuantConv2d)]
        assert len(convolutions) == 56  # stem, 16 blocks of 3, two more in 3 of them, the last
        return
    net = build_network(found)
    assert len(net.blocks) == {"resnet20": 9, "resnet32": 15, "resnet56": 27, "shiftnet20": 9}[found.network]
    assert len(net.gated_convs()) == {"none": 0, "release": 1, "all": 2}[found.gating] * len(net.blocks)


BASE = "resnet20_3-2_short"
BASED = [name for name in shipped_recipes() if f"base: {BASE}" in find_recipe(name)[0]]


@pytest.mark.parametrize("name", BASED)
def test_baselines_have_the_budget_of_what_they_are_compared_with(name: str) -> None:
    found, base = parse_recipe(*find_recipe(name)), parse_recipe(*find_recipe(BASE))
    held = [] if "_free" in name else ["hold_epochs"]  # what is free is held by nothing
    for field in (
        "epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "warmup_steps", "sigma", *held,
        "start_scope", "teacher", "distill_weight", "temperature", "views", "ema_decay", "holdout", "seed",
    ):  # fmt: skip
        assert getattr(found, field) == getattr(base, field), field
    assert found.float_weights == f"{found.network}_cifar10.npz"


def test_the_tables_rows_of_resnets_and_the_lstm_have_a_recipe_each(tmp_path: Path) -> None:
    """A run of every recipe, with the sparsity that it holds, would leave no row empty but the float ResNets'."""
    for name in shipped_recipes():
        found = parse_any_recipe(*find_recipe(name))
        if isinstance(found, ShuffleNetRecipe):
            continue
        if isinstance(found, LanguageRecipe):
            info = {"recipe": language_recipe_text(found), "model": "lstm300", "dataset": "", "perplexity": 100.0}
            held, gated = found.start_sparsity, found.cell == "gated"
        else:
            info = {"recipe": recipe_text(found), "model": found.network, "dataset": "CIFAR-10 test", "top1": 90.0}
            held, gated = found.hold_sparsity, found.gating != "none"
        gating = {"sparsity_percent": 100 * held, "mac_sparsity_percent": 100 * held}
        info |= {"epochs": found.epochs, "seed": found.seed, **(gating if gated else {})}
        write_result(tmp_path / f"{name}.json", info)
    results = load_results([tmp_path]).results
    assert len(BASED) == 55
    empty = [
        (row.claim.table, row.claim.method.value)
        for table in TABLES
        for row in rows(results, table)
        if row.ours is None and row.claim.network.startswith(("resnet", "lstm"))
    ]
    assert sorted(set(empty)) == [(1, "float"), (7, "float")]


def test_a_base_gives_what_the_file_does_not() -> None:
    base = parse_recipe(*find_recipe(BASE))
    mine = parse_recipe(f"base: {BASE}\nname: mine\nact_bits: 4\npred_bits: 3\nseed: 7\n", "here")
    assert mine == dataclasses.replace(base, name="mine", act_bits=4, pred_bits=3, seed=7)
    assert "base" not in recipe_text(mine)
    model = parse_any_recipe("base: ptb_lstm_4-2\nname: short\nepochs: 1\n", "here")
    assert isinstance(model, LanguageRecipe)
    assert (model.name, model.epochs, model.hidden_units) == ("short", 1, 300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nonsense\nname: x", r"base must be a recipe that pgsim ships \(pgsim train --list\), not 'nonsense'"),
        ("base: [a]\nname: x", r"base must be a recipe that pgsim ships \(pgsim train --list\), not a list of 1"),
        (
            "base: resnet20_8_uq\nname: x",
            r"base must be a recipe without a base, not resnet20_8_uq \(base: resnet20_3-2_short\)",
        ),
        (f"base: {BASE}\nact_bits: 4", "name must be given, not missing"),
        (
            f"base: {BASE}\nname: x\ngating: none\npred_bits: 3\nthresholds: fixed",
            "thresholds must be 'learned' .or left",
        ),
        (
            f"base: {BASE}\nname: x\ngating: none\npred_bits: 3\npolicy: zero",
            r"policy must be 'keep' \(or left out\) where",
        ),
        (
            f"base: {BASE}\nname: x\npolicy: seernet\nthresholds: fixed\ndelta_target: 1",
            "thresholds must be 'learned' where policy is 'seernet', not 'fixed'",
        ),
        (f"base: {BASE}\nname: x\nact_bits: 2", r"pred_bits must be in 1\.\.1, not 2"),
    ],
)
def test_a_wrong_base_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"here: {message}"):
        parse_any_recipe(text, "here")


def test_the_shipped_recipes_are_listed_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == shipped_recipes()
    words = {line.split()[0]: line.split(maxsplit=4)[1:] for line in lines[1:]}
    assert words["resnet20_3-2_fixed_-1_zero"] == ["resnet20", "3/2", "4", "Fix-Threshold -1, zeroed"]
    assert words["resnet56_8_uq"] == ["resnet56", "8", "4", "uniform quantisation"]
    assert words["resnet20_8_pact"][3] == "PACT"
    assert words["resnet20_6-4_seernet"][3] == "SeerNet, Sp near 52 %"
    assert words["resnet20_3-2_free"][3] == "PG, Sp from 80 %"
    assert "dense back-propagation" in words["resnet20_4-3_dense-bp"][3]
    assert "both convolutions" in words["resnet20_3-2_all"][3]
    assert words["ptb_lstm_4-2"] == ["lstm300", "4/2", "4", "PG, Sp near 50 %"]
    assert words["shufflenetv2_6-4_fixed_0_zero_cifar"] == ["shufflenetv2_x0.5", "6/4", "3", "Fix-Threshold 0, zeroed"]
    assert words["shufflenetv2_5_uq_cifar"][1:] == ["5", "3", "uniform quantisation"]
    assert words["shufflenetv2_8-6_seernet_cifar"][3] == "SeerNet, Sp near 31 %"
    assert max(map(len, lines)) <= 120


def test_a_recipe_survives_being_written_and_read() -> None:
    first = recipe(epochs=9, rate_drops=[3, 6])
    assert parse_recipe(recipe_text(first), "again") == first


def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match=r"mine\.yaml:1: the recipe must be UTF-8 text, not byte 0xFF$"):
        find_recipe(str(path))


def test_a_path_goes_before_a_shipped_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    assert parse_recipe(*find_recipe(str(path))).name == "tiny"


def test_an_unknown_recipe_is_told_where_the_shipped_ones_are_listed() -> None:
    with pytest.raises(InputError, match=r"one that pgsim ships \(pgsim train --list\), not 'nonsense'$"):
        find_recipe("nonsense")
    with pytest.raises(InputError, match=r"not 'resnet20_8_pakt'; did you mean resnet20_8_pact or"):
        find_recipe("resnet20_8_pakt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_bits": 13}, "act_bits must be in 2..12, not 13"),
        ({"pred_bits": 3}, "pred_bits must be in 1..2, not 3"),
        ({"gating": "some"}, "gating must be 'release', 'all' or 'none', not 'some'"),
        ({"start_scope": "pixel"}, "start_scope must be 'network', 'layer' or 'channel', not 'pixel'"),
        ({"delta_target": "end"}, "delta_target must be a number or 'start', not 'end'"),
        ({"gating": "none"}, "pred_bits must be act_bits where gating is 'none', not 2"),
        ({"network": "resnet18"}, "network must be 'resnet20', 'resnet32', 'resnet56' or 'shiftnet20', not 'resnet18'"),
        ({"clip": "mean"}, "clip must be 'pact' or 'max', not 'mean'"),
        ({"policy": "drop"}, "policy must be 'keep', 'zero' or 'seernet', not 'drop'"),
        ({"thresholds": "fixed"}, "delta_target must be a number where thresholds are 'fixed', not 'start'"),
        ({"epochs": -1}, "epochs must be 0 or more, not -1"),
        ({"learning_rate": "fast"}, "learning_rate must be of type float, not 'fast'"),
        ({"sparse_bp": 1}, "sparse_bp must be of type bool, not 1"),
        ({"seed": "true"}, "seed must be of type int, not true"),
        ({"ema_decay": 1.5}, r"ema_decay must be in \[0, 1\], not 1.5"),
        ({"delta_target": ".nan", "thresholds": "fixed"}, "delta_target must be finite, not nan"),
        ({"learning_rate": ".inf"}, "learning_rate must be finite, not inf"),
        ({"name": "../x/y"}, r"name must be a file's name without folders, not '\.\./x/y'"),
        ({"name": "'..'"}, r"name must be a file's name without folders, not '\.\.'"),
        ({"rate_drops": 1}, "rate_drops must be a list of integers, not 1"),
        ({"rate_drops": [1, 2]}, r"rate_drops must be rising epochs in 1\.\.1, not \[1, 2\]"),
        ({"name": '"a\\0b"'}, r"name must be a file's name without folders, not 'a\\x00b'"),
        ({"name": "n" * 201}, "name must have at most 200 bytes, not 201"),
        ({"views": 1001}, "views must be at most 1000, not 1001"),
        ({"warmup_steps": 10**10}, "warmup_steps must be at most 1000000000 in magnitude, not 10000000000"),
        ({"delta_target": "1.0e+20", "thresholds": "fixed"}, "delta_target must be at most 1000000000 in magnitude"),
        ({"colour": 1}, "colour must be a recipe field .*, not an unknown key"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"tiny.yaml: {message}"):
        recipe(**changes)


def test_what_later_versions_added_may_be_left_out() -> None:
    first = recipe()
    assert (first.network, first.clip, first.thresholds, first.policy) == ("resnet20", "pact", "learned", "keep")
    assert recipe(gating="none", pred_bits=3).pred_bits == 3


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InputError, match="here: sigma must be given, not missing"):
        parse_recipe(RECIPE.replace("sigma: 0.001\n", ""), "here")


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"here:\d+: seed must be given once, not again \(first in line \d+\)"):
        parse_recipe(RECIPE + "seed: 4\n", "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", r"^here: the recipe must be a mapping of its fields, not \[1\]$"),
        ("", "^here: the recipe must hold keys, not nothing$"),
        ("a: [", "^here:1: the recipe must be valid YAML: "),
        ("seed: 010", r"^here:1: a number must be decimal without leading zeros .*, not 010$"),
        ("seed: " + "9" * 5000, "^here:1: a number must have at most 18 digits, not 5000$"),
        ("name: x\nseed: !!int 'abc'", "^here:2: the file must have no tags, not tag:yaml.org,2002:int$"),
        ("a: &a [1]\nb: [*a, *a]", "^here:1: the file must have no anchors, not &a$"),
        ("views: " + "[" * 3000, "^here:1: the file must have no more than 16 levels, not deeper nesting$"),
        ("? [a]\n: 1", "^here:1: a key must be text, not a list or a mapping$"),
        (f"base: {BASE}\nname: x\nepochs: 1:30", "^here: epochs must be of type int, not '1:30'$"),
        (f"base: {BASE}\nname: x\nseed: 2020-13-45", "^here: seed must be of type int, not '2020-13-45'$"),
    ],
)
def test_yaml_that_says_something_else_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_any_recipe(text, "here")


def test_a_number_may_be_written_with_an_exponent() -> None:
    assert recipe(learning_rate="1e-2").learning_rate == 0.01


def test_a_number_is_a_valid_penalty_target() -> None:
    assert recipe(delta_target=2).delta_target == 2.0
