"""What changes answers at inference: a subtracted assistant, and adapters behind a detector."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oblivio import methods
from oblivio.contracts.problems import END, TABLE
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.language.o3 import _levels, _statistics, overlap
from oblivio.methods.unlearning.language.uld import after_difference, apart_from_uniform
from oblivio.modules.gated_adapters import Detector, add_request, common_end, gate, pooled, prompts, soft_weight
from oblivio.modules.logit_difference import LogitDifference, beneath, difference, kept, subtract, truncated
from oblivio.sources.tokens import Tokens

pytest.importorskip("transformers")
from oblivio.networks.language import gpt2, llama, open_model, save_model, word_tokenizer

LIKELY = [0.0, math.log(0.5), math.log(0.02), math.log(0.005)]  # over the greatest


def ids(rows: int = 3, length: int = 5, size: int = 30) -> Tensor:
    return torch.randint(3, size, (rows, length), generator=torch.Generator().manual_seed(0))


# --- ULD: the filter and the difference


def test_the_filter_keeps_what_is_within_log_tau_of_the_greatest() -> None:
    logits = torch.tensor([LIKELY]) + 3.0
    assert kept(logits, 0.01).tolist() == [[True, True, True, False]]
    assert kept(logits, 0.1).tolist() == [[True, True, False, False]]


def test_the_filter_never_keeps_fewer_than_tau_times_the_vocabulary() -> None:
    sure = torch.tensor([[9.0, -9.0, -8.0, -20.0]])
    assert kept(sure, 0.5).tolist() == [[True, False, True, False]]
    assert kept(sure, 0.01).tolist() == [[True, False, False, False]]


def test_outside_the_filter_the_assistant_has_no_say_and_nothing_is_written() -> None:
    logits, assistant = torch.tensor([LIKELY]), torch.tensor([[4.0, -1.0, 0.5, 7.0]])
    scored = difference(logits, assistant, -0.5, 0.01)
    by_hand = [LIKELY[0] - 2.0, LIKELY[1] + 0.5, LIKELY[2] - 0.25, LIKELY[3]]
    assert scored[0].tolist() == pytest.approx(by_hand)
    assert difference(logits, assistant, -0.5, 0.01, writing=True)[0].tolist() == pytest.approx([*by_hand[:3], -1000])


def test_ignorance_is_the_divergence_of_the_uniform_distribution() -> None:
    out = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0], [1.0, 2.0]]])
    batch: Any = {"y": torch.tensor([[-100, 1, 0]])}
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(apart_from_uniform(out, batch)) == pytest.approx(first / 2, abs=1e-6)


def test_of_a_wrong_answer_counts_what_follows_the_first_untrue_token() -> None:
    assert after_difference([5], [7, 8, END], [7, 9, 6, END]) == ([5, 7, 9], [6, END])
    assert after_difference([5], [7, END], [8, END]) == ([5, 8], [END])


# --- ULD: the assistant and the Wrap


@pytest.mark.parametrize("build", [llama, gpt2])
def test_the_assistant_is_the_first_blocks_and_shares_their_weights(build: Any) -> None:
    model = build(30, layers=3, width=16, heads=2).eval()
    nets: dict[str, nn.Module] = {"model": model}
    truncated(nets, name="assistant", blocks=1)
    assistant: Any = nets["assistant"]
    mine = {id(w) for w in model.parameters()}
    assert all(id(w) in mine for w in assistant.parameters())
    with torch.no_grad():
        states = model(input_ids=ids(), output_hidden_states=True).hidden_states
        norm = model.model.norm if build is llama else model.transformer.ln_f
        expected = model.lm_head(norm(states[1]))
        assert torch.allclose(assistant(input_ids=ids()).logits, expected, atol=1e-6)
    assert model.config.num_hidden_layers == 3
    assert sum(1 for n, _ in assistant.named_modules() if n.endswith("mlp")) == 1


def test_it_says_what_it_cannot_cut() -> None:
    nets: dict[str, nn.Module] = {"model": llama(30, layers=2, width=16, heads=2, ff=16)}
    with pytest.raises(BadInput, match="the model has 2"):
        truncated(nets, name="assistant", blocks=3)
    with pytest.raises(BadInput, match="a net 'model' already"):
        truncated(nets, name="model", blocks=1)


def wrapped(w: float = -0.7, tau: float = 0.3) -> LogitDifference:
    model, other = (llama(30, layers=2, width=16, heads=2, ff=16, seed=seed).eval() for seed in (0, 1))
    return LogitDifference(model, other, w, tau).eval()


def test_forward_and_predict_are_the_difference_and_the_model_stays() -> None:
    wrap = wrapped()
    with torch.no_grad():
        one, other = (net(input_ids=ids()).logits for net in (wrap.model, wrap.assistant))
        expected = difference(one, other, wrap.w, wrap.tau)
        assert torch.equal(wrap(input_ids=ids()), expected)
        assert torch.equal(wrap.predict(input_ids=ids()), expected)
    assert not torch.equal(expected, one)
    assert beneath(wrap) is wrap.model


def step_by_step(predict: Any, start: Tensor, more: int) -> Tensor:
    written = start
    with torch.no_grad():
        for _ in range(more):
            written = torch.cat([written, predict(written)[:, -1].argmax(-1, keepdim=True)], 1)
    return written


def test_greedy_generation_is_the_argmax_of_predict_step_by_step() -> None:
    wrap = wrapped(tau=1e-9)  # all tokens are kept, so that scoring and writing are one
    out = wrap.generate(input_ids=ids(), attention_mask=torch.ones_like(ids()), max_new_tokens=6, do_sample=False)
    assert torch.equal(out, step_by_step(lambda x: wrap.predict(input_ids=x), ids(), 6))
    plain = wrap.model.generate(
        input_ids=ids(), attention_mask=torch.ones_like(ids()), max_new_tokens=6, do_sample=False
    )
    assert not torch.equal(out, plain)


def test_what_the_filter_drops_is_not_written() -> None:
    wrap = wrapped(w=-50.0)

    def predict(x: Tensor) -> Tensor:
        one, other = (net(input_ids=x).logits for net in (wrap.model, wrap.assistant))
        return difference(one, other, wrap.w, wrap.tau, writing=True)

    out = wrap.generate(input_ids=ids(), max_new_tokens=6, do_sample=False)
    assert torch.equal(out, step_by_step(predict, ids(), 6))


def test_padding_on_the_left_does_not_change_what_is_written() -> None:
    wrap = wrapped(tau=1e-9)
    padded = torch.cat([torch.zeros(3, 2, dtype=torch.long), ids()], 1)
    mask = (padded > 0).long()
    out = wrap.generate(input_ids=padded, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(out[:, 2:], step_by_step(lambda x: wrap.predict(input_ids=x), ids(), 4))


# --- O3: the detector


def test_a_prompt_ends_at_the_first_marker_else_at_the_padding() -> None:
    marker = torch.tensor([7, 8])
    rows = torch.tensor([[3, 7, 8, 4, 7, 8], [3, 4, 5, 6, 0, 0], [0, 3, 0, 7, 8, 9]])
    assert prompts(rows, marker, pad=0).int().tolist() == [
        [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0],
    ]  # fmt: skip
    assert prompts(rows, marker[:0], pad=0)[0].all()


def test_what_all_prompts_end_in() -> None:
    assert common_end([[1, 2, 3], [4, 2, 3], [2, 3]]) == [2, 3]
    assert common_end([[1, 2], [1, 3]]) == []


def test_pooling_leaves_padding_out() -> None:
    states = torch.arange(12.0).view(1, 2, 3, 2)
    mine = torch.tensor([[True, True, False]])
    assert pooled(states, mine).tolist() == [[[1.0, 2.0], [7.0, 8.0]]]


def test_the_weight_is_full_in_the_middle_and_none_far_off_on_either_side() -> None:
    levels = torch.tensor([1.0, 3.0, 0.5])
    values = torch.tensor([2.0, 1.0, 3.0, -2.0, 6.0])
    assert soft_weight(values, levels).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    v = torch.linspace(-4, 8, 200)
    assert torch.allclose(soft_weight(v, levels), soft_weight(4 - v, levels), atol=1e-5)
    between = soft_weight(torch.linspace(3.2, 4.2, 400), levels)
    assert bool(((between > 0.4) & (between < 1)).any())
    assert bool((between.diff() <= 1e-6).all())


def test_the_shrunken_precision_is_the_inverse_of_the_shrunken_covariance() -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    z = torch.randn(9, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    detector, found = Detector(2, 9, 4, 0), _statistics(z)
    for name, value in found.items():
        detector.get_buffer(name).copy_(value)
    new = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for layer in range(2):
        rows = z[:, layer] - z[:, layer].mean(0)
        share = ledoit_wolf_shrinkage(rows.numpy(), assume_centered=True)
        covariance = rows.T @ rows / 9
        covariance = (1 - share) * covariance + share * covariance.trace() / 4 * torch.eye(4, dtype=torch.float64)
        away = new[:, layer] - z[:, layer].mean(0)
        distance = torch.einsum("nd,de,ne->n", away, covariance.inverse(), away)
        cosine = torch.cosine_similarity(new[:, layer, None], z[None, :, layer], dim=2).amax(1)
        assert torch.allclose(detector.scores(new)[:, layer], -distance / 2 + 1000 * cosine)


def test_without_held_out_prompts_every_fitted_one_counts_in_full() -> None:
    values = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = _levels(values, values[:0])
    assert soft_weight(values, levels).tolist() == [1.0] * 20
    assert _levels(values[:10], values[10:])[1:].tolist() == [float(values[10:].mean()), float(values[10:].std())]


# --- O3: requests in turn


def asked(problem: Problem, on: str = "forget", count: int = 8) -> Problem:
    """A request whose prompts end alike, as those of a template do."""
    rows: Any = problem.source(on)
    tokens = [[*rows.prompt(i)[:2], 29, *rows.answer(i)] for i in range(count)]
    problem.sources["forget"] = problem._named("forget", Tokens(tokens, [3] * count))
    return problem


def another(problem: Problem) -> Problem:
    """The next request to the same model: rows that were to be retained."""
    problem.turn += 1
    return asked(problem, "retain")


def test_requests_follow_each_other_and_keep_the_earlier_adapters() -> None:
    plan = methods.o3(epochs=2)
    first = Run(plan, asked(TABLE["texts"].problem())).go()
    before = {n: w.detach().clone() for n, w in first.model.named_parameters()}
    second = Run(plan, another(first)).go()
    now = dict(second.model.named_parameters())
    assert len(second.model.detectors) == 2
    assert all(torch.equal(before[n], now[n]) for n in before)
    added = {n.rpartition(".lora_")[2].split(".")[1] for n in now.keys() - before.keys()}
    assert added == {"request1"}
    assert [float(w) for w in second.model.weights(_asked(second, "forget"))] == [1.0] * 8


def _asked(problem: Problem, on: str) -> Tensor:
    source = problem.source(on)
    x: Tensor = source.batch(torch.arange(len(source)))["x"]
    return x


def test_the_penalty_is_the_overlap_with_earlier_adapters_by_hand() -> None:
    problem = Run(methods.o3(epochs=1), TABLE["texts"].problem()).go()
    assert overlap()(_step(problem)) == 0
    problem = Run(methods.o3(epochs=1), another(problem)).go()
    weights = dict(problem.model.named_parameters())
    pairs = [(w, weights[n.replace("request1", "request0")]) for n, w in weights.items() if "lora_A.request1" in n]
    assert len(pairs) == 14
    by_hand = sum(float((a @ b.T).square().sum().detach()) for a, b in pairs) / 2
    assert float(overlap()(_step(problem)).detach()) == pytest.approx(by_hand, rel=1e-5)


def _step(problem: Problem) -> Any:
    from oblivio.core.step import Step

    return Step(problem, "test", dict.fromkeys(problem.weights("*request*")), None, train=False)


def gated(weight: float) -> Any:
    nets: dict[str, nn.Module] = {"model": llama(30, layers=2, width=16, heads=2, ff=16).eval()}
    gate(nets, pad=0)
    config = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}
    add_request(nets, name="request0", config=config, seed=0, layers=2, rows=1, width=16, marker=0)
    wrap: Any = nets["model"].eval()
    with torch.no_grad():
        for name, w in wrap.model.named_parameters():
            if "lora_B" in name:
                w.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    wrap.weights = lambda x: torch.full((len(x),), weight)
    return wrap


def test_a_weight_of_0_is_the_model_and_of_1_its_adapter() -> None:
    none, full = gated(0.0), gated(1.0)
    bare = llama(30, layers=2, width=16, heads=2, ff=16).eval()
    with torch.no_grad():
        assert torch.equal(none.predict(input_ids=ids()), bare(input_ids=ids()).logits)
        assert torch.equal(full.predict(input_ids=ids()), full(input_ids=ids()).logits)
        assert not torch.allclose(none.predict(input_ids=ids()), full.predict(input_ids=ids()), atol=1e-2)
        half = gated(0.5).predict(input_ids=ids())
        assert not torch.allclose(half, full.predict(input_ids=ids()), atol=1e-3)


def test_rows_are_weighed_each_by_itself_also_while_writing() -> None:
    wrap = gated(1.0)
    wrap.weights = lambda x: torch.tensor([0.0, 1.0, 0.5])[: len(x)]
    with torch.no_grad():
        mixed, one = wrap.predict(input_ids=ids()), gated(1.0).predict(input_ids=ids())
    assert torch.allclose(mixed[1], one[1], atol=1e-6)
    out = wrap.generate(ids(), max_new_tokens=5, do_sample=False)
    assert torch.equal(out, step_by_step(lambda x: wrap.predict(input_ids=x), ids(), 5))


def test_the_served_model_writes_what_it_predicts() -> None:
    given = asked(TABLE["texts"].problem())
    rows: Any = given.source("forget")
    problem = Run(methods.o3(epochs=5, lr=1e-2), given).go()
    model: Any = problem.model
    assert model.detectors[0].marker.tolist() == [29]
    start = torch.tensor([rows.prompt(i) for i in range(len(rows))])
    out = model.generate(start, max_new_tokens=3, do_sample=False)
    assert torch.equal(out, step_by_step(lambda x: model.predict(input_ids=x), start, 3))
    bare: Any = TABLE["texts"].problem().model
    assert not torch.equal(out, step_by_step(lambda x: bare(input_ids=x).logits, start, 3))


# --- both: saved and opened


@pytest.mark.parametrize("name", ["uld", "o3"])
def test_a_folder_brings_it_back(name: str, tmp_path: Path) -> None:
    problem = Run(methods.registry.get(name)(epochs=2), TABLE["texts"].problem()).go()
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(20))])
    save_model(tmp_path / "model", problem.model, tokenizer, journal=problem.journal)
    again, _ = open_model(tmp_path / "model")
    given = _asked(problem, "test")
    with torch.no_grad():
        then, now = (model.predict(input_ids=given) for model in (problem.model, again))  # type: ignore[operator]
    assert torch.allclose(now, then, atol=1e-5)  # the tiny model computes attention in another order than an opened one
    assert type(again) is type(problem.model)


def test_a_subtracted_net_is_no_net_of_its_own_any_more() -> None:
    nets: dict[str, nn.Module] = {"model": llama(30, layers=2, width=16, heads=2, ff=16)}
    truncated(nets, name="assistant", blocks=1)
    subtract(nets, assistant="assistant", w=-1.0, tau=0.01)
    assert list(nets) == ["model"]
    subtracted: Any = nets["model"]
    assert subtracted.deletes is False
    assert subtracted.config.num_hidden_layers == 2
