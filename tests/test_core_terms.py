"""Formulas of terms and rules against values worked out by hand, and gradients against finite differences."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small import Double, flat, mlp, moved, problem, step
from torch import Tensor, nn
from torch.nn import functional as F

from oblivio import terms
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, add, dot, norm
from oblivio.core.problem import Problem
from oblivio.core.step import Step
from oblivio.core.term import Term, term
from oblivio.sources import as_source
from oblivio.tasks import TASKS
from oblivio.tasks.classification import Binary, Classification, Multilabel
from oblivio.tasks.graph import Graph, Links, Nodes
from oblivio.tasks.regression import Regression


def fixed(*logits: list[float], labels: tuple[int, ...] = (0, 1)) -> Problem:
    """A model whose outputs are the given logits of each row, and labels."""
    model = nn.Linear(len(logits), len(logits[0]), bias=False)
    model.weight.data = torch.tensor(logits).T.contiguous()
    return Problem(model, forget=(torch.eye(len(logits)), torch.tensor(labels)))


def shift(of: Problem, by: list[list[float]]) -> None:
    of.model.weight.data += torch.tensor(by).T


def log_odds(p: float) -> list[float]:
    return [math.log(p), math.log(1 - p)]


# --- values


def test_fit_is_the_mean_cross_entropy() -> None:
    value = terms.fit("forget")(step(fixed(log_odds(0.8), log_odds(0.4))))
    assert value.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)


def test_npo_is_the_paper_s_formula() -> None:
    of = fixed(log_odds(0.8), log_odds(0.4))
    of.keep("start")
    shift(of, [[math.log(0.5 / 0.8), math.log(0.5 / 0.2)], [0.0, 0.0]])  # the first row's p goes from 0.8 to 0.5
    ratios = (0.5 / 0.8) ** 0.3, 1.0
    expected = sum(2 / 0.3 * math.log(1 + r) for r in ratios) / 2
    assert terms.npo("forget", beta=0.3)(step(of)).item() == pytest.approx(expected, rel=1e-5)


def test_npo_with_beta_to_zero_is_gradient_ascent() -> None:
    of = problem()
    of.keep("start")
    with moved(of, {n: torch.randn_like(w) for n, w in of.weights().items()}, 0.1):
        npo, ascent = (flat(t.grad(step(of))) for t in (terms.npo("forget", beta=1e-4), -terms.fit("forget")))
    assert float(F.cosine_similarity(npo, ascent, dim=0)) > 0.999
    assert float(npo.norm() / ascent.norm()) == pytest.approx(1, abs=1e-3)


def test_distill_is_kl_from_the_start_times_the_squared_temperature() -> None:
    of = fixed([2.0, 0.0], [0.0, 1.0])
    of.keep("start")
    shift(of, [[-2.0, 0.0], [0.0, 0.0]])
    p = 1 / (1 + math.exp(-1))  # of the first class at the start, at temperature 2; it is 0.5 now
    expected = 4 * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)) / 2
    assert terms.distill("forget", temperature=2.0)(step(of)).item() == pytest.approx(expected, rel=1e-5)


def test_loreun_weighs_by_loss_with_mean_one() -> None:
    of = fixed(log_odds(0.9), log_odds(0.5), log_odds(0.2), labels=(0, 0, 0))
    weights = terms.memorised(tau=1.0)(step(of), "forget")
    assert weights.tolist() == pytest.approx([3 * p / 1.6 for p in (0.9, 0.5, 0.2)])  # exp(-loss) is p itself
    assert terms.memorised(tau=1e6)(step(of), "forget").tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    assert terms.memorised(tau=1e-3)(step(of), "forget").tolist() == pytest.approx([3, 0, 0], abs=1e-6)


def test_a_weighted_term_multiplies_before_the_mean_and_sends_no_gradient_through_the_weights() -> None:
    of = problem()
    now = step(of)
    each = F.cross_entropy(of.model(now.batch("forget")["x"]), now.batch("forget")["y"], reduction="none")
    weights = terms.memorised(0.5)(now, "forget")
    expected = torch.autograd.grad((weights * each).mean(), list(of.weights().values()))
    got = terms.fit("forget").weighted(terms.memorised(0.5)).grad(now)
    for g, e in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(g, e)


def test_relabel_draws_from_all_classes_once_a_step() -> None:
    of, now = problem(n=400), None
    drawn = []
    for t in range(2):
        now = step(of)
        now.at_time(t)
        value = terms.relabel("forget")(now)
        assert terms.relabel("forget")(now).item() == value.item()
        drawn.append(now._extras["forget", "relabel"])
    assert not torch.equal(*drawn)
    assert torch.bincount(drawn[0], minlength=4).tolist() == pytest.approx([100] * 4, abs=35)
    assert float((drawn[0] == of.source("forget").data["y"]).float().mean()) == pytest.approx(0.25, abs=0.1)


def test_sam_is_two_passes() -> None:
    of, rho = problem(), 0.3
    x, y = of.source("forget").data.values()
    net = copy.deepcopy(of.model)
    g = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    length = torch.sqrt(sum(v.square().sum() for v in g))
    with torch.no_grad():
        for w, v in zip(net.parameters(), g, strict=True):
            w += rho * v / length
    expected = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    got = terms.sam(terms.fit("forget"), rho=rho).grad(step(of))
    for a, b in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(a, b)


# --- the tasks behind them


PAIR = Graph(torch.zeros(2, 1), torch.tensor([[0], [1]]))
HAND = {
    "classification": (Classification(), torch.tensor([log_odds(0.5)]), torch.tensor([log_odds(0.8)]),
                       0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
    "binary": (Binary(), torch.tensor([[0.0]]), torch.tensor([[math.log(4)]]),
               0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
    "multilabel": (Multilabel(), torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(4), 0.0]]),
                   0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
    "graph": (Nodes(PAIR), torch.tensor([log_odds(0.5)]), torch.tensor([log_odds(0.8)]),
              0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
    "links": (Links(PAIR), torch.tensor([[0.0]]), torch.tensor([[math.log(4)]]),
              0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
    "regression": (Regression(), torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]), 5.0),
}  # fmt: skip


def batch(y: Tensor) -> object:
    return as_source((torch.zeros(len(y), 1), y)).batch(torch.arange(len(y)))


def test_every_task_has_a_distance_by_hand() -> None:
    assert set(HAND) == set(TASKS) - {"causal_lm", "vision_language"}  # in test_tokens, with rows of tokens


@pytest.mark.parametrize("name", HAND)
def test_a_distance_by_hand(name: str) -> None:
    task, out, target, expected = HAND[name]
    assert task.distance(out, target, batch(target)).tolist() == pytest.approx([expected], rel=1e-5)
    assert task.distance(out, out, batch(out)).tolist() == pytest.approx([0], abs=1e-7)


@pytest.mark.parametrize("name", HAND)
def test_a_distance_has_the_gradient_of_the_loss_expected_under_the_target(name: str) -> None:
    """So ``target`` is the distribution that is learned; with the arguments swapped this is false."""
    task, width = HAND[name][0], HAND[name][1].shape[1]
    out, target = torch.randn(5, width, requires_grad=True), torch.randn(5, width)
    if name in ("classification", "graph"):
        p = target.softmax(1)
        loss = sum((p[:, c] * task.each(out, batch(torch.full((5,), c)))).sum() for c in range(width))
    else:  # linear in the target, or the squared error itself
        loss = task.each(out, batch(target if name == "regression" else target.sigmoid())).sum()
    expected, got = (torch.autograd.grad(v, out)[0] for v in (loss, task.distance(out, target, batch(target)).sum()))
    torch.testing.assert_close(got, expected)


def test_binary_takes_outputs_with_and_without_a_column() -> None:
    y = torch.tensor([0, 1, 1])
    out = torch.tensor([0.3, -0.2, 2.0])
    assert torch.equal(Binary().each(out, batch(y)), Binary().each(out[:, None], batch(y)))
    assert Binary().quality(out, batch(y)).tolist() == [0, 0, 1]


def test_random_targets_of_a_regression_are_its_own_in_another_order() -> None:
    y = torch.arange(20.0)
    drawn = Regression().relabel(y[:, None], batch(y), torch.Generator().manual_seed(0))
    assert drawn.sort().values.tolist() == y.tolist() != drawn.tolist()


# --- gradients through gradients, in float64


@term(whole=True)
def penalty(step: Step, of: Term) -> Tensor:
    return sum(g.square().sum() for g in step.grad(of, graph=True).values())


@term(whole=True)
def look_ahead(step: Step, inner: Term, outer: Term, rate: float) -> Tensor:
    g = step.grad(inner, graph=True)
    ahead = {k: w - rate * g[k] if k in g else w for k, w in step.weights.items()}
    return outer(step.at(ahead, graph=True))


FIT, KEEP = terms.fit("forget"), terms.fit("retain")
SECOND = {
    "plain": FIT - 0.5 * KEEP,
    "gradient penalty": KEEP + 0.3 * penalty(FIT),
    "look-ahead": look_ahead(FIT, KEEP, rate=0.5),
    "look-ahead of a sum": 0.5 * FIT + look_ahead(FIT - 0.2 * KEEP, KEEP + 0.1 * FIT, rate=0.5),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_gradient_equals_finite_differences(name: str) -> None:
    of, e = problem(lambda: Double(mlp())), 1e-5
    got = SECOND[name].grad(step(of))
    for _ in range(3):
        way = {n: torch.randn_like(w) for n, w in of.weights().items()}
        values = []
        for scale in (e, -e):
            with moved(of, way, scale):
                values.append(SECOND[name](step(of)).item())
        slope = float(sum((got[n] * way[n]).sum() for n in got))
        assert slope == pytest.approx((values[0] - values[1]) / (2 * e), rel=1e-6, abs=1e-8)


def test_a_gradient_is_masked_and_reaches_only_what_may_move() -> None:
    of = problem()
    half = {"model.0.weight": torch.arange(30).view(5, 6) % 2 == 0, "model.2.bias": None}
    whole, got = FIT.grad(step(of)), FIT.grad(Step(of, "here", half, None, train=False))
    assert got.keys() == half.keys()
    torch.testing.assert_close(got["model.0.weight"], whole["model.0.weight"] * half["model.0.weight"])
    torch.testing.assert_close(got["model.2.bias"], whole["model.2.bias"])


# --- sums


@pytest.mark.parametrize("plan", [FIT + 0.5 * KEEP, FIT + terms.sam(KEEP), terms.sam(FIT - KEEP), terms.npo("forget")])
def test_chunks_of_seven_equal_the_whole_batch(plan: Term) -> None:
    of = problem(n=50, m=64)
    of.keep("start")
    whole, chunked = plan.grad(step(of)), plan.grad(step(of, chunk=7))
    assert float(norm(add(whole, chunked, -1))) < 1e-6


def test_a_term_that_relates_rows_is_not_split() -> None:
    with pytest.raises(BadInput, match="relates rows to each other"):
        penalty(FIT).grad(step(problem(), chunk=7))


def test_a_sum_adds_plain_terms_and_rules() -> None:
    of, sharp = problem(), terms.sam(KEEP, rho=0.1)
    expected = add(add(FIT.grad(step(of)), sharp.grad(step(of)), 2.0), penalty(FIT).grad(step(of)), -0.5)
    got = (FIT + 2.0 * sharp - 0.5 * penalty(FIT)).grad(step(of))
    assert float(norm(add(got, expected, -1))) < 1e-6


def test_terms_that_look_at_the_same_batch_share_one_forward() -> None:
    of = problem()
    of.keep("start")
    (FIT + terms.relabel("forget") + terms.npo("forget")).grad(now := step(of))
    assert of.passes["forget"] == 12
    assert now.out("forget") is now.out("forget")


def test_a_term_with_an_empty_source_or_coefficient_zero_is_left_out() -> None:
    of = problem(other=(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)))
    alone = KEEP.grad(step(of))
    of.passes.clear()
    rest = (0.0 * FIT) + (lambda s: 0.0) * terms.sam(FIT) + terms.fit("other") + terms.sam(terms.fit("other"))
    assert flat((KEEP + rest).grad(step(of))).tolist() == flat(alone).tolist()
    assert of.passes.keys() == {"retain"}


def test_a_term_is_printed_as_it_is_written() -> None:
    t = 0.3 * (terms.npo("forget", beta=0.1) - 2 * ((lambda s: 1.0) * FIT))
    assert repr(t) == "0.3 * npo('forget', beta=0.1) + -0.6 * f(step) * fit('forget')"
    assert repr(-FIT + KEEP) == "- fit('forget') + fit('retain')"
    assert repr(FIT.weighted(terms.memorised(0.5))) == "fit('forget').weighted(memorised(tau=0.5))"


def test_map_rewrites_the_summands_that_read_a_source() -> None:
    t = (FIT - 0.5 * KEEP).map("forget", lambda inner: terms.sam(inner, rho=0.1))
    assert repr(t) == "sam(term=fit('forget'), rho=0.1) - 0.5 * fit('retain')"


def test_the_algebra_of_gradients() -> None:
    a: Grads = {"x": torch.tensor([1.0, 2.0])}
    b: Grads = {"x": torch.tensor([3.0, -1.0]), "y": torch.tensor([2.0])}
    assert {k: v.tolist() for k, v in add(a, b, 2.0).items()} == {"x": [7, 0], "y": [4]}
    assert float(dot(a, b)) == 1
    assert float(norm(b)) == pytest.approx(math.sqrt(14))
    assert float(norm({})) == 0


def test_what_a_term_saw_is_the_same_in_chunks() -> None:
    @term(taps=("features",))
    def lengths(step: Step, on: str) -> Tensor:
        return step.tap(on, "features").square().sum(1) + step.task.each(step.out(on), step.batch(on))

    of = problem()
    for chunk in (None, 5):
        now = step(of, taps=(of.features,), chunk=chunk)
        lengths("forget").grad(now)
        x = now.batch("forget")["x"]
        torch.testing.assert_close(now.seen("forget"), of.model(x).detach())
        torch.testing.assert_close(now.seen("forget", "features"), of.model[:2](x).detach())
