"""The stand-in for an accelerator refuses what CUDA refuses; the tests that train on it are worth no more than that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402


@pytest.mark.parametrize(
    "operation",
    [
        lambda here, there: there + here,
        lambda here, there: there.add_(here),
        lambda here, there: torch.stack([there, here]),
        lambda here, there: torch.mv(here[:, None], there[:1]),
        lambda here, there: here[there.long()],
        lambda here, there: there.numpy(),
    ],
)
def test_tensors_of_two_devices_do_not_meet(accelerator: str, operation: Callable[[Tensor, Tensor], object]) -> None:
    here, there = torch.zeros(3), torch.zeros(3, device=accelerator)
    with pytest.raises((RuntimeError, TypeError)):
        operation(here, there)


def test_numbers_and_indices_may_lie_on_the_cpu_and_values_move(accelerator: str) -> None:
    there = torch.arange(3.0).to(accelerator)
    there[torch.tensor([0])] = 5.0
    there.mul_(torch.tensor(2.0))
    assert there.device.type == accelerator
    assert there[torch.tensor([1, 0])].cpu().tolist() == [2.0, 10.0]
    assert torch.zeros(3).copy_(there).numpy().tolist() == [10.0, 2.0, 4.0]
