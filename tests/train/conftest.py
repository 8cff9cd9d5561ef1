"""What holds for all tests of training: one torch thread, and data sets of a few images or words stand for whole ones.

More threads only fight over the cores that other tests run on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from pgsim.paper import stored

with suppress(ImportError):  # torch is not installed
    from tests import far_device


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def sizes_of_tiny_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "TEST_SET_SIZES", {})


@pytest.fixture(params=["cuda", "far"])
def accelerator(request: pytest.FixtureRequest) -> Iterator[str]:
    with far_device.accelerator(request.param) as name:
        yield name
