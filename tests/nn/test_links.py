"""Layers of a trace that feed one another: what is linked, what is stored, what stays a recorded boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

import pgsim  # noqa: E402
import pgsim.nn as pg  # noqa: E402
from pgsim.arith.formats import Encoding  # noqa: E402
from pgsim.io.trace import write_trace  # noqa: E402
from pgsim.model.inference import infer, reference_engine  # noqa: E402
from pgsim.workload.layer import FixedPoint, Layer, MaxPool, Requantise, SaveShortcut  # noqa: E402
from pgsim.workload.trace import Trace  # noqa: E402

GATING = pg.Gating(2)
SIGNED = Encoding.SIGN_MAGNITUDE
TWOS = Encoding.TWOS_COMPLEMENT


def drawn(model: nn.Module, x: Tensor, sparsity: float = 0.5) -> nn.Module:
    """Draw norms with falling and flat channels among them, calibrate, evaluation mode."""
    torch.manual_seed(7)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                if norm.affine:
                    norm.weight.normal_(0.5, 0.7)
                    norm.weight[0] = 0.0
                    norm.bias.normal_(0.2, 0.5)
                if norm.running_mean is not None:
                    norm.running_mean.normal_(0.0, 0.2)
                    norm.running_var.uniform_(0.5, 2.0)
    pg.calibrate(model, [x], sparsity=sparsity)
    return model.eval()


def images(channels: int = 3, size: int = 9) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def checked(model: nn.Module, x: Tensor, folder: Path) -> Trace:
    """Return the model's trace through a file, recomputed by two engines, layer into layer, and run on a machine."""
    write_trace(folder / "model.npz", pg.trace(model, x))
    trace = pgsim.load_trace(folder / "model.npz")
    assert pgsim.verify(trace).equal
    assert infer(trace, reference_engine).equal
    result = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet"))
    assert all(check.holds for check in result.audit)
    return trace


def inputs(trace: Trace) -> dict[str, str | None]:
    return {layer.name: layer.input_name for layer in trace.layers}


def kept(layer: Layer) -> list[str]:
    return [step.name for step in layer.post if isinstance(step, Requantise | SaveShortcut)]


class Plain(nn.Module):
    """Everything that a link may hold, from the stem to the classifier."""

    def __init__(self, pool: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem = pg.QuantConv2d(3, 6, 3, padding=1, input=pg.QuantiseInput(8, TWOS))
        self.norm = nn.BatchNorm2d(6)
        self.pool = pool or nn.MaxPool2d(3, 2, 1)
        self.point = pg.GatedConv2d(6, 8, 1, input=pg.Pact(4), gating=GATING, weights=pg.WeightFormat(per_channel=True))
        self.norm2, self.norm3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)
        self.depth = pg.GatedConv2d(8, 8, 3, padding="same", groups=8, input=pg.QuantiseInput(4, SIGNED), gating=GATING)
        self.drop, self.six = nn.Dropout(0.5), nn.ReLU6()
        self.last = pg.QuantLinear(8 * 25, 5, input=pg.QuantiseInput(5, TWOS))
        self.classifier = pg.QuantLinear(5, 3, input=pg.Pact(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.norm(self.stem(x))))
        x = self.norm3(self.norm2(self.point(x)))
        x = torch.flatten(self.drop(self.six(self.depth(x))), 1)
        return self.classifier(self.last(x).relu())


def test_a_plain_network_is_linked_from_its_first_codes_to_its_last_sums(tmp_path: Path) -> None:
    model, x = drawn(Plain(), images()), images()
    trace = checked(model, x, tmp_path)
    assert inputs(trace) == {
        "stem": None, "point": "stem.codes", "depth": "point.codes", "last": "depth.codes",
        "classifier": "last.codes",
    }  # fmt: skip
    turned, pool, step = trace.layers[0].post
    assert isinstance(turned, FixedPoint)
    assert isinstance(pool, MaxPool)
    assert isinstance(step, Requantise)
    assert set(turned.multiplier.tolist()) == {-1, 1}
    assert (step.direction == 1).all()
    (step,) = trace.layers[1].post
    assert isinstance(step, Requantise)
    assert set(step.direction.tolist()) == {-1, 1}
    assert (step.base, step.threshold.shape) == (-15, (8, 30))
    assert trace.layers[-1].post == ()


def test_linked_codes_are_those_of_the_float64_functions_and_the_differing_ones_are_counted() -> None:
    model, x = drawn(Plain(), images()), images()
    with torch.no_grad():
        model.norm.running_mean.add_(2e6)  # float32 rounds x - mean to eighths
        model.norm.running_var.fill_(1.0 - model.norm.eps)
        model.norm.bias.add_(model.norm.weight * 2e6)
    trace = pg.trace(model, x)
    stem, point = trace.tensors(0).output, trace.tensors(1).activation
    norm = {name: value.double().numpy() for name, value in model.norm.state_dict().items()}
    unit = trace.layers[0].act_scale * float(trace.layers[0].weight_scale[0])
    real = stem * unit + model.stem.bias.detach().double().numpy()[:, None, None]
    slope = norm["weight"] / np.sqrt(norm["running_var"] + model.norm.eps)
    y = (real - norm["running_mean"][:, None, None]) * slope[:, None, None] + norm["bias"][:, None, None]
    pooled = torch.nn.functional.max_pool2d(torch.from_numpy(y).relu(), 3, 2, 1).numpy()
    clip = model.point.input.clip
    np.testing.assert_array_equal(point, np.rint(np.clip(pooled, 0, clip) * (15 / clip)))
    with torch.no_grad():
        floats = model.point.input.codes(model.pool(torch.relu(model.norm(model.stem(x))))).numpy()
    found = trace.info["float32_code_differences"]
    assert np.count_nonzero(floats != point) > 0
    assert found["count"] >= np.count_nonzero(floats != point)
    assert found["of"] == sum(trace.tensors(index).activation.size for index in range(1, 5))
    assert found["largest"] >= np.abs(floats - point).max()


def test_a_changed_threshold_is_found(tmp_path: Path) -> None:
    trace = pg.trace(drawn(Plain(), images()), images())
    (step,) = trace.layers[1].post
    assert isinstance(step, Requantise)
    layer = replace(trace.layers[1], post=(replace(step, threshold=step.threshold + 40),))
    assert not pgsim.verify(replace(trace, layers=(trace.layers[0], layer, *trace.layers[2:]))).equal


def test_the_integer_function_of_batches_is_the_one_traced() -> None:
    model, x = drawn(Plain(), images()), images()
    outputs = model.depth.outputs
    first, second = pg.run_integers(model, [x[:1], x[1:]])
    trace = pg.trace(model, x)
    last = trace.layers[-1]
    real = trace.tensors(4).output[:, :, 0, 0] * (last.act_scale * last.weight_scale) + model.classifier.bias.numpy(
        force=True
    )
    np.testing.assert_allclose(torch.cat([first, second]).numpy(), real, rtol=1e-5, atol=1e-6)
    assert model.depth.outputs == outputs
    (nothing,) = pg.run_integers(model, [x[:0]])
    assert nothing.shape == (0, *first.shape[1:])
    with pytest.raises(TypeError, match=r"^batches must be a list of tensors or tuples"):
        list(pg.run_integers(model, x))


def conv(channels: int, out: int, quantiser: pg.Quantiser | None = None) -> pg.QuantConv2d:
    return pg.QuantConv2d(channels, out, 1, input=quantiser or pg.Pact(4))


class Shuffled(nn.Module):
    """Two halves: one passes, one is convolved; joined, shuffled, read again by layers of one clip or of two."""

    def __init__(self, readers: tuple[pg.Quantiser, pg.Quantiser], last: pg.Quantiser) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.one, self.two = conv(3, 8, pg.QuantiseInput(8, TWOS)), conv(4, 4, readers[0]), conv(8, 4, last)
        self.side = conv(4, 4, readers[1])
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.head = conv(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([x[:, ::2], self.relu(self.norm(self.one(x[:, 1::2])))], 1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        passed, half = x.chunk(2, 1)
        x = self.two(torch.cat([passed, torch.relu(self.side(half))], 1))
        return self.head(x + 1).mean((2, 3))


def test_codes_for_readers_of_one_format_behind_a_shuffle_are_stored(tmp_path: Path) -> None:
    shared = pg.Pact(4)
    model = drawn(Shuffled((shared, shared), shared), images())
    trace = checked(model, images(), tmp_path)
    assert set(inputs(trace).values()) == {None}
    assert {layer.name: kept(layer) for layer in trace.layers} == {
        "stem": ["stem.stored"], "one": ["one.stored"], "side": ["side.stored"], "two": [], "head": [],
    }  # fmt: skip
    (step,) = trace.layers[0].post
    assert isinstance(step, Requantise)
    codes = step.base + (trace.tensors(0).output[:, :, None] >= step.threshold[:, :, None, None]).sum(2)
    np.testing.assert_array_equal(trace.tensors(1).activation, codes[:, 1::2])
    words = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet")).assumed
    assert "what no layer of the trace reads leaves the chip: stem.stored, one.stored, side.stored" in words
    assert any(word.endswith("what follows is outside the trace: two, head") for word in words)


def test_sums_leave_where_readers_behind_a_shuffle_have_two_clips(tmp_path: Path) -> None:
    one, other = pg.Pact(4), pg.Pact(4)
    trace = checked(drawn(Shuffled((one, one), other), images()), images(), tmp_path)
    assert {layer.name: kept(layer) for layer in trace.layers} == {
        "stem": [], "one": [], "side": ["side.stored"], "two": [], "head": [],
    }  # fmt: skip


class Residual(nn.Module):
    """A sum that two layers of one clip read, one of another, an addition, and a quantiser at the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        shared = pg.Pact(4)
        self.stem = conv(3, 4, pg.QuantiseInput(8, TWOS))
        self.a, self.b, self.c, self.end = conv(4, 4, shared), conv(4, 4, shared), conv(4, 4), pg.Pact(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.end(self.a(x) + self.b(x) + x + self.c(x))


def test_sums_that_somebody_else_needs_leave_beside_the_codes(tmp_path: Path) -> None:
    model = drawn(Residual(), images())
    model.c.input.set_clip(model.a.input.clip / 2)
    trace = checked(model, images(), tmp_path)
    assert inputs(trace) == {"stem": None, "a": "stem.codes", "b": "stem.codes", "c": "stem.codes2"}
    assert kept(trace.layers[0]) == ["stem.sums", "stem.codes", "stem.codes2"]
    sums = trace.layers[0].post[0]
    assert isinstance(sums, SaveShortcut)
    reach = 127 * np.abs(trace.layers[0].weight.astype(int)).sum((1, 2, 3)).max() * 128 // 127
    assert 2 ** (sums.bits - 2) <= reach < 2 ** (sums.bits - 1)
    assert [layer.post for layer in trace.layers[1:]] == [(), (), ()]


class End(nn.Module):
    """A quantiser by itself reads the last layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.end = conv(3, 4), pg.Pact(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.stem(x)).mean((2, 3))


def test_a_quantiser_at_the_end_makes_codes_leave(tmp_path: Path) -> None:
    trace = checked(drawn(End(), images()), images(), tmp_path)
    (step,) = trace.layers[0].post
    assert isinstance(step, Requantise)
    assert (step.name, step.format.bits) == ("stem.stored", 3)


LINKED, STORED, ALONE = "linked", "stored", "alone"


def between(function: Callable[[Tensor], Tensor], last: nn.Module | None = None) -> nn.Module:
    """A model with `function` between its two layers."""

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.one, self.two = conv(3, 4, pg.QuantiseInput(8, TWOS)), last or conv(4, 2)
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.function(self.one(x)))

    return Between()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (between(torch.relu), LINKED),
        (between(nn.Identity()), LINKED),
        (between(nn.MaxPool2d(2)), LINKED),
        (between(lambda x: x.relu_()), LINKED),
        (between(lambda x: x * torch.tensor(2.0)), ALONE),
        (between(torch.sigmoid), ALONE),
        (between(lambda x: x + x), ALONE),
        (between(lambda x: x * x.sum()), ALONE),
        (between(nn.AvgPool2d(2)), ALONE),
        (between(nn.MaxPool2d(2, ceil_mode=True)), STORED),
        (between(nn.MaxPool2d(2, dilation=2)), STORED),
        (between(nn.BatchNorm2d(4, track_running_stats=False)), ALONE),
        (between(lambda x: x if x.sum() > 0 else -x), ALONE),
        (between(lambda x: x.flip(0)), ALONE),
        (between(lambda x: (x.relu_(), x)[1], conv(4, 2, pg.QuantiseInput(4, SIGNED))), ALONE),
        (between(lambda x: x.relu().transpose(2, 3)), STORED),
        (between(nn.Identity(), pg.QuantLinear(9, 2, input=pg.Pact(4))), STORED),
    ],
)
def test_only_monotone_functions_of_a_channel_are_linked(model: nn.Module, found: str, tmp_path: Path) -> None:
    drawn(model, images())
    before = dict(vars(model))
    trace = checked(model, images(), tmp_path)
    assert inputs(trace) == {"one": None, "two": "one.codes" if found == LINKED else None}
    steps = [step.name for step in trace.layers[0].post if isinstance(step, Requantise)]
    assert steps == {LINKED: ["one.codes"], STORED: ["one.stored"], ALONE: []}[found]
    assert bool(trace.layers[0].post) == ("float32_code_differences" in trace.info) == bool(steps)
    assert dict(vars(model)) == before


def test_a_layer_that_is_called_twice_or_has_a_hook_stands_alone(tmp_path: Path) -> None:
    layer = conv(3, 3)
    model = drawn(nn.Sequential(conv(3, 3), layer, layer, conv(3, 2)), images())
    with pytest.raises(ValueError, match=r"^1: a layer must see 2 images, as 0 did, not 4$"):
        pg.trace(model, images())
    model = drawn(between(nn.Identity()), images())
    handle = model.two.register_forward_hook(lambda module, args, out: out + 1)
    assert inputs(checked(model, images(), tmp_path)) == {"one": None, "two": None}
    handle.remove()
    model.function.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    assert inputs(checked(model, images(), tmp_path)) == {"one": None, "two": None}


class Own(nn.Module):
    """Two layers and a ReLU; what stands around them is up to a subclass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.one, self.two = conv(3, 4, pg.QuantiseInput(8, TWOS)), conv(4, 2)
        self.feature: Tensor | None = None
        self.register_buffer("calls", torch.zeros(()))

    def plain(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x)


class AsksKind(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x * 2 if isinstance(x, Tensor) else x)


class Optional(Own):
    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self.plain(x if scale is None else x * scale)


class Adds(Own):
    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        alias = y
        alias += 0.5
        return self.two(y)


class Keeps(Own):
    def forward(self, x: Tensor) -> Tensor:
        self.feature = self.one(x).relu()
        return self.two(self.feature)


class Counts(Own):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.plain(x)


def overwritten(function: Callable[[Tensor], object]) -> nn.Module:
    """A model whose second layer reads what `function` did to the first's output in place."""

    class Overwritten(Own):
        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            function(y)
            return self.two(y)

    return Overwritten()


def hooked(register: str) -> nn.Module:
    model = Own()
    hooks = {"pre": lambda _, args: (args[0] * 3 - 0.5,), "post": lambda _, args, out: out.softmax(1)}
    (model.register_forward_pre_hook if register == "pre" else model.register_forward_hook)(hooks[register])
    return model


@pytest.mark.parametrize(
    "model",
    [
        hooked("pre"), hooked("post"), AsksKind(), Optional(), Adds(), Keeps(), Counts(),
        overwritten(lambda y: nn.functional.leaky_relu_(y, 0.1)),
        overwritten(lambda y: torch.clamp_(y, -0.1, 0.1)),
        overwritten(lambda y: nn.functional.relu_(nn.Identity()(y))),
        overwritten(lambda y: y.flatten(1).relu_()),
        overwritten(lambda y: y.mul_(-1)),
    ],
)  # fmt: skip
def test_a_model_that_the_graph_does_not_compute_stands_alone(model: nn.Module, tmp_path: Path) -> None:
    drawn(model, images())
    with torch.no_grad():
        wanted = model(images())
    trace = checked(model, images(), tmp_path)
    assert inputs(trace) == {"one": None, "two": None}
    assert model.feature is None or torch.equal(model.feature, model.one(images()).relu())
    (found,) = pg.run_integers(model, [images()])
    assert torch.equal(found, wanted)


def test_an_argument_of_another_kind_is_looked_at_anew() -> None:
    model = drawn(Optional(), images())
    batches = [(images(), torch.tensor(2.0)), (images(), None), (images(),)]
    wanted = [model(*batch) for batch in batches]
    for found, by_torch in zip(pg.run_integers(model, batches), wanted, strict=True):
        torch.testing.assert_close(found, by_torch)
    assert not torch.equal(wanted[0], wanted[1])


class Counting(Own):
    """Has a state, overwrites its input, and reads what an earlier call left."""

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.25
        self.calls += 1
        if self.feature is not None:
            x = x + self.feature.mean()
        self.feature = self.one(x).relu()
        return self.two(self.feature)


@pytest.mark.parametrize("inference", [False, True])
def test_finding_links_leaves_the_model_and_its_inputs_alone(inference: bool) -> None:
    model = drawn(Counting(), images())
    model.feature, state = None, {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        wanted = model(images())
    feature = model.feature
    model.feature = None
    model.load_state_dict(state)
    x = images()
    with torch.inference_mode(inference):
        (found,) = pg.run_integers(model, [x])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(model.feature, feature)
    assert float(model.calls) == float(state["calls"]) + 1
    torch.testing.assert_close(x, images() - 0.25)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    model, x = drawn(Own(), images()), images()
    x[1, 2, 3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"^one: inputs must be numbers, not NaN$"):
        pg.trace(model, x)


def test_a_convolution_of_two_sizes_is_refused_by_its_path() -> None:
    class Heads(Own):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.plain(part) for part in (x, x[:, :, 2:, 3:])]

    with pytest.raises(ValueError, match=r"^one: inputs of a traced convolution must have one size, not 7 x 6 and 9 x"):
        pg.trace(drawn(Heads(), images()), images())


def test_rows_of_a_matmul_are_linked(tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(
        pg.QuantLinear(5, 7, input=pg.QuantiseInput(8, TWOS)),
        nn.ReLU(),
        pg.GatedLinear(7, 4, input=pg.Pact(4), gating=GATING),
    )
    x = torch.randn(2, 3, 5)
    pg.calibrate(model, [x], sparsity=0.5)
    trace = checked(model, x, tmp_path)
    assert inputs(trace) == {"0": None, "2": "0.codes"}
    assert trace.layers[1].geometry.in_height == 3
