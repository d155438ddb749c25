"""The verbs on a user's own tensors and modules."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small import found as figure
from torch import Tensor, nn

import oblivio as ob
from oblivio.audits.case import gather
from oblivio.audits.subjects import Subject, noise
from oblivio.audits.verdict import named
from oblivio.core.errors import BadInput, Stopped
from oblivio.jobs.augment import crop_flip


def net(width: int = 8, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def rows(seed: int = 0, n: int = 90) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % 3
    noise = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(y, 4) * 2 + noise, y


X, Y = rows()
TEST = rows(1)
RECIPE = {"lr": 0.1, "epochs": 5, "batch": 16}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return ob.learn(net(), (X, Y), RECIPE)


def request(model: nn.Module, gone: Tensor, **more: Any) -> Any:
    return ob.Problem(model, forget=(X[gone], Y[gone]), retain=(X[~gone], Y[~gone]), test=TEST, **more)


def bits(model: nn.Module) -> list[Tensor]:
    return [t.clone() for t in model.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


CLASS = Y == 2
SOME = torch.arange(len(Y)) % 10 == 0


# --- learn


def test_learn_trains_a_copy(model: nn.Module) -> None:
    start = net()
    before = bits(start)
    trained = ob.learn(start, (X, Y), RECIPE)
    assert same(bits(start), before)
    assert same(bits(trained), bits(model))
    assert not trained.training
    problem = ob.Problem(trained, test=TEST)
    assert problem.score("test") > 0.7


def test_learn_takes_settings_alone() -> None:
    with pytest.raises(BadInput, match="yourself"):
        ob.learn(net(), (X, Y), "own.module:train")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"recipe: epoch: there is no such field; did you mean 'epochs'"):
        ob.learn(net(), (X, Y), {"epoch": 1})


# --- forget


def test_forget_changes_a_copy_and_says_what_it_took(model: nn.Module) -> None:
    before, modes = bits(model), [m.training for m in model.modules()]
    problem = request(model, CLASS)
    outcome = ob.forget(problem, "salun", keep=0.5, epochs=3)
    assert same(bits(model), before)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [True] * 4
    assert problem.passes == {}
    assert not same(bits(outcome.model), before)
    assert outcome.cost["rows"]["forget"] >= 3 * int(CLASS.sum())
    assert outcome.cost["peak_bytes"] > 0
    assert json.loads(json.dumps(outcome.report)) == outcome.report
    assert "weight noise" in outcome.table()


def test_the_same_call_gives_the_same_bits(model: nn.Module) -> None:
    torch.manual_seed(5)
    one = ob.forget(request(model, SOME), "relabel", epochs=1)
    torch.manual_seed(6)
    two = ob.forget(request(model, SOME), ob.methods.relabel(epochs=1))
    assert same(bits(one.model), bits(two.model))


def test_the_model_is_untouched_when_a_run_fails(model: nn.Module) -> None:
    before = bits(model)

    def stop(*_: Any) -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped, match="enough"):
        ob.forget(request(model, SOME), "finetune", watch=[stop])
    with pytest.raises(Stopped, match="untouched"):
        ob.forget(request(model, SOME), "finetune", lr=1e30)
    assert same(bits(model), before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_pieces_change_the_plan(model: nn.Module) -> None:
    seen: list[Any] = []

    def piece(plan: Any) -> Any:
        seen.append(plan)
        return plan.but(where="model.2.*")

    outcome = ob.forget(request(model, SOME), "finetune", pieces=[piece], epochs=1)
    assert len(seen) == 1
    assert torch.equal(outcome.model[0].weight, model[0].weight)  # type: ignore[index]
    assert not torch.equal(outcome.model[2].weight, model[2].weight)  # type: ignore[index]


def test_equal_content_is_counted(model: nn.Module) -> None:
    x = torch.cat([X, X[SOME]])
    y = torch.cat([Y, Y[SOME]])
    goes = torch.cat([SOME, torch.zeros(int(SOME.sum()), dtype=torch.bool)])
    problem = ob.Problem(model, forget=(x[goes], y[goes]), retain=(x[~goes], y[~goes]))
    with pytest.warns(UserWarning, match="9 retained rows have the same content"):
        outcome = ob.forget(problem, "finetune", epochs=1)
    assert any("same content" in note for note in outcome.notes)


def test_a_folder_keeps_the_outcome_and_a_killed_call_goes_on(model: nn.Module, tmp_path: Path) -> None:
    whole = ob.forget(request(model, SOME), "finetune", epochs=1)

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ob.forget(request(model, SOME), "finetune", epochs=1, folder=tmp_path / "out", watch=[kill])
    ob.forget(request(model, SOME), "finetune", epochs=1, folder=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "model", "report.html", "report.json", "rows.parquet",
    ]  # fmt: skip
    assert same(bits(ob.load(tmp_path / "out", base=net())), bits(whole.model))
    with pytest.raises(BadInput, match="not empty"):
        ob.forget(request(model, SOME), "finetune", epochs=1, folder=tmp_path / "out")


# --- references and audit


def test_references_are_compared_and_checked(model: nn.Module, tmp_path: Path) -> None:
    ids = [f"r{i}" for i in range(90)]
    gone = [i for i, goes in zip(ids, SOME.tolist(), strict=True) if goes]
    rest = [i for i in ids if i not in gone]
    problem = ob.Problem(model, forget=(X[SOME], Y[SOME], gone), retain=(X[~SOME], Y[~SOME], rest), test=TEST)
    fresh = [ob.learn(net(seed=s), (X[~SOME], Y[~SOME]), RECIPE, seed=s) for s in (1, 2)]
    outcome = ob.forget(problem, "finetune", references=[fresh[0], (fresh[1], gone)], epochs=1)
    right = fresh[0](X[SOME]).argmax(1) == Y[SOME]
    assert outcome.report.value("forget", "retrained 1") == pytest.approx(float(right.double().mean()))
    with pytest.raises(BadInput, match='trained with 2 of the 9 rows to forget, ids "r0", "r10"'):
        ob.forget(problem, "finetune", references=[(fresh[0], gone[2:])], epochs=1)
    more = ob.audit(outcome, references=fresh)
    assert named(more, "reference") == [f"retrained {i}" for i in (1, 2, 3, 4)]


def test_references_are_trained_anew_by_the_recipe(model: nn.Module) -> None:
    outcome = ob.forget(request(model, SOME), "finetune", epochs=1)
    before = bits(model)
    report = ob.audit(outcome, references=3, recipe=RECIPE, leave_out=["mia_confidence", "relearning"])
    assert named(report, "reference") == ["retrained 1", "retrained 2", "retrained 3"]
    assert report["reproduced"]["same"]
    assert same(bits(model), before)
    again = ob.audit(outcome, references=3, recipe=RECIPE, leave_out=["mia_confidence", "relearning"])
    assert again["figures"] == report["figures"]
    assert outcome.report.verdict.word == "INCONCLUSIVE"  # the outcome itself stays as it was


def test_a_recipe_that_cannot_be_checked_leaves_the_verdict_open(model: nn.Module) -> None:
    problem = ob.Problem(model, forget=(X[SOME], Y[SOME]), retain=(X[~SOME], Y[~SOME]))
    report = ob.audit(ob.forget(problem, "finetune", epochs=1), references=3, recipe=RECIPE, leave_out=["relearning"])
    assert report.verdict.word == "INCONCLUSIVE"
    assert "without test rows it is not known" in report.verdict.reasons[0]


def test_references_cannot_be_trained_without_a_recipe_or_new_weights(model: nn.Module) -> None:
    outcome = ob.forget(request(model, SOME), "finetune", epochs=1)
    with pytest.raises(BadInput, match="say with recipe= how the original was trained"):
        ob.audit(outcome, references=3)
    with pytest.raises(BadInput, match="train them by own.module:train yourself"):
        ob.audit(outcome, references=3, recipe={"train": "own.module:train"})
    odd = nn.Sequential(model, Scaled())
    with pytest.raises(BadInput, match="has weights and no reset_parameters"):
        ob.audit(ob.forget(request(odd, SOME), "finetune", epochs=1), references=1, recipe=RECIPE)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_audit_of_a_model_made_elsewhere(model: nn.Module) -> None:
    found = ob.audit(copy.deepcopy(model), request(model, CLASS))
    assert found.value("forget", "outcome") == found.value("forget", "original")
    assert found.verdict.word == "INCONCLUSIVE"
    assert "there are no references" in str(found)
    with pytest.raises(BadInput, match="give problem="):
        ob.audit(model)


def test_figures_of_a_class_request_tell_test_rows_apart(model: nn.Module) -> None:
    found = ob.forget(request(model, CLASS), "finetune", epochs=1).report
    assert found.value("forget", "output masked") == found.value("unseen", "output masked") == 0
    right = model(TEST[0]).argmax(1) == TEST[1]
    assert found.value("kept", "original") == pytest.approx(float(right[TEST[1] != 2].double().mean()))


def test_each_model_passes_each_source_once(model: nn.Module) -> None:
    problem = request(model, CLASS)
    calls: list[int] = []
    hook = model.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    gather(problem, [Subject("original", "original", dict(problem.nets.items()))], [2])
    hook.remove()
    assert calls == [30, 60, 90]
    assert problem.passes == {}


def test_noise_moves_each_tensor_as_far_as_the_method(model: nn.Module) -> None:
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for i, weight in enumerate(moved.parameters()):
            weight += 0.1 * i
    noisy = noise({"model": model}, {"model": moved}, 0)["model"]
    for a, b, c in zip(model.parameters(), moved.parameters(), noisy.parameters(), strict=True):
        assert float((c - a).detach().norm()) == pytest.approx(float((b - a).detach().norm()), rel=1e-4, abs=1e-6)


def test_figures_without_references_or_test() -> None:
    problem = ob.Problem(net(), forget=(X[SOME], Y[SOME]), retain=(X[~SOME], Y[~SOME]))
    report = ob.forget(problem, "finetune", epochs=1).report
    assert figure(report, "kept") == ("does not apply", "there are no test rows with targets")
    assert report.verdict.word == "INCONCLUSIVE"


# --- load, save, protect, learner


def test_save_and_load(model: nn.Module, tmp_path: Path) -> None:
    ob.save(model, tmp_path / "model", task="classification")
    assert same(bits(ob.load(tmp_path / "model", base=net())), bits(model))
    outcome = ob.forget(request(model, SOME), "finetune", epochs=1)
    ob.save(outcome, tmp_path / "outcome")
    assert same(bits(ob.load(tmp_path / "outcome", base=net())), bits(outcome.model))
    for thing in (model, outcome):
        with pytest.raises(BadInput, match="not empty"):
            ob.save(thing, tmp_path / "model", task="classification")
    with pytest.raises(BadInput, match="say with task="):
        ob.save(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_model_is_protected_without_rows_to_forget_and_keeps_its_own_bits(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    clean = request(model, SOME).source("retain")
    changed = ob.protect(ob.Problem(model, retain=clean), "ebyd", expose_epochs=1, mask_epochs=1, tune_epochs=1).model
    assert any(not torch.equal(before[name], value) for name, value in changed.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_does_not_protect_is_refused(model: nn.Module) -> None:
    with pytest.raises(BadInput, match="there is no method 'glaze'"):
        ob.protect(request(model, SOME), "glaze")
    with pytest.raises(BadInput, match="of the kind unlearning"):
        ob.protect(request(model, SOME), "npo")


def test_a_learner_learns_by_a_method_or_a_plan() -> None:
    from oblivio.core.descent import Descent

    learner = ob.learner(net(), Descent(ob.terms.fit("new"), epochs=2), task="classification")
    learner.learn(new=(X, Y)).learn(new=TEST)
    assert learner.predict(X).shape == (90, 3)
    named = ob.learner(net(), "finetune", task="classification", epochs=1)
    assert named.learn(retain=(X, Y)).predict(X).shape == (90, 3)


# --- augmentation


def test_crop_flip_moves_whole_images_by_little() -> None:
    x = torch.zeros(64, 1, 16, 16)
    x[:, :, 8, 5] = 1
    moved = crop_flip(x, torch.Generator().manual_seed(0))
    places = moved.flatten(1).argmax(1)
    assert torch.equal(moved.flatten(1).sum(1), torch.ones(64))
    assert set((places // 16).tolist()) == {6, 7, 8, 9, 10}
    assert set((places % 16).tolist()) == {3, 4, 5, 6, 7} | {8, 9, 10, 11, 12}


def test_a_learner_with_a_guarantee_equals_one_that_never_learned_the_rows() -> None:
    rows = {"x": X, "y": Y, "id": range(len(X))}
    gone = [3, 5, 8]
    stay = [i for i in range(len(X)) if i not in gone]
    whole, other = (ob.learner(nn.Flatten(), "ridge") for _ in range(2))
    whole.learn(rows)
    assert whole.forget(gone).guarantee == "exact"
    other.learn({"x": X[stay], "y": Y[stay], "id": stay})
    assert torch.allclose(whole.predict(X), other.predict(X), atol=1e-8)
    with pytest.raises(BadInput, match="never learned"):
        whole.forget([3])
    with pytest.raises(BadInput, match="give one"):
        ob.learner(None, "npo")
