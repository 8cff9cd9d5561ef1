"""The JSON document: what is in it, and that nothing is lost on the way through a file."""

from __future__ import annotations

import json
from pathlib import Path

from pgsim.results.document import document
from tests.results.made import BIG, made_run


def test_the_document_survives_json_with_every_integer_exact() -> None:
    made = document([made_run(), made_run("quick", cycles=60)])
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    counts = {(a["kind"], a["component"], a["stimulus"]): a["count"] for a in made["runs"][0]["layers"][0]["actions"]}
    assert counts["sram_write", "weight", None] == BIG
    assert counts["mac", "array", "msb"] == 900


def test_the_document_holds_provenance_totals_layers_and_audit() -> None:
    made = document([made_run()])
    assert (made["format"], made["version"]) == ("pgsim-results", 1)
    run = made["runs"][0]
    assert run["provenance"]["trace_sha256"] == "t" * 64
    assert run["totals"]["network"]["cycles"] == 100
    assert run["totals"]["gated"]["macs_updated"] == 270
    assert run["totals"]["not_gated"]["energy"]["total_pj"] == 500.0
    assert run["layers"][0]["counts"]["queue_histogram"] == [310, 7, 3, 0]
    assert run["layers"][0]["counts"]["array_causes"] == {"busy": 60, "tail": 20, "queue_full": 0, "drain": 0}
    assert run["layers"][0]["energy"]["assumed"] == ["array"]
    assert run["audit"][0] == {
        "rule": "cycles: one cause each", "layer": "a", "expected": 80, "found": 80, "holds": True,
    }  # fmt: skip
    assert run["assumed"] == ["the clock", "the array's size"]


def test_the_page_on_results_has_every_key_of_a_run_and_of_a_layer() -> None:
    page = (Path(__file__).parents[2] / "docs" / "results-format.md").read_text()
    run = document([made_run()])["runs"][0]
    layer = run["layers"][0]
    for key in (*run, *run["provenance"], *layer, *layer["actions"][0], *layer["energy"], *run["audit"][0]):
        assert f"`{key}`" in page, key
