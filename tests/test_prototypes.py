"""Methods that answer by means, prototypes and distributions of classes, GDumb, and the centre loss."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import methods
from oblivio.core.errors import BadInput
from oblivio.core.part import walk
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.surgery import replay
from oblivio.core.where import as_where
from oblivio.data.streams.experience import Experience
from oblivio.learners.learner import Learner
from oblivio.methods.continual.prototypes.icarl import binary, herding
from oblivio.methods.continual.prototypes.psrd import Views, contrast, nearest, relation
from oblivio.methods.continual.replay.gdumb import Restarts, mixed
from oblivio.methods.pieces.center_loss_cl import Centres
from oblivio.modules.gaussian_head import PRIOR, GaussianHead
from oblivio.modules.masked import MASKED
from oblivio.modules.nearest_mean import NearestMean, serve_nearest_mean, served_classes
from oblivio.modules.prototypes import Prototypes
from oblivio.sources import Exemplars, Joined, Memory, Tensors
from oblivio.sources.repeated import Repeated
from oblivio.tasks.incremental import Incremental, Outputs

ROWS, WIDTH = 12, 5  # rows of an experience, inputs


def network(outputs: int = 6) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(WIDTH, 7), nn.ReLU(), nn.Linear(7, outputs))


def experience(task: int, scenario: Any = "class") -> Experience:
    """Two classes, six rows each, around places of their own; ids from 100 on."""
    g = torch.Generator().manual_seed(task)
    classes = (0, 1) if scenario == "domain" else (2 * task, 2 * task + 1)
    y = torch.tensor(classes).repeat(ROWS // 2)
    x = F.one_hot(y % WIDTH, WIDTH) * 2.0 + 0.3 * torch.randn(ROWS, WIDTH, generator=g)
    x = x + task if scenario == "domain" else x
    ids = 100 + ROWS * task + torch.arange(ROWS)
    return Experience(Tensors({"x": x, "y": y, "task": torch.full((ROWS,), task)}, ids=ids), task, classes, scenario)


def learner(plan: Any, upto: int = 2, scenario: str = "class", outputs: int = 6, **options: Any) -> Learner:
    made = Learner(network(outputs), plan, "classification", **options)
    for task in range(upto):
        made.learn(experience(task, scenario))
    return made


def memory_of(made: Learner) -> Memory:
    (found,) = (part for part in made.parts.values() if isinstance(part, Memory))
    return found


def step_of(problem: Problem, term: Any, batch: int | None = None) -> Step:
    taps = tuple(problem.layer(tap) for tap in term.taps)
    step = Step(problem, "plan", as_where("model.*").select(problem), batch, taps=taps)
    step.at_time(0)
    return step


def number(value: Tensor) -> float:
    return float(value.detach())


def incremental(problem: Problem, upto: int) -> None:
    outputs = Outputs("class")
    for task in range(upto):
        outputs.begin({task: (2 * task, 2 * task + 1)})
    problem.task, problem.turn = Incremental(outputs), upto


def icarl(**changes: Any) -> Any:
    return methods.icarl(**{"buffer": 8, "lr": 0.2, "epochs": 3, "batch": 6, **changes})


def protocl(**changes: Any) -> Any:
    return methods.protocl(**{"buffer": 8, "dim": 4, "lr": 1e-2, "epochs": 3, "batch": 6, **changes})


def gdumb(**changes: Any) -> Any:
    return methods.gdumb(**{"buffer": 8, "epochs": 4, "batch": 4, "cutmix": 0.0, **changes})


def psrd(**changes: Any) -> Any:
    return methods.psrd(**{"dim": 4, "epochs": 2, "batch": 6, **changes})


# --- iCaRL


def test_targets_are_labels_for_new_classes_and_the_old_answers_for_old_ones() -> None:
    problem = Problem(network(), new=experience(1).rows)
    incremental(problem, 2)
    loss = binary("new")
    problem.keep("start")
    problem.freeze("new", loss.frozen[0])
    with torch.no_grad():
        problem.model.get_parameter("2.weight").mul_(-1)  # the present differs from the start
    then = network()(experience(1).rows.batch(torch.arange(ROWS))["x"]).detach()
    out = problem.model(experience(1).rows.batch(torch.arange(ROWS))["x"]).detach()
    y = experience(1).rows.batch(torch.arange(ROWS))["y"]
    expected = 0.0
    for i in range(ROWS):
        for c in range(4):
            t = float(then[i, c].sigmoid()) if c < 2 else float(y[i] == c)
            p = float(out[i, c].sigmoid())
            expected -= (t * math.log(p) + (1 - t) * math.log(1 - p)) / 4 / ROWS
    assert number(loss(step_of(problem, loss))) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 1 << 30), st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_herding_is_greedy_and_a_smaller_set_is_a_prefix_of_a_larger(seed: int, rows: int) -> None:
    x = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
    problem = Problem(network(), new=(x, torch.zeros(rows, dtype=torch.long)))
    order = herding(problem, problem.source("new")).tolist()
    assert sorted(order) == list(range(rows))
    phi = F.normalize(problem.model[1](problem.model[0](x))).detach()  # type: ignore[index]
    mu = F.normalize(phi.mean(0), dim=0)
    for k in range(1, rows + 1):
        before = order[: k - 1]
        least = min(float((mu - phi[[*before, i]].mean(0)).norm()) for i in range(rows) if i not in before)
        assert float((mu - phi[order[:k]].mean(0)).norm()) <= least + 1e-5


def test_shrunk_exemplars_keep_the_first_of_each_class() -> None:
    one, two = (learner(icarl(), upto) for upto in (1, 2))
    for made, share in ((one, 4), (two, 2)):
        memory = memory_of(made)
        labels = memory.batch(torch.arange(len(memory)))["y"]
        assert torch.bincount(labels, minlength=4).tolist()[:2] == [share, share]
    before, after = memory_of(one), memory_of(two)
    for c in (0, 1):
        kept = [m.ids[(m.state["rows"]["y"][: len(m)] == c).numpy()].tolist() for m in (before, after)]
        assert kept[1] == kept[0][:2]


def test_the_nearest_normalised_mean_of_normalised_features_is_served() -> None:
    made = learner(icarl())
    memory, model = memory_of(made), made.model
    rows = memory.batch(torch.arange(len(memory)))
    look = lambda x: F.normalize(model[1](model[0](x)))  # type: ignore[index] # noqa: E731
    means = torch.stack([F.normalize(look(rows["x"])[rows["y"] == c].mean(0), dim=0) for c in range(4)])
    x = experience(0).rows.batch(torch.arange(ROWS))["x"]
    expected = -(torch.cdist(look(x), means) ** 2)
    out = made.predict(x)
    assert torch.allclose(out[:, :4], expected.detach(), atol=1e-5)
    assert (out[:, 4:] == MASKED).all()


def test_names_of_weights_and_the_head_stay() -> None:
    made = learner(icarl(), upto=1)
    assert [n for n, _ in made.model.named_parameters()] == [n for n, _ in network().named_parameters()]
    assert made.problem.features == "model.2"
    assert isinstance(made.model, NearestMean)
    assert isinstance(made.model, nn.Sequential)
    again = copy.deepcopy(made.model)
    x = torch.randn(3, WIDTH)
    assert torch.equal(again.predict(x), made.model.predict(x))


def test_the_journal_rebuilds_the_served_network_and_its_means() -> None:
    made = learner(icarl(), upto=2, outputs=2)  # the head grows once
    assert served_classes(made.model) == 4
    nets: dict[str, nn.Module] = {"model": network(2)}
    replay(nets, made.problem.journal)
    nets["model"].load_state_dict(made.model.state_dict())
    x = torch.randn(3, WIDTH)
    assert isinstance(nets["model"], NearestMean)
    assert torch.equal(nets["model"].predict(x), made.model.predict(x))


def test_a_class_without_a_mean_is_not_served() -> None:
    nets: dict[str, nn.Module] = {"model": network(3)}
    serve_nearest_mean(nets, layer="2", classes=3)
    model = nets["model"]
    assert isinstance(model, NearestMean)
    assert (model.predict(torch.randn(2, WIDTH)) == MASKED).all()
    model.write(F.normalize(torch.eye(3, 7)) * torch.tensor([[1.0], [0.0], [1.0]]))
    assert (model.predict(torch.randn(2, WIDTH)) == MASKED).tolist() == [[False, True, False]] * 2


def test_a_deletion_takes_rows_out_of_exemplars_and_means() -> None:
    made = learner(icarl())
    memory = memory_of(made)
    labels = memory.state["rows"]["y"][: len(memory)]
    gone = memory.ids[(labels == 1).numpy()].tolist() + memory.ids[(labels == 2).numpy()].tolist()[:1]
    receipt = made.forget(gone)
    done = {place.where: place.done for place in receipt.places}
    assert done["Exemplars replay"] == "3 rows removed"
    assert done["Means"] == "worked out anew from the 5 rows that are left"
    assert isinstance(made.model, NearestMean)
    left = memory_of(made)
    rows = left.batch(torch.arange(len(left)))
    phi = F.normalize(made.model[1](made.model[0](rows["x"][rows["y"] == 2]))).detach()  # type: ignore[index]
    assert torch.allclose(made.model.means[2], F.normalize(phi.mean(0), dim=0), atol=1e-6)
    out = made.predict(torch.randn(4, WIDTH))
    assert (out[:, 1] == MASKED).all()
    assert (out[:, [0, 2, 3]] > MASKED).all()


def test_rows_that_no_exemplar_is_leave_the_means() -> None:
    made = learner(icarl())
    other = next(i for i in range(100, 124) if i not in memory_of(made).ids.tolist())
    assert not [place for place in made.forget([other]).places if place.where == "Means"]


def test_when_all_exemplars_go_nothing_is_served() -> None:
    made = learner(icarl())
    made.forget(memory_of(made).ids.tolist())
    assert (made.predict(torch.randn(2, WIDTH)) == MASKED).all()
    made.learn(experience(2))
    assert made.predict(torch.randn(2, WIDTH)).gt(MASKED).tolist() == [[False] * 4 + [True] * 2] * 2


# --- pools


def test_an_empty_memory_adds_nothing_to_a_pool() -> None:
    memory = Exemplars(4, by="y")
    problem = Problem(network(), new=experience(0).rows)
    pool = problem.source(Joined("new", memory))
    assert len(pool) == ROWS
    assert set(pool.columns) == {"x", "y", "task", "part"}
    assert pool.ids.tolist() == problem.source("new").ids.tolist()
    memory.consolidate(problem)
    grown = problem.source(Joined("new", memory))
    assert len(problem.source(pool)) == len(grown) == ROWS + 4  # the same object takes notice
    assert pool.batch(torch.arange(len(pool)))["part"].tolist() == [0] * ROWS + [1] * 4


@given(st.integers(1, 6), st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_repeated_rows_come_a_whole_number_of_times(small: int, large: int) -> None:
    x = torch.arange(large, dtype=torch.float32)[:, None]
    problem = Problem(nn.Linear(1, 2), a=(x[: min(small, large)], torch.zeros(min(small, large), dtype=torch.long)),
                      b=(x, torch.zeros(large, dtype=torch.long)))  # fmt: skip
    rows, n = problem.source(Repeated("a", "b")), min(small, large)
    times = max(1, large // n)
    assert len(rows) == n * times
    assert rows.batch(torch.arange(len(rows)))["x"].flatten().tolist() == list(range(n)) * times
    assert rows.ids.tolist() == list(range(n)) * times


# --- GDumb


def test_its_memory_is_balanced_and_its_network_knows_the_memory_alone() -> None:
    plan = gdumb()
    made = learner(plan, 3)
    labels = memory_of(made).state["rows"]["y"][: len(memory_of(made))]
    counts = torch.bincount(labels, minlength=6)
    assert int(counts.sum()) == 8
    assert int(counts.max() - counts.min()) <= 1
    other = Learner(nn.Sequential(nn.Linear(WIDTH, 7), nn.ReLU(), nn.Linear(7, 6)), plan, "classification")
    for task in range(3):
        other.learn(experience(task))
    x = torch.randn(4, WIDTH)
    assert torch.equal(made.predict(x), other.predict(x))  # whatever weights it began with


def test_a_head_that_has_grown_is_drawn_anew_too() -> None:
    made = learner(gdumb(), 3, outputs=2)
    assert made.predict(torch.randn(1, WIDTH)).shape == (1, 6)
    assert float(made.model.get_parameter("2.weights.0").detach().abs().max()) > 0


def test_retrained_after_a_deletion_it_has_seen_what_is_left_alone() -> None:
    made = learner(gdumb(), 2)
    gone = memory_of(made).ids.tolist()[:2]
    receipt = made.forget(gone, "retrain", epochs=2, batch=4)
    assert receipt.guarantee == "exact"
    left = memory_of(made)
    assert not set(gone) & set(left.ids.tolist())
    problem = Problem(network(), retain=left.take(torch.arange(len(left))))  # it never had the rows
    problem.turn, problem.task = made.turn, made.problem.task
    Run(methods.retrain(epochs=2, batch=4), problem).go()
    for (name, mine), (_, theirs) in zip(made.model.named_parameters(), problem.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.1), (1, 1.0), (2, 1.0), (3, 0.55), (4, 1.0), (5, None), (6, 0.55), (8, 1.0), (12, 0.55)]
)
def test_the_rate_starts_again_after_2_4_8_epochs(epoch: int, rate: float | None) -> None:
    step = step_of(Problem(network(), new=experience(0).rows), contrast("new", 0.1))
    step.end = 16 * 3
    step.at_time(epoch * 3 + 2)
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2 if rate is None else rate
    assert Restarts(16, 0.1)(step) == pytest.approx(expected)


def test_boxes_of_other_images_come_with_their_share_of_the_label() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(6, 1, 4, 4, generator=g), torch.arange(6) % 3
    problem = Problem(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), new=(x, y))
    seen: list[tuple[Tensor, Tensor]] = []
    forward = problem.task.forward

    def look(nets: Any, net: str, batch: Any) -> Tensor:
        out = forward(nets, net, batch)
        seen.append((batch["x"], out))
        return out

    problem.task.forward = look  # type: ignore[method-assign]
    loss = mixed("new", 1.0)
    step = step_of(problem, loss)
    shares = set()
    for t in range(8):
        step.at_time(t)
        value = number(loss(step))
        pasted, out = seen.pop()
        order = [next(i for i in range(6) if torch.equal(x[i].flatten()[0], r.flatten()[0])) for r in x]
        assert order == list(range(6))
        rows = step.drawn("new").rows
        plain, labels = x[rows], y[rows]
        changed = (pasted != plain).flatten(1)
        draw = step.rng("cutmix")
        torch.rand(4, generator=draw)
        far = int(torch.randint(1, 6, (1,), generator=draw))
        other = torch.tensor([rows.tolist().index((row - far) % 6) for row in rows.tolist()])
        box = changed.any(0)
        share = float(box.double().mean())
        shares.add(share)
        assert torch.equal(pasted.flatten(1)[:, box], plain[other].flatten(1)[:, box])
        expected = (1 - share) * F.cross_entropy(out, labels) + share * F.cross_entropy(out, labels[other])
        assert value == pytest.approx(number(expected), rel=1e-5)
    assert len(shares) > 2


def test_rows_that_are_no_images_are_never_mixed() -> None:
    problem = Problem(network(), new=experience(0).rows)
    loss = mixed("new", 1.0)
    rows = experience(0).rows.batch(torch.arange(ROWS))
    expected = F.cross_entropy(problem.model(rows["x"]), rows["y"])
    assert number(loss(step_of(problem, loss))) == pytest.approx(number(expected), rel=1e-5)


# --- ProtoCL


def test_the_joint_density_is_that_of_a_gaussian_with_an_uncertain_mean() -> None:
    head = GaussianHead(2, 3, s=0.5, alpha=2.0)
    z, y = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, -1.0]]), torch.tensor([0, 0, 2])
    head.add(z, y)
    at = torch.tensor([[0.5, 0.5]])
    got = head(at)[0]
    for k, own in enumerate(([[1.0, 0.0], [3.0, 2.0]], [], [[0.0, -1.0]])):
        precision = PRIOR + len(own) / 0.5
        mean = torch.tensor(own).sum(0) / 0.5 / precision if own else torch.zeros(2)
        v = 1 / precision + 0.5
        normal = torch.distributions.Normal(mean, v**0.5)
        expected = float(normal.log_prob(at[0]).sum()) + math.log((2.0 + len(own)) / 9.0)
        assert float(got[k]) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 1 << 30), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_rows_may_come_in_any_batches(seed: int, cut: int) -> None:
    g = torch.Generator().manual_seed(seed)
    z, y = torch.randn(10, 3, generator=g), torch.randint(4, (10,), generator=g)
    whole, parts = GaussianHead(3, 4, 0.05, 1.0), GaussianHead(3, 4, 0.05, 1.0)
    whole.add(z, y)
    parts.add(z[:cut], y[:cut])
    parts.add(z[cut:], y[cut:])
    for a, b in ((whole.q, parts.q), (whole.l, parts.l), (whole.a, parts.a)):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-4)


def test_what_was_known_fades_towards_the_prior() -> None:
    head = GaussianHead(2, 1, s=0.5, alpha=1.0)
    head.add(torch.tensor([[4.0, 0.0]]), torch.tensor([0]))
    before_q, before_l = head.q.clone(), head.l.clone()
    head.add(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), decay=0.9)
    assert torch.allclose(head.q, 0.9 * before_q)
    assert torch.allclose(head.l, 1 + 0.9 * (before_l - 1))


def test_predicting_counts_nothing_and_training_does() -> None:
    made = learner(protocl(), 1)
    head = made.problem.nets.get_submodule(made.problem.features)
    assert isinstance(head, GaussianHead)
    counts = head.a - math.exp(0.78)
    assert counts[:2].tolist() == pytest.approx([18.0, 18.0], abs=1e-4)  # six rows of each in three epochs
    before = {n: b.clone() for n, b in made.model.named_buffers()}
    made.predict(torch.randn(5, WIDTH))
    made.qualities(experience(0).rows)
    assert all(torch.equal(b, before[n]) for n, b in made.model.named_buffers())


def test_the_posterior_has_no_gradient_and_the_embedding_does() -> None:
    made = learner(protocl(), 1)
    names = [n for n, _ in made.model.named_parameters()]
    assert names == ["0.weight", "0.bias", "2.0.weight", "2.0.bias"]
    assert not torch.equal(made.model.get_parameter("0.weight"), network().get_parameter("0.weight"))


def test_a_deletion_makes_the_statistics_anew_from_the_stored_rows() -> None:
    made = learner(protocl())
    memory = memory_of(made)
    labels = memory.state["rows"]["y"][: len(memory)]
    made.forget(memory.ids[(labels == 1).numpy()].tolist())
    head = made.problem.nets.get_submodule(made.problem.features)
    assert isinstance(head, GaussianHead)
    left = memory_of(made)
    assert head.a.tolist() == torch.bincount(left.state["rows"]["y"][: len(left)], minlength=6).tolist()
    out = made.predict(torch.randn(2, WIDTH))
    assert (out[:, 1] == MASKED).all()
    made.learn(experience(2))
    assert (made.predict(torch.randn(2, WIDTH))[:, 4:] > MASKED).all()


@pytest.mark.parametrize(("plan", "kind"), [(protocl, GaussianHead), (psrd, Prototypes)])
def test_the_new_head_is_put_in_once_and_grows(plan: Any, kind: type[nn.Module]) -> None:
    made = learner(plan(), 3, outputs=2)
    head = made.problem.nets.get_submodule(made.problem.features)
    assert isinstance(head, kind)
    assert [entry["op"].partition(":")[2] for entry in made.problem.journal].count("grow_head") == 2
    assert sum(isinstance(module, kind) for module in made.model.modules()) == 1
    assert made.predict(torch.randn(2, WIDTH)).shape == (2, 6)
    nets: dict[str, nn.Module] = {"model": network(2)}
    replay(nets, made.problem.journal)
    nets["model"].load_state_dict(made.model.state_dict())
    x = torch.randn(3, WIDTH)
    assert torch.equal(nets["model"](x), made.model(x))


# --- prototype-sample relation distillation


def prototyped(upto: int = 1) -> Problem:
    """A problem with a head of prototypes, in its second experience."""
    problem = learner(psrd(), upto).problem.copy()
    problem.sources["new"] = problem._named("new", experience(1).rows)
    incremental(problem, 2)
    return problem


def embedded(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised embeddings and prototypes."""
    head = problem.nets.get_submodule(problem.features)
    assert isinstance(head, Prototypes)
    model = copy.deepcopy(problem.model)
    model.set_submodule(problem.features.partition(".")[2], nn.Identity())
    return F.normalize(model(x)).detach(), F.normalize(head.weight).detach()


def test_views_are_two_noisy_readings_of_each_row() -> None:
    problem = prototyped()
    views = Views("new", 0.5)
    step = step_of(problem, contrast(views, 0.1), batch=4)
    batch, plain = step.drawn(views), step.drawn("new")
    assert batch["y"].tolist() == plain["y"].tolist() * 2
    noise = batch["x"] - plain["x"].repeat(2, 1)
    assert not torch.equal(noise[:4], noise[4:])
    assert 0.2 < float(noise.std()) < 0.9
    again = step_of(problem, contrast(views, 0.1), batch=4).drawn(views)
    assert torch.equal(again["x"], batch["x"])
    assert torch.equal(views.batch(torch.arange(3))["x"], problem.source("new").batch(torch.arange(3))["x"])


def test_the_contrastive_loss_is_the_one_of_its_equation() -> None:
    problem = prototyped()
    loss = contrast("new", 0.5)
    step = step_of(problem, loss)
    value, batch = loss(step), step.drawn("new")
    z, _ = embedded(problem, batch["x"])
    y, each = batch["y"].tolist(), []
    for i in range(ROWS):
        below = sum(math.exp(float(z[i] @ z[j]) / 0.5) for j in range(ROWS) if j != i)
        same = [j for j in range(ROWS) if j != i and y[j] == y[i]]
        each.append(-sum(float(z[i] @ z[j]) / 0.5 - math.log(below) for j in same) / len(same))
    assert number(value) == pytest.approx(float(np.mean(each)), rel=1e-4)


def test_a_batch_without_a_pair_has_no_contrast() -> None:
    rows = experience(0).rows.take(torch.tensor([0, 1]))
    problem = learner(psrd(), 1).problem.copy()
    problem.sources["new"] = problem._named("new", rows)
    loss = contrast("new", 0.5)
    assert number(loss(step_of(problem, loss))) == 0


def test_prototypes_chase_samples_and_not_the_other_way_round() -> None:
    problem = prototyped()
    found = step_of(problem, nearest("new")).grad(nearest("new"))
    assert {n for n, g in found.items() if bool(g.any())} == {"model.2.3.weight"}
    moved = found["model.2.3.weight"].any(1).nonzero().flatten()
    assert moved.tolist() == [2, 3]  # of the present classes


def test_the_relation_is_over_samples_and_of_old_classes_alone() -> None:
    problem = prototyped()
    problem.keep("start")
    with torch.no_grad():
        problem.model.get_parameter("0.weight").mul_(-1.5)
    loss = relation("new")
    now = step_of(problem, loss)
    value, x = number(loss(now)), now.drawn("new")["x"]
    z, p = embedded(problem, x)
    before = problem.copy()
    before.restore("start")
    z_old, p_old = embedded(before, x)
    expected = 0.0
    for c in (0, 1):
        q = (z_old @ p_old[c] / 0.1).softmax(0)
        expected -= float((q * (z @ p[c] / 0.1).log_softmax(0)).sum()) / 2
    assert value == pytest.approx(expected, rel=1e-4)


def test_the_first_experience_has_no_relation_to_keep() -> None:
    weights = [dict(learner(psrd(beta=b), 1).model.named_parameters()) for b in (0.0, 5.0)]
    assert all(torch.equal(w, weights[1][n]) for n, w in weights[0].items())
    later = [dict(learner(psrd(beta=b), 2).model.named_parameters()) for b in (0.0, 5.0)]
    assert not all(torch.equal(w, later[1][n]) for n, w in later[0].items())


# --- centre loss


def clr(**changes: Any) -> Any:
    return methods.center_loss_cl(**changes)(methods.er(buffer=6, replay=4, lr=0.05, epochs=2, batch=6))


def centres_of(made: Learner) -> Centres:
    (found,) = (part for part in made.parts.values() if isinstance(part, Centres))
    return found


def test_a_centre_moves_by_its_rows_and_is_divided_by_one_more() -> None:
    problem = Problem(network(), new=experience(0, "domain").rows)
    problem.turn = 1
    centres = Centres("new", eta=0.5)
    centres.prepare(problem)
    centres.values.fill_(1.0)
    step = step_of(problem, centres, batch=3)
    step.out("new")
    centres.after(step)
    batch = step.drawn("new")
    f = problem.model[1](problem.model[0](batch["x"])).detach()  # type: ignore[index]
    for c in (0, 1):
        own = f[batch["y"] == c]
        expected = 1 - 0.5 * (1 - own).sum(0) / (1 + len(own))
        assert torch.allclose(centres.values[c], expected, atol=1e-6)


def test_after_the_first_experience_centres_and_head_stay() -> None:
    one = learner(clr(), 1, "domain", outputs=2)
    two = learner(clr(), 2, "domain", outputs=2)
    assert bool(centres_of(one).values.any())
    assert torch.equal(centres_of(one).values, centres_of(two).values)
    for name in ("2.weight", "2.bias"):
        assert torch.equal(one.model.get_parameter(name), two.model.get_parameter(name))
    assert not torch.equal(one.model.get_parameter("0.weight"), two.model.get_parameter("0.weight"))
    assert not torch.equal(one.model.get_parameter("2.weight"), network(2).get_parameter("2.weight"))


def test_new_and_replayed_rows_are_pulled_by_half_of_lam() -> None:
    plan = clr(lam=0.2)
    assert str(plan).count("0.1 * spread(") == 2
    assert sum(isinstance(part, Centres) for _, part in walk(plan)) == 1
    bare = methods.center_loss_cl(lam=0.2)(methods.naive())
    assert str(bare).count("0.1 * spread(") == 1


def test_new_classes_have_no_centre() -> None:
    with pytest.raises(BadInput, match=r"the classes \[2, 3\] have no centre"):
        learner(clr(), 2)
