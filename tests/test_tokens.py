"""Rows of tokens, other answers to the same prompts, and the task: padding, prompts and company change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.networks.language import llama
from oblivio.sources.answers import Answers
from oblivio.sources.tokens import IGNORED, Tokens
from oblivio.tasks.language import CausalLM, answer_log_probs
from oblivio.terms import fit, npo

ROWS = [[5, 6, 7, 1], [5, 8, 1], [9, 6, 5, 7, 8, 1], [7, 1]]
PROMPTS = [2, 1, 3, 1]


def tokens(ids: str = "abcd") -> Tokens:
    return Tokens(ROWS, PROMPTS, pad=0, ids=list(ids), group=[0, 1, 0, 1])


def problem(**sources: object) -> Problem:
    model = llama(12, layers=1, width=8, heads=2, ff=8)
    return Problem(model, task=CausalLM(), forget=tokens(), **sources)


def test_labels_are_the_answers_alone() -> None:
    batch = tokens().batch(torch.tensor([0, 2]))
    assert batch["x"].tolist() == [[5, 6, 7, 1, 0, 0], [9, 6, 5, 7, 8, 1]]
    assert batch["y"].tolist() == [[IGNORED, IGNORED, 7, 1, IGNORED, IGNORED], [IGNORED] * 3 + [7, 8, 1]]
    assert batch["group"].tolist() == [0, 0]
    assert batch["id"].tolist() == ["a", "c"]


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.integers(0, 8)), min_size=1), st.data()
)
def test_rows_come_back_as_they_were_given(rows: list[tuple[list[int], int]], data: st.DataObject) -> None:
    given_rows, prompts = [row for row, _ in rows], [min(p, len(row) - 1) for row, p in rows]
    source = Tokens(given_rows, prompts)
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    view = source.take(picked)
    batch = view.batch(torch.arange(len(picked)))
    for i, at in enumerate(picked):
        row, prompt = given_rows[at], prompts[at]
        assert view.sequence(i) == (row, prompt)
        assert batch["x"][i, : len(row)].tolist() == row
        assert batch["y"][i][batch["y"][i] != IGNORED].tolist() == row[prompt:]


@pytest.mark.parametrize(("rows", "prompts"), [([[1, 2]], [2]), ([[1]], [-1]), ([[]], [0])])
def test_a_row_without_an_answer_is_refused(rows: list[list[int]], prompts: list[int]) -> None:
    with pytest.raises(BadInput, match="at least one must follow"):
        Tokens(rows, prompts)


def test_texts_that_are_not_known_cannot_be_asked_for() -> None:
    with pytest.raises(BadInput, match="no text is known"):
        _ = tokens().texts


def test_loss_and_score_by_hand() -> None:
    out = torch.zeros(1, 4, 3)
    out[0, 1] = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25)])  # predicts the third token
    out[0, 2] = torch.tensor([math.log(0.1), math.log(0.8), math.log(0.1)])  # predicts the fourth
    batch = Tokens([[0, 2, 0, 1]], [2]).batch(torch.arange(1))
    task = CausalLM()
    assert task.score(out, batch).item() == pytest.approx(math.log(0.5) + math.log(0.8))
    assert task.each(out, batch).item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    assert task.quality(out, batch).item() == 1
    p = math.sqrt(0.4)
    assert task.margin(out, batch).item() == pytest.approx(math.log(p / (1 - p)), abs=1e-5)
    assert task.distance(out, out, batch).item() == pytest.approx(0, abs=1e-6)
    flat = torch.zeros_like(out)  # KL(flat || out), averaged over the two places that count
    by_hand = [sum(math.log(1 / 3 / q) / 3 for q in row) for row in ((0.5, 0.25, 0.25), (0.1, 0.8, 0.1))]
    assert task.distance(out, flat, batch).item() == pytest.approx(sum(by_hand) / 2, abs=1e-6)


def test_company_and_padding_change_no_outcome() -> None:
    given_problem = problem()
    alone = [given_problem.task.each(_out(given_problem, [i]), given_problem.source("forget").batch(torch.tensor([i])))
             for i in range(4)]  # fmt: skip
    together = given_problem.task.each(
        _out(given_problem, [0, 1, 2, 3]), given_problem.source("forget").batch(torch.arange(4))
    )
    assert torch.allclose(torch.cat(alone), together, atol=1e-6)


def _out(given_problem: Problem, rows: list[int]) -> torch.Tensor:
    batch = given_problem.source("forget").batch(torch.tensor(rows))
    with torch.no_grad():
        return given_problem.task.forward(given_problem.nets, "model", batch)


def test_what_does_not_count_has_no_gradient_in_the_outputs() -> None:
    out = torch.randn(4, 6, 12, requires_grad=True)
    likely, counts = answer_log_probs(out, tokens().batch(torch.arange(4))["y"])
    likely.sum().backward()
    assert out.grad is not None
    assert (out.grad[:, :-1].abs().sum(2) > 0).equal(counts)
    assert not out.grad[:, -1].any()


# --- other answers


def test_answers_have_the_rows_of_the_batch_they_stand_beside() -> None:
    given_problem = problem()
    other = Answers("forget", [[11, 1], [10, 10, 1]], "refused")
    step = Step(given_problem, "place", {}, 3)
    batch = step.drawn(given_problem.source(other) and other)
    assert batch.rows.equal(step.drawn("forget").rows)
    for row, x, y in zip(batch.rows.tolist(), batch["x"], batch["y"], strict=True):
        said = y[y != IGNORED].tolist()
        assert said in ([11, 1], [10, 10, 1])
        assert x[x > 0].tolist() == [*ROWS[row][: PROMPTS[row]], *said]


def test_answers_are_drawn_by_the_clock() -> None:
    given_problem = problem()
    other = given_problem.source(Answers("forget", [[i, 1] for i in range(2, 11)], "refused"))
    drawn = []
    for t in (0, 1, 0):
        step = Step(given_problem, "place", {}, 4)
        step.at_time(t)
        drawn.append([x.tolist() for x in step.drawn(other)["x"]])
    assert drawn[0] == drawn[2] != drawn[1]


def test_no_answer_to_choose_from_is_refused() -> None:
    with pytest.raises(BadInput, match="no answer to choose from"):
        problem().source(Answers("forget", [], "refused"))


# --- a word for what the task says, kept by row; logits are not


def test_scores_of_the_start_are_kept_and_logits_are_not() -> None:
    changed = problem(retain=tokens("efgh"))
    Run(Descent(npo("forget", beta=1.0) + fit("retain"), over="forget", epochs=2, batch=2, opt=sgd(0.1)), changed).go()
    assert list(changed.frozen) == ["forget|start|task.score"]
    assert "start" not in changed.snapshots


def test_weights_that_do_not_move_have_no_second_copy() -> None:
    from oblivio.terms import distill

    changed = problem(retain=tokens("efgh"))
    start = {n: w.clone() for n, w in changed.nets.named_parameters()}
    moving = "model.*.down_proj.weight"
    Run(Descent(distill("retain"), where=moving, epochs=2, batch=2, opt=sgd(0.1)), changed).go()
    kept = {n for n in changed.snapshots["start"] if n in start}
    assert kept == set(changed.weights(moving))
    assert all(torch.equal(changed.kept("start")[n], w) for n, w in start.items())


def test_a_snapshot_within_a_descent_holds_what_moves() -> None:
    changed, kept = problem(), {}

    def look(run: Run, *_: object) -> None:
        if run.steps == 1:
            run.problem.keep("then")
            kept.update({n: w.detach().clone() for n, w in run.problem.nets.named_parameters()})

    Run(Descent(fit("forget"), epochs=3, batch=2, opt=sgd(0.1)), changed, watch=[look]).go()
    now: dict[str, nn.Parameter] = dict(changed.nets.named_parameters())
    assert all(torch.equal(changed.kept("then")[n], w) for n, w in kept.items())
    assert not all(torch.equal(now[n], w) for n, w in kept.items())
