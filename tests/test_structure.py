"""Methods that change the structure: experts that take over, units that are claimed, maps over the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import Killed, resumes_everywhere
from torch import Tensor, nn

from oblivio import methods
from oblivio.core.errors import BadInput
from oblivio.core.part import Part
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.methods.continual.structure import clnp, rmn, sharp, tame
from oblivio.modules.activity import answers, columns, mean_answers
from oblivio.modules.chain import links
from oblivio.modules.experts import Experts
from oblivio.modules.neighbours import Neighbours, Remembered, host_neighbours, remember
from oblivio.sources import Tensors
from oblivio.tasks.incremental import Incremental, Outputs

PLANS: dict[str, Callable[[], Stage]] = {
    "tame": lambda: methods.tame(w=2, deviations=0.01, floor=1e-6, q=2, batch=4, epochs=2, selector_steps=3, lr=0.5),
    "clnp": lambda: methods.clnp(epochs=2, batch=4, lr=0.02),
    "rmn": lambda: methods.rmn(epochs=1, finetune=1, batch=4, p=0.4),
    "sharp": lambda: methods.sharp(P=2, E=1, batch=4, replay=4, n=4, m=3, k=2),
}
SCENARIO = {"tame": "domain", "clnp": "task", "rmn": "task", "sharp": "class"}


def net(outputs: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, outputs))


def experience(task: int, scenario: str, n: int = 12, flip: bool = False, width: int = 3) -> Experience:
    """Two classes by the sign of the first column; outputs of their own but in the scenario ``domain``."""
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(task))
    y = (x[:, 0] > 0).long() ^ int(flip)
    base = 2 * task if scenario != "domain" else 0
    rows = Tensors({"x": x, "y": y + base, "task": torch.full((n,), task)}, ids=list(range(100 * task, 100 * task + n)))
    return Experience(rows, task, (base, base + 1), scenario)  # type: ignore[arg-type]


def learner(name: str, **options: Any) -> Learner:
    return Learner(net(), PLANS[name](), "classification", 0, **options)


def part(of: Learner, kind: type[Part]) -> Any:
    return next(p for p in of.parts.values() if isinstance(p, kind))


def probe(n: int = 9) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(99))


# --- all of them


@pytest.mark.parametrize("name", PLANS)
def test_killed_at_any_step_and_resumed_it_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    scenario, first = SCENARIO[name], experience(0, SCENARIO[name])

    def make() -> Problem:
        outputs = Outputs(scenario)
        outputs.begin(first.heads)
        made = Problem(net(), task=Incremental(outputs), new=first.rows)
        made.turn = 1
        return made

    whole = resumes_everywhere(PLANS[name], make, tmp_path)
    if name == "tame":
        assert len(experts(whole.model).experts) > 1  # it has switched in the middle


@pytest.mark.parametrize("name", PLANS)
def test_a_learner_killed_in_its_second_experience_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    stream = [experience(task, SCENARIO[name], flip=task == 1) for task in range(2)]
    whole = learner(name).learn(stream[0]).learn(stream[1])

    def die(run: Run, *_: Any) -> None:
        if run.steps == 2:
            run.checkpoint()
            raise Killed

    broken = learner(name, folder=tmp_path).learn(stream[0])
    with pytest.raises(Killed):
        broken.learn(stream[1], watch=[die])
    again = learner(name, folder=tmp_path)
    for each in stream:
        again.learn(each)
    expected, found = whole.problem.nets.state_dict(), again.problem.nets.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[n], found[n]) for n in expected)
    assert {n: repr(p.save()) for n, p in whole.parts.items()} == {n: repr(p.save()) for n, p in again.parts.items()}


@pytest.mark.parametrize("name", PLANS)
def test_what_is_served_of_a_row_does_not_depend_on_the_others(name: str) -> None:
    learnt = learner(name)
    for task in range(2):
        learnt.learn(experience(task, SCENARIO[name], flip=task == 1))
    x, task = probe(), torch.arange(9) % 2
    asked = {"task": task} if SCENARIO[name] == "task" else {}
    out = learnt.predict(x, **asked)
    back = learnt.predict(x.flip(0), **({"task": task.flip(0)} if asked else {})).flip(0)
    assert torch.equal(out, back)
    if asked:
        assert torch.allclose(learnt.predict(x, task=1)[task == 1], out[task == 1], atol=1e-6)


@pytest.mark.parametrize("name", PLANS)
def test_a_head_that_would_have_to_grow_is_refused(name: str) -> None:
    made = Learner(net(2), PLANS[name](), "classification")
    scenario: Any = "class" if name in ("tame", "sharp") else "task"
    first, second = (Experience(e.rows, e.task, e.classes, scenario) for e in (experience(t, "task") for t in range(2)))
    made.learn(first)
    with pytest.raises(BadInput, match="with an output for every class"):
        made.learn(second)


# --- tame


def experts(model: nn.Module) -> Experts:
    assert isinstance(model, Experts)
    return model


def test_a_jump_is_a_running_loss_above_the_threshold_of_a_full_window() -> None:
    switch = tame.Switch("new", 4, 0.2, 3.0, 0.005, tame.Stored(2, "new", 4))
    assert not switch._jumped({"losses": [1.0, 1.0, 1.0], "E": 9.0})
    assert not switch._jumped({"losses": [1.0] * 4, "E": 1.0149})
    assert switch._jumped(now := {"losses": [1.0] * 4, "E": 1.0151})
    assert now["h"] == pytest.approx(1.015)
    assert not switch._jumped({"losses": [0.0, 2.0, 0.0, 2.0], "E": 3.9})  # mean 1, deviation 1
    assert switch._jumped({"losses": [0.0, 2.0, 0.0, 2.0], "E": 4.1})


def test_a_task_that_contradicts_gets_an_expert_and_one_that_comes_back_its_old_one() -> None:
    plan = methods.tame(w=20, q=10, batch=8, epochs=20, selector_steps=5)
    taught = Learner(net(2), plan, "classification")
    given = [experience(0, "domain", 64), experience(0, "domain", 64, flip=True)]
    columns = [dict(zip(("x", "y"), _xy(each), strict=True)) for each in given]
    made, active = [], []
    for each in (columns[0], columns[1], columns[0]):  # without the column task
        taught.learn(new=each)
        made.append(len(experts(taught.model).experts))
        active.append(experts(taught.model).active)
    assert (made, active) == ([1, 2, 2], [0, 1, 0])


def _xy(each: Experience) -> tuple[Tensor, Tensor]:
    batch = each.rows.batch(torch.arange(len(each)))
    return batch["x"], batch["y"]


def test_only_the_active_expert_moves() -> None:
    taught = Learner(net(2), methods.tame(batch=4, selector_steps=1), "classification").learn(experience(0, "domain"))
    work = taught.problem
    work.operate(tame.add_expert, seed=3)
    before = {n: w.clone() for n, w in work.nets.named_parameters()}
    taught.learn(experience(1, "domain"))
    moved = {n.split(".")[2] for n, w in taught.problem.weights("model.experts.*").items() if not w.equal(before[n])}
    assert moved == {"1"}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 99)), min_size=1), st.integers(1, 4))
def test_the_highest_priorities_of_every_expert_and_class_are_kept(rows: list[tuple[int, int, int]], q: int) -> None:
    table = {n: torch.tensor([row[i] for row in rows]) for i, n in enumerate(("expert", "y", "priority"))}
    kept = [rows[i] for i in tame._first_of_groups(table, q).tolist()]
    for group in {row[:2] for row in rows}:
        everyone = sorted((row[2] for row in rows if row[:2] == group), reverse=True)
        assert sorted((row[2] for row in kept if row[:2] == group), reverse=True) == everyone[:q]


def test_stored_rows_are_there_once_and_can_be_forgotten() -> None:
    plan = methods.tame(q=3, batch=4, epochs=3, selector_steps=1)
    taught = Learner(net(2), plan, "classification").learn(experience(0, "domain"))
    stored = part(taught, tame.Stored)
    assert len(set(stored.ids.tolist())) == len(stored) == 6
    gone = stored.ids.tolist()[:2]
    receipt = taught.forget(gone)
    assert any("2 rows removed" in place.done for place in receipt.places)
    assert not set(gone) & set(part(taught, tame.Stored).ids.tolist())
    taught.learn(experience(1, "domain"))  # and it goes on
    assert "task" not in part(taught, tame.Stored).columns


# --- clnp


def test_answers_of_units_are_means_over_places_and_rows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    x = torch.randn(5, 1, 4, 4)
    given_rows = Problem(model, task="classification", new=(x, torch.zeros(5, dtype=torch.long)))
    chain, h = links(model), model[1](model[0](x)).detach()
    each = answers(given_rows, given_rows.source("new").batch(torch.arange(5)), chain)["0"]
    assert torch.allclose(each, h.mean((2, 3)), atol=1e-6)
    assert torch.allclose(mean_answers(given_rows, "new", chain)["0"], h.mean((0, 2, 3)), atol=1e-6)
    assert columns(torch.tensor([True, False]), 8).tolist() == [True] * 4 + [False] * 4


def test_cut_takes_out_what_leads_from_silent_into_newly_active_units() -> None:
    learnt = learner("clnp").learn(experience(0, "task"))
    work = learnt.problem
    chain = links(work.model)
    active = {"0": torch.arange(8) < 2, "2": torch.arange(8) < 3}
    used = {"0": torch.arange(8) == 5, "2": torch.arange(8) == 2}
    before = {n: w.detach().clone() for n, w in work.weights().items()}
    values = clnp.cut(work, chain, active, used)
    hidden, head = values["model.2.weight"], values["model.4.weight"]
    expected = before["model.2.weight"].clone()
    expected[:2, [2, 3, 4, 6, 7]] = 0  # units 0 and 1 are new; they read 0, 1 and the claimed 5; unit 2 stays as it is
    assert torch.equal(hidden, expected)
    expected = before["model.4.weight"].clone()
    expected[:2, 3:] = 0  # the head of task 0 reads active units alone
    assert torch.equal(head, expected)


def test_channels_are_held_as_units_are() -> None:
    torch.manual_seed(0)
    layers = [nn.Unflatten(1, (1, 1, 3)), nn.Conv2d(1, 4, (1, 2)), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    learnt = Learner(model, PLANS["clnp"](), "classification").learn(experience(0, "task"))
    assert part(learnt, clnp.Territory).state["used"]["1"].any()
    before = learnt.predict(probe(), task=0)[:, :2]
    learnt.learn(experience(1, "task"))
    assert torch.equal(learnt.predict(probe(), task=0)[:, :2], before)


def test_heads_keep_their_bits_and_units_that_are_free_are_drawn_anew() -> None:
    learnt = learner("clnp").learn(experience(0, "task"))
    used = {n: m.clone() for n, m in part(learnt, clnp.Territory).state["used"].items()}
    before, old = learnt.predict(probe(), task=0)[:, :2], copy.deepcopy(learnt.model)
    learnt.learn(experience(1, "task"))
    assert torch.equal(learnt.predict(probe(), task=0)[:, :2], before)
    now = learnt.model
    assert isinstance(now, nn.Sequential)
    assert isinstance(old, nn.Sequential)
    assert torch.equal(now[0].weight[used["0"]], old[0].weight[used["0"]])
    report = part(learnt, clnp.Territory).state["report"]["2"]["0"]
    later = part(learnt, clnp.Territory).state["used"]["0"]
    assert report["free"] == int((~later).sum()) <= int((~used["0"]).sum())
    if report["free"]:
        assert not torch.equal(now[0].weight[~later], old[0].weight[~later])


@given(st.integers(0, 255))
def test_only_weights_into_free_units_and_the_present_head_may_move(bits: int) -> None:
    work, territory = territory_of(experience(1, "task"))
    used = torch.tensor([bool(bits >> i & 1) for i in range(8)])
    territory.state["used"]["0"] = used
    masks = territory.select(work)
    assert torch.equal(masks["model.0.weight"][:, 0] == 0, used)
    assert torch.equal(masks["model.0.bias"] == 0, used)
    assert masks["model.2.weight"].bool().all()
    assert masks["model.4.bias"].tolist() == [0, 0, 1, 1]


def territory_of(each: Experience, model: nn.Module | None = None) -> tuple[Problem, clnp.Territory]:
    outputs = Outputs(each.scenario)
    outputs.begin(each.heads)
    work = Problem(model or net(), task=Incremental(outputs), new=each.rows)
    territory = clnp.Territory()
    territory.prepare(work)
    return work, territory


def test_what_cannot_be_held_is_refused() -> None:
    with pytest.raises(BadInput, match="scenario 'task'"):
        territory_of(experience(0, "domain"))
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(BadInput, match="statistics of 1 change"):
        territory_of(experience(0, "task"), norm)
    with pytest.raises(BadInput, match="behind 0 there must be one ReLU"):
        territory_of(experience(0, "task"), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)))
    learnt = learner("clnp").learn(experience(0, "task"))
    with pytest.raises(BadInput, match="learned before"):
        learnt.learn(experience(0, "task"))


def test_the_penalty_counts_the_entries_that_may_move() -> None:
    from oblivio.core.step import Step

    work, territory = territory_of(experience(0, "task"))
    territory.state["used"]["0"][:7] = True
    step = Step(work, "here", territory.select(work), None, train=False)
    weights = work.weights()
    by_hand = weights["model.0.weight"][7].abs().sum() + weights["model.2.weight"].abs().sum()
    by_hand = by_hand + weights["model.4.weight"][:2].abs().sum()
    assert clnp.Sparsity()(step).item() == pytest.approx(by_hand.item())


# --- rmn


def mapped() -> rmn.Mapped:
    nets: dict[str, nn.Module] = {"model": nn.Linear(2, 2)}
    rmn.map_weights(nets, takes_task=False)
    rmn.add_map(nets, task=0)
    model = nets["model"]
    assert isinstance(model, rmn.Mapped)
    return model


def test_weights_are_multiplied_by_the_map() -> None:
    model = mapped()
    with torch.no_grad():
        model.net.weight.copy_(torch.tensor([[2.0, -4.0], [1.0, 8.0]]))
        model.net.bias.copy_(torch.tensor([1.0, 3.0]))
        model.relevance[0].copy_(torch.tensor([[0.0, 0.0], [0.0, 50.0]]))
    x = torch.tensor([[1.0, 1.0]])
    assert torch.allclose(model(x), torch.tensor([[-0.5, 10.0]]))  # biases by sigmoid(0) as well
    model.soft = False
    model.masks(0)[0][0, 1] = False
    assert torch.allclose(model(x), torch.tensor([[3.0, 12.0]]))


def test_the_surest_map_answers_row_by_row() -> None:
    outs = torch.tensor([[[5.0, 0.0], [0.1, 0.0]], [[1.0, 0.0], [0.0, 4.0]]])
    assert rmn._surest(outs).tolist() == [0, 1]


def test_maps_choose_their_share_claim_it_and_keep_its_bits() -> None:
    learnt = learner("rmn").learn(experience(0, "task"))
    model = learnt.model
    assert isinstance(model, rmn.Mapped)
    everything = sum(w.numel() for w in model.net.parameters())
    chosen = [mask.clone() for mask in model.masks(0)]
    assert sum(int(mask.sum()) for mask in chosen) == int(0.4 * everything)
    held = [w.detach()[mask].clone() for w, mask in zip(model.net.parameters(), chosen, strict=True)]
    before = learnt.predict(probe(), task=0)[:, :2]
    learnt.learn(experience(1, "task"))
    now = learnt.model
    assert isinstance(now, rmn.Mapped)
    assert all(torch.equal(w.detach()[m], h) for w, m, h in zip(now.net.parameters(), chosen, held, strict=True))
    assert torch.equal(learnt.predict(probe(), task=0)[:, :2], before)
    assert all(torch.equal(a, b) for a, b in zip(now.claimed(), chosen, strict=True))
    share, overlap = sum(int((a & b).sum()) for a, b in zip(*map(now.masks, (0, 1)), strict=True)), now.overlap()
    assert overlap[0, 1].item() == pytest.approx(share / int(0.4 * everything))
    assert overlap.diagonal().tolist() == [1, 1]


def test_without_task_ids_it_does_not_read_them() -> None:
    learnt = Learner(net(2), PLANS["rmn"](), "classification")
    for task in range(2):
        learnt.learn(experience(task, "domain", flip=task == 1))
    rows = Tensors({"x": probe(), "y": torch.zeros(9, dtype=torch.long), "task": torch.zeros(9, dtype=torch.long)})
    other = Tensors({"x": probe(), "y": torch.zeros(9, dtype=torch.long), "task": torch.ones(9, dtype=torch.long)})
    assert torch.equal(learnt.qualities(rows)["served"], learnt.qualities(other)["served"])
    model = learnt.model
    assert isinstance(model, rmn.Mapped)
    place = model.inferred(probe())
    both = torch.stack([model.at(i, probe()) for i in range(2)])
    assert torch.equal(learnt.predict(probe()), both[place, torch.arange(9)].detach())


@pytest.mark.parametrize("model", [
    nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4)),
    nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 4)),
])  # fmt: skip
def test_what_cannot_be_mapped_is_refused(model: nn.Module) -> None:
    with pytest.raises(BadInput, match=r"rmn: 1 \(.*Norm.*\) cannot be mapped"):
        Learner(model, PLANS["rmn"](), "classification").learn(experience(0, "task"))


def test_scenarios_that_a_map_cannot_serve_are_refused() -> None:
    with pytest.raises(BadInput, match="the scenario 'class' asks among all"):
        learner("rmn").learn(experience(0, "class"))
    one = experience(0, "task")
    both = Experience(one.rows, 0, (0, 1, 2, 3), "task", of={0: (0, 1), 1: (2, 3)})
    with pytest.raises(BadInput, match="an experience of 2 tasks"):
        learner("rmn").learn(both)


# --- sharp


def hosted(of: Learner) -> Neighbours:
    model = of.model
    assert isinstance(model, Neighbours)
    return model


def test_supervised_contrast_by_hand() -> None:
    z = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    similar, other = torch.tensor(1 / 0.5), torch.tensor(0.0)
    each = -(similar - torch.logaddexp(similar, other))  # rows 0 and 1 have one another; row 2 is alone
    assert sharp.supervised_contrast(z, torch.tensor([0, 0, 1]), 0.5).item() == pytest.approx(each.item())
    assert sharp.supervised_contrast(z, torch.tensor([0, 1, 2]), 0.5).item() == 0
    slope = z.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sharp.supervised_contrast(z, torch.tensor([0, 0, 1]), 0.5), slope)


def test_the_smallest_set_that_covers_tau_becomes_stable() -> None:
    ages = sharp.Ages(1)
    ages.state["ages"] = {"late.0": torch.tensor([0, 1, 2, 0, 1])}
    ages.age("late.0", torch.tensor([[3.0, 0.0, 4.0, 2.0, 1.0]]), 0.7)  # 4 + 3 are 70 percent of 10
    assert ages.state["ages"]["late.0"].tolist() == [1, 0, 2, 0, 0]
    ages.age("late.0", torch.tensor([[3.0, 0.0, 4.0, 2.0, 1.0]]), 0.71)
    assert ages.state["ages"]["late.0"].tolist() == [1, 0, 2, 1, 0]


@given(st.integers(0, 1000))
def test_no_plastic_unit_feeds_a_stable_one_and_connections_keep_their_number(seed: int) -> None:
    work = Problem(net(), task="classification", seed=seed, new=(probe(), torch.zeros(9, dtype=torch.long)))
    work.operate(host_neighbours, k=1)
    ages, random = sharp.Ages(1), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        ages.begin(work, 0.6)
        mask = ages.state["masks"]["late.0"]
        before = mask.clone()
        assert before.sum() == round(0.4 * 64)
        first, last = (torch.randint(0, 3, (8,), generator=random) for _ in range(2))
        ages.state.update(ages={"early.0": first, "late.0": last}, phase=1)
        ages.rewire(work)
    assert not mask[last > 0][:, first == 0].any()
    assert not work.weights()["model.late.0.weight"][~mask].any()
    assert not work.weights()["model.late.0.weight"][mask & ~before].any()  # what has grown is 0 and free to move
    assert mask.sum() == before.sum() or (mask.sum() < before.sum() and mask[last == 0].all())


def test_what_is_frozen_keeps_the_bits_of_its_answers() -> None:
    learnt = learner("sharp").learn(experience(0, "class"))
    stable = part(learnt, sharp.Ages).frozen("early.0").clone()
    assert stable.any()
    before = hosted(learnt).answers(probe())["early.0"][:, stable]
    for task in (1, 2):
        learnt.learn(Experience(experience(1, "class").rows, task, (2, 3), "class"))
    assert torch.equal(hosted(learnt).answers(probe())["early.0"][:, stable], before)


def test_neighbours_vote_over_the_units_that_their_class_had() -> None:
    layers = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)]
    nets: dict[str, nn.Module] = {"model": nn.Sequential(*layers)}
    host_neighbours(nets, k=2)
    for label in (0, 2):
        remember(nets, label=label, turn=1, m=2)
    model = nets["model"]
    assert isinstance(model, Neighbours)
    one, two = model.remembered
    assert isinstance(one, Remembered)
    assert isinstance(two, Remembered)
    with torch.no_grad():
        for layer in model.layers().values():
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        one.vectors.copy_(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        two.vectors.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        one.units.copy_(torch.tensor([True, True]))
        two.units.copy_(torch.tensor([False, True]))
        two.valid.copy_(torch.tensor([True, False]))
        out = model(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert out[0].tolist() == pytest.approx([2.5, 0.0, 0.0])  # over its one unit the other class is not alike at all
    assert out[1].tolist() == pytest.approx([1.4, 0.0, 1.5])


def test_activations_in_eight_bits_are_near_and_can_be_forgotten() -> None:
    learnt = learner("sharp").learn(experience(0, "class"))
    latents, given_rows = part(learnt, sharp.Latents), experience(0, "class").rows
    table = latents.state["rows"]
    assert table["h"].dtype is torch.uint8
    places = [given_rows.ids.tolist().index(name) for name in latents.ids.tolist()]
    stable = part(learnt, sharp.Ages).state["ages"]["early.0"] > 0
    near = sharp.restored(table["h"], table["scale"])
    late = hosted(learnt).early(given_rows.batch(torch.tensor(places))["x"]) * stable
    assert ((near - late).abs() <= table["scale"][:, None] / 255).all()
    gone = latents.ids.tolist()[:1]
    receipt = learnt.forget(gone)
    assert any("1 rows removed, 1 vectors removed" in place.done for place in receipt.places)
    assert sum(int((~entry.valid).sum()) for entry in hosted(learnt).remembered if isinstance(entry, Remembered)) == 1
    learnt.learn(experience(1, "class"))
    assert gone[0] not in {i for ids in part(learnt, sharp.Latents).state["vectors"].values() for i in ids.tolist()}


def test_only_the_last_experiences_are_replayed() -> None:
    learnt = learner("sharp")
    for task in range(2):
        learnt.learn(experience(task, "class"))
    assert part(learnt, sharp.Latents).state["rows"]["turn"].unique().tolist() == [2]
    assert [entry.label for entry in hosted(learnt).remembered] == [0, 1, 2, 3]


@pytest.mark.parametrize("layers", [
    [nn.Linear(3, 4)],
    [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4)],
    [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)],
])  # fmt: skip
def test_a_chain_without_two_hidden_layers_of_relu_is_refused(layers: list[nn.Module]) -> None:
    with pytest.raises(BadInput, match="at least two of them"):
        Learner(nn.Sequential(*layers), PLANS["sharp"](), "classification").learn(experience(0, "class"))
