"""An accelerator's stand-in: a torch device that computes on the CPU, and refuses what CUDA refuses.

Its tensors meet no CPU tensor but a number (of no dimension) or an index, and have no numpy view: code that forgets to
move a tensor fails on it as it would on CUDA. It says nothing about an accelerator's own kernels, rounding or memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pgsim.train import loop

NAME = "far"
MOVES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
"""By the tensors of their second argument, which may be a CPU's."""


def _lstm_cell(x: Tensor, h: Tensor, c: Tensor, *biases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gates = sum(biases, x + h)
    i, f, g, o = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c, gates


KERNELS = {torch.ops.aten._thnn_fused_lstm_cell.default: _lstm_cell}
"""What an accelerator computes and a CPU has no operation for; without gradients."""


class FarTensor(Tensor):
    """A tensor of the device: the shape and strides of `near`, which holds its values."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        return Tensor._make_wrapper_subclass(cls, near.shape, device=f"{NAME}:0", **layout)

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __reduce_ex__(self, protocol: int) -> Any:
        """Be saved as what `map_location="cpu"` makes of a saved tensor of an accelerator."""
        return self.near.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _FarDevice(TorchDispatchMode):
    """Makes new tensors for the device, which no tensor of it is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if func in INDEXED and isinstance(args[0], FarTensor):
        operands = [leaf for leaf in tree_leaves((args[0], args[2:])) if isinstance(leaf, Tensor)]
    far = any(isinstance(operand, FarTensor) for operand in operands)
    if far and func not in MOVES and any(o.dim() for o in operands if not isinstance(o, FarTensor)):
        raise RuntimeError(f"{func}: operands must be on one device, not on two")
    args, kwargs = tree_map_only(FarTensor, lambda tensor: tensor.near, (args, kwargs))
    if kwargs.get("device") is not None:
        far = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": "cpu"}
    result = KERNELS.get(func, func)(*args, **kwargs)
    return tree_map_only(Tensor, FarTensor, result) if far else result


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device's module, `torch.far`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


# At the import, so before any test: the devices of the first backward pass are all that autograd ever knows.
backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())


@contextmanager
def accelerator(name: str) -> Iterator[str]:
    """Have an accelerator: "cuda", without which the test is skipped, or "far"."""
    if name == NAME:
        with _FarDevice():
            yield name
    elif not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    else:
        loop.check_device(name)
        yield name
