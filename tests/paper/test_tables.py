"""Runs stand beside the row of the paper that they belong to, and are judged by what the paper counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pgsim.errors import InputError
from pgsim.paper.claims import CIFAR, PTB, Method
from pgsim.paper.stored import Result, load_results, write_result
from pgsim.paper.tables import rows

ROOT = Path(__file__).parents[2]
RUN = Result(
    network="resnet20", dataset=CIFAR, method=Method.PG, bits=(3, 2), gating="release", threshold=None, policy="keep",
    sparsity=90.0, mac_sparsity=91.0, b_avg={"gated_by_outputs": 2.1, "all_by_macs": 2.6}, score=91.0, epochs=14,
    seed=1, source="a.npz", digest="d",
)  # fmt: skip


def of(results: list[Result], table: int) -> list[tuple[str, float | None, Result | None]]:
    """Method, the paper's sparsity and our run of each row of ResNet-20 (or the LSTM)."""
    found = rows(results, table)
    return [
        (row.claim.method.value, row.claim.sparsity, row.ours)
        for row in found
        if row.claim.network in ("resnet20", "lstm300")
    ]


def test_a_run_stands_at_its_own_row_and_nowhere_else() -> None:
    assert [row for row in of([RUN], 1) if row[2]] == [("PG", 90.1, RUN)]
    assert [row for row in of([RUN], 4) if row[2]] == [("PG", 90.1, RUN)]
    assert [row for table in (2, 3, 5, 7) for row in of([RUN], table) if row[2]] == []
    for other in (
        replace(RUN, network="resnet32"),
        replace(RUN, dataset="CIFAR-100"),
        replace(RUN, bits=(4, 2)),
    ):
        assert [row for row in of([other], 1) if row[2]] == []


def test_several_runs_of_a_row_stand_below_each_other() -> None:
    again = replace(RUN, seed=2)
    assert [row[2] for row in of([RUN, again], 1) if row[2]] == [RUN, again]


def test_of_two_rows_of_the_same_bits_the_nearer_sparsity_is_taken() -> None:
    lstm = replace(RUN, network="lstm300", dataset=PTB, bits=(4, 2), sparsity=50.0, score=109.0)
    assert [row[:2] for row in of([lstm], 5) if row[2]] == [("PG", 48.4)]
    assert [row[:2] for row in of([replace(lstm, sparsity=53.0)], 5) if row[2]] == [("PG", 54.9)]


def test_a_fixed_threshold_goes_to_its_row_of_table_3_and_seernet_takes_gated_runs() -> None:
    fixed = replace(RUN, method=Method.FIX_THRESHOLD, threshold=-1.0)
    assert [row[:2] for row in of([fixed], 3) if row[2]] == [("Fix-Threshold", 35.2)]
    (row,) = (row for row in rows([replace(RUN, bits=(6, 4), sparsity=50.0)], 2) if row.ours)
    assert row.claim.method is Method.SEERNET
    assert row.b_avg == pytest.approx(4 + 0.5 * 6)


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
        (RECIPE, Method.PG),
    ],
)
def test_the_recipe_tells_the_method(tmp_path: Path, recipe: str, method: Method) -> None:
    write_result(tmp_path / "r.json", {**INFO, "recipe": recipe})
    (one,) = load_results([tmp_path / "r.json"])
    assert one.method is method


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
