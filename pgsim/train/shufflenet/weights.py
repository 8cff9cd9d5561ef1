"""Read a float trunk of ShuffleNet V2 0.5x, in the names of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from pgsim.errors import InputError
from pgsim.train.data import open_npz

SKIPPED = "num_batches_tracked"


def read_trunk(net: nn.Module, path: Path) -> None:
    """Copy the arrays of an npz into the stem and the stages of a float network; what follows stays as it is.

    Raises InputError for a file that lacks an array, holds another, or has one of another shape.
    """
    arrays = open_npz(path)
    state = {
        name: tensor
        for name, tensor in net.state_dict().items()
        if name.startswith(("first_conv.", "stage")) and not name.endswith(SKIPPED)
    }
    odd = sorted(set(state) ^ {name for name in arrays if not name.endswith(SKIPPED)})
    if odd:
        raise InputError(f"{path} must hold exactly the arrays of a ShuffleNet V2 0.5x trunk, not differ in {odd[0]!r}")
    for name, tensor in state.items():
        if arrays[name].shape != tuple(tensor.shape):
            raise InputError(f"{path}: {name} must be {list(tensor.shape)}, not {list(arrays[name].shape)}")
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(arrays[name].astype(np.float32)))
