"""traces/README.md and the shipped traces: which weights and data each was made of."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

import pgsim

TRACES = Path(__file__).parents[2] / "traces"
SHIPPED = sorted(TRACES.glob("*.npz"))


def test_every_shipped_trace_is_on_the_page() -> None:
    page = (TRACES / "README.md").read_text(encoding="utf-8")
    assert len(SHIPPED) == 7
    assert [path.name for path in SHIPPED if f"`{path.name}`" not in page] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_a_shipped_trace_names_the_shipped_weights_that_it_was_made_of(path: Path) -> None:
    """Those of the language model are too large to be shipped."""
    shipped = {sha256(file.read_bytes()).hexdigest(): file.stem for file in (TRACES / "checkpoints").glob("*.npz")}
    info = pgsim.load_trace(path).info
    weights = shipped.get(str(info["checkpoint_sha256"]))
    expected = {"lstm300_4-2_all": None, "shufflenetv2_6-4_all": "shufflenetv2_6-4_cifar"}
    assert weights == expected.get(path.stem, path.stem)
    assert len(str(info["data_sha256"])) == 64
