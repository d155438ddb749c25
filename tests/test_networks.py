"""Every built-in network, whichever files there are, and the user's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from oblivio import networks
from oblivio.core.errors import BadInput
from oblivio.modules.heads import last_linear
from oblivio.modules.preprocess import Standardise, assembled
from oblivio.modules.table import TablePreprocess
from oblivio.networks import Architecture
from oblivio.networks.vit_tiny import Attention
from oblivio.sources import as_source

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16]},
    "resnet18": {"width": 4},
    "vit-tiny": {"width": 16, "depth": 2},
}
WEIGHTS = {  # of the defaults on what each is known for; the last is kuangliu's ResNet18 for CIFAR-10
    "mlp": ((1, 28, 28), 478_410),
    "small-cnn": ((1, 28, 28), 206_922),
    "vit-tiny": ((1, 28, 28), 204_938),
    "resnet18": ((3, 32, 32), 11_173_962),
}
ON_ROWS = [name for name in networks.names() if networks.takes(name) == "rows"]  # the others: see test_graphs
every_network = pytest.mark.parametrize("name", ON_ROWS)


def small(name: str, inputs: tuple[int, ...] = (1, 14, 14), outputs: int = 5) -> nn.Module:
    return networks.build(name, inputs, outputs, **SMALL.get(name, {}))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_names_are_those_of_the_files() -> None:
    files = Path(networks.__file__).parent.glob("[!_]*.py")
    assert networks.names() == sorted(file.stem.replace("_", "-") for file in files)


@every_network
@pytest.mark.parametrize(("inputs", "outputs"), [((1, 14, 14), 5), ((3, 7, 21), 1)])
def test_forward_and_backward(name: str, inputs: tuple[int, ...], outputs: int) -> None:
    net = small(name, inputs, outputs)
    out = net(torch.rand(3, *inputs))
    assert out.shape == (3, outputs)
    out.square().sum().backward()
    gradients = {k: p.grad for k, p in net.named_parameters()}
    assert [k for k, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()] == []


@every_network
def test_a_row_does_not_depend_on_the_rest_of_its_batch(name: str) -> None:
    net, x = small(name).eval(), torch.rand(6, 1, 14, 14)
    whole = net(x)
    torch.testing.assert_close(torch.cat([net(row[None]) for row in x]), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x.flip(0)).flip(0), whole, rtol=1e-4, atol=1e-5)


@every_network
def test_it_can_learn(name: str) -> None:
    net, x, y = small(name), torch.rand(8, 1, 14, 14), torch.arange(8) % 5
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@every_network
def test_the_caller_seeds(name: str) -> None:
    first = small(name).state_dict()
    second = small(name).state_dict()
    torch.manual_seed(0)
    again = small(name).state_dict()
    assert all(torch.equal(again[k], first[k]) for k in first)
    assert not all(torch.equal(second[k], first[k]) for k in first)


@every_network
def test_the_head_is_the_last_linear_layer(name: str) -> None:
    net = small(name)
    assert last_linear(net) == "head"
    assert type(net.get_submodule("head")) is nn.Linear


@every_network
def test_number_of_weights(name: str) -> None:
    inputs, weights = WEIGHTS[name]
    with torch.device("meta"):
        assert count(networks.build(name, inputs, 10)) == weights


@every_network
@pytest.mark.parametrize("preprocess", [None, "channels"])
def test_an_architecture_survives_json(name: str, preprocess: str | None) -> None:
    architecture = Architecture(name, (1, 14, 14), 5, SMALL.get(name, {}), preprocess)
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert set(again.options) == set(networks.defaults(name))  # written out, whatever later defaults are
    shapes = [{k: v.shape for k, v in a.build().state_dict().items()} for a in (architecture, again)]
    assert shapes[0] == shapes[1]


@every_network
@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "message"),
    [
        ((1, 14, 14), 0, {}, "outputs is 0"),
        ((1, 0, 14), 5, {}, r"inputs\.1 is 0"),
        ((1, 14, 14), 5, {"colour": 1}, "has no option 'colour'"),
    ],
)
def test_what_no_network_takes(
    name: str, inputs: tuple[int, ...], outputs: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{name}.*{message}"):
        networks.build(name, inputs, outputs, **options)


@pytest.mark.parametrize("name", [n for n in ON_ROWS if n != "mlp"])
def test_a_table_is_no_image(name: str) -> None:
    with pytest.raises(BadInput, match=rf"{name} takes images.*\(30,\)"):
        networks.build(name, (30,), 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("small-cn", {}, "did you mean 'small-cnn'"),
        ("mlp", {"hiden": [3]}, "did you mean 'hidden'"),
        ("mlp", {"hidden": 3}, "hidden is 3"),
        ("mlp", {"hidden": [3, -1]}, r"hidden\.1 is -1"),
        ("resnet18", {"width": "wide"}, "width is 'wide'"),
        ("vit-tiny", {"patch": 5}, "patch 5 does not divide images of 14x28; 1, 2, 7, 14 do"),
        ("vit-tiny", {"width": 10, "heads": 3}, "heads 3 does not divide width 10"),
    ],
)
def test_options_that_do_not_suit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        networks.build(name, (1, 14, 28), 5, **options)


def test_mlp_serves_tables_and_can_be_linear() -> None:
    assert networks.build("mlp", (30,), 2)(torch.rand(4, 30)).shape == (4, 2)
    assert count(networks.build("mlp", (30,), 2, hidden=())) == 62


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 33), st.integers(1, 33))
def test_small_cnn_takes_images_of_any_size(channels: int, height: int, width: int) -> None:
    net = networks.build("small-cnn", (channels, height, width), 2)
    assert net(torch.rand(1, channels, height, width)).shape == (1, 2)


def test_vit_tiny_reaches_vit_ti() -> None:
    with torch.device("meta"):
        net = networks.build("vit-tiny", (3, 224, 224), 1000, width=192, depth=12, heads=3, patch=16)
    assert count(net) == 5_717_416 - 2 * 192  # DeiT-Ti, without the class token and its position


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=15)
def test_attention_is_that_of_torch(heads: int, each: int, tokens: int) -> None:
    width = heads * each
    own, other = Attention(width, heads), nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        other.in_proj_weight.copy_(own.qkv.weight)
        other.in_proj_bias.copy_(own.qkv.bias)
        other.out_proj.load_state_dict(own.out.state_dict())
    x = torch.randn(2, tokens, width)
    torch.testing.assert_close(own(x), other(x, x, x, need_weights=False)[0], rtol=1e-4, atol=1e-5)


def test_vit_tiny_has_second_derivatives_under_the_math_kernel() -> None:
    net = small("vit-tiny")
    with sdpa_kernel(SDPBackend.MATH):
        loss = net(torch.rand(2, 1, 14, 14)).square().sum()
        gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        torch.stack([g.square().sum() for g in gradients]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# --- the user's own ---


OWN = """
import torch
def net(width: int, outputs=2, name="x"): return torch.nn.Linear(width, outputs)
def anything(**options): return torch.nn.Linear(**options)
def text(): return "no module"
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_factory_is_called_with_its_options_alone() -> None:
    architecture = Architecture("own_nets:net", (9,), 9, {"width": 3, "outputs": 4, "name": "y"})
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert count(architecture.build()) == 16
    assert count(networks.build("own_nets:anything", (9,), 9, in_features=3, out_features=4)) == 16


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("own_netz:net", {}, "own_netz cannot be imported: ModuleNotFoundError: No module named 'own_netz'"),
        ("own_broken:net", {}, "own_broken cannot be imported: ZeroDivisionError"),
        ("./own_nets.py:net", {}, "cannot be imported"),
        (":net", {}, "cannot be imported"),
        ("own_nets:nett", {}, "own_nets has no function or class 'nett'; did you mean 'net'"),
        ("own_nets:number", {}, "own_nets has no function or class 'number'"),
        ("own_nets:text", {}, "made a str"),
        ("own_nets:net", {}, "missing a required argument: 'width'"),
        ("own_nets:net", {"widht": 3}, "no option 'widht'; did you mean 'width'"),
    ],
)
def test_factories_that_cannot_be_used(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        networks.build(name, (3,), 2, **options)


@pytest.mark.parametrize("value", [None, 3, {}, {"name": "mlp", "inputs": [3], "outputs": 2, "depth": 1}])
def test_what_is_no_architecture(value: Any) -> None:
    with pytest.raises(BadInput, match="does not describe an architecture"):
        Architecture.from_json(value)


def test_options_that_json_cannot_hold() -> None:
    with pytest.raises(BadInput, match="options of a network cannot be written down"):
        Architecture("mlp", (3,), 2, {"hidden": {3}})


# --- preprocessing ---


tables = st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**32)).map(
    lambda t: 100 * torch.randn(t[:2], generator=torch.Generator().manual_seed(t[2])) + 1000
)


def fitted_to(x: Tensor) -> Standardise:
    module = Standardise.identity(tuple(x.shape[1:]))
    module.refit(as_source(x))
    return module


@given(tables)
def test_standardised_columns(x: Tensor) -> None:
    fitted = fitted_to(x)
    out = fitted(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(x.shape[1]), rtol=0, atol=1e-3)
    spread = torch.ones(x.shape[1]) if len(x) > 1 else torch.zeros(x.shape[1])
    torch.testing.assert_close(out.std(0, correction=0), spread, rtol=0, atol=1e-3)
    torch.testing.assert_close(out * fitted.std + fitted.mean, x, rtol=1e-4, atol=1e-3)


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 50))
def test_a_constant_column_becomes_zero(value: float, rows: int) -> None:
    x = torch.stack([torch.full((rows,), value), torch.arange(rows).float()], 1)
    fitted = fitted_to(x)
    assert fitted.std[0] == 1
    torch.testing.assert_close(fitted(x)[:, 0], torch.zeros(rows), rtol=0, atol=abs(value) * 1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_images_are_standardised_by_channel(kind: torch.dtype) -> None:
    x = torch.randint(0, 255, (9, 3, 4, 5)).to(kind)
    out = fitted_to(x)(x)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(3))


@pytest.mark.parametrize("inputs", [(3, 4, 5), (7,)])
def test_the_identity_has_the_shape_of_a_fit(inputs: tuple[int, ...]) -> None:
    x = torch.rand(2, *inputs)
    identity, fitted = Standardise.identity(inputs), fitted_to(x)
    assert torch.equal(identity(x), x)
    assert identity.mean.shape == fitted.mean.shape
    assert identity.std.shape == fitted.std.shape


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[1.0, 2.0], [1.0, math.nan]]), "column 1"),
        (torch.full((2, 1, 3, 3), math.inf), "channel 0"),
        (torch.zeros(0, 4), "no rows"),
    ],
)
def test_what_cannot_be_standardised(x: Tensor, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fitted_to(x)


def test_a_network_is_built_for_what_its_preprocessing_gives() -> None:
    x = torch.tensor([[1.5, 0.0], [math.nan, 2.0], [2.5, 1.0]])
    architecture = Architecture("mlp", (2,), 4, {"hidden": []}, {"sizes": (0, 3), "gaps": (0,)})
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    net = again.build()
    assert net.get_parameter("net.head.weight").shape == (4, 5)
    fitted = TablePreprocess((0, 3), (0,))
    fitted.refit(as_source(x))
    net.get_submodule("prepare").load_state_dict(fitted.state_dict())
    assert torch.equal(net(x), net.get_submodule("net")(fitted(x)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("chanels", "'chanels' is no preprocessing"),
        ({"gaps": []}, "is no preprocessing"),
        ({"sizes": [0, 0], "colour": 1}, "is no preprocessing"),
        ({"sizes": [0, 0, 0]}, r"3 columns does not suit examples of shape \(2,\)"),
    ],
)
def test_preprocessing_that_cannot_be(spec: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Architecture("mlp", (2,), 4, preprocess=spec).build()


def test_preprocessing_is_part_of_the_model_but_no_weight() -> None:
    x = 5 + 3 * torch.randn(20, 4)
    net = nn.Linear(4, 2)
    model = assembled(net, fitted_to(x))
    torch.testing.assert_close(model(x), net((x - x.mean(0)) / x.std(0, correction=0)))
    assert [k for k, _ in model.named_parameters()] == ["net.weight", "net.bias"]
    assert sorted(model.state_dict()) == ["net.bias", "net.weight", "prepare.mean", "prepare.std"]
