"""The evolved mixture: a buffer that is full is tested, rows that nobody generates begin an expert, ELBOs route."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import resumes_everywhere
from torch import Tensor, nn

from oblivio import contracts, methods
from oblivio.core.errors import BadInput
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.surgery import replay
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.methods.continual.structure.evolved_mixture import Evolve, Kept, mmd
from oblivio.modules.masked import MASKED
from oblivio.modules.mixture import Mixture, add_component, host_mixture, mixture
from oblivio.modules.vae import VAE
from oblivio.sources import Tensors
from oblivio.tasks.incremental import Incremental, Outputs

SMALL = {"M": 6, "batch": 6, "replay": 6, "hidden": 6, "latent": 2}
# so low a threshold that experts are begun in a few steps
SPLITTING = partial(methods.evolved_mixture, threshold=1e-9, epochs=4, lr=0.05, **SMALL)
DIVERSE = partial(SPLITTING, dropout="diversity")


def net(outputs: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, outputs))


def experience(task: int, scenario: str = "class", n: int = 12) -> Experience:
    """Two classes by the sign of the first column; the rows of a task lie together."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(task)) + 4 * task
    base = 2 * task if scenario != "domain" else 0
    y = (x[:, 0] > 4 * task).long() + base
    rows = Tensors({"x": x, "y": y, "task": torch.full((n,), task)}, ids=list(range(100 * task, 100 * task + n)))
    return Experience(rows, task, (base, base + 1), scenario)  # type: ignore[arg-type]


def hosted(seed: int = 0) -> Mixture:
    nets: dict[str, nn.Module] = {"model": net()}
    host_mixture(nets, width=3, hidden=[6], latent=2, beta=0.5, seed=seed)
    return mixture(nets)


def part(of: Learner, kind: type[Any]) -> Any:
    return next(p for p in of.parts.values() if isinstance(p, kind))


def components(of: Learner) -> int:
    return len(mixture(of.problem.nets).components)


# --- the signal


def test_the_discrepancy_is_that_of_the_kernel_means() -> None:
    rows, drawn = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [2.0]])
    h = 4.0  # the middle of 1, 4 and 9

    def k(a: Tensor, b: Tensor) -> float:
        return sum(float(torch.exp(-(((p - q) ** 2).sum()) / h)) for p in a for q in b) / (len(a) * len(b))

    by_hand = k(rows, rows) - 2 * k(rows, drawn) + k(drawn, drawn)
    assert mmd(rows, drawn) == pytest.approx(by_hand, abs=1e-6)


@given(st.integers(0, 999), st.integers(2, 12), st.floats(0.1, 10))
def test_the_discrepancy_is_0_of_the_same_rows_whatever_their_order_and_scale(seed: int, n: int, scale: float) -> None:
    rows = scale * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    assert mmd(rows, rows.flip(0)) == pytest.approx(0, abs=1e-5)
    shifted = rows + 3 * scale
    assert mmd(rows, shifted) > 0
    assert mmd(rows / scale, shifted / scale) == pytest.approx(mmd(rows, shifted), abs=1e-4)


def test_rows_that_are_all_the_same_give_a_number() -> None:
    assert mmd(torch.ones(3, 2), torch.ones(3, 2)) == pytest.approx(0)
    assert mmd(torch.ones(3, 2), torch.zeros(3, 2)) == pytest.approx(2)


# --- the mixture


def test_the_elbo_is_that_of_the_mean_code() -> None:
    component, x = hosted().newest, torch.randn(5, 3)
    component.vae.scale.fill_(2.0)
    z = x / 2
    mean, spread = component.vae.encode(z)
    error = (component.vae.decoder(mean) - z).square().sum(1)
    kl = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(1)
    assert torch.allclose(component.elbo(x, 0.5), -(error + 0.5 * kl), atol=1e-6)


def test_a_row_is_answered_by_the_highest_elbo_among_the_classes_that_expert_learned() -> None:
    model, x = hosted(), torch.randn(20, 3)
    assert torch.equal(model.predict(x), model(x))  # one that has learned nothing hides nothing
    model.newest.known[:2] = True
    model.add(1)
    assert model.chosen(x).tolist() == [0] * 20  # the other has learned nothing
    model.newest.known[2:] = True
    elbos = torch.stack([each.elbo(x, model.beta) for each in model.components], 1)  # type: ignore[operator]
    chosen, out = model.chosen(x), model.predict(x)
    assert torch.equal(chosen, elbos.argmax(1))
    assert set(chosen.tolist()) == {0, 1}
    for i, j in enumerate(chosen.tolist()):
        known = slice(2 * j, 2 * j + 2)
        assert torch.allclose(out[i, known], model.components[j].classifier(x[i : i + 1])[0, known], atol=1e-6)
        assert (out[i] == MASKED).sum() == 2
    assert torch.allclose(model.predict(x[3:4])[0], out[3], atol=1e-6)


def test_a_new_component_has_fresh_weights_the_same_scale_and_leaves_the_others_as_they_are() -> None:
    model = hosted()
    model.newest.vae.scale.fill_(3.0)
    model.newest.known[1] = True
    before = {n: v.clone() for n, v in model.newest.state_dict().items()}
    model.add(5)
    first, second = model.components
    assert all(torch.equal(v, first.state_dict()[n]) for n, v in before.items())
    assert not second.known.any()  # type: ignore[operator,union-attr]
    assert second.vae.scale == 3  # type: ignore[union-attr]
    assert all(not torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    again = hosted()
    again.add(5)
    assert torch.equal(again(torch.ones(1, 3)), model(torch.ones(1, 3)))


def test_the_structure_can_be_built_again_from_the_journal() -> None:
    taught = Learner(net(), SPLITTING(), "classification").learn(experience(0)).learn(experience(1))
    assert components(taught) > 1
    nets: dict[str, nn.Module] = {"model": net()}
    replay(nets, taught.problem.journal)
    assert nets["model"].state_dict().keys() == taught.model.state_dict().keys()


# --- the buffer and the test


def taught_step(n: int = 12, **settings: Any) -> tuple[Evolve, Step]:
    """A first step on the rows of task 0, before anything moved."""
    problem = Problem(net(), task="classification", new=experience(0, n=n).rows)
    plan: Any = methods.evolved_mixture(**{**SMALL, **settings})
    plan.where.prepare(problem)
    return plan.where, Step(problem, "here", plan.where.select(problem), plan.batch)


def test_a_row_is_held_once_and_what_does_not_fit_comes_after_the_thinning() -> None:
    evolve, step = taught_step(M=6, batch=4, fraction=0.5)
    for t, expected in enumerate((4, 5)):  # of the second batch two fill the buffer, three stay, two more come
        step.at_time(t)
        evolve.before(step)
        held = evolve.kept.ids.tolist()
        assert len(held) == expected == len(set(held))
        if t == 1:
            assert set(step.drawn("new")["id"].tolist()[2:]) <= set(held)
    assert "task" not in evolve.kept.columns
    evolve.kept.keep(torch.arange(3))
    step.at_time(0)
    before = set(evolve.kept.ids.tolist())
    evolve.before(step)
    assert set(evolve.kept.ids.tolist()) <= before | set(step.drawn("new")["id"].tolist())


def test_the_rows_that_the_newest_vae_fits_worst_stay() -> None:
    evolve, step = taught_step(dropout="diversity", fraction=0.7)
    model, x = mixture(step.problem.nets), torch.randn(10, 3)
    worst = model.newest.elbo(x, model.beta).argsort()[:3]
    assert evolve._remaining(step, model, x).tolist() == worst.sort().values.tolist()
    evolve.dropout = "random"
    chosen = evolve._remaining(step, model, x)
    assert len(set(chosen.tolist())) == 3
    assert torch.equal(chosen, evolve._remaining(step, model, x))
    evolve.fraction = 0.99
    assert len(evolve._remaining(step, model, x)) == 1


@pytest.mark.parametrize(("found", "novel"), [((0.21, 0.32), True), ((0.19, 0.32), False), ((0.21, 0.29), False)])
def test_rows_are_novel_where_they_are_far_from_every_expert(
    found: tuple[float, float], novel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    evolve, step = taught_step(threshold=0.1)
    step.problem.operate(add_component, seed=1)
    model, rows = mixture(step.problem.nets), torch.randn(8, 3)
    before = [{"weights": {"the": "first"}, "own": 0.2}, {"weights": {"the": "last"}, "own": 9.0}]
    for begun in ([], before[:1]):
        evolve.state.update(earlier=begun, own=[0.1])
        assert not evolve._novel(step, model, rows)  # the newest expert has only begun
    evolve.state["earlier"] = before
    asked: list[Any] = []
    distances = iter(found)

    def discrepancy(step: Step, of: nn.Module, rows: Tensor, weights: Any = None) -> float:
        asked.append((of, weights))
        return next(distances)

    monkeypatch.setattr(evolve, "_discrepancy", discrepancy)
    assert evolve._novel(step, model, rows) is novel
    assert asked == [(model.components[0], None), (model.components[1], {"the": "first"})]


@torch.no_grad()
def test_what_an_expert_generates_is_drawn_at_the_weights_that_are_given() -> None:
    evolve, step = taught_step()
    newest, rows = mixture(step.problem.nets).newest, torch.randn(8, 3)
    now = evolve._discrepancy(step, newest, rows)
    earlier = {n: v.clone() for n, v in newest.state_dict().items()}
    newest.vae.decoder[-1].bias.add_(1)  # type: ignore[operator,union-attr]
    assert evolve._discrepancy(step, newest, rows, earlier) == pytest.approx(now)
    assert evolve._discrepancy(step, newest, rows) != pytest.approx(now)


def test_a_frozen_expert_is_as_it_was_two_tests_ago_and_only_the_newest_moves() -> None:
    frozen: list[dict[str, Tensor]] = []
    earlier: dict[str, Tensor] = {}
    wrong: list[str] = []

    def watch(run: Any, stage: Any, step: Step) -> None:
        model = mixture(step.problem.nets)
        for j, state in enumerate(frozen):
            now = model.components[j].state_dict()
            wrong.extend(f"{j}.{n}" for n, v in state.items() if not torch.equal(v, now[n]))
        if len(model.components) > len(frozen) + 1:
            now = model.components[-2].state_dict()
            wrong.extend(n for n, v in earlier.items() if not torch.equal(v, now[n]))
            frozen.append({n: v.clone() for n, v in now.items()})
        earlier.clear()
        snapshots = stage.where.state.get("earlier", [])
        earlier.update({n: v.clone() for n, v in snapshots[0]["weights"].items()} if snapshots else {})

    taught = Learner(net(), SPLITTING(), "classification")
    for task in range(2):
        taught.learn(experience(task), watch=[watch])
    assert len(frozen) > 1
    assert wrong == []


def test_a_task_that_lies_elsewhere_gets_an_expert_without_being_announced() -> None:
    plan = methods.evolved_mixture(M=48, threshold=0.3, batch=8, hidden=16, latent=2, epochs=20, lr=0.01)
    taught = Learner(net(), plan, "classification")
    for task in range(2):
        batch = experience(task, n=64).rows.batch(torch.arange(64))
        taught.learn(new={"x": batch["x"], "y": batch["y"]})  # without the column task
    assert components(taught) == 2
    assert [each.known.tolist() for each in mixture(taught.problem.nets).components] == [  # type: ignore[operator,union-attr]
        [True, True, False, False], [False, False, True, True],
    ]  # fmt: skip
    for task in range(2):
        assert taught.qualities(experience(task).rows)["served"].mean() > 0.8


# --- the whole


@pytest.mark.parametrize("make", [SPLITTING, DIVERSE], ids=["random", "diversity"])
def test_killed_at_any_step_and_resumed_it_ends_in_the_same_bits(make: Callable[[], Stage], tmp_path: Path) -> None:
    first = experience(0)

    def problem() -> Problem:
        outputs = Outputs("class")
        outputs.begin(first.heads)
        made = Problem(net(), task=Incremental(outputs), new=first.rows)
        made.turn = 1
        return made

    whole = resumes_everywhere(make, problem, tmp_path)
    assert len(mixture(whole.nets).components) > 1


def test_with_experts_it_has_the_properties_of_a_stream() -> None:
    assert components(contracts.streams.StreamCase(SPLITTING, "class").finished) > 1
    looked_at = "goes_on reproducible by_itself counted holds forgets"
    assert contracts.check_stream(SPLITTING, "class", looked_at) == []


def test_forgotten_rows_leave_the_buffer_and_learning_goes_on() -> None:
    taught = Learner(net(), SPLITTING(), "classification").learn(experience(0))
    gone = part(taught, Kept).ids.tolist()
    assert part(taught, Evolve).state["earlier"]
    receipt = taught.forget(gone)
    assert "earlier" not in part(taught, Evolve).state
    assert any(f"{len(gone)} rows removed" in place.done for place in receipt.places)
    assert len(part(taught, Kept)) == 0
    taught.learn(experience(1))
    assert not set(gone) & set(part(taught, Kept).ids.tolist())


def test_pictures_are_flattened_for_the_autoencoder() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    x, y = torch.randn(20, 1, 4, 4), torch.arange(20) % 2
    taught = Learner(model, SPLITTING(), "classification").learn(new=(x, y))
    vae = mixture(taught.problem.nets).newest.vae
    assert isinstance(vae, VAE)
    assert vae.centre.shape == (16,)
    assert taught.predict(x).shape == (20, 2)


def test_a_head_that_would_have_to_grow_is_refused() -> None:
    before = Learner(net(2), SPLITTING(), "classification").learn(experience(0))
    with pytest.raises(BadInput, match="with an output for every class"):
        before.learn(experience(1))
    with pytest.raises(BadInput, match="with an output for every class"):
        Learner(net(2), SPLITTING(), "classification").learn(experience(1))


@pytest.mark.parametrize("wrong", [{"M": 1}, {"threshold": 0.0}, {"fraction": 1.0}, {"dropout": "none"}, {"beta": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        methods.evolved_mixture(**wrong)
