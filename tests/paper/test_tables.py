"""Runs stand beside the row of the paper that they belong to, and are judged by what the paper counts."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from pgsim.errors import InputError
from pgsim.paper.claims import CIFAR, PTB, Method
from pgsim.paper.stored import LEFT_OUT, Result, load_results, write_result
from pgsim.paper.tables import rows

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
        replace(RUN, bits=(4, 2)),
    ):
        assert [row for row in of([other], 1) if row[2]] == []


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
        (one,) = load_results([path])
        assert one.b_avg["gated_by_outputs"] == pytest.approx(bits)


@pytest.mark.parametrize(
    ("score", "sparsity", "reached"),
    [(90.71, 90.1, True), (90.69, 90.1, False), (92.0, 84.2, True), (92.0, 84.0, False), (90.8, 99.0, True)],
)
def test_bounds_of_an_accuracy(score: float, sparsity: float, reached: bool) -> None:
    (row,) = (row for row in rows([replace(RUN, score=score, sparsity=sparsity)], 1) if row.ours)
    assert row.reached is reached
    assert row.score_difference == pytest.approx(score - 91.2)


@pytest.mark.parametrize(("score", "reached"), [(110.6, True), (110.7, False), (100.0, True)])
def test_bounds_of_a_perplexity(score: float, reached: bool) -> None:
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), sparsity=48.4, score=score)
    (row,) = (row for row in rows([lstm], 5) if row.ours)
    assert row.reached is reached
    assert row.score_difference == pytest.approx(100 * (score / 108.5 - 1))


def test_shipped_traces_are_read_with_what_they_say() -> None:
    results = {Path(one.source).stem: one for one in load_results([ROOT / "traces"])}
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
    (one,) = load_results([tmp_path])
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
    (one,) = load_results([tmp_path / "r.json"])
    assert one.method is method


def test_recipes_that_differ_in_name_and_seed_alone_are_the_same_setting(tmp_path: Path) -> None:
    texts = {
        "a": "name: a\nseed: 1\n" + RECIPE,
        "b": "name: b\nseed: 2\n" + RECIPE + "network: resnet20\nclip: pact\nthresholds: learned\npolicy: keep\n",
        "c": "name: c\nseed: 3\n" + RECIPE + "sigma: 0.1\n",
    }
    for name, text in texts.items():
        write_result(tmp_path / f"{name}.json", {**INFO, "recipe": text, "training": {"finished": name != "a"}})
    a, b, c = load_results([tmp_path])
    assert a.setting == b.setting != c.setting
    assert [one.finished for one in (a, b, c)] == [False, True, True]


def test_what_older_recipes_leave_out_is_what_a_recipe_takes_for_it() -> None:
    recipe = pytest.importorskip("pgsim.train.recipe")
    defaults = {field.name: field.default for field in fields(recipe.Recipe) if field.default is not MISSING}
    assert defaults == LEFT_OUT


def test_a_network_measured_on_a_part_of_the_set_is_no_result(tmp_path: Path) -> None:
    write_result(tmp_path / "r.json", {key: value for key, value in INFO.items() if key != "top1"})
    assert load_results([tmp_path]) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"r\.json must be JSON, not something else"),
        ("[]", r"r\.json must be a result of pgsim trace \(format pgsim-training-result 1\), not another file"),
        ('{"format": "pgsim-training-result", "version": 1}', "must tell how its network was trained and measured"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_results([tmp_path])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold traces \(\.npz\) or results \(\.json\), not none"):
        load_results([tmp_path])
