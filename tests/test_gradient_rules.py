"""Rules that project gradients: hand-computed projections, the program of GEM, memories by task, teachers of PLwF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from small import flat, mlp, problem, rows, same, state, step
from torch import Tensor

from oblivio import methods, terms
from oblivio.claims.constraints import checked, watched
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, dot
from oblivio.core.problem import Problem
from oblivio.core.seeds import generator
from oblivio.core.step import Step
from oblivio.core.term import Rule, term
from oblivio.data import split
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.methods.continual.distillation.plwf import credited, progressive
from oblivio.methods.continual.gradients.agem import averaged, unopposed
from oblivio.methods.continual.gradients.gem import constrained, multipliers
from oblivio.networks import build
from oblivio.sources import Exemplars
from oblivio.terms.distill import outputs
from oblivio.terms.vectors import SMALLEST, shaped, stacked

CHEAP = {"lr": 0.05, "epochs": 1, "batch": 30}


def vector(*values: float) -> Grads:
    return {"w": torch.tensor(values)}


def two_tasks(scenario: str = "class") -> tuple[Experience, ...]:
    return split("digits", tasks=5, scenario=scenario).train[:2]


def learned(name: str, scenario: str = "class", **settings: object) -> Learner:
    learner = Learner(network(), methods.registry.get(name)(**CHEAP, **settings), "classification")
    for experience in two_tasks(scenario):
        learner.learn(experience)
    return learner


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("mlp", (1, 8, 8), 10, hidden=(12,))


def found(learner: Learner, kind: type) -> Rule:
    return next(part for part in learner.parts.values() if isinstance(part, kind))


# --- vectors


def test_gradients_become_rows_and_come_back() -> None:
    weights = {"a": torch.zeros(2, 2), "b": torch.zeros(3)}
    g, h = {"a": torch.arange(4.0).view(2, 2)}, {"b": torch.ones(3), "a": torch.ones(2, 2)}
    G = stacked([g, h], weights)
    assert G.dtype == torch.double
    assert G.tolist() == [[0, 1, 2, 3, 0, 0, 0], [1] * 7]
    back = shaped(G[0], weights)
    assert torch.equal(back["a"], g["a"])
    assert back["b"].tolist() == [0, 0, 0]
    assert back["a"].dtype == torch.float32


# --- A-GEM


def test_only_what_opposes_is_taken_off() -> None:
    assert unopposed(vector(3, 1), vector(-2, 0))["w"].tolist() == [0, 1]  # g . r = -6, |r|^2 = 4: g + 1.5 r
    assert unopposed(vector(3, 1), vector(2, 0))["w"].tolist() == [3, 1]
    assert unopposed(vector(3, 1), vector(0, 0))["w"].tolist() == [3, 1]


@given(st.lists(st.floats(-10, 10, width=32), min_size=8, max_size=8), st.floats(1e-9, 1e3))
def test_what_is_left_never_opposes(values: list[float], scale: float) -> None:
    g, r = vector(*values[:4]), {"w": scale * torch.tensor(values[4:])}
    assume(not r["w"].any() or float(dot(r, r)) >= SMALLEST)  # a square below counts as nothing
    left = unopposed(g, r)
    size = float(left["w"].norm() * r["w"].norm())
    assert float(dot(left, r)) >= -1e-5 * max(size, 1e-30) - 1e-6 * float(g["w"].norm() * r["w"].norm())


@term
def pulled(step: Step, on: str, pull: list[float]) -> Tensor:
    """Its gradient in the model's first bias is ``pull``."""
    return (step.weights["model.0.bias"] * torch.tensor(pull)).sum() + 0 * step.out(on).sum(1)


def test_the_rule_adds_beta_of_the_memory_and_passes_without_one() -> None:
    of = problem(retain=rows(8, 6), new=rows(4, 6))
    g, r = [3.0, 1, 0, 0, 0], [-2.0, 0, 0, 0, 0]
    for beta, expected in {0.0: [0, 1, 0, 0, 0], 0.5: [-1, 1, 0, 0, 0]}.items():
        rule = averaged(pulled("new", g), pulled("retain", r), beta)
        assert rule.grad(step(of))["model.0.bias"].tolist() == expected
    empty = averaged(pulled("new", g), terms.fit(Exemplars(5)))
    assert empty.constraints(step(of)) == []
    assert empty.grad(step(of))["model.0.bias"].tolist() == g


def test_with_an_empty_memory_agem_and_gem_are_naive_to_the_bit() -> None:
    first = two_tasks()[0]
    plain = Learner(network(), methods.naive(**CHEAP), "classification")
    plain.learn(first)
    for name in ("agem", "gem", "plwf"):
        other = Learner(network(), methods.registry.get(name)(**CHEAP), "classification").learn(first)
        assert same(state(plain.problem), state(other.problem)), name


def test_the_memory_of_agem_has_equal_shares_with_their_tasks_or_a_uniform_sample() -> None:
    memory = found(learned("agem", "task", buffer=20), Exemplars)
    assert memory.groups.bincount().tolist() == [0, 10, 10]
    assert torch.equal(memory.state["rows"]["task"][:20], memory.groups - 1)
    reservoir = learned("agem", buffer=20, fill="reservoir").parts
    assert len(next(p for p in reservoir.values() if getattr(p, "name", "") == "replay")) == 20


def test_a_step_looks_at_each_stored_row_under_the_outputs_of_its_own_task() -> None:
    learner = learned("agem", "task", buffer=20)
    rule, of = found(learner, averaged), learner.problem
    whole = step(of)
    (r,) = rule.constraints(whole)
    head = next(g for n, g in r.items() if len(g) == 10 and g.dim() == 1)
    assert head[4:].tolist() == [0] * 6  # classes 0 to 3 came; every row moves the two of its task alone
    assert (head[:4] != 0).all()


def test_forgetting_reaches_the_memories_and_a_group_that_is_gone_constrains_nothing() -> None:
    learner = learned("gem", buffer=20)
    memory = found(learner, Exemplars)
    gone = memory.ids[(memory.groups == 1).numpy()]
    assert "10 rows removed" in str(learner.forget(gone.tolist()))
    rule, of = found(learner, constrained), learner.problem
    assert len(rule.constraints(step(of))) == 1


# --- GEM


def test_one_constraint_is_the_projection_of_agem_where_gamma_and_eps_vanish() -> None:
    G, g = torch.tensor([[-2.0, 0.0]]).double(), torch.tensor([3.0, 1.0]).double()
    v = multipliers(G @ G.T, G @ g, 0.0, 1e-12)
    assert v.tolist() == pytest.approx([1.5])
    assert (g + v @ G).tolist() == pytest.approx([0, 1])


def test_gamma_is_the_least_multiplier_of_every_constraint() -> None:
    G, g = torch.tensor([[1.0, 0], [0, 1]]).double(), torch.tensor([-3.0, 2]).double()
    assert multipliers(G @ G.T, G @ g, 0.5, 1e-12).tolist() == pytest.approx([3.0, 0.5])


@given(st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0.0, 0.5]))
def test_the_program_has_the_solution_of_a_general_solver(k: int, seed: int, gamma: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    G, g = (torch.randn(*shape, generator=draw, dtype=torch.double) for shape in ((k, 7), (7,)))
    P, q = (G @ G.T + 0.01 * torch.eye(k)).numpy(), (G @ g).numpy()
    ours = multipliers(G @ G.T, G @ g, gamma, 0.01).numpy()
    start = np.full(k, gamma + 1)
    theirs = minimize(lambda v: v @ P @ v / 2 + q @ v, start, jac=lambda v: P @ v + q, bounds=[(gamma, None)] * k)
    assert (ours >= gamma - 1e-12).all()
    assert ours @ P @ ours / 2 + q @ ours <= theirs.fun + 1e-6


@given(st.integers(2, 5), st.integers(0, 1000))
def test_nothing_is_opposed_without_a_margin(k: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    G, g = (torch.randn(*shape, generator=draw, dtype=torch.double) for shape in ((k, 9), (9,)))
    u = g + multipliers(G @ G.T, G @ g, 0.0, 1e-10) @ G
    assert (G @ u >= -1e-6 * G.norm(dim=1) * g.norm()).all()


def test_every_experience_has_a_constraint_of_all_its_rows() -> None:
    learner = learned("gem", "task", buffer=20)
    rule, of = found(learner, constrained), learner.problem
    whole = step(of)
    memory = rule.memory
    for group, r in zip((1, 2), rule.constraints(whole), strict=True):
        alone = memory.take(memory.groups == group)
        assert len(alone) == 10
        alone.name = "alone"
        assert torch.allclose(flat(r), flat(of.gradient(terms.fit(alone))), atol=1e-6)


def test_a_step_of_gem_opposes_no_experience() -> None:
    learner = learned("gem", buffer=20, gamma=0.0, eps=1e-9)
    rule, of = found(learner, constrained), learner.problem.copy()
    third = split("digits", tasks=5).train[2].rows
    of.sources["new"] = of._named("new", third)
    whole = step(of)
    free, held = rule.loss.grad(whole), rule.constraints(whole)
    assert min(float(dot(free, r)) for r in held) < 0  # else there is nothing to show
    assert min(float(dot(rule.grad(whole), r)) for r in held) >= -1e-5


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="gamma"):
        methods.gem(gamma=-1)
    with pytest.raises(BadInput, match="fill"):
        methods.agem(fill="ring")


# --- PLwF


def by_hand(G: Tensor, orders: list[list[int]]) -> Tensor:
    results = []
    for i, order in enumerate(orders):
        g = G[i].clone()
        for j in order:
            if j != i and g @ G[j] < 0:
                g = g - (g @ G[j]) / (G[j] @ G[j]) * G[j]
        results.append(g)
    return torch.stack(results)


@given(st.integers(1, 5), st.integers(0, 500))
def test_credit_is_assigned_as_the_card_says(k: int, seed: int) -> None:
    G = torch.randn(k, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    draw = generator(seed, "credit")
    orders = [torch.randperm(k, generator=draw).tolist() for _ in range(k)]
    results = credited(G @ G.T, generator(seed, "credit")) @ G
    assert torch.allclose(results, by_hand(G, orders))
    for i, order in enumerate(orders):
        last = [j for j in order if j != i][-1:]
        assert all(float(results[i] @ G[j]) >= -1e-6 for j in last)


def test_two_gradients_are_each_left_without_the_other() -> None:
    G = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).double()
    results = credited(G @ G.T, generator(0)) @ G
    assert results.tolist() == [pytest.approx([0.5, 0.5]), pytest.approx([0.0, 1.0])]


def test_a_gradient_of_zero_takes_nothing_off() -> None:
    G = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double()
    assert (credited(G @ G.T, generator(0)) @ G).tolist() == G.tolist()


def test_a_teacher_is_the_model_after_each_experience_and_its_answers_are_looked_up() -> None:
    learner = learned("plwf")
    rule, of = found(learner, progressive), learner.problem
    assert [*rule.state] == ["turn 1", "turn 2"] == [n for n in of.snapshots if n != "start"]
    assert [c.tolist() for c in rule.state.values()] == [[0, 1], [0, 1, 2, 3]]
    now = dict(of.nets.named_parameters())
    assert all(torch.equal(of.snapshots["turn 2"][n], p) for n, p in now.items())
    assert not all(torch.equal(of.snapshots["turn 1"][n], p) for n, p in now.items())
    key = of.frozen_key("new", outputs, "turn 1")
    expected = of.at("turn 1", lambda nets: nets["model"](of.source("new").batch(torch.arange(5))["x"]))
    assert torch.allclose(of.frozen[key][:5], expected, atol=1e-6)


@torch.no_grad()
def test_the_teachers_loss_is_the_tempered_cross_entropy_over_what_they_knew() -> None:
    learner = learned("plwf", temperature=2.0, lambda_o=3.0)
    rule, of = found(learner, progressive), learner.problem
    whole = step(of)
    new, first, second = rule.objectives(whole)
    x = whole.batch("new")["x"]
    now, then = of.model(x), of.at("turn 1", lambda nets: nets["model"](x))
    own = -(now[:, :4] / 2).softmax(1) * (now[:, :4] / 2).log_softmax(1)
    q, s = (then[:, :2] / 2).softmax(1), (now[:, :2] / 2).log_softmax(1)
    assert float(first(whole)) == pytest.approx(float(3 * -(q * s).sum(1).mean()), rel=1e-5)
    assert float(second(whole)) == pytest.approx(float(3 * own.sum(1).mean()), rel=1e-5)  # as when it ended
    local = torch.nn.functional.cross_entropy(now[:, 2:4], whole.batch("new")["y"] - 2)
    assert float(new(whole)) == pytest.approx(float(local), rel=1e-5)


def test_a_variant_keeps_one_teacher_and_asks_for_one_pass_or_two() -> None:
    last = learned("plwf", teachers="last")
    assert [*found(last, progressive).state] == ["turn 2"]
    assert "turn 1" not in last.problem.snapshots
    whole = step(last.problem)
    for projection, passes in {"pairwise": 3, "sum": 2, "none": 1}.items():
        rule = found(learned("plwf", projection=projection), progressive)
        assert len(rule.objectives(whole)) == passes


def test_plwf_learns_outputs_that_are_shared_and_rows_without_a_scenario() -> None:
    domain = found(learned("plwf", "domain"), progressive)
    assert [*domain.state.values()] == [None, None]
    plain = Learner(mlp(), methods.plwf(**CHEAP), "classification")
    plain.learn(new=rows(9, 6)).learn(new=rows(9, 6, seed=1))
    assert plain.turn == 2


def test_a_learner_goes_on_from_its_folder_to_the_same_bits(tmp_path: Path) -> None:
    for name in ("agem", "gem", "plwf"):
        whole = learned(name)
        plan = methods.registry.get(name)(**CHEAP)
        first = Learner(network(), plan, "classification", folder=tmp_path / name)
        first.learn(two_tasks()[0])
        again = Learner(network(), plan, "classification", folder=tmp_path / name)
        for experience in two_tasks():
            again.learn(experience)
        assert same(state(whole.problem), state(again.problem)), name


def test_the_receipt_says_that_teachers_remain() -> None:
    learner = learned("plwf")
    receipt = learner.forget([int(learner.learned[0][0])])
    assert "snapshot turn 1" in receipt.kept
    assert not any("progressive" in what for what in receipt.kept)


def test_chunks_give_the_gradient_of_the_whole_batch() -> None:
    of = Problem(mlp(), new=rows(9, 6), retain=rows(8, 6, seed=1))
    rule = averaged(terms.fit("new"), terms.fit("retain"))
    assert torch.allclose(flat(rule.grad(step(of))), flat(rule.grad(step(of, chunk=4))), atol=1e-6)


def test_a_rule_that_breaks_its_promise_is_seen_in_every_step() -> None:
    class broken(averaged):
        def grad(self, step: Step, graph: bool = False) -> Grads:
            return self.loss.grad(step)

    of = problem(retain=rows(8, 6), new=rows(4, 6))
    g, r = [3.0, 1, 0, 0, 0], [-2.0, 0, 0, 0, 0]
    for kind, least in {averaged: 0.0, broken: -3 / 10**0.5}.items():
        looked = checked(kind(pulled("new", g), pulled("retain", r)))
        looked.grad(step(of))
        assert float(looked.state["worst"]) == pytest.approx(least, abs=1e-6)


def test_a_course_without_a_rule_promises_nothing() -> None:
    plan = methods.naive(**CHEAP)
    assert repr(watched(plan)) == repr(plan)
    assert "checked" in repr(watched(methods.gem(**CHEAP)))
