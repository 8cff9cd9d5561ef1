"""The house: each package imports only those above it, and start-up stays light."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pgsim"
ABOVE = {
    "errors": set(),
    "arith": {"errors"},
    "workload": {"errors", "arith"},
    "hw": {"errors", "arith"},
    "results": {"errors", "arith", "workload", "hw"},
    "model": {"errors", "arith", "workload", "hw", "results"},
    "io": {"errors", "arith", "workload", "hw", "results", "model"},
    "nn": {"errors", "arith", "workload", "io"},
    "train": {"errors", "arith", "workload", "model", "io", "nn"},
    "rtl": {"errors", "arith", "workload", "hw", "results", "model", "io"},
    "paper": {"errors", "arith", "workload", "io"},
    "plotting": {"errors", "results", "workload", "hw"},
    "api": {"errors", "arith", "workload", "hw", "results", "model", "io"},
    "cli": {
        "errors",
        "arith",
        "workload",
        "hw",
        "results",
        "model",
        "io",
        "nn",
        "train",
        "rtl",
        "plotting",
        "api",
        "paper",
    },
    "__init__": {"api"},
    "__main__": {"cli"},
}
"""What each part of the package may import, beside itself."""

FILES = sorted(ROOT.rglob("*.py"))


def imported_parts(path: Path) -> set[str]:
    """Parts of pgsim that a file imports, anywhere in it."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
            if node.module == "pgsim":
                names = [f"pgsim.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("pgsim.")}
    return parts - {"__version__"}


def test_every_file_of_the_package_is_looked_at() -> None:
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_above_it(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert imported_parts(path) - {part} <= ABOVE[part]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_and_matplotlib_are_imported_by_their_own_parts_only(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in names}
    assert "torch" not in roots or part in ("nn", "train")
    assert "matplotlib" not in roots or part == "plotting.py" or path.relative_to(ROOT) == Path("paper/figures.py")
