"""Refusals: what may be said instead, the preference loss, FLAT's divergences, UnSTAR's rounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oblivio import methods
from oblivio.contracts.problems import END, TABLE
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.methods.unlearning.language.flat import likely, loss
from oblivio.methods.unlearning.language.pref_opt_idk import prefer
from oblivio.methods.unlearning.language.unstar import ANTI, fitting, states, telling
from oblivio.sources.answers import Answers
from oblivio.sources.replies import refusals, rephrased, wrong
from oblivio.sources.tokens import Tokens


def tiny() -> Problem:
    return TABLE["texts"].problem()


def whole(problem: Problem) -> Step:
    return Step(problem, "test", dict.fromkeys(problem.weights("model.*")), None, train=False)


# --- FLAT


@pytest.mark.parametrize(
    ("divergence", "by_hand"),
    [
        ("kl", math.exp(0.9 - 1) - 0.2),
        ("total_variation", (math.tanh(0.9) - math.tanh(0.2)) / 2),
        ("pearson", 0.9**2 / 4 + 0.9 - 0.2),
        ("jensen_shannon", math.log(1 + math.exp(0.9)) + math.log(1 + math.exp(-0.2)) - 2 * math.log(2)),
    ],
)
def test_each_divergence_at_a_template_of_a_fifth_and_a_truth_of_nine_tenths(divergence: str, by_hand: float) -> None:
    assert float(loss(torch.tensor(0.2), torch.tensor(0.9), divergence)) == pytest.approx(by_hand, abs=1e-6)


def test_the_values_are_those_of_a_calculator() -> None:
    at = {name: float(loss(torch.tensor(0.2), torch.tensor(0.9), name)) for name in ("kl", "total_variation")}
    assert at == {"kl": pytest.approx(0.704837, abs=1e-6), "total_variation": pytest.approx(0.259461, abs=1e-6)}


def test_the_probability_of_an_answer_is_a_mean_of_probabilities_over_its_tokens_alone() -> None:
    out = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [9.0, 0.0], [5.0, 5.0]]])  # p of token 1: 3/4, 1/2, ...
    y = torch.tensor([[-100, 1, 1, -100]])
    batch: Any = {"y": y}
    assert float(likely(out, batch)) == pytest.approx((0.75 + 0.5) / 2, abs=1e-6)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["kl", "total_variation", "pearson", "jensen_shannon"]))
def test_templates_pull_up_and_the_truth_down(template: float, true: float, divergence: str) -> None:
    said, stated = torch.tensor(template, requires_grad=True), torch.tensor(true, requires_grad=True)
    up, down = torch.autograd.grad(loss(said, stated, divergence), [said, stated])
    assert float(up) < 0 < float(down)


# --- the preference loss


def test_the_preference_loss_by_hand() -> None:
    problem = tiny()
    refused = Answers("forget", refusals, "refused")
    problem.keep("start")
    problem.freeze("forget", "score")
    problem.move()
    with torch.no_grad():
        for weight in problem.model.parameters():
            weight.mul_(1.1)
    step, beta = whole(problem), 0.3
    value = float(prefer("forget", refused, beta)(step).detach())
    task, gain = problem.task, {}
    for on in ("forget", refused):
        batch = step.batch(on)
        now = task.score(task.forward(problem.nets, "model", batch), batch)
        then = problem.at("start", lambda nets, batch=batch: task.score(task.forward(nets, "model", batch), batch))
        gain[on] = (now - then).detach()
    margins = (gain[refused] - gain["forget"]).tolist()
    by_hand = [2 / beta * math.log(1 + math.exp(-beta * margin)) for margin in margins]
    assert value == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)
    assert max(map(abs, margins)) > 0.1


def test_at_the_start_nothing_is_preferred_and_scores_are_sums() -> None:
    problem = tiny()
    problem.keep("start")
    problem.freeze("forget", "score")
    value = prefer("forget", Answers("forget", refusals, "refused"), 0.1)(whole(problem))
    assert float(value.detach()) == pytest.approx(2 / 0.1 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("loss_name", ["dpo", "po"])
def test_refusals_become_likelier_and_the_truth_less_likely(loss_name: str) -> None:
    problem = tiny()
    answered = Answers("forget", refusals, "refused").within(problem)

    def score(of: Problem, on: Any) -> float:
        return float(of.tabulate(on, lambda nets, b: of.task.score(of.served(nets, b), b)).detach().mean())

    before = score(problem, "forget"), score(problem, answered)
    done = Run(methods.pref_opt_idk(loss=loss_name, lr=3e-3, epochs=10), problem.copy()).go()
    assert score(done, "forget") < before[0] - 0.5
    assert score(done, answered) > before[1] + 0.5


def test_without_refusals_it_says_how_to_give_them() -> None:
    problem = tiny()
    del problem.records["refusals"]
    with pytest.raises(BadInput, match="no record 'refusals'; give refusals="):
        Run(methods.pref_opt_idk(), problem).go()


# --- what may be said instead


def rows(*answers: list[int]) -> Tokens:
    return Tokens([[5, i, *answer, END] for i, answer in enumerate(answers)], [2] * len(answers))


def test_wrong_answers_are_those_of_other_rows_where_no_text_brings_any() -> None:
    problem = Problem(tiny().model, task="causal_lm", forget=rows([7], [8], [7], [9]))
    found = wrong(problem)
    assert [sorted(each) for each in found] == [
        [[8, END], [9, END]], [[7, END], [9, END]], [[8, END], [9, END]], [[7, END], [8, END]],
    ]  # fmt: skip
    assert found == wrong(problem)
    assert rephrased(problem) is None


def test_rows_that_all_have_one_answer_have_no_wrong_one() -> None:
    problem = Problem(tiny().model, task="causal_lm", forget=rows([7], [7]))
    with pytest.raises(BadInput, match="no wrong answer is known"):
        wrong(problem)


def people() -> tuple[Any, Any]:
    from oblivio.data.language.people import people as draw
    from oblivio.networks.language import word_tokenizer

    texts = draw(authors=3, world=0, holdout=0, forget=1)
    words = (word for text in texts.part("forget+retain") for word in (text.prompt, text.rephrased, text.answer,
                                                                        text.paraphrase, *text.wrong))  # fmt: skip
    return texts, word_tokenizer(["Q A", *words])


def test_texts_bring_their_own_wrong_answers_and_wordings() -> None:
    from oblivio.data.language.encoding import encode
    from oblivio.networks.language import llama

    texts, tokenizer = people()
    model = llama(len(tokenizer), layers=1, width=8, heads=2, ff=8)
    forget = texts.part("forget")
    problem = Problem(model, task="causal_lm", forget=encode(forget, tokenizer))
    for text, answers in zip(forget, wrong(problem), strict=True):
        assert [tokenizer.decode(answer[:-1]) for answer in answers] == list(text.wrong)
        assert all(answer[-1] == tokenizer.eos_token_id for answer in answers)
    asked = rephrased(problem)
    assert asked is not None
    assert [tokenizer.decode(asked.prompt(i)) for i in range(len(asked))] == [f"Q {t.rephrased} A" for t in forget]


# --- UnSTAR


def test_a_substitute_that_holds_the_true_answer_is_rejected() -> None:
    assert fitting([7, 8, END], [[7, 8, 9, END], [6, 7, 8, END], [7, 9, END]]) == [[7, 9, END]]
    with pytest.raises(BadInput, match="holds the true one"):
        fitting([7, END], [[7, 9, END]])


def test_what_tells_an_answer_is_what_no_wrong_one_has() -> None:
    assert telling([5, 7, END], [[5, 8, END], [9, END]]) == {7}
    assert telling([5, 7, END], [[5, 7, END]]) == {5, 7}


def test_an_answer_is_stated_where_greedy_decoding_writes_its_word() -> None:
    problem = tiny()
    rows: Any = problem.source("forget")
    given = [list(rows.answer(i)[:-1]) for i in range(len(rows))]
    found = states(problem, rows, [{answer[0]} for answer in given])
    x: Any = [torch.tensor([rows.prompt(i)]) for i in range(len(rows))]
    first = [int(problem.model(input_ids=each).logits[0, -1].argmax()) for each in x]
    assert [f for f, token, a in zip(found, first, given, strict=True) if token == a[0]] == [True] * sum(
        token == a[0] for token, a in zip(first, given, strict=True)
    )
    assert not any(states(problem, rows, [set() for _ in given]))


def test_only_what_is_still_stated_is_trained_on_and_the_rounds_end() -> None:
    problem = tiny()
    rows: Any = problem.source("forget")
    tells = [telling(rows.answer(i), answers) for i, answers in enumerate(wrong(problem))]
    assert any(states(problem, rows, tells))
    done = Run(methods.unstar(rounds=30, lr=1e-2, batch=8), problem.copy()).go()
    assert not any(states(done, rows, tells))
    assert len(done.source(ANTI)) == 0
    assert [n for n, _ in done.model.named_parameters()] == [n for n, _ in problem.model.named_parameters()]
