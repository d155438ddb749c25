"""Methods that unlearn in language models, against formulas by hand, and five ways to flatten what forgets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from oblivio import methods, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, add, norm
from oblivio.core.opt import sgd
from oblivio.core.part import walk
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.source import Batch
from oblivio.core.step import Step
from oblivio.core.term import Sum, Term
from oblivio.core.where import as_where
from oblivio.how import clip
from oblivio.methods.pieces import _forgetting
from oblivio.methods.pieces.smooth_unlearn import blurred, mean, penalised, slope
from oblivio.methods.unlearning.language.simnpo import pressed
from oblivio.methods.unlearning.language.undial import adjusted, lowered
from oblivio.sources.answers import Answers
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM

pytest.importorskip("transformers")
WORDS, END = 12, 1
FORGET = [([2, 3, 4], [5, END]), ([2, 6], [7, 8, 9, END]), ([3, 6, 4, 2], [10, END])]
RETAIN = [([4, 2], [6, END]), ([4, 3, 5], [8, 7, END]), ([6, 2, 4], [11, END]), ([3, 3], [9, END])]


def tokens(rows: list[tuple[list[int], list[int]]], start: int = 0) -> Tokens:
    return Tokens([p + a for p, a in rows], [len(p) for p, _ in rows], ids=range(start, start + len(rows)))


def model(seed: int = 0) -> nn.Module:
    from oblivio.networks.language import llama

    return llama(WORDS, layers=1, width=16, heads=2, ff=16, context=16, seed=seed).eval()


def problem(net: nn.Module | None = None, **sources: Any) -> Problem:
    given = {"forget": tokens(FORGET), "retain": tokens(RETAIN, 100), **sources}
    return Problem(net or model(), task=CausalLM(), **given)


def moved(of: Problem, steps: int = 3) -> Problem:
    """The same request with the weights away from the start, which is kept."""
    start = {n: w.detach().clone() for n, w in of.nets.named_parameters()}
    Run(Descent(-terms.fit("forget"), opt=sgd(0.1), steps=steps, batch=None), of).go()
    of.snapshots["start"] = start
    return of


def log_probs(net: Any, row: tuple[list[int], list[int]]) -> list[float]:
    """Log p of each token of an answer, from a pass over that row alone."""
    prompt, answer = row
    with torch.no_grad():
        out = net(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(1)
    return [float(out[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]


def value(of: Problem, t: Term, n: int | None = None) -> Tensor:
    for part in (p for _, p in walk(t) if isinstance(p, Term)):
        for take in part.frozen:
            of.freeze("forget", take)
    return t(step(of, n)).detach()


def step(of: Problem, n: int | None = None, t: int = 0) -> Step:
    made = Step(of, "test", as_where("model.*").select(of), n, train=False)
    made.at_time(t)
    return made


def flat(grads: Grads) -> Tensor:
    return torch.cat([grads[name].flatten() for name in sorted(grads)])


def only(plan: Stage) -> Descent:
    return next(part for _, part in walk(plan) if isinstance(part, Descent))


# --- NPO on texts: sums over the tokens of an answer


def test_npo_reads_the_likelihood_of_the_whole_answer_not_of_a_token() -> None:
    start = model()
    changed = moved(problem(model()))
    now = [sum(log_probs(changed.model, row)) for row in FORGET]
    then = [sum(log_probs(start, row)) for row in FORGET]
    beta = 0.7
    expected = sum(2 / beta * math.log1p(math.exp(beta * (a - b))) for a, b in zip(now, then, strict=True)) / 3
    assert float(value(changed, terms.npo("forget", beta))) == pytest.approx(expected, rel=1e-5)


def test_with_a_vanishing_beta_npo_goes_where_ascent_on_whole_answers_goes() -> None:
    changed = moved(problem())

    class whole(Term):
        on = "forget"

        def __call__(self, step: Step) -> Tensor:
            return step.task.score(step.out("forget"), step.batch("forget")).mean()

    changed.freeze("forget", "score")
    one, other = (flat(changed.gradient(t)) for t in (terms.npo("forget", beta=1e-4), whole()))
    assert cosine_similarity(one, other, dim=0) > 0.999
    per_token = flat(changed.gradient(-terms.fit("forget")))
    assert cosine_similarity(one, per_token, dim=0) < 0.999, "means over tokens of answers of other lengths differ"


# --- SimNPO


def test_simnpo_is_the_papers_formula_with_the_mean_over_an_answers_tokens() -> None:
    of, beta, delta = problem(), 2.5, 0.3
    losses = [-sum(row) / len(row) for row in (log_probs(of.model, r) for r in FORGET)]
    sigmoids = [1 / (1 + math.exp(-beta * (loss - delta))) for loss in losses]
    expected = -2 / beta * sum(map(math.log, sigmoids)) / 3
    assert float(value(of, pressed("forget", beta, delta))) == pytest.approx(expected, rel=1e-5)


@given(beta=st.floats(0.1, 6), logs=st.lists(st.floats(-4, -0.05), min_size=1, max_size=5))
def test_simnpos_weight_of_a_row_fades_with_its_likelihood(beta: float, logs: list[float]) -> None:
    """d loss / d N_i is -2 p / (1 + p) / n_i with p = pi^(beta / n_i)."""
    total = torch.tensor(-sum(logs), dtype=torch.float64, requires_grad=True)
    n = len(logs)

    class One(CausalLM):
        def forward(self, nets: Any, net: str, batch: Batch) -> Tensor:
            return torch.zeros(len(batch), 1, 1)

        def each(self, out: Tensor, batch: Batch) -> Tensor:
            return (total / n)[None]

    of = Problem(nn.Linear(1, 1), task=One(), forget=tokens(FORGET[:1]))
    (slope_,) = torch.autograd.grad(pressed("forget", beta)(step(of)), total)
    p = math.exp(sum(logs)) ** (beta / n)
    assert float(slope_) == pytest.approx(-2 * p / (1 + p) / n, rel=1e-6)


def test_simnpo_has_no_reference() -> None:
    plan = methods.simnpo(epochs=1)
    assert not any(part.frozen for _, part in walk(plan) if isinstance(part, Term))
    of = problem()
    Run(plan, of).go()
    assert "start" not in of.snapshots


# --- UNDIAL


def test_undial_lowers_the_true_next_token_and_nothing_else() -> None:
    out = torch.randn(1, 6, WORDS)
    y = torch.tensor([[-100, -100, 5, 7, END, -100]])
    low = lowered(out, y, 3.0)
    expected = out.clone()
    expected[0, 1, 5] -= 3
    expected[0, 2, 7] -= 3
    torch.testing.assert_close(low, expected, rtol=0, atol=0)
    expected[0, 3, END] -= 3
    torch.testing.assert_close(lowered(out, y, 3.0, ends=True), expected, rtol=0, atol=0)


def test_undials_target_is_fixed_and_its_gradient_that_of_the_cross_entropy() -> None:
    start, changed, beta = model(), moved(problem(model())), 4.0
    batch = changed.source("forget").batch(torch.arange(3))
    with torch.no_grad():
        z = start(input_ids=batch["x"]).logits
    out = changed.model(input_ids=batch["x"]).logits
    loss = torch.zeros(())
    for i, (prompt, answer) in enumerate(FORGET):
        each = []
        for j, token in enumerate(answer):
            at = len(prompt) + j - 1
            aim = z[i, at].clone()
            aim[token] -= beta if token != END else 0
            each.append(-(aim.softmax(0) * out[i, at].log_softmax(0)).sum())
        loss = loss + torch.stack(each).mean() / 3
    weights = dict(changed.nets.named_parameters())
    expected = torch.autograd.grad(loss, list(weights.values()))
    got = changed.gradient(adjusted("forget", beta))
    for name, g in zip(weights, expected, strict=True):
        torch.testing.assert_close(got[name], g, rtol=1e-4, atol=1e-6)


def test_undial_comes_to_rest_at_its_aim() -> None:
    of = problem()
    of.keep("start")
    assert float(norm(of.gradient(adjusted("forget", 1e-9)))) < 1e-5
    assert float(norm(of.gradient(adjusted("forget", 10.0)))) > 0.1


def test_undial_needs_retained_rows_only_with_alpha() -> None:
    assert only(methods.undial()).loss.reads == ("forget",)
    assert only(methods.undial(alpha=0.5)).loss.reads == ("forget", "retain")
    alone = Problem(model(), task=CausalLM(), forget=tokens(FORGET))
    Run(methods.undial(epochs=1), alone).go()


# --- what counts


TERMS = {
    "npo": terms.npo("forget", 0.5), "simnpo": pressed("forget", 2.0), "kl": terms.distill("forget"),
    "undial": adjusted("forget", 5.0), "undial, ends": adjusted("forget", 5.0, ends=True),
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
def test_neither_prompts_nor_padding_enter(name: str) -> None:
    """The mean over a batch is that of its rows alone, where none is padded and the prompt's own loss is not asked."""
    of = moved(problem())
    together = float(value(of, TERMS[name]))
    alone = []
    for row in FORGET:
        single = problem(of.model, forget=tokens([row]))
        single.snapshots, single.moved = of.snapshots, True
        single.freeze("forget", "score")
        alone.append(float(TERMS[name](step(single)).detach()))
    assert together == pytest.approx(sum(alone) / 3, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_only_logits_that_predict_an_answer_have_a_gradient(name: str) -> None:
    of = moved(problem())
    of.freeze("forget", "score")
    at = step(of)
    out = at.out("forget").detach().requires_grad_()
    at._outs["forget", "model", None, None] = out
    (g,) = torch.autograd.grad(TERMS[name](at), out)
    y = at.batch("forget")["y"]
    counts = torch.zeros(y.shape, dtype=torch.bool)
    counts[:, :-1] = y[:, 1:] != -100
    assert (g.abs().sum(2) > 0).equal(counts)


# --- KL minimisation


def test_kl_min_keeps_the_distribution_of_the_start_and_not_the_labels() -> None:
    loss = only(methods.kl_min(alpha=2.0)).loss
    of = moved(problem())
    of.freeze("retain", terms.distill("retain").frozen[0])
    batch = of.source("retain").batch(torch.arange(4))
    with torch.no_grad():
        then = of.at("start", lambda nets: of.task.forward(nets, "model", batch)).log_softmax(2)
        now = of.model(input_ids=batch["x"]).logits.log_softmax(2)
    kl = (then.exp() * (then - now)).sum(2)  # the reference first
    apart = [float(kl[i, len(p) - 1 : len(p) + len(a) - 1].mean()) for i, (p, a) in enumerate(RETAIN)]
    known = [-sum(row) / len(row) for row in (log_probs(of.model, r) for r in FORGET)]
    expected = 2.0 * sum(apart) / 4 - sum(known) / 3
    assert float(loss(step(of)).detach()) == pytest.approx(expected, rel=1e-5)


def test_kl_min_at_the_start_is_ascent() -> None:
    of = problem()
    of.keep("start")
    one, other = (flat(of.gradient(t)) for t in (only(methods.kl_min()).loss, -terms.fit("forget")))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_kl_min_serves_classifiers_too() -> None:
    x, y = torch.randn(20, 3), torch.arange(20) % 4
    of = Problem(nn.Linear(3, 4), forget=(x[:4], y[:4]), retain=(x[4:], y[4:]))
    before = float(of.task.each(of.predict("forget"), of.source("forget").batch(torch.arange(4))).mean())
    Run(methods.kl_min(lr=0.05, epochs=5), of).go()
    assert float(of.task.each(of.predict("forget"), of.source("forget").batch(torch.arange(4))).mean()) > before


# --- smooth unlearning


NPO = terms.npo("forget", 1.0)


def frozen() -> Problem:
    of = moved(problem(), steps=1)
    of.freeze("forget", "score")
    return of


def shifted(of: Problem, by: Grads, scale: float = 1.0) -> Problem:
    other = of.copy()
    with torch.no_grad():
        for name, weight in other.weights().items():
            weight += scale * by.get(name, torch.zeros(()))
    return other


def test_random_smoothing_is_the_mean_gradient_at_noisy_weights() -> None:
    of, rho = frozen(), 0.05
    at = step(of)
    expected: Grads = {}
    for i in range(2):
        e = {n: torch.randn(w.shape, generator=at.rng(f"blur/{i}/{n}")) for n, w in of.weights().items()}
        expected = add(expected, shifted(of, e, rho).gradient(NPO), 0.5)
    torch.testing.assert_close(flat(blurred(NPO, rho, 2).grad(at)), flat(expected), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(flat(blurred(NPO, rho, 2).grad(step(of, t=1))), flat(expected), rtol=1e-2)


def differences(of: Problem, f: Any, direction: Grads, eps: float = 1e-4) -> float:
    return (f(shifted(of, direction, eps)) - f(shifted(of, direction, -eps))) / (2 * eps)


def test_the_gradient_penalty_has_a_gradient_of_its_own() -> None:
    of = frozen()
    of.nets.double()
    of.snapshots["start"] = {n: v.double() for n, v in of.snapshots["start"].items()}
    lam = 0.7
    g = torch.Generator().manual_seed(3)
    v = {n: torch.randn(w.shape, generator=g, dtype=torch.float64) for n, w in of.weights().items()}
    got = penalised(NPO, lam).grad(step(of))

    def loss(p: Problem) -> float:
        return float(NPO(step(p)).detach()) + lam * float(norm(p.gradient(NPO)))

    along = sum(float((got[n] * v[n]).sum()) for n in v)
    assert along == pytest.approx(differences(of, loss, v), rel=2e-3)  # log-softmax is in single precision
    assert not torch.allclose(flat(got), flat(of.gradient(NPO)), rtol=1e-2)


def test_the_curvature_penalty_has_the_gradient_of_its_formula() -> None:
    of = frozen()
    of.nets.double()
    lam, rho = 0.7, 0.05
    g = torch.Generator().manual_seed(3)
    v = {n: torch.randn(w.shape, generator=g, dtype=torch.float64) for n, w in of.weights().items()}
    base = of.gradient(NPO)
    d = {n: rho * x / norm(base) for n, x in base.items()}  # held fixed

    def loss(p: Problem) -> float:
        return float(NPO(step(p)).detach()) + lam * float(norm(add(shifted(p, d).gradient(NPO), p.gradient(NPO), -1)))

    got = penalised(NPO, lam, rho).grad(step(of))
    along = sum(float((got[n] * v[n]).sum()) for n in v)
    assert along == pytest.approx(differences(of, loss, v), rel=2e-3)


def test_a_slope_of_zero_has_no_gradient_that_is_not_a_number() -> None:
    of = frozen()
    assert penalised(0.0 * NPO, 1.0).grad(step(of)) == {}  # a schedule that is at nothing
    still = penalised(terms.distill("forget"), 1.0)  # at the start
    fresh = problem()
    fresh.keep("start")
    assert all(bool(torch.isfinite(value).all()) for value in still.grad(step(fresh)).values())


def test_second_derivatives_cannot_be_taken_in_chunks() -> None:
    of = frozen()
    plan = Descent(Sum([(1.0, penalised(NPO, 1.0))]), opt=sgd(0.1), steps=1, batch=None, chunk=1)
    with pytest.raises(BadInput, match="chunk"):
        Run(plan, of).go()


def test_averaged_weights_are_the_mean_of_the_last_ones() -> None:
    seen: list[Grads] = []

    def look(run: Run, *_: Any) -> None:
        seen.append({n: w.detach().clone() for n, w in run.problem.weights().items()})

    plan = Descent(terms.fit("retain"), how=mean(0.5, 2), opt=sgd(0.1), steps=10, batch=2)
    done = Run(plan, problem(), watch=(look,)).go()
    for name, weight in done.weights().items():
        expected = torch.stack([seen[t - 1][name] for t in (5, 7, 9)]).mean(0)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_weights_outside_the_mask_keep_their_bits_when_weights_are_averaged() -> None:
    of = problem()
    before = {n: w.detach().clone() for n, w in of.weights().items()}
    plan = methods.smooth_unlearn(smoother="wa", start=0.0, every=1)(methods.simnpo(lr=0.01, epochs=4))
    done = Run(plan.but(where="model.lm_head.*"), of).go()
    changed = {n for n, w in done.weights().items() if not torch.equal(w, before[n])}
    assert changed == {"model.lm_head.weight"}


@pytest.mark.parametrize("smoother", ["sam", "rs", "gp", "cr"])
def test_only_what_forgets_is_smoothed(smoother: str) -> None:
    plan = methods.smooth_unlearn(smoother=smoother)(methods.npo())
    (_, smooth), (_, rest) = only(plan).loss.summands
    assert smooth.reads == ("forget",)
    assert repr(rest) == repr(terms.fit("retain"))


def test_an_ascent_is_smoothed_with_its_sign() -> None:
    """SAM looks where the forget objective, not the loss under it, is worst: for an ascent where the loss is least."""
    plan = methods.smooth_unlearn(rho=0.1)(methods.grad_ascent())
    of = problem()
    g = of.gradient(terms.fit("forget"))
    low = shifted(of, g, -0.1 / float(norm(g)))
    expected = {n: -x for n, x in low.gradient(terms.fit("forget")).items()}
    torch.testing.assert_close(flat(of.gradient(only(plan).loss)), flat(expected), rtol=1e-4, atol=1e-5)


def test_rows_made_of_forgotten_ones_count_as_forgotten() -> None:
    refused = Answers("forget", [[7, END]], "refused")
    assert _forgetting.forgets(terms.fit(refused))
    assert not _forgetting.forgets(terms.fit(Answers("retain", [[7, END]], "other")))


@pytest.mark.parametrize("smoother", ["sam", "wa"])
def test_a_plan_that_forgets_nothing_is_refused(smoother: str) -> None:
    with pytest.raises(BadInput, match="none"):
        methods.smooth_unlearn(smoother=smoother)(methods.finetune())
    with pytest.raises(BadInput, match="direct edit"):
        methods.smooth_unlearn(smoother=smoother)(methods.ssd())


@pytest.mark.parametrize("smoother", ["sam", "rs", "gp", "cr", "wa"])
def test_every_smoother_runs_on_every_kind_of_host(smoother: str) -> None:
    for host in (methods.undial(epochs=2), methods.kl_min(epochs=2), methods.simnpo(epochs=2)):
        of = problem()
        before = {n: w.detach().clone() for n, w in of.weights().items()}
        done = Run(methods.smooth_unlearn(smoother=smoother)(host.but(how=clip())), of).go()
        assert all(bool(torch.isfinite(w).all()) for w in done.weights().values())
        assert any(not torch.equal(w, before[n]) for n, w in done.weights().items())


def test_the_penalty_is_that_of_the_slope() -> None:
    of = frozen()
    assert float(slope(NPO)(step(of)).detach()) == pytest.approx(float(norm(of.gradient(NPO))), rel=1e-5)
