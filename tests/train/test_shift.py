"""The shift block: channels that move, and their gradient, against a loop over channels and pixels."""

from __future__ import annotations

from typing import cast

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pgsim.train.blocks import Block, Shift, shift_offsets  # noqa: E402
from pgsim.train.network import PGResNet  # noqa: E402


def test_channels_are_shared_out_evenly_over_nine_directions_and_the_rest_stays() -> None:
    offsets = shift_offsets(96)
    assert len(offsets) == 96
    assert offsets[:11] == ((-1, -1),) * 10 + ((-1, 0),)
    assert offsets[-6:] == ((0, 0),) * 6
    assert sorted({offset: offsets.count(offset) for offset in offsets}.values()) == [10] * 8 + [16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shift_moves_pixels_one_by_one_and_its_gradient_moves_back(dtype: torch.dtype) -> None:
    offsets = shift_offsets(20)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 20, 5, 7, dtype=dtype), torch.randn(2, 20, 5, 7, dtype=dtype)
    wanted, gradient = torch.zeros_like(x), torch.zeros_like(x)
    for channel, (down, right) in enumerate(offsets):
        for row in range(5):
            for column in range(7):
                from_row, from_column = row - down, column - right
                if 0 <= from_row < 5 and 0 <= from_column < 7:
                    wanted[:, channel, row, column] = x[:, channel, from_row, from_column]
                    gradient[:, channel, from_row, from_column] = weight[:, channel, row, column]
    x.requires_grad_()
    mine = Shift.apply(x, offsets)
    assert torch.equal(mine, wanted)
    (mine * weight).sum().backward()
    assert torch.equal(x.grad, gradient)


def test_a_shift_network_has_the_layers_and_macs_of_its_paper() -> None:
    net = PGResNet(5, 3, "release", network="shiftnet20")
    sizes, macs = [32, 16, 8], 0
    for position, module in enumerate(net.blocks):
        block = cast(Block, module)
        channels, size = 16 * 2 ** (position // 3), sizes[position // 3]
        before = sizes[max(0, (position - 1) // 3)]
        assert block.conv1.weight.shape == (6 * channels, channels - block.widen, 1, 1)
        assert block.conv2.weight.shape == (channels, 6 * channels, 1, 1)
        assert (block.conv1.stride, block.conv2.stride) == (1, before // size)
        assert block.conv1.gated
        assert not block.conv2.gated
        macs += block.conv1.weight.numel() * before**2 + block.conv2.weight.numel() * size**2
    assert macs == 31_457_280  # by hand: 9,437,184 + 2 * 11,010,048, stage by stage
    codes = torch.randint(-127, 128, (2, 3, 32, 32)).float()
    assert net.train()(codes).shape == (2, 10)
