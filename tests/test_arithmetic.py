"""Arithmetic of weights: SLUG's choice of a tensor and a step, NegMerge's votes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oblivio import methods
from oblivio.contracts import TABLE
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.arithmetic.negmerge import Votes, fine_tuning, noisy, staying, subtract
from oblivio.methods.unlearning.arithmetic.slug import candidates, cosine, front
from oblivio.terms import fit


def test_the_front_keeps_what_no_other_beats_on_both_sides() -> None:
    importance = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 2.0}
    alignment = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.05}
    assert front(importance, alignment) == ["b", "d"]  # a and c are beaten by d; b ties with d in importance


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_a_front_is_never_empty_and_has_the_best_of_each(pairs: list[tuple[float, float]]) -> None:
    importance = {str(i): a for i, (a, _) in enumerate(pairs)}
    alignment = {str(i): b for i, (_, b) in enumerate(pairs)}
    kept = front(importance, alignment)
    assert max(importance.values()) in {importance[n] for n in kept}
    assert min(alignment.values()) in {alignment[n] for n in kept}


def test_the_cosine_is_that_of_the_angle_and_of_nothing_is_zero() -> None:
    assert float(cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))) == pytest.approx(0.96)
    assert float(cosine(torch.zeros(2), torch.ones(2))) == 0


def test_slug_moves_one_matrix_along_its_forget_gradient_and_nothing_else() -> None:
    start = TABLE["digits"].problem()
    done = Run(methods.slug(), start.copy()).go()
    old, new = start.weights(), done.weights()
    (moved,) = [n for n in old if not torch.equal(old[n], new[n])]
    forget, retain = (start.gradient(fit(on)) for on in ("forget", "retain"))
    assert moved in candidates(start, forget, retain)
    assert float(cosine((new[moved] - old[moved]).detach(), forget[moved])) == pytest.approx(1, abs=1e-4)
    assert done.score("forget") <= 0.01 < start.score("forget")
    assert done.score("retain") > 0.8


def test_slug_leaves_biases_and_embeddings_and_says_so_when_nothing_is_left() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    rows = {"x": torch.tensor([[0, 1], [2, 3], [4, 0]]), "y": torch.tensor([0, 1, 2])}
    problem = Problem(model, task="classification", train=rows)
    gradient = problem.gradient(fit("train"))
    assert candidates(problem, gradient, gradient) == ["model.2.weight"]
    with pytest.raises(BadInput, match="no matrix or kernel"):
        candidates(problem, {n: torch.zeros_like(g) for n, g in gradient.items()}, gradient)


def test_votes_keep_the_mean_of_entries_on_whose_sign_all_agree() -> None:
    votes = Votes()
    for values in ([1.0, -1.0, 0.5, 0.0, 0.0], [3.0, 2.0, 0.5, 0.0, 1.0], [2.0, 2.0, 2.0, 0.0, 1.0]):
        votes.add({"w": torch.tensor(values)})
    assert torch.allclose(votes.mean(agreed=True)["w"], torch.tensor([2.0, 0.0, 1.0, 0.0, 0.0]))
    assert torch.allclose(votes.mean(agreed=False)["w"], torch.tensor([2.0, 1.0, 1.0, 0.0, 2 / 3]))


@given(st.lists(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0]), min_size=3, max_size=3), min_size=1, max_size=6))
def test_votes_one_by_one_are_those_of_all_vectors_together(vectors: list[list[float]]) -> None:
    votes, all_ = Votes(), torch.tensor(vectors)
    for vector in all_:
        votes.add({"w": vector})
    agreed = (all_ > 0).all(0) | (all_ < 0).all(0)
    assert torch.allclose(votes.mean(agreed=True)["w"], all_.mean(0) * agreed)
    assert {len(v["w"]) for k, v in votes.state.items() if k != "count"} == {3}  # two vectors, whatever their number


def test_the_36_settings_differ_and_the_first_are_the_given_ones() -> None:
    plans = [repr(fine_tuning(k, lr=1e-3, epochs=20, batch=64, noise=0.2)) for k in range(36)]
    assert len(set(plans)) == 36
    assert plans[0] == repr(Descent(noisy("forget", 0.0), opt=adam(1e-3), epochs=20, batch=64))
    assert len({p.partition(", adam")[0] for p in plans[:4]}) == 2  # noise, too, varies early


def test_subtract_takes_the_scale_that_forgets_most_above_the_floor() -> None:
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))  # all x > 0 are of class 1
    x = torch.tensor([[1.0], [2.0]])
    rows = {"forget": {"x": x, "y": torch.tensor([1, 1])}, "retain": {"x": -x, "y": torch.tensor([0, 0])}}
    votes = Votes()
    votes.add({"model.weight": torch.tensor([[0.0], [1.0]])})
    problem = Problem(model, task="classification", **rows)  # type: ignore[arg-type]
    done = Run(subtract(votes, True, 0.5, 2.0), problem.copy()).go()
    assert done.model.weight[1].item() == pytest.approx(0.0, abs=1e-6)  # at s = 1 both logits are equal: class 0
    none = Run(subtract(votes, True, 1.0, 0.5), problem.copy()).go()
    assert none.model.weight[1].item() == pytest.approx(0.95)  # nothing forgets up to 0.5: the first of equals


def test_valid_rows_of_classes_that_are_gone_do_not_hold_back_the_scale() -> None:
    rows = {"x": torch.ones(3, 1), "y": torch.tensor([0, 1, 0])}
    sources = {"retain": {"x": torch.ones(2, 1), "y": torch.tensor([0, 0])}}
    problem = Problem(nn.Linear(1, 2), task="classification", forget={"x": torch.ones(1, 1), "y": torch.tensor([1])},
                      valid=rows, **sources)  # fmt: skip
    assert len(staying(problem)) == 2
    del problem.sources["valid"]
    assert staying(problem) is problem.source("retain")


def test_negmerge_starts_each_run_from_the_same_weights_and_moves_no_statistics() -> None:
    start = TABLE["images"].problem()
    done = Run(methods.negmerge(runs=2, epochs=1), start.copy()).go()
    assert all(torch.equal(a, b) for a, b in zip(start.model.buffers(), done.model.buffers(), strict=True))
    alone = Run(methods.negmerge(merge="single", epochs=1), start.copy()).go()
    first = Run(methods.negmerge(merge="mean", runs=1, epochs=1), start.copy()).go()
    assert all(torch.equal(a, b) for a, b in zip(alone.model.parameters(), first.model.parameters(), strict=True))
