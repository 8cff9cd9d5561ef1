"""Runs stand beside the row of the paper that they belong to, and are judged by what the paper counts."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgsim.errors import InputError
from pgsim.paper.claims import CIFAR, PTB, Method
from pgsim.paper.stored import LEFT_OUT, LeftOut, Result, load_results, write_result
from pgsim.paper.tables import rows, unplaced

ROOT = Path(__file__).parents[2]
RUN = Result(
    network="resnet20", dataset=CIFAR, method=Method.PG, bits=(3, 2), gating="release", threshold=None, policy="keep",
    sparsity=90.0, mac_sparsity=91.0, b_avg={"gated_by_outputs": 2.1, "all_by_macs": 2.6}, score=91.0, epochs=14,
    seed=1, source="a.npz", digest="d",
)  # fmt: skip


def of(results: list[Result], table: int) -> list[tuple[str, float | None, tuple[Result, ...]]]:
    """Method, the paper's sparsity and our runs of each row of ResNet-20 (or the LSTM)."""
    found = rows(results, table)
    return [
        (row.claim.method.value, row.claim.sparsity, row.ours.results if row.ours else ())
        for row in found
        if row.claim.network in ("resnet20", "lstm300")
    ]


def test_a_run_stands_at_its_own_row_and_nowhere_else() -> None:
    assert [row for row in of([RUN], 1) if row[2]] == [("PG", 90.1, (RUN,))]
    assert [row for row in of([RUN], 4) if row[2]] == [("PG", 90.1, (RUN,))]
    assert [row for table in (2, 3, 5, 7) for row in of([RUN], table) if row[2]] == []
    for other in (
        replace(RUN, network="resnet32"),
        replace(RUN, dataset="CIFAR-100"),
    ):
        assert [row for row in of([other], 1) if row[2]] == []


def test_bits_that_the_paper_does_not_have_get_a_row_of_their_own_in_the_networks_table() -> None:
    uniform = {"gating": "none", "sparsity": None}
    pact = replace(RUN, method=Method.PACT, bits=(3, 3), **uniform)
    uq = replace(pact, method=Method.UQ)
    gated = replace(RUN, bits=(4, 2))
    fixed = replace(RUN, method=Method.FIX_THRESHOLD, bits=(3, 2), threshold=-3.0)
    runs = [pact, uq, gated, fixed, replace(pact, network="resnet56")]
    found = [row for row in rows(runs, 1) if row.claim.network == "resnet20"]
    own = [row for row in found if row.ours]
    assert [(row.claim.method, row.claim.bits) for row in own] == [
        (Method.PG, (4, 2)), (Method.FIX_THRESHOLD, (3, 2)), (Method.UQ, (3, 3)), (Method.PACT, (3, 3)),
    ]  # fmt: skip
    for row in own:
        assert (row.claim.score, row.claim.sparsity, row.claim.b_avg) == (None, None, None)
        assert row.reached is row.score_difference is row.paper_change is None
        assert row.deviations == ()
    uniform_bits = [row.claim.bits[0] for row in found if row.claim.method is Method.PACT and row.claim.bits]
    assert uniform_bits == [8, 4, 3, 2]
    (other,) = (row for row in rows(runs, 7) if row.ours)
    assert (other.claim.network, other.claim.method) == ("resnet56", Method.PACT)
    assert [row for table in (2, 3, 4, 5) for row in rows(runs, table) if row.ours] == []
    assert unplaced(runs) == []


@pytest.mark.parametrize(
    "change",
    [{"setting": "other"}, {"gating": "all"}, {"policy": "zero"}, {"epochs": 5}, {"finished": False}],
    ids=lambda change: next(iter(change)),
)
def test_runs_of_several_recipes_stand_below_each_other(change: dict[str, Any]) -> None:
    other = replace(RUN, **change)
    assert [row[2] for row in of([RUN, other], 1) if row[2]] == [(RUN,), (other,)]


def test_runs_of_several_seeds_stand_in_one_row_with_mean_and_sample_deviation() -> None:
    third = replace(RUN, seed=3, score=92.0, sparsity=92.0, mac_sparsity=93.0, b_avg={"gated_by_outputs": 2.08})
    second = replace(RUN, seed=2, score=90.0, sparsity=88.0, mac_sparsity=89.0, b_avg={"gated_by_outputs": 2.12})
    (row,) = (row for row in rows([third, RUN, second], 1) if row.ours)
    assert row.ours is not None
    assert (row.ours.count, row.ours.seeds) == (3, (1, 2, 3))
    assert (row.ours.score, row.ours.score_spread) == (pytest.approx(91.0), pytest.approx(1.0))
    assert (row.ours.sparsity, row.ours.sparsity_spread) == (pytest.approx(90.0), pytest.approx(2.0))
    assert row.ours.mac_sparsity == pytest.approx(91.0)
    assert row.ours.b_avg == {"gated_by_outputs": pytest.approx(2.1)}  # by MACs one of them does not tell
    assert row.score_difference == pytest.approx(91.0 - 91.2)


def test_a_form_of_a_network_for_another_data_set_stands_behind_it_without_the_papers_figures() -> None:
    gated = replace(RUN, network="shufflenetv2_x0.5_cifar", bits=(6, 4), sparsity=57.2, score=80.0)
    plain: dict[str, Any] = {"gating": "none", "sparsity": None, "bits": (6, 6)}
    runs = [
        gated,
        replace(gated, method=Method.PACT, **plain),
        replace(gated, method=Method.SEERNET, bits=(8, 6), policy="seernet"),
        replace(gated, method=Method.FLOAT, **{**plain, "bits": None}, score=82.0),
    ]
    found = rows(runs, 1)
    networks = list(dict.fromkeys(row.claim.network for row in found))
    assert networks[-2:] == ["shufflenetv2_x0.5", "shufflenetv2_x0.5_cifar"]
    own = [row for row in found if row.ours]
    assert [row.claim.method for row in own] == [Method.FLOAT, Method.PG, Method.SEERNET, Method.PACT]
    assert {row.claim.network for row in own} == {"shufflenetv2_x0.5_cifar"}
    assert [row.our_change for row in own] == [None, -2.0, -2.0, -2.0]
    for row in own:
        assert row.claim.score is row.claim.sparsity is row.claim.b_avg is row.reached is row.paper_change is None
    assert unplaced(runs) == []
    assert [row for table in (2, 3, 4, 5, 7) for row in rows(runs, table) if row.ours] == []
    elsewhere = replace(gated, dataset="CIFAR-100")
    assert [runs.results for runs in unplaced([elsewhere])] == [(elsewhere,)]
    assert [row for row in rows([elsewhere], 1) if row.ours] == []


def test_one_run_has_no_spread_and_none_that_is_not_gated_a_sparsity() -> None:
    (row,) = (row for row in rows([RUN], 1) if row.ours)
    assert row.ours is not None
    assert row.ours.score_spread is row.ours.sparsity_spread is None
    dense = [
        replace(RUN, method=Method.UQ, bits=(4, 4), sparsity=None, mac_sparsity=None, b_avg={}, seed=n) for n in (1, 2)
    ]
    (row,) = (row for row in rows(dense, 1) if row.ours)
    assert row.ours is not None
    assert row.ours.sparsity is row.ours.mac_sparsity is row.ours.sparsity_spread is None
    assert row.ours.score_spread == 0


def test_all_seeds_of_a_recipe_stand_at_the_row_that_is_nearest_to_their_mean() -> None:
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), score=109.0)
    runs = [replace(lstm, seed=1, sparsity=50.0), replace(lstm, seed=2, sparsity=55.0)]
    assert [(row[1], len(row[2])) for row in of(runs, 5) if row[2]] == [(54.9, 2)]


def test_of_two_rows_of_the_same_bits_the_nearer_sparsity_is_taken() -> None:
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), sparsity=50.0, score=109.0)
    assert [row[:2] for row in of([lstm], 5) if row[2]] == [("PG", 48.4)]
    assert [row[:2] for row in of([replace(lstm, sparsity=53.0)], 5) if row[2]] == [("PG", 54.9)]


def test_a_fixed_threshold_goes_to_its_row_of_table_3_and_seernet_to_table_2() -> None:
    fixed = replace(RUN, method=Method.FIX_THRESHOLD, threshold=-1.0)
    assert [row[:2] for row in of([fixed], 3) if row[2]] == [("Fix-Threshold", 35.2)]
    seernet = replace(RUN, method=Method.SEERNET, bits=(6, 4), policy="seernet")
    assert [row for row in of([seernet], 2) if row[2]] == [("SeerNet", 51.1, (seernet,))]
    assert [row for row in of([replace(RUN, bits=(6, 4))], 2) if row[2]] == []
    assert [row for table in (1, 3, 4) for row in of([seernet], table) if row[2]] == []


def test_seernet_pays_for_an_updated_output_in_full_and_precision_gating_for_the_rest(tmp_path: Path) -> None:
    recipe = RECIPE.replace("act_bits: 3", "act_bits: 6").replace("pred_bits: 2", "pred_bits: 4")
    for name, policy, bits in (("a", "seernet", 4 + 0.25 * 6), ("b", "keep", 4 + 0.25 * 2)):
        path = tmp_path / f"{name}.json"
        write_result(path, {**INFO, "recipe": f"{recipe}policy: {policy}\n", "sparsity_percent": 75.0})
        (one,) = load_results([path]).results
        assert one.b_avg["gated_by_outputs"] == pytest.approx(bits)


@pytest.mark.parametrize(
    ("score", "sparsity", "reached"),
    [(90.71, 90.1, True), (90.69, 90.1, False), (92.0, 84.2, True), (92.0, 84.0, False), (90.8, 99.0, True)],
)
def test_bounds_of_an_accuracy(score: float, sparsity: float, reached: bool) -> None:
    (row,) = (row for row in rows([replace(RUN, score=score, sparsity=sparsity)], 1) if row.ours)
    assert row.reached is reached
    assert row.score_difference == pytest.approx(score - 91.2)


@pytest.mark.parametrize(
    ("score", "sparsity", "reached"),
    [(74.6, 76.9, True), (74.8, 71.0, False), (73.6, 71.0, False), (74.2, 77.1, False), (74.2, 64.9, False)],
)
def test_a_baseline_that_does_better_than_the_papers_is_not_within_bounds(
    score: float, sparsity: float, reached: bool
) -> None:
    fixed = replace(RUN, method=Method.FIX_THRESHOLD, threshold=1.0, score=score, sparsity=sparsity)
    (row,) = (row for row in rows([fixed], 1) if row.ours)
    assert (row.claim.score, row.claim.sparsity) == (74.2, 71.0)
    assert row.reached is reached


def test_changes_are_from_the_float_network_of_each_side() -> None:
    given = replace(RUN, method=Method.FLOAT, bits=None, score=92.0, setting="given", sparsity=None, b_avg={})
    by_method = {row.claim.method: row for row in rows([RUN, given], 1) if row.ours}
    assert by_method[Method.PG].paper_change == pytest.approx(91.2 - 91.7)
    assert by_method[Method.PG].our_change == pytest.approx(91.0 - 92.0)
    assert by_method[Method.FLOAT].paper_change is by_method[Method.FLOAT].our_change is None
    (alone,) = (row for row in rows([RUN], 1) if row.ours)
    assert alone.our_change is None
    (elsewhere,) = (row for row in rows([RUN, given], 4) if row.ours)  # whose floats stand in Table 1
    assert (elsewhere.our_change, elsewhere.paper_change) == (pytest.approx(-1.0), None)
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), sparsity=48.4, score=102.0)
    floats = replace(lstm, method=Method.FLOAT, bits=None, sparsity=None, score=100.0, setting="float")
    (row,) = (row for row in rows([floats, lstm, given], 5) if row.ours and row.claim.method is Method.PG)
    assert (row.our_change, row.paper_change) == (pytest.approx(2.0), pytest.approx(100 * (108.5 / 110.1 - 1)))


@pytest.mark.parametrize(("score", "reached"), [(110.6, True), (110.7, False), (100.0, True)])
def test_bounds_of_a_perplexity(score: float, reached: bool) -> None:
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), sparsity=48.4, score=score)
    (row,) = (row for row in rows([lstm], 5) if row.ours)
    assert row.reached is reached
    assert row.score_difference == pytest.approx(100 * (score / 108.5 - 1))


def test_shipped_traces_are_read_with_what_they_say() -> None:
    results = {Path(one.source).stem: one for one in load_results([ROOT / "traces"]).results}
    one = results["resnet20_3-2_release"]
    assert (one.method, one.bits, one.gating, one.dataset, one.epochs) == (Method.PG, (3, 2), "release", CIFAR, 14)
    assert one.score == pytest.approx(90.83)
    assert one.sparsity == pytest.approx(91.01, abs=0.005)
    assert one.b_avg["gated_by_outputs"] == pytest.approx(2 + (1 - one.sparsity / 100), abs=1e-4)
    assert len(one.digest) == 64


RECIPE = "act_bits: 3\npred_bits: 2\ngating: release\nsparse_bp: true\n"
INFO = {
    "model": "resnet20", "dataset": "CIFAR-10 test (x.npz)", "recipe": RECIPE, "top1": 90.0, "sparsity_percent": 91.0,
    "mac_sparsity_percent": 92.0, "epochs": 3, "seed": 5, "samples": [1], "labels": [2], "predictions": [3],
}  # fmt: skip


def test_a_written_result_is_read_back(tmp_path: Path) -> None:
    write_result(tmp_path / "r.json", INFO)
    (one,) = load_results([tmp_path]).results
    assert (one.score, one.sparsity, one.mac_sparsity, one.epochs, one.seed) == (90.0, 91.0, 92.0, 3, 5)
    assert one.b_avg == {"gated_by_outputs": pytest.approx(2.09), "gated_by_macs": pytest.approx(2.08)}
    assert not {"samples", "labels", "predictions"} & set(json.loads((tmp_path / "r.json").read_text()))


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("act_bits: 4\npred_bits: 4\ngating: none\nclip: max\n", Method.UQ),
        ("act_bits: 4\npred_bits: 4\ngating: none\n", Method.PACT),
        (RECIPE + "thresholds: fixed\ndelta_target: 1\n", Method.FIX_THRESHOLD),
        (RECIPE.replace("true", "false"), Method.PG_DENSE_BP),
        (RECIPE + "policy: seernet\n", Method.SEERNET),
        (RECIPE, Method.PG),
    ],
)
def test_the_recipe_tells_the_method(tmp_path: Path, recipe: str, method: Method) -> None:
    write_result(tmp_path / "r.json", {**INFO, "recipe": recipe})
    (one,) = load_results([tmp_path / "r.json"]).results
    assert one.method is method
    uniform = method in (Method.UQ, Method.PACT)
    assert uniform == (set(one.b_avg.values()) == {4.0})
    assert uniform == ("all_by_macs" in one.b_avg)  # which a gated result of these metadata does not tell


def test_recipes_that_differ_in_name_and_seed_alone_are_the_same_setting(tmp_path: Path) -> None:
    texts = {
        "a": "name: a\nseed: 1\n" + RECIPE,
        "b": "name: b\nseed: 2\n" + RECIPE + "network: resnet20\nclip: pact\nthresholds: learned\npolicy: keep\n",
        "c": "name: c\nseed: 3\n" + RECIPE + "sigma: 0.1\n",
    }
    for name, text in texts.items():
        write_result(tmp_path / f"{name}.json", {**INFO, "recipe": text, "training": {"finished": name != "a"}})
    a, b, c = load_results([tmp_path]).results
    assert a.setting == b.setting != c.setting
    assert [one.finished for one in (a, b, c)] == [False, True, True]


def test_what_older_recipes_leave_out_is_what_a_recipe_takes_for_it() -> None:
    recipe = pytest.importorskip("pgsim.train.recipe")
    defaults = {field.name: field.default for field in fields(recipe.Recipe) if field.default is not MISSING}
    assert {**defaults, "rate_drops": list(defaults["rate_drops"])} == LEFT_OUT[""]  # a list, as YAML has it


def test_a_shipped_recipe_of_shufflenet_leaves_out_what_a_newer_one_says() -> None:
    recipe = pytest.importorskip("pgsim.train.shufflenet.recipe")
    (old,) = (one for one in load_results([ROOT / "traces"]).results if one.network == "shufflenetv2_x0.5_cifar")
    shipped = ROOT / "pgsim" / "train" / "recipes" / "shufflenetv2_6-4_cifar.yaml"
    new = recipe.parse_shufflenet_recipe(shipped.read_text(encoding="utf-8"), "shipped")
    left_out = LEFT_OUT[recipe.TASK]
    assert {name: getattr(new, name) for name in left_out} == left_out
    assert json.loads(old.setting) == {k: v for k, v in vars(new).items() if k not in ("name", "seed")}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"top1": None, "evaluated_images": 9}, "not measured on the whole test set, but on 9 of it"),
        ({"evaluated_images": 9_999}, "not measured on the whole test set, but on 9999 of it"),
        ({"perplexity": 90.0, "evaluated_words": 40}, "not measured on the whole test set, but on 40 of it"),
        ({"top1": None}, "not measured on the whole test set"),
        ({"recipe": None, "top1": None, "sparsity_percent": None}, "its metadata have no recipe"),
        (
            {"recipe": None, "frozen_batch": [0, 8]},
            "a state dict of the authors' release, which does not tell its recipe, epochs and seed"
            " (top-1 90.00 %, Sp 91.00 %)",
        ),
    ],
)
def test_what_tells_no_result_is_left_out_with_the_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write_result(tmp_path / "a.json", {**INFO, "evaluated_images": 10_000})
    info = {**INFO, **changes}
    write_result(tmp_path / "r.json", {key: value for key, value in info.items() if value is not None})
    found = load_results([tmp_path])
    assert [one.source for one in found.results] == [str(tmp_path / "a.json")]
    assert found.left_out == (LeftOut(str(tmp_path / "r.json"), reason),)


def test_a_second_file_of_a_run_does_not_count_twice(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", INFO)
    write_result(tmp_path / "b.json", INFO)
    write_result(tmp_path / "c.json", {**INFO, "seed": 6})
    found = load_results([tmp_path])
    assert [(one.source, one.seed) for one in found.results] == [
        (str(tmp_path / "a.json"), 5),
        (str(tmp_path / "c.json"), 6),
    ]
    assert found.left_out == (LeftOut(str(tmp_path / "b.json"), f"the same run as {tmp_path / 'a.json'}"),)


def test_a_folders_archives_that_are_no_traces_are_passed_over_and_broken_ones_are_not(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", INFO)
    np.savez(tmp_path / "a.weights.npz", meta=np.zeros(3, np.uint8))
    assert len(load_results([tmp_path]).results) == 1
    with pytest.raises(InputError, match="meta_sha256 must be there, not missing"):
        load_results([tmp_path / "a.weights.npz"])
    (tmp_path / "b.npz").write_bytes(b"PK broken")
    with pytest.raises(InputError, match=r"b\.npz"):
        load_results([tmp_path])


def test_a_float_language_model_stands_in_its_row(tmp_path: Path) -> None:
    recipe = "task: language_model\ncell: float\nact_bits: 0\npred_bits: 0\n"
    info = {"model": "lstm300", "dataset": "PTB", "recipe": recipe, "perplexity": 112.0, "epochs": 12, "seed": 1}
    write_result(tmp_path / "r.json", info)
    (one,) = load_results([tmp_path]).results
    assert (one.method, one.bits, one.b_avg, one.sparsity) == (Method.FLOAT, None, {}, None)
    (row,) = (row for row in rows([one], 5) if row.ours)
    assert (row.claim.method, row.claim.score, row.b_avg) == (Method.FLOAT, 110.1, None)


def test_runs_that_no_row_takes_are_told_apart() -> None:
    five = replace(RUN, network="shufflenetv2_x0.5", bits=(5, 3))
    fixed = replace(RUN, network="resnet18", method=Method.FIX_THRESHOLD, threshold=0.5)
    assert [runs.results for runs in unplaced([RUN, five, replace(five, seed=2), fixed])] == [
        (five, replace(five, seed=2)),
        (fixed,),
    ]


def test_the_threshold_of_table_1_is_the_one_that_table_3_tells() -> None:
    fixed = [replace(RUN, method=Method.FIX_THRESHOLD, threshold=t, setting=str(t)) for t in (1.0, 2.0)]
    assert [row[2] for row in of(fixed, 1) if row[2]] == [(fixed[0],)]
    other = replace(fixed[1], bits=(4, 3))
    assert [row[:2] for row in of([other], 1) if row[2]] == [("Fix-Threshold", 58.7)]


@pytest.mark.parametrize(
    ("score", "sparsity", "deviations"),
    [
        (90.7, 84.1, ()),
        (91.7, 96.1, ()),
        (90.6, 90.0, ("score -0.60",)),
        (91.71, 96.2, ("score +0.51", "Sp +6.1")),
        (91.2, 84.0, ("Sp -6.1",)),
    ],
)
def test_what_is_further_from_the_paper_than_the_bounds_is_told(
    score: float, sparsity: float, deviations: tuple[str, ...]
) -> None:
    (row,) = (row for row in rows([replace(RUN, score=score, sparsity=sparsity)], 1) if row.ours)
    assert row.deviations == deviations


def test_a_perplexity_deviates_by_its_share() -> None:
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), sparsity=48.4, score=105.0)
    (row,) = (row for row in rows([lstm], 5) if row.ours)
    assert row.deviations == ("score -3.23 %",)
    (row,) = (row for row in rows([replace(lstm, score=110.6)], 5) if row.ours)
    assert row.deviations == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"r\.json must be JSON, not something else"),
        ('{"format": "x", "top1": 90, "top1": 12}', r"r\.json must have each key once, not 'top1' twice$"),
        ("[]", r"r\.json must be a result of pgsim trace \(format pgsim-training-result 1\), not another file"),
        (
            '{"format": "pgsim-training-result", "version": 1, "recipe": "a: 1", "top1": 1}',
            "must tell how its network was trained and measured",
        ),
        (
            '{"format": "pgsim-training-result", "version": 1, "recipe": "a: 1", "dataset": "CIFAR-10 test",'
            ' "top1": NaN}',
            r"must tell how its network was trained .*, not lack or garble top1 \(nan; it must be a number within",
        ),
        (
            '{"format": "pgsim-training-result", "version": 1, "given_weights": "w.npz", "model": "resnet20",'
            ' "dataset": "CIFAR-10 test", "checkpoint_sha256": "0", "top1": NaN}',
            r"must tell how its network was trained .*, not lack or garble top1 \(nan; it must be a number within",
        ),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_results([tmp_path])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("top1", 150), ("top1", -5), ("top1", 10**400), ("top1", True), ("top1", "90"),
        ("sparsity_percent", math.nan), ("sparsity_percent", math.inf), ("sparsity_percent", -50),
        ("sparsity_percent", 150), ("sparsity_percent", None), ("mac_sparsity_percent", math.nan),
        ("epochs", -3), ("epochs", math.inf), ("epochs", 4.5), ("seed", math.inf), ("seed", "1"),
        ("b_avg_bits", {"gated_by_outputs": "x"}), ("b_avg_bits", {"gated_by_outputs": math.nan}), ("b_avg_bits", 3),
        ("b_avg_bits", [1]), ("model", "resnet20\x1b[31m"), ("model", 3), ("dataset", "CIFAR-10\n"),
        ("recipe", "act_bits: 3\npred_bits: 2\ngating: release\nthresholds: fixed\ndelta_target: .nan\n"),
        ("recipe", "act_bits: 99\npred_bits: 2\ngating: release\n"),
        ("recipe", "act_bits: 0\npred_bits: 0\ngating: none\n"),
        ("recipe", "act_bits: .inf\npred_bits: 2\ngating: release\n"),
        ("recipe", "act_bits: 3\npred_bits: 4\ngating: release\n"),
        ("recipe", "- 1"), ("recipe", "a: &a [*a]"), ("recipe", 3),
    ],
)  # fmt: skip
def test_a_result_with_an_impossible_figure_is_refused(tmp_path: Path, key: str, value: object) -> None:
    write_result(tmp_path / "r.json", INFO)
    load_results([tmp_path])
    good = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps({**good, key: value}))  # NaN and infinity as Python writes them
    with pytest.raises(InputError, match=r"r\.json"):
        load_results([tmp_path])


def test_a_gated_result_without_its_sparsity_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "r.json", {name: value for name, value in INFO.items() if name != "sparsity_percent"})
    with pytest.raises(InputError, match=r"not lack or garble 'sparsity_percent'$"):
        load_results([tmp_path])


@pytest.mark.parametrize("content", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}"])
def test_json_that_cannot_be_parsed_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=r"r\.json must be JSON, not something else$"):
        load_results([tmp_path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n", r"reasons.yaml: the file of reasons must have recipes' names as keys, not be a list of 1"),
        ("a: b\nc: 3\n", r"reasons.yaml:2: c must have a sentence on one line, not 3"),
        ("a: ' '\n", r"reasons.yaml:1: a must have a sentence on one line, not ' '"),
    ],
)
def test_reasons_are_sentences(tmp_path: Path, content: str, message: str) -> None:
    write_result(tmp_path / "r.json", INFO)
    (tmp_path / "reasons.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        load_results([tmp_path])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold traces \(\.npz\) or results \(\.json\), not none"):
        load_results([tmp_path])
