"""docs/language-model.md: its table of what came out is that of the stored results and logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pgsim.paper.stored import load_results
from pgsim.paper.tables import Row, rows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "language-model.md").read_text(encoding="utf-8")


def test_what_came_out_is_what_the_stored_results_say() -> None:
    table = rows(load_results([ROOT / "traces", ROOT / "traces" / "results"]).results, 5)
    expected = [measured_row(row) for row in table if row.ours is not None]
    assert len(expected) >= 6
    found = [line.split(" | ") for line in re.findall(r"^\| (`ptb_lstm_.*) \|$", PAGE, flags=re.MULTILINE)]
    assert sorted(found) == sorted(expected)


def measured_row(row: Row) -> list[str]:
    """Recipe, bits, Sp, B_avg, perplexity, its change from float, the epoch kept, the paper's perplexity."""
    assert row.ours is not None
    first = row.ours.first
    log = ROOT / "traces" / "logs" / f"{first.recipe}.jsonl"
    perplexities = [json.loads(line)["valid_perplexity"] for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        f"`{first.recipe}`",
        "float" if first.bits is None else "/".join(map(str, dict.fromkeys(first.bits))),
        "-" if row.ours.sparsity is None else f"{row.ours.sparsity:.1f}",
        "-" if row.b_avg is None else f"{row.b_avg:.2f}",
        f"{row.ours.score:.2f}",
        "-" if row.our_change is None else f"{row.our_change:+.1f}",
        f"{perplexities.index(min(perplexities)) + 1} of {len(perplexities)}",
        f"{row.claim.score}",
    ]
