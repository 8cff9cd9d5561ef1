"""The backward pass: MACs against hand counts, the masked product against the dense one."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

import pgsim.nn as pg  # noqa: E402
from pgsim.nn.backward import (  # noqa: E402
    BackwardMacs,
    backward_macs,
    layer_backward_macs,
    masked_weight_gradient,
)
from pgsim.nn.kernels import compiled_loops, weight_gradient_loops  # noqa: E402
from pgsim.workload.layer import Geometry, LayerKind  # noqa: E402

GEOMETRIES = [
    Geometry(LayerKind.CONV, 3, 4, 4, 5, (3, 3), padding=(1, 1, 1, 1)),
    Geometry(LayerKind.CONV, 4, 6, 6, 5, (3, 2), (2, 1), (1, 0, 0, 2), (1, 2), 2),
    Geometry(LayerKind.CONV, 4, 4, 4, 4, (3, 3), padding=(1, 1, 1, 1), groups=4),
    Geometry(LayerKind.LINEAR, 7, 3),
]


@pytest.mark.parametrize("loops", [weight_gradient_loops, compiled_loops])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_masked_product_is_the_dense_one_of_the_masked_gradient(
    loops: object, geometry: Geometry, share: float
) -> None:
    random = np.random.default_rng(1)
    shape = (2, *geometry.output_shape)
    mask = random.random(shape) < share
    codes = random.integers(0, 4, (2, *geometry.activation_shape)).astype(np.float32)
    top, bottom, left, right = geometry.padding
    for drawn, atol in ((random.integers(-9, 10, shape), 0), (random.normal(size=shape), 1e-5)):
        grad = drawn.astype(np.float32)
        found = masked_weight_gradient(grad, mask, codes, geometry, kernel=loops)
        weight = torch.zeros(geometry.weight_shape, dtype=torch.float64, requires_grad=True)
        x = nn.functional.pad(torch.from_numpy(codes).double(), (left, right, top, bottom))
        out = nn.functional.conv2d(x, weight, None, geometry.stride, 0, geometry.dilation, geometry.groups)
        out.backward(torch.from_numpy(grad * mask).double())
        assert found.dtype == np.float32
        assert weight.grad is not None
        assert share == 0 or np.abs(found).max() > 1
        np.testing.assert_allclose(found, weight.grad.numpy(), rtol=1e-5 if atol else 0, atol=atol)


def test_compiled_and_plain_loops_agree_bit_for_bit() -> None:
    random, geometry = np.random.default_rng(2), GEOMETRIES[0]
    shape = (2, *geometry.output_shape)
    grad, mask = random.normal(size=shape).astype(np.float32), random.random(shape) < 0.5
    codes = random.integers(0, 4, (2, *geometry.activation_shape)).astype(np.float32)
    one, other = (
        masked_weight_gradient(grad, mask, codes, geometry, kernel=loops)
        for loops in (weight_gradient_loops, compiled_loops)
    )
    np.testing.assert_array_equal(one, other, strict=True)


def test_it_is_the_update_phases_share_of_a_gated_layers_weight_gradient() -> None:
    torch.manual_seed(1)
    layer = pg.GatedConv2d(3, 4, 3, padding=1, bias=False, input=pg.QuantiseInput(4, clip=1.5), gating=pg.Gating(2))
    x = torch.rand(2, 3, 5, 5)
    out = layer(x)
    out.backward(torch.ones_like(out))
    whole = layer.weight.grad.clone()
    layer.delta.data.fill_(float("inf"))  # no output is updated: the prediction phase's share
    layer.weight.grad = None
    predicted = layer(x)
    predicted.backward(torch.ones_like(out))
    codes = layer.input.codes(x)
    low = (codes - 4 * torch.floor(codes / 4)).numpy()
    _, phase = pg.gated_conv2d(
        codes, layer.weight.detach(), torch.zeros(4), layer.input.step, act_bits=4, gating=pg.Gating(2),
        encoding=layer.input.format.encoding, padding=(1, 1),
    )  # fmt: skip
    assert 0 < int(phase.sum()) < phase.numel()
    geometry = Geometry(LayerKind.CONV, 3, 4, 5, 5, (3, 3), padding=(1, 1, 1, 1))
    found = masked_weight_gradient(np.ones(phase.shape, np.float32), phase.numpy(), low, geometry)
    share = torch.from_numpy(found) * layer.input.step
    torch.testing.assert_close(layer.weight.grad + share, whole, rtol=1e-4, atol=1e-4)


def test_one_layers_backward_macs_are_those_counted_by_hand() -> None:
    # 10 outputs of 9 MACs, 3 of them updated: 90 for the weights' high plane, 27 or 90 for the low, 90 for the input.
    assert layer_backward_macs(10, 3, 9, sparse=True) == BackwardMacs(90, 27, 90)
    assert layer_backward_macs(10, 3, 9, sparse=False) == BackwardMacs(90, 90, 90)
    assert layer_backward_macs(10, 3, 9, sparse=True, input_gradient=False).total == 117
    assert layer_backward_macs(10, None, 9, sparse=True) == BackwardMacs(90, 0, 90)
    assert layer_backward_macs(10, 3, 9, sparse=True, zeroed=True) == BackwardMacs(27, 27, 27)
    assert layer_backward_macs(10, 3, 9, sparse=True, zeroed=True, input_gradient=False).total == 54
    assert layer_backward_macs(10, 3, 9, sparse=False, zeroed=True) == BackwardMacs(90, 90, 90)
    with pytest.raises(ValueError, match=r"^updated must be 0 \.\. 10 outputs, not 11$"):
        layer_backward_macs(10, 11, 9, sparse=True)


def test_a_models_backward_macs_are_the_sum_of_its_layers() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        pg.QuantConv2d(1, 2, 3, input=pg.QuantiseInput(4, clip=2.0)),  # 2 * 4 * 4 outputs of 9 MACs an image
        pg.GatedConv2d(2, 3, 2, input=pg.Pact(4, 1.0), gating=pg.Gating(2)),  # 3 * 3 * 3 outputs of 8 MACs
    )
    model(torch.randn(2, 1, 6, 6))
    updated = model[1].updated
    assert 0 < updated < 54
    dense, gated = 2 * 32 * 9, 2 * 27 * 8
    assert backward_macs(model, sparse=False) == BackwardMacs(dense + gated, gated, dense + gated)
    assert backward_macs(model, sparse=True, first="0") == BackwardMacs(dense + gated, updated * 8, gated)
    saved = 1 - backward_macs(model, sparse=True).weight_update / backward_macs(model, sparse=False).weight_update
    assert saved == pytest.approx(pg.sparsity(model).by_output)  # the same factor as in the forward pass
    with pytest.raises(ValueError, match=r"^first must be a path of 0, 1, not 'stem'$"):
        backward_macs(model, sparse=True, first="stem")


@pytest.mark.parametrize("policy", [pg.Policy.KEEP, pg.Policy.ZERO])
def test_where_outputs_are_zeroed_the_updated_ones_alone_give_every_gradient(policy: pg.Policy) -> None:
    torch.manual_seed(3)
    layer = pg.GatedConv2d(2, 3, 2, bias=False, input=pg.Pact(4, 1.0), gating=pg.Gating(2, policy))
    x = torch.rand(2, 2, 5, 5, requires_grad=True)
    _, mask = pg.gated_conv2d(
        layer.input.codes(x), layer.weight, layer.delta, layer.input.step, act_bits=4, gating=layer.gating
    )
    assert 0 < int(mask.sum()) < mask.numel()
    grad = torch.randn(mask.shape)
    whole, thinned = (torch.autograd.grad(layer(x), (x, layer.weight), each) for each in (grad, grad * mask))
    same = [torch.allclose(one, other, atol=1e-6) for one, other in zip(whole, thinned, strict=True)]
    assert same == [policy is pg.Policy.ZERO] * 2
    macs = int(mask.sum()) * 8
    pg.reset_counts(layer)
    layer(x)
    counted = backward_macs(layer, sparse=True)
    assert counted.weight_update == macs
    assert (counted == BackwardMacs(macs, macs, macs)) == (policy is pg.Policy.ZERO)


def test_shapes_that_do_not_fit_are_refused() -> None:
    geometry = GEOMETRIES[3]
    grad, codes = np.zeros((2, 3, 1, 1), np.float32), np.zeros((2, 7, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 3, 1, 1\), not \(2, 3\)$"):
        masked_weight_gradient(grad, np.zeros((2, 3), bool), codes, geometry)
