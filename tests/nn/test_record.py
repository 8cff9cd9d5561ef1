"""From a user's model to a trace that verifies and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

import pgsim  # noqa: E402
import pgsim.nn as pg  # noqa: E402
from pgsim.arith.formats import Encoding  # noqa: E402
from pgsim.arith.gating import INT64_MAX, INT64_MIN  # noqa: E402
from pgsim.io.trace import write_trace  # noqa: E402
from pgsim.workload.layer import LayerKind  # noqa: E402
from pgsim.workload.trace import InMemory, Trace  # noqa: E402

GATING = pg.Gating(2)
TWOS = Encoding.TWOS_COMPLEMENT


class Network(nn.Module):
    """Convolutions of every kind, norms and an addition between them, a classifier."""

    def __init__(self, policy: pg.Policy = pg.Policy.KEEP) -> None:
        super().__init__()
        gating = pg.Gating(2, policy)
        weights = pg.WeightFormat(per_channel=True)
        self.stem = pg.QuantConv2d(3, 4, 3, padding=1, input=pg.QuantiseInput(8, TWOS))
        self.norm = nn.BatchNorm2d(4)
        self.depth = pg.GatedConv2d(4, 4, (3, 4), padding="same", groups=4, input=pg.Pact(4), gating=gating)
        self.point = pg.GatedConv2d(4, 8, 1, stride=2, input=pg.Pact(4), gating=gating, weights=weights)
        self.wide = pg.GatedConv2d(8, 6, 3, dilation=2, groups=2, padding=2, input=pg.Pact(4), gating=gating)
        self.classifier = pg.QuantLinear(6, 3, input=pg.Pact(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = self.wide(self.point(x + self.depth(x)))
        return self.classifier(x.relu().mean((2, 3)))


class Sequence(nn.Module):
    """An embedding, a gated cell over its steps, and a decoder over all of them at once."""

    def __init__(self, batch_first: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        quantisers = {"input": pg.QuantiseInput(4, TWOS), "hidden": pg.QuantiseInput(4, TWOS, 1.0)}
        self.cell = pg.GatedLSTMCell(6, 5, **quantisers, gating=GATING)
        self.decoder = pg.GatedLinear(5, 7, input=pg.QuantiseInput(4, TWOS), gating=GATING)
        self.batch_first = batch_first

    def forward(self, words: Tensor) -> Tensor:
        state, hidden = None, []
        for word in words:
            state = self.cell(self.embedding(word), state)
            hidden.append(state[0])
        return self.decoder(torch.stack(hidden, int(self.batch_first)))


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network(policy: pg.Policy = pg.Policy.KEEP) -> Network:
    torch.manual_seed(2)
    model = Network(policy)
    pg.calibrate(model, [images()], sparsity=0.6)
    return model


def written(trace: Trace, folder: Path) -> Trace:
    """Return the trace through a file."""
    write_trace(folder / "model.npz", trace)
    return pgsim.load_trace(folder / "model.npz")


@pytest.mark.parametrize("policy", list(pg.Policy))
def test_a_convolutional_model_becomes_a_trace_that_verifies_and_runs(policy: pg.Policy, tmp_path: Path) -> None:
    model = network(policy)
    before = model.depth.outputs
    trace = written(pg.trace(model, images(), info={"model": "tiny"}), tmp_path)
    assert model.training
    assert model.depth.outputs == before
    assert trace.info["model"] == "tiny"
    assert [layer.name for layer in trace.layers] == ["stem", "depth", "point", "wide", "classifier"]
    assert trace.layers[1].geometry.padding == (1, 1, 1, 2)
    assert trace.tensors(1).activation.shape == (2, 4, 8, 8)
    assert pgsim.verify(trace).equal
    result = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet"))
    assert result.totals(gated=True).cycles > 0
    assert all(check.holds for check in result.audit)


def test_a_model_on_any_device_becomes_a_trace_that_verifies(device: str) -> None:
    model = network()
    codes = pg.trace(model, images()).tensors(0).activation
    trace = pg.trace(model.to(device), images().to(device), info={"device": device})
    np.testing.assert_array_equal(trace.tensors(0).activation, codes)
    assert pgsim.verify(trace).equal


def test_traced_integers_are_the_models_real_outputs() -> None:
    model = network().eval()
    seen: dict[str, Tensor] = {}
    for name, layer in pg.coded_layers(model).items():
        layer.register_forward_hook(lambda m, _x, out, n=name: seen.update({n: out}))
    model(images())
    trace = pg.trace(model, images())
    for index, layer in enumerate(trace.layers):
        tensors, module = trace.tensors(index), pg.coded_layers(model)[layer.name]
        k = layer.act_scale * np.broadcast_to(layer.weight_scale, (layer.geometry.out_channels,))
        bias = module.bias.detach().numpy()
        real = tensors.output * k[:, None, None] + bias[:, None, None]
        np.testing.assert_allclose(real.reshape(seen[layer.name].shape), seen[layer.name].detach(), atol=1e-5)
        if tensors.mask is not None:
            assert tensors.mask.any()
            assert not tensors.mask.all()


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_recurrent_model_becomes_a_trace_that_verifies_and_runs(batch_first: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Sequence(batch_first)
    words = torch.tensor([[1], [5], [5], [9], [0]])
    pg.calibrate(model, [words], sparsity=0.5, scope="channel")
    trace = written(pg.trace(model, words), tmp_path)
    cell, decoder = trace.layers
    assert (cell.recurrent, decoder.recurrent) == (True, False)
    assert trace.images == 5
    assert cell.geometry.kind is decoder.geometry.kind is LayerKind.LINEAR
    assert (cell.geometry.in_channels, cell.geometry.out_channels) == (11, 20)
    codes = trace.tensors(0).activation[:, :6, 0, 0]
    expected = torch.round(model.embedding(words[:, 0]) / model.cell.input.clip * 7)
    np.testing.assert_array_equal(codes, expected.detach().numpy())
    assert pgsim.verify(trace).equal
    result = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet"))
    assert all(check.holds for check in result.audit)


def test_a_linear_layer_over_many_rows_becomes_a_matmul(tmp_path: Path) -> None:
    torch.manual_seed(4)
    layer = pg.GatedLinear(5, 4, input=pg.QuantiseInput(4), gating=GATING)
    x = torch.randn(2, 3, 5)
    pg.calibrate(layer, [x], sparsity=0.5)
    trace = written(pg.trace(layer, x), tmp_path)
    assert trace.layers[0].name == "GatedLinear"
    assert trace.layers[0].geometry.kind is LayerKind.MATMUL
    assert (trace.images, trace.layers[0].geometry.in_height) == (2, 3)
    np.testing.assert_array_equal(
        trace.tensors(0).activation[..., 0].transpose(0, 2, 1), layer.input.codes(x).numpy().astype(int)
    )
    assert pgsim.verify(trace).equal


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5)])
def test_a_linear_layer_called_twice_has_the_rows_of_both_calls_in_each_image(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = pg.GatedLinear(5, 5, input=pg.QuantiseInput(4), gating=GATING)
            self.two = pg.GatedLinear(5, 2, input=pg.QuantiseInput(4), gating=GATING)

        def forward(self, x: Tensor) -> Tensor:
            self.between = self.one(x)
            return self.two(self.one(self.between))

    torch.manual_seed(5)
    model, x = Twice().eval(), torch.randn(*shape)
    pg.calibrate(model, [x], sparsity=0.5)
    trace = written(pg.trace(model, x), tmp_path)
    rows = x.numel() // 20
    assert [(trace.images, layer.geometry.in_height) for layer in trace.layers] == [(4, 2 * rows), (4, rows)]
    codes = trace.tensors(0).activation[..., 0].transpose(0, 2, 1)
    for call, real in enumerate((x, model.between)):
        expected = model.one.input.codes(real).reshape(4, rows, 5).numpy(force=True)
        np.testing.assert_array_equal(codes[:, call * rows : (call + 1) * rows], expected)
    assert pgsim.verify(trace).equal


def test_a_trace_that_was_tampered_with_does_not_verify() -> None:
    trace = pg.trace(network(), images())
    for index in (0, 2):
        items = list(trace.source.items)
        output = items[index].output.copy()
        output[0, 0, 0, 0] += 1
        items[index] = replace(items[index], output=output)
        assert not pgsim.verify(replace(trace, source=InMemory(tuple(items)))).equal


def test_thresholds_out_of_reach_are_clamped(tmp_path: Path) -> None:
    model = network()
    model.point.delta.data[:4] = torch.tensor([float("inf"), -float("inf"), 3e38, -3e38])
    trace = written(pg.trace(model, images()), tmp_path)
    gate = trace.layers[2].gate
    assert gate is not None
    assert gate.threshold[:4].tolist() == [INT64_MAX, INT64_MIN] * 2
    assert pgsim.verify(trace).equal


def test_what_a_trace_cannot_hold_is_refused_by_the_layers_path() -> None:
    model = Sequence()
    words = torch.tensor([[1, 2], [5, 3]])
    pg.calibrate(model, [words])
    with pytest.raises(ValueError, match=r"^cell: a traced sequence must have batch 1, not 2$"):
        pg.trace(model, words)
    model.cell.delta.data[0] = float("nan")
    with pytest.raises(ValueError, match=r"^cell: delta must be a number, not NaN$"):
        pg.trace(model, words[:, :1])
    with pytest.raises(ValueError, match=r"^model must run at least one quantised or gated layer"):
        pg.trace(nn.ReLU(), images())
    conv = pg.QuantConv2d(3, 3, 1, input=pg.Pact(4))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv, pg.QuantConv2d(3, 3, 1, input=pg.Pact(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(self.one(x)))

    with pytest.raises(ValueError, match=r"^two: a layer must see 4 images, as one did, not 2$"):
        pg.trace(Twice(), images())
    with pytest.raises(ValueError, match=r"^2: rows of a linear layer must be a multiple of 2 images, not 1$"):
        pg.trace(nn.Sequential(conv, Corner(), pg.QuantLinear(3, 2, input=pg.Pact(4))), images())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [0, 2])
def test_weights_that_are_no_numbers_are_refused_where_they_are(number: int, value: float) -> None:
    model = pg.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), pg.Recipe(last="gated"))
    pg.calibrate(model, [images()])
    weight = model[number].weight
    assert isinstance(weight, Tensor)
    weight.data[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"^{number}: weights must be finite, not NaN or infinity$"):
        pg.trace(model, images())


@pytest.mark.parametrize("name", ["a b", "ü", "it's", "x" * 194])
def test_a_path_that_no_layer_of_a_trace_can_have_is_refused_before_anything_is_written(name: str) -> None:
    model = nn.Sequential()
    model.add_module(name, pg.QuantConv2d(3, 3, 1, input=pg.Pact(4)))
    model.add_module("b", pg.QuantConv2d(3, 3, 1, input=pg.Pact(4)))
    with pytest.raises(
        ValueError, match=r"a traced layer's path, and '\.stored' behind it, must be a name of 1 to 200"
    ):
        pg.trace(model, images())


def test_the_longest_path_is_written(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("x" * 193, pg.QuantConv2d(3, 3, 1, input=pg.Pact(4)))
    model.add_module("b", pg.QuantConv2d(3, 3, 1, input=pg.Pact(4)))
    assert len(written(pg.trace(model, images()), tmp_path).layers[0].name) == 193


def test_thresholds_are_calibrated_on_single_vectors() -> None:
    model = nn.Sequential(nn.Linear(4, 8))
    rows = torch.rand(9, 4)
    one, other = (pg.convert(model, pg.Recipe(first="gated", last="gated")) for _ in range(2))
    pg.calibrate(one, list(rows), sparsity=0.5)
    pg.calibrate(other, list(rows[:, None]), sparsity=0.5)
    assert torch.equal(one[0].delta, other[0].delta)
    assert bool((one[0].delta != pg.convert(model, pg.Recipe(first="gated"))[0].delta).all())


class Corner(nn.Module):
    """One pixel of one image."""

    def forward(self, x: Tensor) -> Tensor:
        return x[0, :, 0, 0]
