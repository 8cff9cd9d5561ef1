"""One torch thread in these tests, every device that torch finds here, and a stand-in for those that it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

with suppress(ImportError):  # torch is not installed
    from tests.far_device import accelerator


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.set_num_threads(1)


@pytest.fixture(params=["cpu", "cuda", "far"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cpu":
        yield request.param
    else:
        with accelerator(request.param) as name:
            yield name
