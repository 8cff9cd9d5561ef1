"""Conversion: which module becomes what, with whose weights, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.parametrizations import weight_norm  # noqa: E402

import pgsim  # noqa: E402
import pgsim.nn as pg  # noqa: E402
from pgsim.arith.formats import Encoding  # noqa: E402
from pgsim.io.trace import write_trace  # noqa: E402

FINE = pg.WeightFormat(16, per_channel=True)


class Network(nn.Module):
    """A user's network: nothing in it knows pgsim."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.body = nn.Sequential(
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding="same", groups=2),
            nn.Tanh(),
            nn.Conv2d(4, 6, 1, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Words(nn.Module):
    """An embedding whose weights are the decoder's, too, around an LSTM cell."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.decoder = nn.Embedding(9, 5), nn.LSTMCell(5, 5), nn.Linear(5, 9)
        self.decoder.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        state, out = None, []
        for word in words:
            state = self.cell(self.embedding(word), state)
            out.append(self.decoder(state[0]))
        return torch.stack(out)


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def network() -> Network:
    torch.manual_seed(2)
    return Network()


def kinds(model: nn.Module) -> dict[str, str]:
    return {path: type(layer).__name__ for path, layer in pg.coded_layers(model).items()}


def test_layers_become_what_the_recipe_says_and_inputs_what_they_are_seen_to_be() -> None:
    plain = network()
    model = pg.convert(plain, pg.Recipe(act_bits=4), [images()])
    assert kinds(plain) == {}
    assert kinds(model) == {
        "stem": "QuantConv2d",
        "body.2": "GatedConv2d",
        "body.4": "GatedConv2d",
        "head": "QuantLinear",
    }
    formats = {path: (x.input.format.encoding.value, x.act_bits) for path, x in pg.coded_layers(model).items()}
    assert formats == {
        "stem": ("twos_complement", 8),
        "body.2": ("unsigned", 4),
        "body.4": ("twos_complement", 4),
        "head": ("unsigned", 8),
    }
    assert isinstance(model.body[2].input, pg.Pact)
    assert model.training
    other = pg.convert(
        plain,
        pg.Recipe(gated=("body.4",), dense=("body.2",), float_layers=("stem",), last="gated", activation="static"),
    )
    assert kinds(other) == {"body.2": "QuantConv2d", "body.4": "GatedConv2d", "head": "GatedLinear"}
    assert type(other.stem) is nn.Conv2d
    assert isinstance(other.body[2].input, pg.QuantiseInput)


def test_without_examples_the_first_layer_has_signed_codes() -> None:
    model = pg.convert(network(), pg.Recipe())
    signed = {path for path, x in pg.coded_layers(model).items() if x.input.format.encoding is not Encoding.UNSIGNED}
    assert signed == {"stem"}
    assert pg.convert(network(), pg.Recipe(), [images().abs()]).stem.input.format.encoding is Encoding.UNSIGNED
    with pytest.raises(
        TypeError, match=r"^batches must be a list of tensors or tuples \(\[x\] for one\), not a tensor$"
    ):
        pg.convert(network(), pg.Recipe(), images())


def test_a_pattern_decides_over_first_and_last() -> None:
    model = pg.convert(network(), pg.Recipe(gated=("stem", "he*")))
    assert kinds(model) == {"stem": "GatedConv2d", "head": "GatedLinear"}


@pytest.mark.parametrize("make", [lambda: (network(), images()), lambda: (Words(), torch.tensor([[1, 2], [8, 3]]))])
def test_at_many_bits_the_converted_model_computes_what_the_float_one_does(
    make: Callable[[], tuple[nn.Module, Tensor]],
) -> None:
    torch.manual_seed(3)
    plain, x = make()
    recipe = pg.Recipe(act_bits=14, edge_bits=14, gating=pg.Gating(13), weights=FINE, delta=-1e6)
    model = pg.convert(plain.eval(), recipe, [x])
    assert not model.training
    pg.calibrate(model, [x])
    torch.testing.assert_close(model(x), plain(x), rtol=1e-2, atol=2e-3)


def test_tied_weights_stay_tied_and_shared_modules_shared() -> None:
    model = pg.convert(Words(), pg.Recipe(last="gated"))
    assert kinds(model) == {"cell": "QuantLSTMCell", "decoder": "GatedLinear"}
    assert model.decoder.weight is model.embedding.weight
    conv = nn.Conv2d(3, 3, 1)
    model = pg.convert(nn.Sequential(nn.Conv2d(3, 3, 1), conv, nn.ReLU(), conv, nn.Conv2d(3, 3, 1)), pg.Recipe())
    assert model[1] is model[3]
    assert isinstance(model[1], pg.GatedConv2d)


def test_negative_inputs_are_seen_of_layers_that_are_called_by_keyword() -> None:
    class ByKeyword(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](input=torch.relu(self[1](input=self[0](x))))

    torch.manual_seed(13)
    layers = [nn.Linear(4, 4) for _ in range(3)]
    model = pg.convert(ByKeyword(*layers), pg.Recipe(first="gated", last="gated"), [torch.randn(20, 4)])
    assert [model[k].quantiser().format.encoding.value != "unsigned" for k in range(3)] == [True, True, False]


def test_a_bare_module_converts_and_trains_on_its_device(device: str) -> None:
    torch.manual_seed(4)
    model = pg.convert(nn.Linear(4, 3).double().to(device), pg.Recipe(first="gated", signed=("*",)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    x = torch.randn(8, 4, dtype=torch.float64).to(device)
    pg.calibrate(model, [x], sparsity=0.5)
    optimiser = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(20):
        loss = (model(x) - 1).square().mean() + pg.penalty(model, 1e-3, 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_converted_model_goes_all_the_way_to_the_simulator(tmp_path: Path) -> None:
    model = pg.convert(network(), pg.Recipe(), [images()])
    pg.calibrate(model, [images()], sparsity=0.7)
    write_trace(tmp_path / "user.npz", pg.trace(model, images()))
    trace = pgsim.load_trace(tmp_path / "user.npz")
    assert pgsim.verify(trace).equal
    result = pgsim.simulate(trace, pgsim.load_accelerator("predictivenet"))
    assert result.totals().cycles > result.totals(gated=True).cycles > 0


def bits_of(model: nn.Module) -> dict[str, int]:
    return {path: layer.act_bits for path, layer in pg.coded_layers(model).items()}


def test_the_first_and_last_layers_have_edge_bits_whoever_says_that_they_are_dense() -> None:
    make = lambda: nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])  # noqa: E731
    assert bits_of(pg.convert(make(), pg.Recipe(act_bits=3))) == {"0": 8, "1": 3, "2": 3, "3": 8}
    named = pg.Recipe(act_bits=3, dense=("0", "1", "3"), edge_bits=6)
    assert bits_of(pg.convert(make(), named)) == {"0": 6, "1": 3, "2": 3, "3": 6}
    assert bits_of(pg.convert(make(), pg.Recipe(act_bits=3, gated=("0", "1")))) == {"0": 3, "1": 3, "3": 8}


class Aliased(nn.Module):
    """The stem stands in the list of blocks, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.blocks = nn.ModuleList([self.stem, nn.Linear(2, 2), nn.Linear(2, 2)])


def test_a_module_of_two_paths_is_first_or_last_by_either() -> None:
    model = pg.convert(Aliased(), pg.Recipe(act_bits=3, signed=("blocks.0",)))
    assert model.blocks[0] is model.stem
    assert bits_of(model) == {"stem": 8, "blocks.1": 3, "blocks.2": 8}
    assert isinstance(model.stem.input, pg.QuantiseInput)


class ByWeight(nn.Module):
    """Reads a layer's weight and does not call it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.three(nn.functional.linear(self.one(x), self.two.weight))


def test_calibration_refuses_a_layer_that_does_not_run() -> None:
    x = torch.ones(2, 3)
    model = pg.convert(ByWeight(), pg.Recipe())
    with pytest.raises(
        ValueError, match=r"^two\.input: must run on these batches in evaluation mode, not be passed by; "
    ):
        pg.calibrate(model, [x])
    with pytest.raises(ValueError, match=r"^two: must run on these batches"):
        pg.calibrate(model, [x], sparsity=0.5, pact=False, static="keep")
    pg.calibrate(pg.convert(ByWeight(), pg.Recipe(float_layers=("two",))), [x], sparsity=0.5)


class Hooked(nn.Module):
    """One convolution with a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.conv.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("make", "recipe", "message"),
    [
        (network, pg.Recipe(gated=("layer1.*",)), r"^gated must match Conv2d, Linear or LSTMCell modules \(stem"),
        (network, pg.Recipe(signed=("body.0",)), r"^signed must match Conv2d, .* not 'body\.0'$"),
        (network, pg.Recipe(act_bits=2), r"^body\.2: pred_bits must be 1 \.\. 1 for act_bits 2, not 2$"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1, padding_mode="reflect")), pg.Recipe(), "^0: padding_mode must be"),
        (lambda: nn.Sequential(nn.Linear(2, 2).half()), pg.Recipe(), "^0: weight must be float32 or float64, not"),
        (lambda: nn.Sequential(weight_norm(nn.Linear(2, 2))), pg.Recipe(), r"^0: weights must be plain parameters"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), pg.Recipe(), r"^1: LSTM must be left float"),
        (Hooked, pg.Recipe(), r"^conv: forward hooks must be removed first"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), *[nn.Linear(2, 2)] * 2, nn.Linear(2, 2)),
            pg.Recipe(dense=("1",)),
            r"^2: a module shared with 1 must be dense, not gated$",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_by_its_path(
    make: Callable[[], nn.Module], recipe: pg.Recipe, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pg.convert(make(), recipe)


def test_a_recipe_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"^first must be gated, dense, float, not 'quantised'$"):
        pg.Recipe(first="quantised")
    with pytest.raises(TypeError, match=r"^gated must be a tuple of patterns, not a string: \('conv',\)$"):
        pg.Recipe(gated="conv")
    assert kinds(pg.convert(nn.Sequential(nn.LSTM(2, 2)), pg.Recipe(float_layers=("0",)))) == {}
