"""Saved models: what comes back, what is refused, and that no half of one is ever read."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oblivio import artefact, networks
from oblivio.core.errors import BadInput
from oblivio.core.surgery import operate
from oblivio.modules.heads import widen_head
from oblivio.modules.masked import mask_output
from oblivio.networks import Architecture

LINEAR = Architecture("mlp", (3,), 2, {"hidden": []})
SMALL: dict[str, dict[str, Any]] = {"resnet18": {"width": 4}, "vit-tiny": {"width": 16, "depth": 2}}


class Tied(nn.Module):
    """An embedding and its decoder, one tensor when ``tie``; and a buffer that two names share."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.decode = nn.Linear(3, 4, bias=False)
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("shift", torch.randn(3))
        if tie:
            self.decode.weight = self.embed.weight
            self.shift = self.mean

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.embed(x) - self.mean + 2 * self.shift)


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    artefact.save(folder, LINEAR.build(), task="classification", architecture=LINEAR)
    return folder


# --- what comes back ---


@pytest.mark.parametrize("preprocess", [None, "channels"])
@pytest.mark.parametrize("name", [name for name in networks.names() if networks.takes(name) == "rows"])
def test_a_model_comes_back_with_the_same_bits(name: str, preprocess: str | None, tmp_path: Path) -> None:
    architecture = Architecture(name, (1, 14, 14), 5, SMALL.get(name, {}), preprocess)
    module = architecture.build()
    x = torch.rand(4, 1, 14, 14)
    module(x)  # moves batch-norm statistics
    artefact.save(tmp_path, module, task="classification", architecture=architecture)
    state = torch.get_rng_state()
    again = artefact.read(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.architecture == architecture
    assert not any(m.training for m in again.module.modules())
    assert same(again.module, module)
    assert torch.equal(again.module(x), module.eval()(x))
    assert all(v.data_ptr() % 64 == 0 for v in again.module.state_dict().values())


def test_the_facts_come_back(tmp_path: Path) -> None:
    facts = {"method": "salun", "settings": {"keep": 0.5}, "seed": 3, "time": "now"}
    classes = ["cat", "dog"]
    artefact.save(tmp_path, LINEAR.build(), task="regression", architecture=LINEAR, classes=classes, provenance=facts)
    again = artefact.read(tmp_path)
    assert again.task == "regression"
    assert again.classes == classes
    assert again.journal == []
    assert facts.items() <= again.provenance.items()
    assert {"release", "versions", "threads", "machine"} <= again.provenance.keys()


def test_surgery_comes_back(tmp_path: Path) -> None:
    nets = {"model": LINEAR.build()}
    journal: list[dict[str, Any]] = []
    operate(nets, journal, widen_head, layer="head", by=2, seed=1)
    operate(nets, journal, mask_output, classes=[0])
    artefact.save(tmp_path, nets["model"], task="classification", architecture=LINEAR, journal=journal)
    again = artefact.read(tmp_path)
    assert same(again.module, nets["model"])
    assert again.journal == journal
    x = torch.rand(4, 3)
    assert torch.equal(again.module(x), nets["model"](x))


@pytest.mark.parametrize("tie", [True, False])
def test_tied_tensors_are_saved_once_and_tied_again(tie: bool, tmp_path: Path) -> None:
    module = Tied()
    artefact.save(tmp_path, module, task="classification")
    assert sorted(load_file(tmp_path / artefact.WEIGHTS)) == ["embed.weight", "mean"]
    again = artefact.read(tmp_path, base=Tied(tie)).module
    assert isinstance(again, Tied)
    assert again.decode.weight is again.embed.weight
    assert again.shift is again.mean
    assert len(list(again.parameters())) == 1
    assert same(again, module)


def test_what_was_not_tied_is_not_tied_when_read(tmp_path: Path) -> None:
    module = Tied(tie=False)
    artefact.save(tmp_path, module, task="classification")
    again = artefact.read(tmp_path, base=Tied()).module
    assert len(list(again.parameters())) == 2
    assert same(again, module)


def test_a_base_is_copied_and_needed_without_an_architecture(tmp_path: Path) -> None:
    base = nn.Linear(3, 2)
    before = base.weight.detach().clone()
    artefact.save(tmp_path, nn.Linear(3, 2), task="classification")
    again = artefact.read(tmp_path, base=base).module
    assert again is not base
    assert torch.equal(base.weight, before)
    assert base.training
    with pytest.raises(BadInput, match="without its architecture; give the module"):
        artefact.read(tmp_path)


KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
shapes = st.lists(st.integers(0, 3), max_size=3)


@settings(max_examples=30)
@given(st.lists(st.tuples(shapes, st.sampled_from(KINDS), st.booleans()), max_size=4), st.randoms())
def test_any_tensors_come_back(tmp_path_factory: pytest.TempPathFactory, tensors: list[Any], random: Any) -> None:
    module, base = nn.Module(), nn.Module()
    for i, (shape, kind, weight) in enumerate(tensors):
        value = torch.full(shape, random.random() * 3).to(kind)
        for owner, tensor in ((module, value), (base, torch.zeros(shape))):
            if weight and kind.is_floating_point:
                owner.register_parameter(f"t{i}", nn.Parameter(tensor))
            else:
                owner.register_buffer(f"t{i}", tensor)
    folder = tmp_path_factory.mktemp("any")
    artefact.save(folder, module, task="classification")
    again = artefact.read(folder, base=base).module
    assert same(again, module)
    assert {k for k, _ in again.named_parameters()} == {k for k, _ in module.named_parameters()}


def test_the_users_own_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_saved.py").write_text("import torch\ndef net(width): return torch.nn.Linear(width, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    architecture = Architecture("own_saved:net", (3,), 2, {"width": 3}, preprocess="channels")
    module = architecture.build()
    artefact.save(tmp_path / "model", module, task="classification", architecture=architecture)
    assert same(artefact.read(tmp_path / "model", factory="own_saved:net").module, module)
    monkeypatch.undo()
    sys.modules.pop("own_saved")
    with pytest.raises(BadInput, match="own_saved cannot be imported"):
        artefact.read(tmp_path / "model", factory="own_saved:net")


# --- what is refused ---


def edit(folder: Path, **changes: Any) -> None:
    path = folder / artefact.META
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip(folder: Path) -> None:
    path = folder / artefact.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights without model.json": (lambda f: (f / artefact.META).unlink(), "no model.json.*did not finish"),
    "model.json without weights": (lambda f: (f / artefact.WEIGHTS).unlink(), "model.safetensors does not exist"),
    "half of model.json": (lambda f: (f / artefact.META).write_text("{"), "is not JSON"),
    "a list": (lambda f: (f / artefact.META).write_text("[]"), "does not follow schema 1"),
    "a later schema": (lambda f: edit(f, schema=2, task=5), "newer release; this one reads schema 1"),
    "a wrong field": (lambda f: edit(f, tied=[]), "does not follow schema 1: tied"),
    "another bit": (flip, "checksums differ"),
    "a pickle by another name": (lambda f: (f / artefact.WEIGHTS).write_bytes(pickle.dumps({})), "checksums differ"),
    "another network": (
        lambda f: edit(f, architecture=Architecture("mlp", (3,), 2, {"hidden": [1]}).to_json()),
        r"fit the module: head.weight is \(2, 3\) where .* \(2, 1\); hidden1.bias is missing; .*missing$",
    ),
    "many faults": (
        lambda f: edit(f, architecture=Architecture("mlp", (5,), 1).to_json()),
        "is missing; and 3 more",
    ),
    "no such network": (
        lambda f: edit(f, architecture={"name": "mpl", "inputs": [3], "outputs": 2}),
        "did you mean 'mlp'",
    ),
    "no such surgery": (lambda f: edit(f, journal=[{"op": "oblivio.modules.heads:cut", "args": {}}]), "cut"),
    "a tie to nothing": (lambda f: edit(f, tied={"tail.weight": "head.weight"}), "tail.weight is unexpected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_saved_model(case: str, saved: Path) -> None:
    spoil, message = REFUSED[case]
    spoil(saved)
    with pytest.raises(BadInput, match=message):
        artefact.read(saved)


def test_no_folder_and_no_pickle(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        artefact.read(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"no model: there is no model.json$"):
        artefact.read(tmp_path)
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(BadInput, match=r"not a saved model.*no pickle is read"):
        artefact.read(tmp_path / "model.pt")


def test_a_later_release_may_add_fields_within_the_schema(saved: Path) -> None:
    edit(saved, colour="blue")
    assert artefact.read(saved).task == "classification"


def test_a_model_is_not_written_over(saved: Path) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    with pytest.raises(BadInput, match="already holds a model"):
        artefact.save(saved, LINEAR.build(), task="classification", architecture=LINEAR)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


class Remembers(nn.Module):
    def get_extra_state(self) -> str:
        return "no tensor"


@pytest.mark.parametrize(
    ("module", "facts", "message"),
    [
        (nn.Linear(1, 1), {"when": {1, 2}}, "provenance cannot be written as JSON"),
        (nn.Linear(1, 1), {"loss": float("nan")}, "provenance cannot be written as JSON"),
        (Remembers(), {}, "_extra_state is a str; only tensors"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(
    module: nn.Module, facts: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        artefact.save(tmp_path / "model", module, task="classification", provenance=facts)
    assert not (tmp_path / "model").exists()


# --- no half of one: killed at any moment, see test_kills.py ---


@pytest.mark.parametrize("at", [0, 1])
def test_a_full_disk_leaves_no_model(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, replace = itertools.count(), os.replace

    def full(*args: Any) -> None:
        if next(calls) == at:
            raise OSError(28, "No space left on device")
        replace(*args)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        artefact.save(tmp_path, LINEAR.build(), task="classification", architecture=LINEAR)
    assert not (tmp_path / artefact.META).exists()
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


# --- weights from elsewhere ---


def test_weights_are_copied_into_the_users_module(tmp_path: Path) -> None:
    source, module = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file({k: v.double() for k, v in source.state_dict().items()}, tmp_path / "w.safetensors")
    weight = module.weight
    artefact.load_weights(module, tmp_path / "w.safetensors")
    assert module.weight is weight
    assert same(module, source)


@pytest.mark.parametrize("names", [["embed.weight"], ["decode.weight"], ["embed.weight", "decode.weight"]])
def test_one_name_of_a_tied_tensor_is_enough(names: list[str], tmp_path: Path) -> None:
    module, weight = Tied(), torch.rand(4, 3)
    save_file({"shift": torch.ones(3)} | {name: weight.clone() for name in names}, tmp_path / "w.safetensors")
    artefact.load_weights(module, tmp_path / "w.safetensors")
    assert module.decode.weight is module.embed.weight
    assert torch.equal(module.embed.weight, weight)
    assert module.mean.tolist() == [1, 1, 1]


def test_a_tied_tensor_has_one_value(tmp_path: Path) -> None:
    save_file(Tied(tie=False).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"decode.weight and embed.weight differ|shift and mean differ"):
        artefact.load_weights(Tied(), tmp_path / "w.safetensors")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    save_file({"weight": torch.zeros(2, 4), "gain": torch.zeros(2)}, tmp_path / "w.safetensors")
    expected = r"bias is missing; gain is unexpected; weight is \(2, 4\) where the module has \(2, 3\)"
    with pytest.raises(BadInput, match=expected):
        artefact.load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
def test_a_pickle_is_never_loaded(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(BadInput, match=r"pickle|not a safetensors file"):
        artefact.load_weights(nn.Linear(3, 2), tmp_path / name)
