"""docs/torch.md: every snippet runs, in order, and the modules and calls are on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "torch.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_snippet_runs_and_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, snippet in enumerate(SNIPPETS):
        exec(compile(snippet, f"docs/torch.md, snippet {number}", "exec"), names)
    assert len(SNIPPETS) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["user.npz", "words.npz"]
    fed = {layer.name: layer.input_name for layer in names["trace"].layers}
    assert fed == {"0": None, "3": "0.codes", "5": "3.codes", "8": "5.codes"}
    kinds = {path: type(layer).__name__ for path, layer in names["pg"].coded_layers(names["other"]).items()}
    assert kinds == {"3": "GatedConv2d", "5": "QuantConv2d", "8": "GatedLinear"}
    assert 0.5 < names["pg"].sparsity(names["gated"]).by_output < 1
    saved = 1 - names["sparse"].weight_update / names["dense"].weight_update
    assert saved == pytest.approx(names["pg"].sparsity(names["gated"]).by_mac)


def test_the_page_names_every_module_and_call() -> None:
    nn = pytest.importorskip("pgsim.nn", reason="torch is not installed")
    functions = {"dense_conv2d", "dense_linear", "gated_conv2d", "gated_linear"}  # what the modules call
    records = {"AverageBits", "BackwardMacs", "CodedLayer", "Encoding", "MaskGradient", "Quantiser", "Sparsity"}
    named = {name for name in nn.__all__ if re.search(rf"\b{name}\b", PAGE)}
    assert set(nn.__all__) - named <= functions | records | {"SURROGATE_SLOPE"}
